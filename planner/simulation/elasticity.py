"""How closely a fleet follows what is needed, how long it falls short, how long queues grow. Pure.

Need is what the zero-lag oracle orders minute by minute, supply the replicas that serve, each pool
by itself: a mean over pools would hide an imbalance between them. Source of the six measures:
Herbst et al., ACM TOMPECS 3(4), 2018, elasticity; Bauer et al., IEEE TPDS 30(4), 2019.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from planner.simulation.results import PlantResults
from planner.simulation.traces import MINUTE_S

Floats = NDArray[np.float64]

Steps = Sequence[Sequence[float]]
"""(time [s], replicas from then on); the last entry marks the end."""

BACK_RATIO: Final = 0.95
"""An interval of which so many requests attain both targets is back to normal."""


@dataclass(frozen=True, slots=True)
class Elasticity:
    """How one pool follows its need.

    Attributes
    ----------
    theta_u_pct, theta_o_pct
        Replicas missing, and replicas too many, over those needed; means over time [%].
    tau_u_pct, tau_o_pct
        Time with too few, and with too many [%].
    instability_pct
        Minutes over which supply and need do not move the same way [%].
    jitter_per_h
        Minutes in which supply changes less those in which need does, an hour.
    """

    theta_u_pct: float
    theta_o_pct: float
    tau_u_pct: float
    tau_o_pct: float
    instability_pct: float
    jitter_per_h: float


def supply(results: PlantResults, pool: str, from_s: float, until_s: float) -> list[list[float]]:
    """Return the serving replicas of a pool over a window [s] as `Steps`, as JSON has them.

    A replica serves from its readiness to its release: one that drains is still counted.
    """
    lives = [
        (life.ready_s, life.released_s)
        for life in results.lifetimes
        if life.pool == pool and life.ready_s is not None
    ]
    ready_s, released_s = np.array(sorted(lives)).reshape(-1, 2).T
    moments = np.concatenate([ready_s, released_s])
    inside = moments[(moments > from_s) & (moments < until_s)]
    at_s = np.concatenate([[from_s], np.unique(inside), [until_s]])
    gone = np.searchsorted(np.sort(released_s), at_s, side="right")
    serving = np.searchsorted(ready_s, at_s, side="right") - gone
    return [[float(t), float(n)] for t, n in zip(at_s, serving, strict=True)]


def elasticity(need: Sequence[int], supplied: Steps) -> Elasticity:
    """Return how a supply follows its need.

    Parameters
    ----------
    need
        Replicas needed from the start of each minute on, at least 1; the last one stays.
    supplied
        Replicas that serve.

    Examples
    --------
    One minute needs 2, the next one 4; the third replica serves from its half on:

    >>> found = elasticity((2, 4), [(0.0, 2), (90.0, 3), (120.0, 3)])
    >>> found.theta_u_pct, found.tau_u_pct, found.theta_o_pct
    (18.75, 50.0, 0.0)
    """
    from_s, until_s = supplied[0][0], supplied[-1][0]
    minutes = MINUTE_S * np.arange(
        math.ceil(from_s / MINUTE_S), math.ceil(until_s / MINUTE_S), dtype=np.float64
    )
    edges = np.unique(np.concatenate([[from_s], [t for t, _ in supplied], minutes]))
    at_s, lasts = edges[:-1], np.diff(edges) / (until_s - from_s) * 100.0
    needed, have = _need_at(need, at_s), _steps_at(supplied, at_s)
    moved = np.sign(np.diff(_steps_at(supplied, minutes)))
    asked = np.sign(np.diff(_need_at(need, minutes)))
    return Elasticity(
        theta_u_pct=float(lasts @ (np.maximum(needed - have, 0.0) / needed)),
        theta_o_pct=float(lasts @ (np.maximum(have - needed, 0.0) / needed)),
        tau_u_pct=float(lasts @ (have < needed)),
        tau_o_pct=float(lasts @ (have > needed)),
        instability_pct=float(100.0 * np.mean(moved != asked)) if moved.size else 0.0,
        jitter_per_h=float(np.count_nonzero(moved) - np.count_nonzero(asked))
        / ((until_s - from_s) / 3600.0),
    )


def _need_at(need: Sequence[int], at_s: Floats) -> Floats:
    minute = np.minimum((at_s // MINUTE_S).astype(np.int64), len(need) - 1)
    return np.asarray(need, dtype=np.float64)[minute]


def _steps_at(steps: Steps, at_s: Floats) -> Floats:
    times_s, values = np.array(steps, dtype=np.float64).T
    return np.asarray(values[np.searchsorted(times_s, at_s, side="right") - 1])


def speed_up(own: Elasticity, baseline: Elasticity) -> float | None:
    """Return how much better than a baseline: the geometric mean of the four ratios.

    None where one of the four is zero on either side: no ratio says how much better that is.

    Examples
    --------
    >>> speed_up(Elasticity(1.0, 20.0, 5.0, 60.0, 0.0, 0.0), Elasticity(4, 80, 20, 60, 0, 0))
    2.8284271247461903
    """
    ours, theirs = (
        (e.theta_u_pct, e.theta_o_pct, e.tau_u_pct, e.tau_o_pct) for e in (own, baseline)
    )
    if min(*ours, *theirs) <= 0.0:
        return None
    return math.prod(b / a for a, b in zip(ours, theirs, strict=True)) ** 0.25


@dataclass(frozen=True, slots=True)
class Lapses:
    """How often a run fell below `BACK_RATIO`, and the longest time until it was back [s]."""

    count: int
    longest_s: float


def lapses(
    results: PlantResults, ttft_s: float, itl_s: float, from_s: float, interval_s: float
) -> Lapses:
    """Return the times in which too few requests attained both targets [s], by interval [s].

    A step of the load that outruns a fleet begins one; the first interval back ends it. Intervals
    without a request are passed over.
    """
    counted = results.arrival_s >= from_s
    attained = (results.status == 1) & (results.ttft_s <= ttft_s) & (results.itl_s <= itl_s)
    index = ((results.arrival_s[counted] - from_s) // interval_s).astype(np.int64)
    requests = np.bincount(index)
    passed = np.bincount(index, weights=attained[counted])
    seen = np.flatnonzero(requests)
    is_below = passed[seen] < BACK_RATIO * requests[seen]
    begins = np.flatnonzero(np.diff(is_below, prepend=False) & is_below)
    ends = np.flatnonzero(np.diff(is_below, append=False) & is_below)
    # The next interval seen is the first one back; at the end of the run it is the one after.
    back = np.append(seen, seen[-1] + 1 if seen.size else 0)
    lasted = (back[ends + 1] - seen[begins]) * interval_s
    return Lapses(len(begins), float(lasted.max(initial=0.0)))


def peak_in_prefill(results: PlantResults, from_s: float) -> int:
    """Return the most requests inside prefill at once, waiting or at work, from `from_s` [s] on."""
    taken = results.status != 2
    arrival_s = np.sort(results.arrival_s[taken])
    left_s = np.sort(np.nan_to_num(results.prefilled_s[taken], nan=np.inf))
    at_s = arrival_s[arrival_s >= from_s]
    inside = np.searchsorted(arrival_s, at_s, "right") - np.searchsorted(left_s, at_s, "right")
    return int(inside.max(initial=0))
