"""Fewer points for the same picture, so that a day's report stays small. Pure."""

from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

POINTS_MAX: Final = 1500


def thinned(x: Floats, y: Floats, points: int = POINTS_MAX) -> tuple[Floats, Floats]:
    """Return at most `points` points that keep every bucket's lowest and highest value.

    A spike that lasts one point is still there, which an average or every n-th point would lose.
    """
    if x.size <= points:
        return x, y
    edges = np.linspace(0, x.size, points // 2 + 1).astype(np.int64)
    kept: set[int] = set()
    for start, end in pairwise(edges.tolist()):
        bucket = y[start:end]
        if np.isfinite(bucket).any():
            kept |= {start + int(np.nanargmin(bucket)), start + int(np.nanargmax(bucket))}
        else:
            kept.add(start)  # the gap stays a gap
    index = np.array(sorted(kept))
    return x[index], y[index]


def corners(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return the points at which a step line changes, and its last one.

    Examples
    --------
    >>> x, y = corners(np.arange(5.0), np.array([2.0, 2.0, 3.0, 3.0, 3.0]))
    >>> x.tolist(), y.tolist()
    ([0.0, 2.0, 4.0], [2.0, 3.0, 3.0])
    """
    if x.size == 0:
        return x, y
    same = (y[1:] == y[:-1]) | (np.isnan(y[1:]) & np.isnan(y[:-1]))
    kept = np.concatenate([[True], ~same])
    kept[-1] = True
    return x[kept], y[kept]
