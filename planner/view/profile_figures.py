"""The pictures of a profile, as plotly figures. Pure; plotly is imported when one is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from planner.profiling.region import Region, Targets, fullest_batch
from planner.view.canvas import BLUE, FAINT, GREY, GRID, ORANGE, RED, Floats
from planner.view.figures import Picture
from planner.view.notation import milliseconds
from profiles import DecodeSurface, PrefillSurface, Profile
from profiles.points import rows_by_context

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SHADES: Final = ("#1d5f91", "#2b83c4", "#6fb1df", "#d9a441", "#d9730d", "#a3540a")
"""Contexts from short to long: blue to orange, apart for colour-blind readers too."""

CURVE_POINTS: Final = 200
CELLS: Final = 120
HEIGHT_PX: Final = 340
PALE: Final = "#efe9dc"


@dataclass(frozen=True, slots=True)
class Lengths:
    """Prompt lengths and mean contexts of some traffic [tokens], shape (requests,)."""

    isl_tokens: NDArray[np.float64]
    context_tokens: NDArray[np.float64]


def plane(x_title: str, y_title: str, **axes: Any) -> "Figure":
    """Return an empty figure with two named axes."""
    from plotly.graph_objects import Figure

    axis = {"gridcolor": GRID, "zeroline": False}
    figure = Figure()
    figure.update_layout(
        template={},
        height=HEIGHT_PX,
        margin={"l": 62, "r": 14, "t": 8, "b": 44},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 12},
        hovermode="closest",
        legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        xaxis={**axis, "title": {"text": x_title}, **axes.get("x", {})},
        yaxis={**axis, "title": {"text": y_title, "standoff": 6}, **axes.get("y", {})},
    )
    return figure


def ttft_picture(
    profile: Profile,
    surface: PrefillSurface,
    targets: Targets,
    region: Region,
    traffic: Lengths | None,
) -> Picture:
    """Return TTFT over prompt length: points, the curve through them, target and traffic."""
    figure = plane("prompt [tokens]", "TTFT [ms]", y={"rangemode": "tozero"})
    lengths = np.linspace(surface.isl_min_tokens, surface.isl_max_tokens, CURVE_POINTS)
    if traffic is not None:
        _lengths(figure, traffic.isl_tokens, surface.isl_max_tokens)
    _curve(figure, "interpolated", lengths, surface.service_s(lengths), BLUE)
    alone = [p for p in profile.prefill if p.batch == 1]
    _points(figure, "measured", [p.isl_tokens for p in alone], [p.ttft_s for p in alone], BLUE)
    if targets.ttft_s is not None:
        _target(figure, targets.ttft_s, x=1.0, xanchor="right", yanchor="top")
    if region.isl_limit_tokens:
        figure.add_vrect(
            x0=surface.isl_min_tokens, x1=region.isl_limit_tokens, fillcolor=FAINT[BLUE],
            line={"width": 0}, layer="below",
        )  # fmt: skip
    said = "" if targets.ttft_s is None else " Shaded: prompts that keep the target."
    caption = f"One prompt alone in a replica, without waiting.{said}"
    return Picture("ttft", "Time to first token over prompt length", caption, figure)


def itl_picture(profile: Profile, targets: Targets) -> Picture:
    """Return ITL over concurrency, a line for each measured context."""
    figure = plane("sequences decoded together", "ITL [ms]",
                   x={"type": "log", "dtick": 1}, y={"rangemode": "tozero"})  # fmt: skip
    rows = rows_by_context(profile.decode)
    most = profile.max_sequences or np.inf
    for index, (context, row) in enumerate(rows.items()):
        used = [(p.concurrency, p.itl_s) for p in row if p.concurrency <= most]
        if used:
            colour = SHADES[index * (len(SHADES) - 1) // max(len(rows) - 1, 1)]
            _row(figure, f"{context:,.0f}", np.array(used), colour)
    if targets.itl_s is not None:
        _target(figure, targets.itl_s, x=0.0, xanchor="left", yanchor="bottom")
    caption = "A line for each context [tokens]. What the scheduler would not run is left out."
    return Picture("itl", "Inter-token latency over concurrency", caption, figure)


def map_picture(
    profile: Profile, surface: DecodeSurface, targets: Targets, traffic: Lengths | None
) -> Picture:
    """Return ITL over context and concurrency as a map, with the line where the target is met."""
    figure = plane("mean context [tokens]", "sequences decoded together",
                   y={"type": "log", "dtick": 1})  # fmt: skip
    contexts, batches, itl_ms = _itl_grid(surface)
    asked_ms = None if targets.itl_s is None else targets.itl_s * 1e3
    figure.add_heatmap(
        x=contexts, y=batches, z=itl_ms, colorbar={"title": {"text": "ms"}, "thickness": 12},
        hovertemplate="%{x:.0f} tokens, %{y:.0f} sequences: %{z:.1f} ms<extra></extra>",
        **_colours(itl_ms, asked_ms),
    )  # fmt: skip
    if asked_ms is not None:
        limits = [
            fullest_batch(surface, float(c), asked_ms / 1e3).concurrency or None for c in contexts
        ]
        figure.add_scatter(
            x=contexts, y=limits, name=f"ITL {asked_ms:g} ms", mode="lines",
            line={"color": RED, "width": 2.2, "dash": "dash"},
        )  # fmt: skip
    _measured_places(figure, profile)
    if traffic is not None:
        low, high = np.quantile(traffic.context_tokens, (0.05, 0.95))
        figure.add_vrect(
            x0=low, x1=high, line={"width": 1, "color": GREY, "dash": "dot"}, layer="above",
            fillcolor="rgba(0,0,0,0)",
        )  # fmt: skip
    caption = (
        "Empty: more than the KV cache or the scheduler takes, or than was measured."
        + (" Below the dashed line the target holds." if asked_ms else "")
        + (" Dotted: nine tenths of the traffic's contexts." if traffic is not None else "")
    )
    return Picture("map", "Inter-token latency over context and concurrency", caption, figure)


def throughput_picture(surface: DecodeSurface, targets: Targets) -> Picture:
    """Return what one decode replica gives at the target over contexts."""
    assert targets.itl_s is not None
    figure = plane("mean context [tokens]", "tokens/s a replica",
                   y={"rangemode": "tozero", "tickformat": "~s"})  # fmt: skip
    contexts = np.linspace(surface.context_min_tokens, surface.context_max_tokens, CELLS)
    found = [fullest_batch(surface, float(c), targets.itl_s).throughput_tps for c in contexts]
    figure.add_scatter(
        x=contexts, y=np.array(found), mode="lines", fill="tozeroy", fillcolor=FAINT[ORANGE],
        line={"color": ORANGE, "width": 1.8}, showlegend=False,
        hovertemplate="%{x:.0f} tokens: %{y:.3s} tokens/s<extra></extra>",
    )  # fmt: skip
    caption = f"With the fullest batch that keeps {milliseconds(targets.itl_s)} a token."
    return Picture("throughput", "Decode throughput at the target", caption, figure)


def _itl_grid(surface: DecodeSurface) -> tuple[Floats, Floats, NDArray[np.float64]]:
    """Return contexts, batches and ITL [ms], shape (batches, contexts), NaN outside."""
    contexts = np.linspace(surface.context_min_tokens, surface.context_max_tokens, CELLS)
    batches = np.geomspace(1.0, max(surface.n_max, 2), CELLS)
    itl_ms = surface.itl_s(batches[:, None], contexts[None, :]) * 1e3
    room = np.array([max(surface.batch_limit(float(c)), 1) for c in contexts])
    return contexts, batches, np.where(batches[:, None] <= room[None, :], itl_ms, np.nan)


def _colours(itl_ms: NDArray[np.float64], asked_ms: float | None) -> dict[str, Any]:
    """Return a scale that turns from blue to orange at the target, else in the middle."""
    low, high = float(np.nanmin(itl_ms)), float(np.nanmax(itl_ms))
    turn = 0.5 if asked_ms is None else (asked_ms - low) / max(high - low, 1e-9)
    turn = min(max(turn, 0.02), 0.98)
    scale = [[0.0, BLUE], [turn, PALE], [1.0, ORANGE]]
    return {"zmin": low, "zmax": high, "colorscale": scale}


def _measured_places(figure: "Figure", profile: Profile) -> None:
    most = profile.max_sequences or np.inf
    used = [p for p in profile.decode if p.concurrency <= most]
    figure.add_scatter(
        x=[p.context_tokens for p in used], y=[p.concurrency for p in used], name="measured",
        mode="markers", customdata=[p.itl_s * 1e3 for p in used],
        marker={"color": "#1b1f26", "size": 6, "line": {"color": "#ffffff", "width": 1}},
        hovertemplate="%{x:.0f} tokens, %{y:g} sequences: %{customdata:.1f} ms",
    )  # fmt: skip


def _row(figure: "Figure", name: str, row: Floats, colour: str) -> None:
    """Add one context: its points, and the straight lines between them on the bent axis."""
    n, itl_ms = row[:, 0], row[:, 1] * 1e3
    between = np.union1d(np.geomspace(n[0], n[-1], CURVE_POINTS // 4), n)
    shared = {"name": name, "legendgroup": name}
    figure.add_scatter(
        x=between, y=np.interp(between, n, itl_ms), mode="lines",
        line={"color": colour, "width": 1.8}, hoverinfo="skip", **shared,
    )  # fmt: skip
    figure.add_scatter(
        x=n, y=itl_ms, mode="markers", marker={"color": colour, "size": 6}, showlegend=False,
        hovertemplate="%{x:g} sequences: %{y:.1f} ms", **shared,
    )  # fmt: skip


def _curve(figure: "Figure", name: str, x: Floats, y_s: Floats, colour: str) -> None:
    figure.add_scatter(
        x=x, y=y_s * 1e3, name=name, mode="lines", line={"color": colour, "width": 1.8},
        hovertemplate="%{x:.0f} tokens: %{y:.1f} ms",
    )  # fmt: skip


def _points(
    figure: "Figure", name: str, x: Sequence[float], y_s: Sequence[float], colour: str
) -> None:
    figure.add_scatter(
        x=list(x), y=[value * 1e3 for value in y_s], name=name, mode="markers",
        marker={"color": colour, "size": 7}, hovertemplate="%{x:g} tokens: %{y:.1f} ms",
    )  # fmt: skip


def _target(figure: "Figure", target_s: float, **place: Any) -> None:
    """Add the target as a dashed line with its name where no curve runs."""
    figure.add_hline(y=target_s * 1e3, line={"color": RED, "dash": "dash", "width": 1.2})
    figure.add_annotation(
        xref="paper", y=target_s * 1e3, text=f"target {milliseconds(target_s)}",
        showarrow=False, font={"size": 11}, **place,
    )  # fmt: skip


def _lengths(figure: "Figure", isl_tokens: NDArray[np.float64], longest: float) -> None:
    """Add the traffic's prompt lengths as bars behind the curve, with an axis of their own."""
    inside = np.minimum(isl_tokens, longest)
    counts, edges = np.histogram(inside, bins=60, range=(0.0, longest))
    figure.add_bar(
        x=(edges[:-1] + edges[1:]) / 2.0, y=counts / counts.sum(), name="traffic", yaxis="y2",
        marker={"color": FAINT[ORANGE], "line": {"width": 0}}, width=float(edges[1]),
        hovertemplate="%{x:.0f} tokens: %{y:.1%} of prompts",
    )  # fmt: skip
    figure.update_layout(
        yaxis2={"overlaying": "y", "side": "right", "visible": False, "rangemode": "tozero"}
    )
