"""What all pictures of a report share: axes, lines, the target and the warm-up. Pure.

Text and backgrounds get their colours in the page, which knows whether it is dark.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Floats = NDArray[np.float64]

# Blue and orange stay apart for colour-blind readers and show on white and on black.
BLUE, ORANGE, GREY, RED = "#2b83c4", "#d9730d", "#848b96", "#d1345b"
FAINT: Final = {BLUE: "rgba(43,131,196,.20)", ORANGE: "rgba(217,115,13,.20)"}
GRID: Final = "rgba(128,128,128,.22)"
SHADE: Final = "rgba(128,128,128,.14)"

HEIGHT_PX: Final = 270
DAY_S: Final = 86_400.0

# A warm-up that is a smaller part of the time has no room for its name.
NAMED_FROM_RATIO: Final = 0.1


@dataclass(frozen=True, slots=True)
class Extent:
    """The time that every picture spans, and the part of it that is warm-up [s]."""

    end_s: float
    warm_s: float


def canvas(extent: Extent, unit: str, height_px: int = HEIGHT_PX) -> "Figure":
    """Return an empty figure over the whole time, with the warm-up shaded."""
    from plotly.graph_objects import Figure

    clock = "%H:%M" if extent.end_s <= DAY_S else "%H:%M\nday %-d"
    # Transparent ticks keep labels off the axes and off each other at the corner.
    ticks = {"ticks": "outside", "ticklen": 5, "tickcolor": "rgba(0,0,0,0)"}
    axis = {"gridcolor": GRID, "zeroline": False, **ticks}
    figure = Figure()
    figure.update_layout(
        template={},
        height=height_px,
        margin={"l": 58, "r": 12, "t": 8, "b": 28},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 12},
        hovermode="x unified",
        dragmode="zoom",
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        xaxis={
            **axis,
            "type": "date",
            "range": [0.0, extent.end_s * 1e3],
            "tickformat": clock,
            "hoverformat": "%H:%M:%S",
            "nticks": 8,
        },
        yaxis={**axis, "title": {"text": unit, "standoff": 6}, "fixedrange": True},
    )
    if extent.warm_s > 0.0:
        _shade_warm_up(figure, extent)
    return figure


def line(
    figure: "Figure",
    name: str,
    points: tuple[Floats, Floats],
    colour: str,
    dash: str = "solid",
    *,
    width: float = 1.8,
    is_step: bool = False,
    fill: str | None = None,
) -> None:
    """Add a line over time; `fill` is the colour of the area down to the line before it."""
    at_s, values = points
    shape = {"shape": "hv"} if is_step else {}
    area = {} if fill is None else {"fill": "tonexty" if figure.data else "tozeroy"}
    figure.add_scatter(
        x=at_s * 1e3,
        y=values.astype(np.float32),
        name=name,
        mode="lines",
        line={"color": colour, "dash": dash, "width": width, **shape},
        fillcolor=fill,
        **area,
    )


def target_line(figure: "Figure", value: float, label: str, *, below: bool = False) -> None:
    """Add the target: a dashed line with its name."""
    figure.add_hline(y=value, line={"color": RED, "dash": "dash", "width": 1.2})
    side = "top" if below else "bottom"
    figure.add_annotation(
        xref="paper", x=1.0, xanchor="right", yref="y", y=value, yanchor=side,
        text=label, showarrow=False, font={"size": 11},
    )  # fmt: skip


def log_axis_ms(figure: "Figure", low_ms: float, high_ms: float) -> None:
    """Make the y axis logarithmic between two latencies, with ticks at powers of ten."""
    first, last = math.floor(math.log10(low_ms)), math.ceil(math.log10(high_ms))
    ticks = [10.0**power for power in range(first, last + 1)]
    # An annotation on a log axis is placed by its exponent, unlike a line.
    figure.for_each_annotation(lambda a: a.update(y=math.log10(a.y)) if a.yref == "y" else None)
    figure.update_yaxes(
        type="log",
        title=None,
        tickvals=ticks,
        ticktext=[f"{ms:g} ms" if ms < 1e3 else f"{ms / 1e3:,.0f} s" for ms in ticks],
        range=[math.log10(low_ms) - 0.1, math.log10(high_ms) + 0.1],
    )


def _shade_warm_up(figure: "Figure", extent: Extent) -> None:
    figure.add_shape(
        type="rect", xref="x", x0=0.0, x1=extent.warm_s * 1e3, yref="paper", y0=0.0, y1=1.0,
        fillcolor=SHADE, line={"width": 0}, layer="below",
    )  # fmt: skip
    if extent.warm_s < NAMED_FROM_RATIO * extent.end_s:
        return
    figure.add_annotation(
        xref="x", x=0.0, xanchor="left", yref="paper", y=1.0, yanchor="top",
        text="warm-up", showarrow=False, font={"size": 10}, opacity=0.7,
    )  # fmt: skip
