"""A line chart as inline SVG that fits any width without a script. Pure.

Lines are drawn in a box that stretches, text is placed by percentages and does not.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Final

from planner.view.notation import moment

# The stretched box in its own units, and the height of the plot and of the labels below [px].
BOX_WIDTH, BOX_HEIGHT, PLOT_PX, LABELS_PX = 2000, 1000, 150, 20
TIME_STEPS_S: Final = (60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
TICKS_MOST: Final = 5


@dataclass(frozen=True, slots=True)
class Line:
    """Values over time [s]; not a number is a gap.

    `style` names CSS classes. With a `floor`, the area from there up to the values is filled.
    """

    name: str
    style: str
    at_s: Sequence[float]
    values: Sequence[float]
    is_step: bool = False
    floor: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture of a service.

    Attributes
    ----------
    key, heading, caption
        Its name in the page, and the words around it.
    style
        CSS classes of the whole.
    unit
        ``tps``, ``count`` or ``share``: how a value is written where the pointer is.
    lines
        What is drawn, in this order.
    span_s
        First and last moment [s].
    low, high
        Ends of the axis of values.
    write
        How a value is written at the axis.
    target
        A value to be compared with, and its name.
    now_s
        The last decision; what is drawn after it is expected [s].
    """

    key: str
    heading: str
    caption: str
    style: str
    unit: str
    lines: Sequence[Line]
    span_s: tuple[float, float]
    low: float
    high: float
    write: Callable[[float], str]
    now_s: float
    target: tuple[float, str] | None = None

    def x(self, at_s: float) -> float:
        """Return the place of a time, 0 at the left and 1 at the right."""
        first_s, last_s = self.span_s
        return (at_s - first_s) / (last_s - first_s)

    def y(self, value: float) -> float:
        """Return the place of a value, 0 at the top and 1 at the bottom, and never outside."""
        return min(max((self.high - value) / (self.high - self.low), 0.0), 1.0)

    def html(self) -> str:
        """Return the figure."""
        return (
            f'<figure class="picture {self.style}" id="{escape(self.key)}" '
            f'data-hover="{escape(_hover(self))}">'
            f"<figcaption><h2>{escape(self.heading)}</h2><p>{escape(self.caption)}</p>"
            f'<ul class="legend">{"".join(map(_legend, self.lines))}</ul></figcaption>'
            f"{_svg(self)}<output></output></figure>"
        )


def _svg(chart: Chart) -> str:
    levels = nice_ticks(chart.low, chart.high)
    grid = "".join(
        f'<line class="grid" x1="0" x2="100%" y1="{_px(chart, v)}" y2="{_px(chart, v)}"/>'
        for v in levels
    )
    labels = "".join(
        f'<text class="tick" x="2" y="{_px(chart, v, -4.0)}">{escape(chart.write(v))}</text>'
        for v in levels
    )
    now = f"{chart.x(chart.now_s) * 100:.2f}%"
    return (
        f'<svg class="plot" height="{PLOT_PX + LABELS_PX}" role="img" '
        f'aria-label="{escape(_spoken(chart))}">{grid}'
        f'<svg width="100%" height="{PLOT_PX}" viewBox="0 0 {BOX_WIDTH} {BOX_HEIGHT}" '
        f'preserveAspectRatio="none">{"".join(_paths(chart))}</svg>'
        f'<line class="now" x1="{now}" x2="{now}" y1="0" y2="{PLOT_PX}"/>'
        f"{_target(chart)}{labels}{''.join(_time_labels(chart))}</svg>"
    )


def _px(chart: Chart, value: float, shift_px: float = 0.0) -> str:
    return f"{max(chart.y(value) * PLOT_PX + shift_px, 10.0 if shift_px else 0.5):.1f}"


def _target(chart: Chart) -> str:
    if chart.target is None:
        return ""
    value, name = chart.target
    at = _px(chart, value)
    # Under its line where there is no room above.
    label = float(at) + 13.0 if float(at) < PLOT_PX / 2 else float(at) - 4.0
    return (
        f'<line class="target" x1="0" x2="100%" y1="{at}" y2="{at}"/>'
        f'<text class="tick end" x="100%" dx="-2" y="{label:.1f}">{escape(name)}</text>'
    )


