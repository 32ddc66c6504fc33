"""Monotone cubic interpolation, as coefficients. Pure.

Written out because importing `scipy.interpolate` takes longer than everything else a command does
before its first decision; a test holds it to SciPy's result.
"""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def pchip_coefficients(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return the cubics of the shape-preserving interpolant through three points or more.

    Parameters
    ----------
    x, y : FloatArray
        Points, shape (points,), `x` ascending without ties.

    Returns
    -------
    FloatArray
        Coefficients of `(t − x[i])ᵏ`, highest power first, shape (4, points − 1).

    Notes
    -----
    Between two points the curve stays between their values. Slopes: Fritsch and Butland (1984),
    SIAM J. Sci. Stat. Comput. 5(2); at the ends the three-point formula, limited (Moler 2004,
    Numerical Computing with MATLAB, 3.6).
    """
    width = np.diff(x)
    secant = np.diff(y) / width
    slope = np.empty_like(x)
    slope[1:-1] = _inner_slopes(width, secant)
    slope[0] = _end_slope(width[0], width[1], secant[0], secant[1])
    slope[-1] = _end_slope(width[-1], width[-2], secant[-1], secant[-2])
    bend = (slope[:-1] + slope[1:] - 2.0 * secant) / width
    square = (secant - slope[:-1]) / width - bend
    return np.array([bend / width, square, slope[:-1], y[:-1]])


def _inner_slopes(width: FloatArray, secant: FloatArray) -> FloatArray:
    """Weighted harmonic mean of the secants on both sides; flat where they differ in sign."""
    left, right = secant[:-1], secant[1:]
    turns = np.sign(left) * np.sign(right) <= 0.0
    weight_left = 2.0 * width[1:] + width[:-1]
    weight_right = width[1:] + 2.0 * width[:-1]
    total = weight_left + weight_right
    inverse = (
        weight_left / np.where(turns, 1.0, left) + weight_right / np.where(turns, 1.0, right)
    ) / total
    return np.where(turns, 0.0, 1.0 / np.where(turns, 1.0, inverse))


def _end_slope(near: float, far: float, secant: float, next_secant: float) -> float:
    """One-sided slope at an end, limited so that the curve keeps the shape of the points."""
    slope = ((2.0 * near + far) * secant - near * next_secant) / (near + far)
    if slope * secant <= 0.0:
        return 0.0
    if secant * next_secant < 0.0 and abs(slope) > 3.0 * abs(secant):
        return 3.0 * secant
    return slope
