"""How bursty arrivals are within an interval, as a function of time scale. Pure."""

from collections.abc import Sequence

import numpy as np

from planner.sizing.queueing import Floats

# Scales [s] at which dispersion is stated.
SCALES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
# Degrees of freedom below which counts say less about burstiness than the Poisson prior.
PRIOR_FREEDOM = 20.0


def dispersion_curve(intervals: Sequence[tuple[float, tuple[float, ...]]]) -> Floats:
    """Return the index of dispersion for counts at `SCALES_S`, shape (scales,), each ≥ 1.

    Parameters
    ----------
    intervals
        (bin width [s], requests by bin) of past intervals, all of nearly one width.

    Notes
    -----
    ``I(τ) = Var(N) / E[N]`` of counts over τ about the mean of *their own* interval: how the
    load moves from interval to interval is the forecast's margin, and counting it here too would
    pay for it twice. Shrunk to 1 (Poisson) as if 20 degrees of freedom of Poisson had been seen.
    Below the bin width it falls to the prior in the logarithm of the scale: a stated assumption,
    since nothing is seen there.

    Examples
    --------
    >>> calm = dispersion_curve([(15.0, (100.0, 100.0, 100.0, 100.0))] * 40)
    >>> float(calm.max())
    1.0
    """
    scales = np.array(SCALES_S)
    if not intervals:
        return np.ones(scales.size)
    width_s = float(np.median([width for width, _ in intervals]))
    longest = max(len(counts) for _, counts in intervals)
    known_s, known = [SCALES_S[0]], [1.0]
    together = 1
    while 2 * together <= longest:
        spread = total = freedom = bins = 0.0
        for _, counts in intervals:
            whole = np.array(counts[: len(counts) // together * together])
            whole = whole.reshape(-1, together).sum(axis=1)
            if whole.size < 2:
                continue
            spread += float(np.sum((whole - whole.mean()) ** 2))
            freedom += whole.size - 1
            total += float(whole.sum())
            bins += whole.size
        if total > 0.0:
            raw = (spread / freedom) / (total / bins)
            trust = freedom / (freedom + PRIOR_FREEDOM)
            known_s.append(together * width_s)
            known.append(max(1.0 + (raw - 1.0) * trust, 1.0))
        together *= 2
    return np.asarray(np.interp(np.log(scales), np.log(known_s), known))
