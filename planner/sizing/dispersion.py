"""How bursty arrivals are within an interval, as a function of time scale. Pure."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

import numpy as np

from planner.sizing.queueing import Floats

# Scales [s] at which dispersion is stated.
SCALES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
# Pairs of bins below which counts say less about burstiness than the Poisson prior.
PRIOR_PAIRS = 20.0
# Median of the square of a standard normal: what the median of squares is divided by to give
# their mean.
MEDIAN_SQUARE = 0.4549
# Requests below which a pair of bins says nothing: the median of squares of one or two requests
# is that of no normal, and Poisson would read as 2.2.
MIN_REQUESTS = 10.0


def dispersion_curve(intervals: Sequence[tuple[float, tuple[float, ...]]]) -> Floats:
    """Return the index of dispersion for counts at `SCALES_S`, shape (scales,), each ≥ 1.

    Parameters
    ----------
    intervals
        (bin width [s], requests by bin) of past intervals, all of nearly one width.

    Notes
    -----
    Of two neighbouring bins of one interval ``(a − b)² / (a + b)`` has the index of dispersion as
    its mean. Only pairs *inside* an interval count: how the load moves from interval to interval
    is the forecast's margin, and would be paid for twice. Their median is taken, so that a step
    of the load, which falls into one pair of several, is no burstiness. Shrunk to 1 (Poisson) as
    if 20 Poisson pairs had been seen too. Below the bin width the index falls to 1 in proportion
    to the scale, as it does where the rate moves more slowly than a bin, and above it stays: both
    are stated assumptions, since nothing is seen there.

    Examples
    --------
    >>> calm = dispersion_curve([(15.0, (100.0, 100.0, 100.0, 100.0))] * 40)
    >>> float(calm.max())
    1.0
    """
    scales = np.array(SCALES_S)
    squares = [
        (a - b) ** 2 / (a + b)
        for _, counts in intervals
        for a, b in pairwise(counts)
        if a + b >= MIN_REQUESTS
    ]
    if not squares:
        return np.ones(scales.size)
    width_s = median(width for width, _ in intervals)
    trust = len(squares) / (len(squares) + PRIOR_PAIRS)
    index = max(1.0 + (median(squares) / MEDIAN_SQUARE - 1.0) * trust, 1.0)
    known_s = [SCALES_S[0], max(width_s, 2.0 * SCALES_S[0])]
    return np.asarray(np.interp(scales, known_s, [1.0, index]))
