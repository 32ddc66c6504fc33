"""Loads beyond the forecast, however far, for which no past error speaks. Pure."""

from collections.abc import Sequence

import numpy as np

from predictors.residuals import PRIOR_POINTS

# How fast loads thin out beyond what is forecast: half of them stay below 1.3 times that, and a
# tenth go beyond 2.5 times (docs/adr/0025).
TAIL_INDEX = 2.5
# Slices of that tail, each told by its middle: with few, a plan would leap from one to the next.
TAIL_SLICES = np.array([0.25, 0.2, 0.15, 0.125, 0.1, 0.075, 0.06, 0.04])
TAIL_MULTIPLES = (1.0 - (np.cumsum(TAIL_SLICES) - 0.5 * TAIL_SLICES)) ** (-1.0 / TAIL_INDEX)


def with_unseen(
    points: Sequence[tuple[float, float]], mean_tps: float, samples: int, caution: float
) -> tuple[tuple[float, float], ...]:
    """Return a distribution with the loads that nobody has seen yet, ascending.

    Parameters
    ----------
    points
        The distribution by the errors of the past, as (tokens/s, probability).
    mean_tps
        What is forecast [tokens/s].
    samples
        Intervals whose errors are in it.
    caution
        How much a failed request weighs; at 1 and below nothing is added.

    Notes
    -----
    After n intervals the next one brings something new with probability ``1 / (n + 25)``: the rule
    of succession, the points of the errors' prior taken as seen. How far beyond the forecast it
    goes is Pareto's ``P(> x · mean) = x^−α``. At the price of a caution of 1 hardly a replica would
    pay for so rare a load, and what it fails would only be borne; so it comes in with caution, as
    ``1 − 1 / caution``.

    Examples
    --------
    >>> with_unseen([(100.0, 1.0)], 100.0, 15, 2.0)[0]
    (100.0, 0.9875)
    """
    share = max(1.0 - 1.0 / caution, 0.0) / (samples + PRIOR_POINTS + 1)
    if share == 0.0 or mean_tps <= 0.0:
        return tuple(points)
    tail = zip((mean_tps * TAIL_MULTIPLES).tolist(), (share * TAIL_SLICES).tolist(), strict=True)
    return tuple(sorted([*((tps, chance * (1.0 - share)) for tps, chance in points), *tail]))
