"""The report of a replay: one HTML page that holds all it needs and asks the network for nothing.

The same input gives the same bytes: names in the page are fixed, and no clock is read.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from planner.model import Service
from planner.view.canvas import Extent
from planner.view.cards import headline_cards, verdict
from planner.view.figures import (
    Picture,
    attainment_picture,
    factors_picture,
    latency_picture,
    load_picture,
    reasons_picture,
    replicas_picture,
)
from planner.view.lanes import reason_lanes
from planner.view.outcome import attainment_windows, bin_width_s, latency_bins
from planner.view.page import Page
from planner.view.series import series_of

if TYPE_CHECKING:  # the simulation brings a compiler, the report needs its results alone
    from planner.replay import Frame
    from planner.simulation.results import PlantResults, Summary


def write_report(
    path: Path,
    service: Service,
    trace_name: str,
    frames: Sequence["Frame"],
    results: "PlantResults",
    summary: "Summary",
    notes: Iterable[str] = (),
) -> None:
    """Write the report of one replay.

    Parameters
    ----------
    path
        The HTML file; what was there is replaced.
    service
        Whose replay.
    trace_name
        What was replayed.
    frames
        Every tick.
    results, summary
        The run, and its figures from the end of the warm-up on.
    notes
        Lines for the foot of the page: where data come from, what was left out.
    """
    page = Page(
        service=service,
        trace_name=trace_name,
        cards=headline_cards(service, frames, results, summary),
        verdict=verdict(service, summary),
        pictures=report_pictures(service, frames, results, summary),
        records=[frame.record for frame in frames],
        notes=tuple(notes),
    )
    path.write_text(page.html(), encoding="utf-8")


def report_pictures(
    service: Service, frames: Sequence["Frame"], results: "PlantResults", summary: "Summary"
) -> list[Picture]:
    """Return the pictures in reading order: what was met, what it took, why."""
    sla, records = service.sla, [frame.record for frame in frames]
    series = series_of(service, records)
    last_s = max([results.end_s, *series.at_s[-1:]])
    extent = Extent(end_s=last_s, warm_s=summary.from_s)
    bin_s = bin_width_s(last_s)
    windows = attainment_windows(results, sla.ttft_s, sla.itl_s, summary.from_s)
    ttft = latency_bins(results.arrival_s, results.ttft_s, bin_s)
    itl = latency_bins(results.arrival_s, results.itl_s, bin_s)
    return [
        *(load_picture(role, load, series.at_s, extent) for role, load in series.roles.items()),
        *(
            replicas_picture(service, name, pool, series.at_s, extent)
            for name, pool in series.pools.items()
        ),
        latency_picture("ttft", "Time to first token (TTFT)", sla.ttft_s, ttft, extent),
        latency_picture("itl", "Inter-token latency (ITL)", sla.itl_s, itl, extent),
        attainment_picture(sla, windows, extent),
        factors_picture(service, series.pools, series.at_s, extent),
        reasons_picture(reason_lanes(records, service.interval_s), extent),
    ]
