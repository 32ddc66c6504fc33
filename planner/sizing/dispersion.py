"""How bursty arrivals are, as a function of time scale. Pure."""

from collections.abc import Sequence

import numpy as np

from planner.sizing.queueing import Floats

# Scales [s] at which dispersion is stated; what no scrape resolves keeps the prior.
SCALES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
# Bins below which counts say less about burstiness than the Poisson prior.
PRIOR_BINS = 20.0


def dispersion_curve(bins: Sequence[tuple[float, float]]) -> Floats:
    """Return the index of dispersion for counts at `SCALES_S`, shape (scales,), each ≥ 1.

    Parameters
    ----------
    bins
        (width [s], requests) of consecutive scrape intervals of nearly one width.

    Notes
    -----
    At k bins together ``I(k w) = ½ E[(N_j+1 − N_j)²] / E[N]``: half the mean squared successive
    difference is the variance without the trend, which is the forecast's business. Shrunk to 1
    (Poisson) as if 20 Poisson bins had been seen too. Below the bin width it falls to the prior
    in the logarithm of the scale: a stated assumption, since nothing is seen there.

    Examples
    --------
    >>> calm = dispersion_curve([(15.0, 100.0)] * 40)
    >>> float(calm.max())
    1.0
    """
    scales = np.array(SCALES_S)
    if len(bins) < 4:
        return np.ones(scales.size)
    width_s = float(np.median([width for width, _ in bins]))
    counts = np.array([count for _, count in bins], dtype=float)
    known_s, known = [SCALES_S[0]], [1.0]
    together = 1
    while together * width_s <= 2.0 * SCALES_S[-1] and counts.size // together >= 4:
        whole = counts[counts.size % together :].reshape(-1, together).sum(axis=1)
        mean = max(float(whole.mean()), 1e-9)
        raw = 0.5 * float(np.mean(np.diff(whole) ** 2)) / mean
        trust = whole.size / (whole.size + PRIOR_BINS)
        known_s.append(together * width_s)
        known.append(max(1.0 + (raw - 1.0) * trust, 1.0))
        together *= 2
    return np.asarray(np.interp(np.log(scales), np.log(known_s), known))