def _time_labels(chart: Chart) -> Iterator[str]:
    """Yield a label at every round time.

    Yields
    ------
    str
        One label.
    """
    first_s, last_s = chart.span_s
    step_s = next((s for s in TIME_STEPS_S if (last_s - first_s) / s <= TICKS_MOST), 86_400)
    for index in range(math.ceil(first_s / step_s), math.floor(last_s / step_s) + 1):
        share = chart.x(index * step_s)
        side = " end" if share > 0.95 else " middle" if share > 0.05 else ""
        at = f"{share * 100:.2f}%"
        yield (
            f'<text class="tick{side}" x="{at}" y="{PLOT_PX + LABELS_PX - 5}">'
            f"{clock(index * step_s)}</text>"
        )


def clock(at_s: float) -> str:
    """Return hours and minutes of a time.

    Examples
    --------
    >>> clock(1795341600.0), clock(1860.0)
    ('10:00', '00:31')
    """
    text = moment(at_s)
    return text[11:16] if text.endswith("UTC") else text[:-3]


def nice_ticks(low: float, high: float) -> list[float]:
    """Return up to five round values from `low` to `high`.

    Examples
    --------
    >>> nice_ticks(0.0, 7.0), nice_ticks(0.0, 31_000.0)
    ([0.0, 2.0, 4.0, 6.0], [0.0, 10000.0, 20000.0, 30000.0])
    """
    rough = (high - low) / (TICKS_MOST - 1)
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * m for m in (1.0, 2.0, 2.5, 5.0, 10.0) if size * m >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _paths(chart: Chart) -> Iterator[str]:
    """Yield the area and the line of every series.

    Yields
    ------
    str
        One path.
    """
    for line in chart.lines:
        runs = list(_runs(line.values))
        if line.floor is not None:
            areas = "".join(_area(chart, line, line.floor, run) for run in runs)
            yield f'<path class="area {line.style}" d="{areas}"/>'
        strokes = "".join(_stroke(chart, line, line.values, run) for run in runs)
        yield f'<path class="line {line.style}" d="{strokes}"/>'


def _runs(values: Sequence[float]) -> Iterator[range]:
    """Yield the indices between the gaps.

    Yields
    ------
    range
        Neighbours that all have a value.
    """
    gaps = [-1, *(i for i, v in enumerate(values) if not math.isfinite(v)), len(values)]
    for before, after in pairwise(gaps):
        if after - before > 1:
            yield range(before + 1, after)


def _stroke(chart: Chart, line: Line, values: Sequence[float], run: range) -> str:
    # `h0` lets a single point be seen: its round cap.
    return f"M{_points(chart, line, values, run)}h0"


def _area(chart: Chart, line: Line, floor: Sequence[float], run: range) -> str:
    there = _points(chart, line, line.values, run)
    back = _points(chart, line, floor, run[::-1])
    return f"M{there}L{back}Z"


def _points(chart: Chart, line: Line, values: Sequence[float], run: range) -> str:
    """Return the points of a run; a step holds its value until the next one."""
    places = [
        (round(chart.x(line.at_s[i]) * BOX_WIDTH), round(chart.y(values[i]) * BOX_HEIGHT))
        for i in run
    ]
    text = [f"{places[0][0]} {places[0][1]}"]
    for (_, before), (x, y) in pairwise(places):
        if not line.is_step:
            text.append(f"L{x} {y}")
        elif y != before:
            # Backwards, the height changes first.
            text.append(f"H{x}V{y}" if run.step > 0 else f"V{y}H{x}")
    if line.is_step:
        text.append(f"H{places[-1][0]}")
    return "".join(text)


def _legend(line: Line) -> str:
    filled = " filled" if line.floor is not None else ""
    return f'<li class="{line.style}{filled}">{escape(line.name)}</li>'


def _spoken(chart: Chart) -> str:
    """Return the last values in words."""
    last = [
        f"{line.name} {chart.write(known[-1])}"
        for line in chart.lines
        if (known := [v for v in line.values if math.isfinite(v)])
    ]
    return f"{chart.heading}: " + (", ".join(last) or "nothing known yet")


def _hover(chart: Chart) -> str:
    """Return what the script writes where the pointer is: whole seconds from the left, values."""
    first_s, last_s = chart.span_s
    lines = [
        {
            "name": line.name,
            "at": [round(at_s - first_s) for at_s in line.at_s],
            "v": [float(f"{v:.5g}") if math.isfinite(v) else None for v in line.values],
        }
        for line in chart.lines
    ]
    told = {"unit": chart.unit, "from": first_s, "to": last_s, "lines": lines}
    return json.dumps(told, separators=(",", ":"))
