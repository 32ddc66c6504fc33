"""How bursty arrivals are within an interval, as a function of time scale. Pure."""

from collections.abc import Sequence
from itertools import combinations
from operator import add
from statistics import fmean, median

import numpy as np

from planner.sizing.queueing import Floats

# Scales [s] at which dispersion is stated.
SCALES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
# Intervals below which counts say less about burstiness than the Poisson prior.
PRIOR_INTERVALS = 7.0
# Median of the square of a standard normal: what the median of squares is divided by to give
# their mean.
MEDIAN_SQUARE = 0.4549
# Standard deviations beyond which a difference is a step of the load.
FARTHEST = 3.0
# Requests below which a pair of bins says nothing: the squares of one or two requests are those of
# no normal.
MIN_REQUESTS = 10.0
# Bursts of arrivals over those of what is counted: engines count what they have finished, and
# service has smoothed it by then.
SMOOTHED = 1.5


def dispersion_curve(intervals: Sequence[tuple[float, tuple[float, ...]]]) -> Floats:
    """Return the index of dispersion for counts at `SCALES_S`, shape (scales,), each ≥ 1.

    Parameters
    ----------
    intervals
        (bin width [s], requests by bin) of past intervals, all of nearly one width.

    Notes
    -----
    Of two bins of one interval ``(a − b)² / (a + b)`` has the index of dispersion as its mean. Only
    pairs *inside* an interval count: how the load moves from interval to interval is the forecast's
    margin, and would be paid for twice. Squares beyond nine times the mean that their median tells
    are left out: a step of the load, which falls into few pairs, is no burstiness. Shrunk to 1
    (Poisson) as if 7 Poisson intervals had been seen too. The same over bins twice as wide:
    bursts that last are seen there. Below the bin width the index falls to 1 in proportion to the
    scale, as it does where the rate moves more slowly than a bin, and above the widest bins it
    stays: both are stated assumptions, since nothing is seen there.

    Examples
    --------
    >>> calm = dispersion_curve([(15.0, (100.0, 100.0, 100.0, 100.0))] * 40)
    >>> float(calm.max())
    1.0
    """
    scales = np.array(SCALES_S)
    if not intervals:
        return np.ones(scales.size)
    counts = [bins for _, bins in intervals]
    width_s = max(median(width_s for width_s, _ in intervals), 2.0 * SCALES_S[0])
    index = _index(counts)
    # Few are wider bins, so that they say more only where they say burstier.
    wide = max(_index([_two_by_two(bins) for bins in counts]), index)
    known_s = [SCALES_S[0], width_s, 2.0 * width_s]
    return np.asarray(np.interp(scales, known_s, [1.0, index, wide]))


def _index(intervals: Sequence[tuple[float, ...]]) -> float:
    """Return the index of dispersion of counts at the width of their bins, ≥ 1."""
    squares = [
        (a - b) ** 2 / (a + b)
        for counts in intervals
        for a, b in combinations(counts, 2)
        if a + b >= MIN_REQUESTS
    ]
    if not squares:
        return 1.0
    most = FARTHEST**2 * max(median(squares) / MEDIAN_SQUARE, 1.0)
    excess = fmean(square for square in squares if square <= most) - 1.0
    trust = len(intervals) / (len(intervals) + PRIOR_INTERVALS)
    return 1.0 + SMOOTHED * max(excess, 0.0) * trust


def _two_by_two(counts: tuple[float, ...]) -> tuple[float, ...]:
    """Return the counts of bins twice as wide; an odd one at the end is left out."""
    return tuple(map(add, counts[:-1:2], counts[1::2]))
