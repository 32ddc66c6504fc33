"""A comparison as one HTML page that holds all it needs: frontiers and tables, trace by trace."""

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, Final

from planner.model import Role, Sla
from planner.view.canvas import BLUE, GREY, GRID, ORANGE, RED
from planner.view.comparison_groups import Line, curves_of, lines_of
from planner.view.comparison_table import (
    CONTROL,
    FOLLOWING,
    SHIPPED,
    attainments,
    control_cells,
    following_cells,
    oracle_lines,
    price_cells,
    price_titles,
    regret_lines,
    shipped_cells,
)
from planner.view.notation import milliseconds, share
from planner.view.summary import POLICY

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COLOURS: Final = (
    ORANGE, "#3a9b6c", "#8e5bb5", "#b8860b", "#c2598e", "#5a7fbf", "#7a8b3a", GREY,
)  # fmt: skip
HEIGHT_PX: Final = 460
# Failing shares that the axis shows; none at all stands at its end.
LEAST_FAILING: Final = 1e-4
# A fleet beyond this multiple of the cheapest that matters is not worth the room.
WIDEST: Final = 3.0

Curve = Sequence[tuple[float, float, str]]


def write_comparison(path: Path, document: Mapping[str, Any], sla: Sla | None) -> None:
    """Write the page.

    Parameters
    ----------
    path
        The HTML file; what was there is replaced.
    document
        The object that `compare -o json` prints.
    sla
        What was asked for on all traces; None if that differs from trace to trace.
    """
    from plotly.offline import get_plotlyjs

    curves, lines = curves_of(document), lines_of(document)
    names = list(curves)
    figures = [
        {"key": f"frontier-{i}", **_json(frontier_figure(curves[name], lines[name]))}
        for i, name in enumerate(names)
    ]
    template = Template((files("planner.view") / "comparison.html").read_text(encoding="utf-8"))
    text = template.substitute(
        title=escape(f"Comparison · {', '.join(names)}"),
        promise=escape(_promise(sla)),
        sections="\n".join(
            _section(i, name, lines[name], oracle_lines(document["oracles"], name))
            for i, name in enumerate(names)
        ),
        figures=json.dumps(figures, separators=(",", ":"), sort_keys=True).replace("<", "\\u003c"),
        plotly=get_plotlyjs(),
    )
    path.write_text(text, encoding="utf-8")


def frontier_figure(curves: Mapping[str, Curve], lines: Sequence[Line]) -> "Figure":
    """Return attainment over GPU-hours of every policy; attainment by what fails, on a log axis."""
    from plotly.graph_objects import Figure

    axis = {"gridcolor": GRID, "zeroline": False, "ticks": "outside", "ticklen": 5}
    shares = (0.5, 0.1, 0.05, 0.01, 0.001, LEAST_FAILING)
    figure = Figure()
    figure.update_layout(
        template={}, height=HEIGHT_PX, margin={"l": 64, "r": 12, "t": 8, "b": 46},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 12}, hovermode="closest",
        legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        xaxis={**axis, "title": {"text": "GPU-hours"}, "range": _extent(curves)},
        yaxis={
            **axis, "type": "log", "autorange": "reversed", "title": {"text": "attainment"},
            "tickvals": list(shares), "ticktext": [share(1.0 - failing) for failing in shares],
        },
    )  # fmt: skip
    shipped = {line.policy: line for line in lines}
    for index, (policy, curve) in enumerate(curves.items()):
        colour = BLUE if policy == POLICY else COLOURS[index % len(COLOURS)]
        _add(figure, policy, curve, colour, shipped.get(policy))
    asked = {row["asked"] for line in lines for row in line.shipped}
    for attainment in asked:
        figure.add_hline(y=1.0 - attainment, line={"color": RED, "dash": "dash", "width": 1.2})
    return figure


def _add(figure: "Figure", policy: str, curve: Curve, colour: str, line: Line | None) -> None:
    """Add one policy: its sweep, and a larger mark where it stands as shipped."""
    width = 3.0 if policy == POLICY else 1.4
    figure.add_scatter(
        x=[hours for hours, _, _ in curve], y=[_failing(both) for _, both, _ in curve],
        text=[f"{policy}, {knob}: {share(both)}" for _, both, knob in curve], name=policy,
        mode="lines+markers", hoverinfo="x+text", legendgroup=policy,
        line={"color": colour, "width": width}, marker={"color": colour, "size": 5},
    )  # fmt: skip
    both, hours = (line.mean("attainment", "both"), line.mean("gpu_hours")) if line else (None, 0)
    if both is not None:
        figure.add_scatter(
            x=[hours], y=[_failing(both)], text=[f"{policy} as shipped: {share(both)}"],
            mode="markers", hoverinfo="x+text", showlegend=False, legendgroup=policy,
            marker={"color": colour, "size": 12, "symbol": "diamond"},
        )  # fmt: skip


def _extent(curves: Mapping[str, Curve]) -> list[float]:
    """Return the GPU-hours worth showing: around the runs that attain nine of ten."""
    good = [hours for curve in curves.values() for hours, both, _ in curve if both >= 0.9]
    every = [hours for curve in curves.values() for hours, _, _ in curve]
    low = min(good or every)
    return [0.8 * low, min(WIDEST * low, 1.05 * max(every))]


def _failing(both: float) -> float:
    return max(1.0 - both, LEAST_FAILING)


def _promise(sla: Sla | None) -> str:
    if sla is None:
        return "Each trace has targets of its own."
    return (
        f"Asked: {share(sla.attainment_ratio)} of requests with TTFT at most "
        f"{milliseconds(sla.ttft_s)} and ITL at most {milliseconds(sla.itl_s)}."
    )


def _section(index: int, trace: str, lines: Sequence[Line], oracles: Sequence[str]) -> str:
    asked = attainments(lines)
    priced = [line for line in lines if line.prices]
    told = "".join(f"<p>{escape(line)}</p>" for line in (*oracles, *regret_lines(lines)))
    return (
        f"<section><h2>{escape(trace)}</h2>"
        f'<div class="plot" id="frontier-{index}" role="img" '
        f'aria-label="Attainment over GPU-hours, {escape(trace)}"></div>'
        f"<h3>As shipped</h3>{_table(SHIPPED, lines, shipped_cells)}"
        "<h3>GPU-hours at equal attainment</h3>"
        f"{_table(price_titles(asked), priced, lambda line: price_cells(line, asked))}"
        f"{told}<h3>Control, as shipped</h3>{_table(CONTROL, lines, control_cells)}"
        f"{''.join(_following(role, lines) for role in Role)}</section>"
    )


def _following(role: Role, lines: Sequence[Line]) -> str:
    """Return how the pools of a role follow the need; nothing where no oracle told it."""
    told = [line for line in lines if line.mean("elasticity", role, "tau_u_pct") is not None]
    if not told:
        return ""
    return (
        f"<h3>{role.capitalize()} against the need, as shipped</h3>"
        f"{_table(FOLLOWING, told, lambda line: following_cells(line, role))}"
        "<p>The need is what O1 orders minute by minute; supply are the replicas that serve.</p>"
    )


def _table(
    titles: Sequence[str], lines: Sequence[Line], cells: Callable[[Line], Sequence[str]]
) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "\n".join(
        f"<tr{' class=own' if line.policy == POLICY else ''}>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells(line))
        + "</tr>"
        for line in lines
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _json(figure: "Figure") -> dict[str, Any]:
    """Return a figure as plain JSON values."""
    from plotly.io import to_json

    drawn = json.loads(to_json(figure, validate=False, engine="json"))
    return {"data": drawn["data"], "layout": drawn["layout"]}
