"""Residuals bent so that each quantile covers, of late, the share it promises. Pure.

A quantile of old errors is honest only while errors stay alike: after a burst, a change of regime
or on the far side of a daily wave it covers too much or too little for hours.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from predictors.base import FloatArray
from predictors.residuals import prior_points

# How much one miss or hit moves a level: 1 / 0.02 = 50 intervals to change it for good. Chosen on
# random regimes and the first seven of fourteen days: 0.01 leaves half as much again of the miss in
# coverage, 0.03 swings, since a window is judged only after its last interval.
_STEP = 0.02

# Levels that are adapted, the others lie in between; folding 240 errors takes 12 µs for each.
_LEVELS = np.array([0.25, 0.5, 0.65, 0.75, 0.9, 0.95, 0.99])
_LEVEL_LOG_ODDS = np.log(_LEVELS / (1 - _LEVELS))

# A level moves no further than this in log-odds, a factor of 20 in odds: 0.9 up to 0.994.
_FARTHEST = 3.0

# Log-odds no quantile reaches: beyond the outermost levels all move as these do.
_BEYOND = 50.0

# Decimals of a scaled error that count: what rounding tells apart is a tie.
_DECIMALS = 9


def adapted(measured: FloatArray, first: int, last: int) -> FloatArray:
    """Return the points of `with_prior`, moved to where they would have covered of late.

    Parameters
    ----------
    measured : FloatArray
        Scaled errors of the maximum over the window, in order of time.
    first, last : int
        The window [steps ahead]; an error is known `last` intervals after its forecast.

    Returns
    -------
    FloatArray
        Equally likely points, ascending, shape (measured.size + 24,).

    Notes
    -----
    Adaptive conformal inference (Gibbs and Candès, 2021): a level rises by γ · quantile at a miss
    and falls by γ · (1 - quantile) at a hit. Here it moves in log-odds, by the same over
    quantile · (1 - quantile), so that it stays inside (0, 1) and high levels recover as fast as
    middling ones. It is folded over the errors at hand, so nothing more has to be remembered.
    Sorted over the levels, quantiles never cross (Chernozhukov et al., 2010).
    """
    prior = prior_points(measured, last - first + 1)
    ascending = np.sort(np.concatenate((measured, prior)))
    seen = _rank_log_odds(measured, prior, last)
    moved = np.sort([_follow(seen, level) for level in _LEVELS.tolist()])
    size = ascending.size
    levels = np.arange(1, size + 1) / (size + 1)
    ends = _BEYOND * np.array([-1.0, 1.0]) + (moved - _LEVEL_LOG_ODDS)[[0, -1]]
    log_odds = np.interp(
        np.log(levels / (1 - levels)),
        np.concatenate(([-_BEYOND], _LEVEL_LOG_ODDS, [_BEYOND])),
        np.concatenate((ends[:1], moved, ends[1:])),
    )
    ranks = (size + 1) / (1 + np.exp(-log_odds)) - 1
    points: FloatArray = np.interp(ranks, np.arange(size), ascending)
    return points


def _rank_log_odds(measured: FloatArray, prior: FloatArray, delay: int) -> list[float]:
    """Return where each error fell among those known when it was foretold, as log-odds.

    A gap makes the errors next to it look closer in time than they are; that delays only.
    """
    errors = np.round(measured, _DECIMALS)
    # Small integers compare several times as fast: these n × n values are most of the work.
    order = np.unique(errors, return_inverse=True)[1].astype(np.int16)
    is_known = _is_known(errors.size, delay)
    below = (order < order[:, None]) & is_known
    up_to = (order <= order[:, None]) & is_known
    # Twice the place, halfway among its equals.
    place = (below.view(np.int8) + up_to.view(np.int8)).sum(axis=1)
    place += np.searchsorted(prior, errors) + np.searchsorted(prior, errors, side="right")
    known = np.maximum(np.arange(errors.size) - delay + 1, 0) + prior.size
    rank = (place + 1) / (2 * known + 2)
    log_odds: list[float] = np.log(rank / (1 - rank)).tolist()
    return log_odds


# As many as a few services with two roles and windows of their own ask for: 58 kB each.
@lru_cache(maxsize=16)
def _is_known(size: int, delay: int) -> NDArray[np.bool_]:
    """Return whether error j (column) was known when error i (row) was foretold."""
    return np.tri(size, k=-delay, dtype=np.bool_)


def _follow(seen: list[float], level: float) -> float:
    """Return the log-odds of a level after the hits and misses that it had.

    Examples
    --------
    >>> round(_follow([], 0.5), 3), round(_follow([1.0], 0.5), 3), round(_follow([-1.0], 0.5), 3)
    (0.0, 0.04, -0.04)
    """
    asked = math.log(level / (1 - level))
    at, lowest, highest = asked, asked - _FARTHEST, asked + _FARTHEST
    miss, hit = _STEP / (1 - level), _STEP / level
    # Spelt out: `min` and `max` would be half of the time that a forecast takes.
    for error in seen:
        if error > at:
            at += miss
            if at > highest:  # noqa: PLR1730
                at = highest
        else:
            at -= hit
            if at < lowest:  # noqa: PLR1730
                at = lowest
    return at
