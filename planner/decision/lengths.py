"""Length distributions out of histogram buckets. Pure."""

import numpy as np
from numpy.typing import NDArray

from planner.model import Histogram, LengthMix

# Points that stand for one bucket; three keep the curvature of prefill time over length.
POINTS_PER_BUCKET = 3
# Where in its bucket each lies, as a share of the logarithm of the bucket's range.
STEPS = (np.arange(POINTS_PER_BUCKET) + 0.5) / POINTS_PER_BUCKET


def length_mix(prompts: Histogram, outputs: Histogram) -> LengthMix:
    """Return prompt lengths as weighted points and output lengths as two moments.

    Parameters
    ----------
    prompts, outputs
        Histograms of lengths [tokens] with at least one entry each.
    """
    isl, weights = points(prompts)
    osl, shares = points(outputs)
    mean = float(np.dot(osl, shares))
    cv2 = float(np.dot(shares, (osl - mean) ** 2)) / mean**2
    return LengthMix(tuple(isl.tolist()), tuple(weights.tolist()), mean, cv2)


def points(histogram: Histogram) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points that stand for a histogram and their weights, both shape (p,).

    Notes
    -----
    Entries of a bucket spread evenly over the logarithm of its range; all points are then
    scaled by one factor so that their mean is sum ÷ count, which is exact. A bucket without an
    upper end gets what of the sum the others leave over.

    Examples
    --------
    >>> values, shares = points(Histogram((100.0, 400.0, math.inf), (0.0, 8.0, 8.0), 1600.0))
    >>> round(float(values @ shares), 6), values.size
    (200.0, 3)
    """
    counts = np.diff(histogram.cumulative, prepend=0.0)
    upper = np.array(histogram.upper_bounds)
    lower = np.concatenate(([0.0], upper[:-1]))
    filled = counts > 0.0
    counts, lower, upper = counts[filled], lower[filled], upper[filled]
    ended = np.isfinite(upper)
    start = np.maximum(lower, np.maximum(upper / 4.0, 0.5))[ended, None]
    spread = start * (upper[ended, None] / start) ** STEPS
    values, weights = spread.ravel(), np.repeat(counts[ended] / POINTS_PER_BUCKET, STEPS.size)
    if not ended.all():
        rest = (histogram.sum - float(counts[ended] @ spread.mean(axis=1))) / counts[-1]
        values = np.append(values, max(rest, lower[-1], 1.0))
        weights = np.append(weights, counts[-1])
    weights /= histogram.count
    mean = histogram.sum / histogram.count
    return values * (mean / float(values @ weights)), weights
