"""Comparing policies at equal attainment, and how sure one may be of it. Pure.

A policy is a sweep over its one knob; its price at an attainment is read off the frontier of that
sweep. Uncertainty comes from resampling stretches of traffic, not requests: failures come in
episodes, and requests of one episode are no independent witnesses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from planner.simulation.results import PlantResults

Floats = NDArray[np.float64]

WINDOW_S: Final = 300.0
BLOCK_S: Final = 1800.0
"""A block is at least as long as an episode of failures: lag, interval and what drains after."""

DRAWS: Final = 400
INTERVAL: Final = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Tally:
    """Requests, those that attained both targets, and GPU-seconds, by window of 300 s."""

    requests: tuple[float, ...]
    attained: tuple[float, ...]
    gpu_s: tuple[float, ...]


def tally(
    results: PlantResults, ttft_s: float, itl_s: float, from_s: float, until_s: float
) -> Tally:
    """Return the run from `from_s` on by window of arrival; the last holds the drain [s]."""
    count = max(int((until_s - from_s) // WINDOW_S), 1)
    attained = (results.status == 1) & (results.ttft_s <= ttft_s) & (results.itl_s <= itl_s)
    counted = results.arrival_s >= from_s
    window = ((results.arrival_s[counted] - from_s) // WINDOW_S).astype(np.int64)
    window = np.minimum(window, count - 1)
    starts_s = from_s + WINDOW_S * np.arange(count)
    ends_s = np.append(starts_s[1:], np.inf)
    gpu_s = np.zeros(count)
    for life in results.lifetimes:
        inside_s = np.minimum(life.released_s, ends_s) - np.maximum(life.ordered_s, starts_s)
        gpu_s += results.gpus_per_replica[life.pool] * np.maximum(inside_s, 0.0)
    return Tally(
        tuple(np.bincount(window, minlength=count).tolist()),
        tuple(np.bincount(window, weights=attained[counted], minlength=count).tolist()),
        tuple(gpu_s.tolist()),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """One policy on one trace: float64[knob, seed, window, 3] of requests, attained, GPU-s."""

    knobs: tuple[float, ...]
    counts: Floats

    @classmethod
    def of(cls, runs: Sequence[tuple[float, Sequence[Tally]]]) -> "Sweep":
        """Return the sweep of (knob, tallies by seed), each knob with the same seeds."""
        rows = [
            [[t.requests, t.attained, t.gpu_s] for t in tallies] for _, tallies in sorted_by(runs)
        ]
        counts = np.array(rows, dtype=float).transpose(0, 1, 3, 2)
        return cls(tuple(knob for knob, _ in sorted_by(runs)), counts)

    def points(self, windows: NDArray[np.int64] | None = None) -> tuple[Floats, Floats]:
        """Return attainment and GPU-hours a run of every knob, over all or some `windows`."""
        counts = self.counts if windows is None else self.counts[:, :, windows]
        requests, attained, gpu_s = counts.sum(axis=(1, 2)).T
        return attained / np.maximum(requests, 1.0), gpu_s / 3600.0 / counts.shape[1]


def sorted_by(
    runs: Sequence[tuple[float, Sequence[Tally]]],
) -> list[tuple[float, Sequence[Tally]]]:
    """Return the runs in the order of their knob."""
    return sorted(runs, key=lambda run: run[0])


@dataclass(frozen=True, slots=True)
class Reading:
    """GPU-hours at an attainment.

    `is_bound`: even the boldest knob attains more, so that the price is at most this. None: no
    knob attains it.
    """

    gpu_hours: float | None
    is_bound: bool = False


def frontier(attainment: Floats, gpu_hours: Floats) -> NDArray[np.int64]:
    """Return the runs that no cheaper one betters, cheapest first, as indices.

    Examples
    --------
    >>> frontier(np.array([0.9, 0.8, 0.99]), np.array([10.0, 12.0, 15.0])).tolist()
    [0, 2]
    """
    order = np.lexsort((-attainment, gpu_hours))
    best = np.maximum.accumulate(attainment[order])
    is_better = np.append(True, best[1:] > best[:-1])
    return np.asarray(order[is_better])


def read_at(attainment: Floats, gpu_hours: Floats, asked: float) -> Reading:
    """Return the GPU-hours at which a sweep attains `asked`, linear between its best runs.

    Attainment bends down over GPU-hours, so that a line between two runs asks for too many, never
    for too few.

    Examples
    --------
    >>> read_at(np.array([0.90, 0.98, 1.0]), np.array([10.0, 18.0, 30.0]), 0.99)
    Reading(gpu_hours=24.0, is_bound=False)
    """
    best = frontier(attainment, gpu_hours)
    reached, hours = attainment[best], gpu_hours[best]
    above = int(np.searchsorted(reached, asked))
    if above == len(reached):
        return Reading(None)
    if above == 0:
        return Reading(float(hours[0]), is_bound=bool(reached[0] > asked))
    share = (asked - reached[above - 1]) / (reached[above] - reached[above - 1])
    return Reading(float(hours[above - 1] + share * (hours[above] - hours[above - 1])))


def resampled(windows: int, draws: int = DRAWS, seed: int = 0) -> NDArray[np.int64]:
    """Return windows of `draws` resampled traces, shape (draws, windows).

    Notes
    -----
    Circular block bootstrap (Politis & Romano 1992) with blocks of 1,800 s; the same draws for
    every policy, so that differences between policies are paired.
    """
    block = max(int(BLOCK_S // WINDOW_S), 1)
    rng = np.random.default_rng([seed, windows])
    starts = rng.integers(windows, size=(draws, -(-windows // block), 1))
    return ((starts + np.arange(block)) % windows).reshape(draws, -1)[:, :windows]


def prices(sweep: Sweep, asked: float, draws: NDArray[np.int64]) -> Floats:
    """Return the GPU-hours at an attainment in every resampled trace; nan where not attained."""
    read = (read_at(*sweep.points(windows), asked).gpu_hours for windows in draws)
    return np.array([np.nan if hours is None else hours for hours in read])


def interval(values: Floats) -> tuple[float, float] | None:
    """Return the middle 95 %; None if more than that share of the values is unknown."""
    known = values[np.isfinite(values)]
    if known.size < 0.95 * values.size or not known.size:
        return None
    low, high = np.percentile(known, INTERVAL)
    return float(low), float(high)
