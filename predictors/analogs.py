"""The predictive distribution at one level of load: what was missed where the forecast was alike.

A load that moves between a low and a high level misses upwards from the low one and downwards from
the high one. Errors of all levels taken together would expect the jump from the top once more.
Pure.
"""

import math

import numpy as np

from predictors.base import FloatArray
from predictors.residuals import normal_points

# Forecasts that differ by so much, as a logarithm, have errors in common.
_ALIKE = 0.1
# What a point of the prior weighs beside a measured error of the very same level.
_PRIOR_WEIGHT = 0.25
# Prior spread, as a share of the forecast, before there is data.
_SPREAD = 0.2


def analogs(
    measured: FloatArray, levels: FloatArray, level: float
) -> tuple[FloatArray, FloatArray]:
    """Return scaled errors to expect at a level, and their weights; both shape (n + 24,).

    Parameters
    ----------
    measured : FloatArray
        Scaled errors, shape (n,).
    levels : FloatArray
        What was predicted when they were made, shape (n,).
    level : float
        What is predicted now.

    Notes
    -----
    Errors weigh ``exp(−(ln level_i − ln level)² / (2 · 0.1²))``: a kernel estimate of the
    distribution given the level (Nadaraya, 1964; Watson, 1964). The normal prior keeps the few of
    a new level from ruling it: its centre and spread are shrunk to theirs by the effective number.
    """
    weights = np.exp(-0.5 * (_logarithms(levels, level) / _ALIKE) ** 2)
    alike = float(weights.sum())
    centre = deviation = 0.0
    if alike > 0.0:
        centre = weighted_quantiles(measured, weights, np.array([0.5]))[0]
        deviation = math.sqrt(math.pi / 2) * float(np.abs(measured - centre) @ weights) / alike
    prior = normal_points()
    trust = alike / (alike + prior.size)
    deviation = max(deviation, _SPREAD / (measured.size + 1))
    spread = deviation**trust * _SPREAD ** (1 - trust)
    prior_weight = _PRIOR_WEIGHT if measured.size else 1.0
    return (
        np.concatenate((measured, trust * centre + spread * prior)),
        np.concatenate((weights, np.full(prior.size, prior_weight))),
    )


def _logarithms(levels: FloatArray, level: float) -> FloatArray:
    tiny = np.finfo(float).tiny
    found: FloatArray = np.log(np.maximum(levels, tiny)) - math.log(max(level, tiny))
    return found


def weighted_quantiles(values: FloatArray, weights: FloatArray, levels: FloatArray) -> FloatArray:
    """Return quantiles of weighted points, interpolated between the middles of their weights.

    Examples
    --------
    >>> x, w = np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 2.0])
    >>> weighted_quantiles(x, w, np.array([0.0, 0.5, 1.0])).tolist()
    [1.0, 2.0, 3.0]
    """
    order = np.argsort(values)
    ascending, ordered = values[order], weights[order]
    middles = (np.cumsum(ordered) - 0.5 * ordered) / ordered.sum()
    found: FloatArray = np.interp(levels, middles, ascending)
    return found
