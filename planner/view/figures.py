"""The pictures of a report, as plotly figures. Pure; plotly is imported when one is drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from planner.model import Role, Service, Sla
from planner.view.canvas import (
    BLUE,
    FAINT,
    GREY,
    ORANGE,
    RED,
    Extent,
    canvas,
    line,
    log_axis_ms,
    target_line,
)
from planner.view.lanes import Lane
from planner.view.notation import share
from planner.view.outcome import MINUTE_S, LatencyBins, Windows
from planner.view.series import LoadSeries, PoolSeries
from planner.view.sparkline import highest
from planner.view.thinning import corners, thinned

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

ROLE_COLOURS: Final = {Role.PREFILL: BLUE, Role.DECODE: ORANGE}
DASHES: Final = ("solid", "dash", "dot", "dashdot")
LANE_PX: Final = 44
WHOLE_TICKS_MAX: Final = 8

# A latency this many times its target would flatten all others on a linear axis.
LOG_FROM_RATIO: Final = 5.0


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure with what stands around it; `key` names it in the page."""

    key: str
    heading: str
    caption: str
    figure: "Figure"


def load_picture(role: Role, load: LoadSeries, at_s: Sequence[float], extent: Extent) -> Picture:
    """Return tokens/s of one role: seen, and the forecast where it comes true."""
    colour, serves_s = ROLE_COLOURS[role], np.array(load.serves_s)
    figure = canvas(extent, "tokens/s")
    line(figure, "forecast mean", thinned(serves_s, np.array(load.mean_tps)), GREY, "dash")
    line(figure, "upper band", thinned(serves_s, np.array(load.up_tps)), GREY, "dot",
         fill=FAINT[colour])  # fmt: skip
    line(figure, "seen", thinned(np.array(at_s), np.array(load.seen_tps)), colour)
    figure.update_yaxes(rangemode="tozero", tickformat="~s")
    caption = (
        "A forecast is drawn at the time it was made for: when replicas ordered with it would "
        "serve. Seen load should seldom be above the upper band."
    )
    return Picture(f"load-{role}", f"{role.capitalize()} load", caption, figure)


def replicas_picture(
    service: Service, name: str, pool: PoolSeries, at_s: Sequence[float], extent: Extent
) -> Picture:
    """Return replicas of one pool: what the SLA needs, what was ordered, what serves."""
    colour, x = ROLE_COLOURS[service.pool(name).role], np.array(at_s)
    figure = canvas(extent, "replicas")
    line(figure, "ready", corners(x, np.array(pool.ready)), colour, width=0.6, is_step=True,
         fill=FAINT[colour])  # fmt: skip
    line(figure, "ordered", corners(x, np.array(pool.desired)), colour, is_step=True)
    line(figure, "wanted", corners(x, np.array(pool.wanted)), GREY, "dot", is_step=True)
    figure.update_yaxes(rangemode="tozero")
    if highest(pool.wanted, pool.desired, pool.ready) <= WHOLE_TICKS_MAX:
        figure.update_yaxes(dtick=1)  # nobody runs half a replica
    caption = (
        "Wanted is what the SLA needs, limits aside. Ordered follows it within limits and scaling "
        "behaviour. Ready is what serves."
    )
    return Picture(f"replicas-{name}", f"Replicas, {name}", caption, figure)


def latency_picture(
    key: str, heading: str, target_s: float, bins: LatencyBins, extent: Extent
) -> Picture:
    """Return median and 99th percentile of TTFT or ITL over time against the target."""
    figure = canvas(extent, "ms")
    line(figure, "99th percentile", (bins.at_s, bins.p99_s * 1e3), ORANGE)
    line(figure, "median", (bins.at_s, bins.p50_s * 1e3), BLUE, "dash")
    target_line(figure, target_s * 1e3, f"target {target_s * 1e3:g} ms")
    highest_s = float(np.nanmax(bins.p99_s, initial=target_s))
    if highest_s > LOG_FROM_RATIO * target_s:
        lowest_s = float(np.nanmin(bins.p50_s, initial=target_s))
        log_axis_ms(figure, lowest_s * 1e3, highest_s * 1e3)
    else:
        figure.update_yaxes(rangemode="tozero")
    minutes = bins.bin_s / MINUTE_S
    width = "minute" if minutes == 1.0 else f"{minutes:g} minutes"
    caption = f"Of all requests that arrived in each {width}, as the simulated service gave them."
    return Picture(key, heading, caption, figure)


def attainment_picture(sla: Sla, windows: Windows, extent: Extent) -> Picture:
    """Return the share of requests within both targets by 5 minutes."""
    figure = canvas(extent, "of requests")
    line(figure, "share of requests", (windows.at_s, windows.both), BLUE)
    missed = windows.both < sla.attainment_ratio
    line(figure, "below the target", (windows.at_s[missed], windows.both[missed]), RED)
    figure.data[1].update(mode="markers", marker={"symbol": "x", "size": 9, "color": RED})
    target_line(figure, sla.attainment_ratio, f"target {share(sla.attainment_ratio)}", below=True)
    lowest = float(np.min(windows.both, initial=2.0 * sla.attainment_ratio - 1.0))
    rim = 0.08 * (1.0 - lowest)
    figure.update_yaxes(range=[lowest - rim, 1.0 + rim], tickformat=".4~p")
    caption = "By 5 minutes of arrival. A cross marks those below the target."
    return Picture("attainment", "Requests within both targets", caption, figure)


def factors_picture(
    service: Service, pools: Mapping[str, PoolSeries], at_s: Sequence[float], extent: Extent
) -> Picture:
    """Return how far each pool is off its profile over time."""
    figure = canvas(extent, "× profile")
    for index, (name, pool) in enumerate(pools.items()):
        colour, dash = ROLE_COLOURS[service.pool(name).role], DASHES[index % len(DASHES)]
        line(figure, name, thinned(np.array(at_s), np.array(pool.factor)), colour, dash)
    figure.add_hline(y=1.0, line={"color": GREY, "dash": "dash", "width": 1.2})
    caption = "Measured time over profiled time at a full batch: 1 is a perfect profile."
    return Picture("factors", "Correction of the profiles", caption, figure)


def reasons_picture(lanes: Sequence[Lane], extent: Extent) -> Picture:
    """Return when each cap and hold was in force: a lane each, its name above it."""
    figure = canvas(extent, "", height_px=60 + LANE_PX * max(len(lanes), 1))
    for row, lane in enumerate(lanes):
        place, colour = float(len(lanes) - row), RED if lane.is_hold else BLUE
        x = [edge for a, b in lane.spans for edge in (a * 1e3, b * 1e3, np.nan)]
        figure.add_scatter(
            x=np.array(x), y=np.where(np.isnan(x), np.nan, place), name=lane.label, mode="lines",
            line={"color": colour, "width": 9}, showlegend=False, hoverinfo="x+name",
        )  # fmt: skip
        ticks = f"{lane.ticks} tick" + ("s" if lane.ticks != 1 else "")
        figure.add_annotation(
            xref="paper", x=0.0, xanchor="left", y=place + 0.14, yanchor="bottom",
            text=f"{lane.label} ({'hold, ' if lane.is_hold else ''}{ticks})", showarrow=False,
        )  # fmt: skip
    figure.update_layout(hovermode="closest", margin={"l": 58, "r": 12, "t": 8, "b": 28})
    figure.update_yaxes(range=[0.5, len(lanes) + 0.9], showticklabels=False, showgrid=False)
    caption = "Why a decision was not simply what was wanted: holds, caps and limits."
    return Picture("reasons", "Caps and holds", caption, figure)
