"""What to measure next: where the surface is least certain near the SLA. Pure.

The next point follows from the measured ones alone, so that a sweep that was cut off goes on where
it was. Candidates are a grid; measuring stops when no point of it could be off by more than asked.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

import numpy as np

from profiles.points import AXIS_POINTS_MIN
from profiles.rows import DecodeRow, FloatArray

Number = TypeVar("Number", int, float)
Candidate = TypeVar("Candidate")

BEND_LEAST: Final = 0.1
"""However straight the measured points are, a gap may bend by this part of the most it can."""

BEND_AT_TARGET: Final = 0.3
"""The same in the gap that holds the target: where it is crossed decides how many sequences fit."""

NEARNESS_LEAST: Final = 0.02
"""Weight of a decode point far from the target: hardly ever worth a measurement."""


class Place(NamedTuple):
    """Where a decode point is measured: sequences together, and mean context [tokens]."""

    concurrency: float
    context_tokens: float


@dataclass(frozen=True, slots=True)
class Goal:
    """What the profile is for.

    Attributes
    ----------
    ttft_s, itl_s
        The targets that decisions will be made at [s].
    error_ratio
        Error of a latency at its target that does not matter; further away more is let pass.
    """

    ttft_s: float
    itl_s: float
    error_ratio: float = 0.04


def _bend(curves: Iterable[tuple[FloatArray, FloatArray]]) -> float:
    """Return how much curves, x ascending, bend: the mean over all inner points.

    0 where every point lies on the line between its neighbours, 1 where points are as far off as a
    curve that never falls can be; 1 also before three points of any curve are known.
    """
    parts = [part for x, y in curves for part in _bends(x, y)]
    return max(float(np.mean(parts)), BEND_LEAST) if parts else 1.0


def _bends(x: FloatArray, y: FloatArray) -> Iterable[float]:
    """Yield for each inner point how far it is off its neighbours' line, of the most it can be.

    Yields
    ------
    float
        0 to 1.
    """
    for i in range(1, len(x) - 1):
        line = float(np.interp(x[i], x[[i - 1, i + 1]], y[[i - 1, i + 1]]))
        half_rise = abs(float(y[i + 1] - y[i - 1])) / 2.0
        if half_rise > 0.0:
            yield min(abs(line - float(y[i])) / half_rise, 1.0)


class _Guess(NamedTuple):
    """A latency not measured [s], and how far off it may be."""

    value_s: float
    error_ratio: float


def _between(share: float, left_s: float, right_s: float, bend: float) -> _Guess:
    """Return the latency at `share` of the way between two measured ones.

    A curve that never falls stays within half the rise of the middle of its chord; the bend learnt
    says how much of that is to be expected, and nothing is unknown at the ends.
    """
    value_s = left_s + share * (right_s - left_s)
    most = abs(right_s - left_s) / 2.0 / value_s
    return _Guess(value_s, bend * most * 4.0 * share * (1.0 - share))


def next_isl_tokens(
    lengths: Sequence[int], measured: Mapping[int, float], goal: Goal
) -> int | None:
    """Return the prompt length to measure next [tokens], None if TTFT is known well enough.

    Parameters
    ----------
    lengths
        Candidates [tokens], three or more.
    measured
        TTFT [s] by length.
    goal
        Targets and error.

    Notes
    -----
    First the ends and the middle. Below the target every length counts alike: all of them add to
    the mean time of a prompt, which is what the number of prefill replicas follows.
    """
    for isl in _frame(sorted(lengths)):
        if isl not in measured:
            return isl
    x = np.array(sorted(measured), dtype=np.float64)
    y = np.array([measured[int(isl)] for isl in x])
    bend = _bend([(x, y)])
    found = {isl: _inside(x, y, isl, bend) for isl in lengths if isl not in measured}
    worth = {isl: g.error_ratio * min(goal.ttft_s / g.value_s, 1.0) for isl, g in found.items()}
    return _most(worth, goal.error_ratio)


def next_place(grid: Sequence[Place], measured: Mapping[Place, float], goal: Goal) -> Place | None:
    """Return the decode point to measure next, None if ITL is known well enough.

    Parameters
    ----------
    grid
        Candidates.
    measured
        ITL [s] by place, all of the grid.
    goal
        Targets and error.

    Notes
    -----
    First the ends and the middle of the first, last and middle context. A context that was begun
    is measured at three concurrencies, as a surface needs. Then wherever the error may be largest,
    weighted by ``min(ITL / target, target / ITL)²``.
    """
    contexts = sorted({place.context_tokens for place in grid})
    begun = {place.context_tokens for place in measured}
    for context in (*_frame(contexts), *sorted(begun)):
        for n in _frame(sorted(p.concurrency for p in grid if p.context_tokens == context)):
            if (place := Place(n, context)) not in measured:
                return place
    rows = _rows(measured)
    along, across = _bend((r.concurrency, r.itl_s) for r in rows), _across(rows)
    worth: dict[Place, float] = {}
    for place in (place for place in grid if place not in measured):
        guess = _guess(rows, place, along, across, goal.itl_s)
        ratio = min(guess.value_s / goal.itl_s, goal.itl_s / guess.value_s)
        worth[place] = guess.error_ratio * max(ratio * ratio, NEARNESS_LEAST)
    return _most(worth, goal.error_ratio)


def _rows(measured: Mapping[Place, float]) -> list[DecodeRow]:
    """Return the measured rows, contexts ascending."""
    rows: list[DecodeRow] = []
    for context in sorted({place.context_tokens for place in measured}):
        n = np.array(sorted(p.concurrency for p in measured if p.context_tokens == context))
        itl_s = np.array([measured[Place(float(x), context)] for x in n])
        rows.append(DecodeRow.through(context, n, itl_s))
    return rows


def _across(rows: Sequence[DecodeRow]) -> float:
    """Return how much ITL bends over contexts: each inner row against those beside it."""
    curves: list[tuple[FloatArray, FloatArray]] = []
    for left, row, right in zip(rows, rows[1:], rows[2:], strict=False):
        # At the smallest batch contexts hardly differ: nothing to learn from.
        ends = [beside.at(row.concurrency[1:]) for beside in (left, right)]
        x = np.array([left.context_tokens, row.context_tokens, right.context_tokens])
        curves += [
            (x, np.array([a, y, b]))
            for a, y, b in zip(ends[0], row.itl_s[1:], ends[1], strict=True)
        ]
    return _bend(curves)


def _guess(
    rows: Sequence[DecodeRow], place: Place, along: float, across: float, itl_s: float
) -> _Guess:
    contexts = [row.context_tokens for row in rows]
    if place.context_tokens in contexts:
        row = rows[contexts.index(place.context_tokens)]
        return _inside(row.concurrency, row.itl_s, place.concurrency, along, itl_s)
    i = int(np.searchsorted(contexts, place.context_tokens))
    left, right = rows[i - 1], rows[i]
    share = (place.context_tokens - left.context_tokens) / (
        right.context_tokens - left.context_tokens
    )
    n = np.array([place.concurrency])
    return _between(share, float(left.at(n)[0]), float(right.at(n)[0]), across)


def _inside(
    x: FloatArray, y: FloatArray, at: float, bend: float, target_s: float | None = None
) -> _Guess:
    """Return the guess at a point inside a curve, x ascending."""
    i = int(np.searchsorted(x, at))
    left, right = float(y[i - 1]), float(y[i])
    if target_s is not None and min(left, right) <= target_s <= max(left, right):
        bend = max(bend, BEND_AT_TARGET)
    return _between(float((at - x[i - 1]) / (x[i] - x[i - 1])), left, right, bend)


def _frame(values: Sequence[Number]) -> list[Number]:
    """Return the first, the last and the middle value: what a curve needs at least."""
    if len(values) <= AXIS_POINTS_MIN:
        return list(values)
    return [values[0], values[-1], values[len(values) // 2]]


def _most(worth: Mapping[Candidate, float], least: float) -> Candidate | None:
    """Return the candidate that is worth most, the first of equals; None if none is worth it."""
    best = max(worth, key=lambda candidate: worth[candidate], default=None)
    return None if best is None or worth[best] <= least else best


def candidate_lengths(shortest: int, longest: int, count: int = 17) -> list[int]:
    """Return prompt lengths to choose from [tokens], denser where prompts are short.

    Examples
    --------
    >>> candidate_lengths(128, 8192, 7)
    [128, 256, 512, 1024, 2048, 4096, 8192]
    """
    return sorted({round(float(x)) for x in np.geomspace(shortest, longest, count)})


def candidate_places(
    contexts: Sequence[float], kv_capacity_tokens: int, max_sequences: int, count: int = 7
) -> list[Place]:
    """Return decode points to choose from: at each context evenly up to a full KV cache.

    Examples
    --------
    >>> [tuple(p) for p in candidate_places([1000.0], 9500, 64, 3)]
    [(1.0, 1000.0), (5.0, 1000.0), (9.0, 1000.0)]
    """
    return [
        Place(float(n), float(context))
        for context in contexts
        for most in [max(1, min(int(kv_capacity_tokens / context), max_sequences))]
        for n in sorted({round(float(x)) for x in np.linspace(1, most, count)})
    ]
