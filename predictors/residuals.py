"""What past forecasts missed, on a common scale, and the quantiles of it. Pure.

The prior keeps a few measured errors from ruling a margin.
"""

import math
from functools import cache
from statistics import NormalDist

import numpy as np

from predictors.base import FloatArray

# A prior that stays: this many normal points beside the measured errors, so that the largest of a
# few errors does not rule a high quantile. Its relative spread before there is data: 0.2, the
# middle of the one-minute errors of public traces.
PRIOR_POINTS = 24
_PRIOR_SPREAD = 0.2


@cache
def _normal(width: int) -> tuple[FloatArray, float]:
    """Return the prior points of the maximum of `width` standard normals, and their median.

    The maximum is below x with probability Φ(x)^width if its members are independent.
    """
    normal = NormalDist()
    levels = [(point + 0.5) / PRIOR_POINTS for point in range(PRIOR_POINTS)]
    points = np.array([normal.inv_cdf(level ** (1 / width)) for level in levels])
    return points, normal.inv_cdf(0.5 ** (1 / width))


def normal_points() -> FloatArray:
    """Return the standard normal's prior points, ascending, shape (24,)."""
    return _normal(1)[0]


def mean_load(realised: FloatArray) -> float:
    """Return the load an average request saw, Σx² / Σx over the window; zero if all is silent.

    Silence has no requests and so no say: after a night at zero the first load is its own scale.
    Taken relative to the largest value, or squares of huge loads would overflow.

    Examples
    --------
    >>> float(mean_load(np.array([0.0, 0.0, 8.0, np.nan])))
    8.0
    """
    peak = np.fmax.reduce(realised)
    if not peak > 0:
        return 0.0
    relative = np.where(np.isnan(realised), 0.0, realised / peak)
    return float(peak * (relative @ relative) / relative.sum())


def scaled_residuals(issued: FloatArray, realised: FloatArray, first: int, last: int) -> FloatArray:
    """Return the scaled errors of the maximum over a window of steps.

    An interval without an observation is left out of the maximum on both sides.

    Parameters
    ----------
    issued : FloatArray
        Forecasts, oldest first, shape (window, max_steps); NaN where nothing is learnt.
    realised : FloatArray
        Values of the same intervals, shape (window,); NaN where nothing was observed.
    first, last : int
        Steps ahead, 1 ≤ first ≤ last ≤ max_steps.

    Returns
    -------
    FloatArray
        (highest realised - highest predicted) / max(highest predicted, mean load), in order of
        time, shape (≤ window - last,).
    """
    errors, _ = residuals_by_level(issued, realised, first, last)
    return errors


def residuals_by_level(
    issued: FloatArray, realised: FloatArray, first: int, last: int
) -> tuple[FloatArray, FloatArray]:
    """Return what `scaled_residuals` does and, in the same order, the highest predicted."""
    origins = realised.size - last
    highest = predicted = np.full(origins, np.nan)
    for step in range(first, last + 1):
        seen = realised[step : step + origins]
        highest = np.fmax(highest, seen)
        predicted = np.fmax(predicted, np.where(np.isnan(seen), np.nan, issued[:origins, step - 1]))
    scale = np.maximum(predicted, mean_load(realised))
    known = scale >= 0
    # Silence foretold and seen: no error, on any scale.
    scale[scale == 0] = 1.0
    errors: FloatArray = (highest[known] - predicted[known]) / scale[known]
    return errors, predicted[known]


def with_prior(measured: FloatArray) -> FloatArray:
    """Add the points of the prior; sorted."""
    return np.sort(np.concatenate((measured, prior_points(measured))))


def prior_points(measured: FloatArray, width: int = 1) -> FloatArray:
    """Return the normal points, centre and spread shrunk towards the measured errors, shape (24,).

    Centre is the median and spread √(π/2) times the mean absolute deviation, the standard deviation
    if errors are normal: one burst in the window must not widen the whole prior. Spreads are shrunk
    as logarithms, since loads err by 0.5 % or by 50 %; n equal errors prove no less than the prior
    spread / (n + 1).

    Parameters
    ----------
    measured : FloatArray
        Scaled errors.
    width : int
        Intervals whose maximum they are of: before there is data, the maximum of so many is
        expected above the mean by what independent errors make it.

    Returns
    -------
    FloatArray
        Ascending points.
    """
    samples = measured.size
    trust = samples / (samples + PRIOR_POINTS)
    centre = deviation = 0.0
    if samples:
        centre = np.sort(measured)[samples // 2]
        deviation = math.sqrt(math.pi / 2) * np.abs(measured - centre).mean()
    deviation = max(deviation, _PRIOR_SPREAD / (samples + 1))
    spread = deviation**trust * _PRIOR_SPREAD ** (1 - trust)
    normal, median = _normal(width)
    points: FloatArray = trust * centre + spread * (normal - trust * median)
    return points


def conformal_quantile(ascending: FloatArray, quantile: float) -> float:
    """Return the conformal quantile: rank (n + 1) · quantile, interpolated, within the sample.

    Examples
    --------
    >>> errors = np.array([1.0, 2.0, 3.0])
    >>> conformal_quantile(errors, 0.5), conformal_quantile(errors, 0.99)
    (2.0, 3.0)
    """
    rank = min(max((ascending.size + 1) * quantile - 1, 0.0), ascending.size - 1.0)
    below = int(rank)
    above = min(below + 1, ascending.size - 1)
    part = rank - below
    return float((1 - part) * ascending[below] + part * ascending[above])
