"""The headline figures of a report, each with what it is measured against. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.model import Service
from planner.view.notation import UNKNOWN, milliseconds, share, small_share
from planner.view.summary import reversals, scale_actions, tick_ms

if TYPE_CHECKING:  # the simulation brings a compiler, the figures need its results alone
    from planner.replay import Frame
    from planner.simulation.results import PlantResults, Summary


@dataclass(frozen=True, slots=True)
class Card:
    """One headline figure; `is_met` is None where nothing was asked."""

    label: str
    value: str
    note: str
    is_met: bool | None = None


def headline_cards(
    service: Service, frames: Sequence["Frame"], results: "PlantResults", summary: "Summary"
) -> tuple[Card, ...]:
    """Return the headline figures, those that the SLA asks for first."""
    sla, shares = service.sla, summary.attainment
    asked, actions = sla.attainment_ratio, scale_actions(results.orders, summary.from_s)
    turned = reversals(results.orders, summary.from_s)
    hours = ", ".join(f"{pool} {h:.2f}" for pool, h in summary.gpu_hours.items())
    ticks = tick_ms(frames)
    return (
        Card("Both targets met", share(shares.both), f"of {summary.requests:,} requests; "
             f"{share(asked)} asked", _met(shares.both, asked)),
        Card("TTFT met", share(shares.ttft), f"at most {milliseconds(sla.ttft_s)}"),
        Card("ITL met", share(shares.itl), f"at most {milliseconds(sla.itl_s)}"),
        Card("Worst 5 minutes", share(shares.worst_5min), "both targets"),
        Card("GPU-hours", f"{summary.total_gpu_hours:.2f}", hours),
        Card("Scale actions", f"{actions:,}", f"{turned:,} reversed within 10 min"),
        Card("Unfinished", f"{summary.unfinished:,}", _refused(summary),
             False if summary.unfinished else None),
        Card("Decision time", _ms(ticks["p50"]), f"median; 99th percentile {_ms(ticks['p99'])}"),
    )  # fmt: skip


def verdict(service: Service, summary: "Summary") -> str:
    """Return in one sentence whether the SLA was met."""
    both, asked = summary.attainment.both, service.sla.attainment_ratio
    if both is None:
        return "No request arrived after the warm-up."
    told = f"{share(both)} of {summary.requests:,} requests met both targets; {share(asked)} asked"
    if both >= asked:
        return f"{told}: the SLA is met."
    # Against the permitted failures, the measure that an operator's error budget has.
    failed = small_share(1.0 - both)
    return f"{told}: the SLA is missed, {failed} failed of {small_share(1.0 - asked)} allowed."


def _refused(summary: "Summary") -> str:
    return f"{summary.refused:,} of them refused" if summary.unfinished else "all had an end"


def _met(ratio: float | None, asked: float) -> bool | None:
    return None if ratio is None else ratio >= asked


def _ms(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.1f} ms"
