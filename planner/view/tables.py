"""Tables for `simulate` and `recommend`, and what `recommend -o json|yaml` prints. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from planner.model import Attainment, Decision, PoolDecision
from planner.record import TickRecord
from planner.spec.quantities import format_duration
from planner.view.notation import UNKNOWN, share, share_between, span

MET, MISSED = "green", "bold red"

ROWS: Final = {
    "both": "Requests within both targets",
    "ttft": "… within TTFT",
    "itl": "… within ITL",
    "worst_5min": "… in the worst 5 minutes",
}


def simulation_table(result: Mapping[str, Any], asked_ratio: float | None = None) -> Table:
    """Return the figures of one replay.

    Parameters
    ----------
    result
        The object of `results_json`.
    asked_ratio
        Attainment that the SLA asks for; None: no verdict is given.
    """
    table = Table(box=SIMPLE_HEAD, show_header=False, pad_edge=False, title_justify="left")
    table.title = f"{result['policy']} on {result['trace']}, seed {result['seed']}"
    table.add_column("Figure")
    table.add_column("Value", justify="right")
    for key, label in ROWS.items():
        asked = asked_ratio if key == "both" else None
        table.add_row(label, _share(result["attainment"][key], asked))
    table.add_row("Requests", f"{result['requests']:,}")
    table.add_row("Unfinished", _count(result["unfinished"]), end_section=True)
    table.add_row("GPU-hours", f"{result['gpu_hours']:.2f}")
    if result["best_static_gpu_hours"] is not None:
        table.add_row("… of the best fixed fleet", f"{result['best_static_gpu_hours']:.2f}")
    if result["cost"] is not None:
        table.add_row("Cost", f"{result['cost']:.2f}")
    table.add_row("Scale actions", f"{result['scale_actions']:,}")
    table.add_row("… reversed within 10 min", f"{result['reversals']:,}", end_section=True)
    table.add_row("Tick, median", _ms(result["tick_ms"]["p50"]))
    table.add_row("Tick, 99th percentile", _ms(result["tick_ms"]["p99"]))
    table.add_row("Simulated", span(result["simulated_s"]))
    table.add_row("Took", span(result["wall_s"]))
    return table


def backtest_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return predictors side by side, one row for each predictor and series."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("Predictor")
    table.add_column("Load")
    quantile = f"{rows[0]['quantile']:.0%}" if rows else ""
    for heading in ("WAPE", "MASE", "Pinball", f"Coverage of {quantile}", "Tick", "p99"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row["predictor"],
            row["series"],
            f"{row['wape']:.1%}",
            f"{row['mase']:.3f}",
            f"{row['pinball']:.1%}",
            f"{row['coverage']:.0%}",
            _ms(row["ms_per_tick"]["mean"]),
            _ms(row["ms_per_tick"]["p99"]),
        )
    return table


def recommendation_table(records: Sequence[TickRecord]) -> Group:
    """Return what each pool of each service needs now, and below it why, in whole sentences."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("Service", overflow="fold")
    table.add_column("Pool", overflow="fold")
    for title in ("Current", "Ready", "Needs", "Desired", "Lead"):
        table.add_column(title, justify="right", no_wrap=True)
    for record in records:
        _add_service(table, record)
    return Group(table, *(line for record in records for line in _why(record)))


def recommendation_json(records: Sequence[TickRecord]) -> list[dict[str, Any]]:
    """Return the recommendations as plain values, named as in the status of the resource."""
    return [
        {
            "namespace": record.service.namespace,
            "name": record.service.name,
            "message": record.sentence,
            "hold": record.decision.hold is not None,
            "attainment": _attainment(record.decision),
            "pools": [
                {
                    "name": name,
                    "recommendedReplicas": pool.recommended,
                    "desiredReplicas": pool.desired,
                    "currentReplicas": pool.current,
                    "readyReplicas": pool.ready,
                    "leadTime": format_duration(round(pool.lead_s)),
                    "domain": pool.domain,
                }
                for name, pool in record.decision.pools.items()
            ],
            "reasons": [
                {"code": reason.code, "pool": reason.pool, "message": reason.message}
                for reason in record.decision.reasons
            ],
        }
        for record in records
    ]


def _add_service(table: Table, record: TickRecord) -> None:
    """Add one service: its name and attainment beside its pools."""
    decision = record.decision
    shares = [
        f"{label} {share_between(seen.lower, seen.upper) if seen else UNKNOWN}"
        for label, seen in _shares(decision).items()
    ]
    beside = [Text(str(record.service), "bold"), *(Text(line, "dim") for line in shares)]
    rows = [_pool_row(name, pool) for name, pool in decision.pools.items()]
    for index in range(max(len(rows), len(beside))):
        named = beside[index] if index < len(beside) else Text()
        cells = rows[index] if index < len(rows) else []
        table.add_row(named, *cells)
    table.add_section()


def _pool_row(name: str, pool: PoolDecision) -> list[Text]:
    changes = pool.desired != pool.current
    return [
        Text(name),
        Text(str(pool.current)),
        Text(str(pool.ready)),
        Text(str(pool.recommended)),
        Text(str(pool.desired), "bold yellow" if changes else ""),
        Text(f"{pool.lead_s:.0f} s"),
    ]


def _why(record: TickRecord) -> list[Text]:
    """Return a line for every reason, the hold first."""
    hold, service = record.decision.hold, record.service
    lines = [Text(f"{service} holds: {hold.reason.message}", "yellow")] if hold else []
    others = [r for r in record.decision.reasons if hold is None or r != hold.reason]
    return lines + [Text(f"{service}: {reason.message}") for reason in others]


def _shares(decision: Decision) -> dict[str, Attainment | None]:
    seen = decision.observation
    return {"TTFT": seen.ttft if seen else None, "ITL": seen.itl if seen else None}


def _attainment(decision: Decision) -> dict[str, dict[str, str] | None]:
    return {
        label.lower(): {"lower": f"{seen.lower:.4g}", "upper": f"{seen.upper:.4g}"}
        if seen
        else None
        for label, seen in _shares(decision).items()
    }


def _share(ratio: float | None, asked: float | None) -> Text:
    if asked is None or ratio is None:
        return Text(share(ratio))
    met = ratio >= asked
    verdict = f"{'meets' if met else 'misses'} {share(asked)}"
    return Text(f"{share(ratio)}, {verdict}", MET if met else MISSED)


def _count(number: int) -> Text:
    return Text(f"{number:,}", MISSED if number else "")


def _ms(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.1f} ms"
