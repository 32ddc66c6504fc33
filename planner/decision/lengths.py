"""Length distributions out of histogram buckets. Pure."""

import math

import numpy as np
from numpy.typing import NDArray

from planner.model import Histogram, LengthMix

# Points that stand for one bucket; three keep the curvature of prefill time over length.
POINTS_PER_BUCKET = 3


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
    bounds = [0.0, *histogram.upper_bounds]
    counts = np.diff([0.0, *histogram.cumulative])
    mean = histogram.sum / histogram.count
    values: list[float] = []
    shares: list[float] = []
    inside = 0.0
    for low, high, count in zip(bounds, bounds[1:], counts, strict=False):
        if count <= 0.0:
            continue
        if math.isinf(high):
            values.append(max((histogram.sum - inside) / count, low, 1.0))
            shares.append(count)
            continue
        start = max(low, high / 4.0, 0.5)
        steps = (np.arange(POINTS_PER_BUCKET) + 0.5) / POINTS_PER_BUCKET
        spread = start * (high / start) ** steps
        values.extend(spread.tolist())
        shares.extend([count / POINTS_PER_BUCKET] * POINTS_PER_BUCKET)
        inside += count * float(spread.mean())
    points_, weights = np.array(values), np.array(shares) / histogram.count
    return points_ * (mean / float(np.dot(points_, weights))), weights
