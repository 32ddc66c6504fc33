"""A service's own history as traffic: intervals that were seen, and requests like them. Pure.

Prometheus holds counters and histograms, not requests: counts and mean lengths of the trace are
those of each interval, times follow the scrapes inside it, and what is finer is drawn.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray

from planner.errors import InputError
from planner.model import Histogram, Observation
from planner.simulation.traces import Trace, make_trace
from planner.spec.quantities import format_duration

FloatArray = NDArray[np.float64]

SPAN_MOST: Final = 1.5
"""An observation over more intervals than this bridges a gap: its mean is no interval's."""

GAPS_TOLD: Final = 4
"""Gaps that are told one by one."""

# How far the lengths of a bucket may lean to one of its ends before the buckets and the sum
# contradict each other.
_LEAN: Final = 0.02

NO_REQUEST = "--from-prometheus: no finished request in that window: give a longer one"


@dataclass(frozen=True, slots=True)
class Gap:
    """Intervals of which nothing is known: time of the first [s, Unix], and its length [s]."""

    start_s: float
    length_s: float

    def __str__(self) -> str:
        return f"{moment(self.start_s)} for {format_duration(self.length_s)}"


@dataclass(frozen=True, slots=True)
class Past:
    """What was seen of a service at `start_s` [s, Unix] and every `step_s` [s] after it.

    Each observation is of the step that ends there, None where that is not known. Before the
    first and after the last there is no history; None between them is a gap.
    """

    start_s: float
    step_s: float
    seen: tuple[Observation | None, ...]

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The gaps, oldest first."""
        found: list[Gap] = []
        end_s = self.start_s - self.step_s
        for is_gap, group in groupby(seen is None for seen in self.seen):
            length_s = sum(1 for _ in group) * self.step_s
            found += [Gap(end_s, length_s)] if is_gap else []
            end_s += length_s
        return tuple(found)

    @property
    def intervals(self) -> tuple[Observation, ...]:
        """The steps that were seen."""
        return tuple(seen for seen in self.seen if seen is not None)


def trusted(seen: Iterable[Observation | None], step_s: float) -> list[Observation | None]:
    """Leave out what covers more than its own step: the time after a gap, averaged over it."""
    return [None if one is None or one.span_s > SPAN_MOST * step_s + 1e-6 else one for one in seen]


def past_of(seen: Sequence[Observation | None], start_s: float, step_s: float) -> Past:
    """Return the history between the first and the last step that was seen.

    Parameters
    ----------
    seen
        One a step.
    start_s, step_s
        When the first one ends [s, Unix], and how long each is [s].

    Raises
    ------
    InputError
        If nothing was seen, or more is missing than is there.
    """
    known = [index for index, one in enumerate(seen) if one is not None]
    if not known:
        raise InputError("--from-prometheus: nothing was observed then: give a longer window")
    first, last = known[0], known[-1]
    past = Past(start_s + first * step_s, step_s, tuple(seen[first : last + 1]))
    missing = len(past.seen) - len(known)
    if missing > len(known):
        raise InputError(
            f"--from-prometheus: {missing} of {len(past.seen)} intervals are missing "
            f"({_told(past.gaps)}); legal: at most half; give a window without the gaps"
        )
    return past


def history_lines(past: Past, asked_s: float) -> list[str]:
    """Return what is missing of a window of `asked_s` [s], one line each."""
    lines = []
    had_s = len(past.seen) * past.step_s
    if had_s < asked_s - SPAN_MOST * past.step_s:
        lines.append(
            f"history of {format_duration(had_s)} in a window of {format_duration(asked_s)}: "
            f"it begins {moment(past.start_s - past.step_s)}"
        )
    if past.gaps:
        length = format_duration(sum(gap.length_s for gap in past.gaps))
        lines.append(f"gaps of {length} are left out, not taken as silence: {_told(past.gaps)}")
    return lines


def past_requests(past: Past, seed: int) -> Trace:
    """Return requests like those of the past, gaps cut out of the time.

    Notes
    -----
    An interval gets as many requests as arrived, spread over its scrapes as they were counted
    there and uniformly inside a scrape interval. Lengths have the shares of the interval's
    buckets and its means, in random order: prompts and outputs are not paired as they were.

    Raises
    ------
    InputError
        If no request was seen.
    """
    random = np.random.default_rng(seed)
    intervals, step_s = past.intervals, past.step_s
    prompts, outputs = _known(intervals, "prompts"), _known(intervals, "outputs")
    arrivals = np.array([seen.arrivals_rps * step_s for seen in intervals])
    # Fractions are carried over, so that the whole is as many as there were.
    counts = np.diff(np.floor(np.cumsum(arrivals) + 1e-6), prepend=0.0).astype(int)
    if not prompts or not outputs or not counts.any():
        raise InputError(NO_REQUEST)
    columns: list[tuple[FloatArray, ...]] = []
    for index in np.flatnonzero(counts).tolist():
        seen, count = intervals[index], int(counts[index])
        times = index * step_s + arrival_times(random, seen.arrival_bins[1], count, step_s)
        isl = np.maximum(np.rint(draw(random, prompts[index], count)), 1.0)
        osl = np.maximum(np.rint(draw(random, outputs[index], count)), 1.0)
        columns.append((times, isl, osl, np.floor(isl * (1.0 - seen.uncached_ratio))))
    times, isl, osl, cached = (np.concatenate(column) for column in zip(*columns, strict=True))
    return make_trace("history", times, isl, osl, cached, notes=trace_lines(past, len(isl)))


def trace_lines(past: Past, requests: int) -> tuple[str, str]:
    """Return how a trace was made of the past."""
    begin_s = past.start_s - past.step_s
    end_s = begin_s + len(past.seen) * past.step_s
    made = (
        f"Own history: {requests:,} requests of {len(past.intervals):,} intervals of "
        f"{format_duration(past.step_s)}, {moment(begin_s)} to {moment(end_s)}, "
        f"gaps left out: {len(past.gaps)}."
    )
    drawn = (
        "Counts and mean lengths are those of each interval; times follow its scrapes, lengths "
        "its histograms; what is finer is drawn."
    )
    return made, drawn


def arrival_times(
    random: np.random.Generator, bins: Sequence[float], count: int, step_s: float
) -> FloatArray:
    """Return `count` times in [0, step) [s], shared out over equal bins as these counted.

    Without bins, or where nothing was counted in them, they are uniform over the step.
    """
    shares = np.array(bins, dtype=np.float64)
    if shares.sum() <= 0.0:
        shares = np.ones(1)
    ends = np.floor(np.cumsum(shares) / shares.sum() * count + random.uniform())
    ends[-1] = count
    width_s = step_s / len(shares)
    starts = np.repeat(np.arange(len(shares)) * width_s, np.diff(ends, prepend=0.0).astype(int))
    return np.sort(starts + random.uniform(0.0, width_s, count))


def draw(random: np.random.Generator, lengths: Histogram, count: int) -> FloatArray:
    """Return `count` lengths [tokens] with the shares and the mean of a histogram, shuffled.

    Notes
    -----
    Lengths are the quantiles of a distribution that in each bucket is ``low + width · u ** g``, u
    uniform. Its mean is ``low + width / (g + 1)``, so that the one g that keeps the sum follows:
    ``θ = 1 / (g + 1) = (sum − Σ n · low) / Σ n · width``. A bucket without an upper end is as
    wide as the sum asks for.
    """
    entries = np.diff(np.array([0.0, *lengths.cumulative]))
    low = np.array([0.0, *lengths.upper_bounds[:-1]])
    width = _widths(lengths, entries, low)
    room = float(entries @ width)
    theta = (lengths.sum - float(entries @ low)) / room if room > 0.0 else 0.5
    theta = min(max(theta, _LEAN), 1.0 - _LEAN)
    rank = (np.arange(count) + random.uniform(size=count)) / count * lengths.count
    ends = np.cumsum(entries)
    place = np.minimum(np.searchsorted(ends, rank, side="right"), len(entries) - 1)
    u = np.clip((rank - (ends - entries)[place]) / np.maximum(entries[place], 1e-12), 0.0, 1.0)
    values = low[place] + width[place] * u ** (1.0 / theta - 1.0)
    # Only where buckets and sum contradict each other is there anything left to mend.
    mean = float(entries @ (low + width * theta)) / lengths.count
    return np.asarray(random.permutation(values * (lengths.sum / lengths.count / mean)))


def _widths(lengths: Histogram, entries: FloatArray, low: FloatArray) -> FloatArray:
    """Return the width of each bucket [tokens]."""
    high = np.array(lengths.upper_bounds)
    is_open = np.isinf(high)
    width = np.where(is_open, np.maximum(low, 1.0), high - low)
    above = float(entries @ is_open)
    if above > 0.0:
        finite = float((entries * ~is_open) @ width)
        left = 2.0 * (lengths.sum - float(entries @ low)) - finite
        width[is_open] = max(left / above, float(width[is_open][0]))
    return np.asarray(width)


def _known(intervals: Sequence[Observation], lengths: str) -> list[Histogram]:
    """Return a histogram for every interval, the last one seen where it has none of its own."""
    own: list[Histogram | None] = [getattr(seen, lengths) for seen in intervals]
    usable = [one if one is not None and one.count > 0.0 else None for one in own]
    last = next((one for one in usable if one is not None), None)
    found: list[Histogram] = []
    for one in usable:
        last = one or last
        found += [last] if last is not None else []
    return found


def _told(gaps: Sequence[Gap]) -> str:
    longest = sorted(gaps, key=lambda gap: -gap.length_s)[:GAPS_TOLD]
    told = ", ".join(str(gap) for gap in sorted(longest, key=lambda gap: gap.start_s))
    more = len(gaps) - len(longest)
    return f"{told} and {more} more" if more else told


def moment(at_s: float) -> str:
    """Return a time [s, Unix] as people write it.

    Examples
    --------
    >>> moment(0.0)
    '1970-01-01T00:00Z'
    """
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%MZ")
