"""Formulas of queueing theory that sizing rests on; vectorised over the number of servers."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]

# Goodput below which only the order matters: it keeps an overloaded pool's score rising with
# every replica, so that a search under a budget has a slope to follow (sizing §2, Overload).
OVERLOAD_SCORE = 0.01
# Where the supremum of robust queueing is looked for [s].
HORIZONS_S = np.geomspace(1e-3, 900.0, 48)
LOG_HORIZONS = np.log(HORIZONS_S)
# Stretches of arrivals that may bring a wait about, besides the one that is most likely where all
# stretches are equally bursty [s].
STRETCHES_S = np.geomspace(0.5, 128.0, 13)
LOG_STRETCHES = np.log(STRETCHES_S)

# Logarithm of a share that is next to nothing, and still no denormal number: those take several
# times as long.
LOG_NOTHING = -700.0


def erlang_b(servers: ArrayLike, offered: ArrayLike) -> Floats:
    """Return the Erlang B blocking probability for real `servers` ≥ 0 and `offered` > 0 erlangs.

    Notes
    -----
    ``B = a^c e^-a / Γ(c + 1, a)``, the continuous extension by the upper incomplete gamma
    function (Jagers & van Doorn, 1986).

    Examples
    --------
    >>> round(float(erlang_b(2, 1.0)), 6)   # (1/2) / (1 + 1 + 1/2)
    0.2
    """
    c = np.asarray(servers, dtype=float)
    a = np.maximum(np.asarray(offered, dtype=float), 1e-12)
    survival = special.gammaincc(c + 1.0, a)
    log_term = special.xlogy(c, a) - a - special.gammaln(c + 1.0)
    # Far above capacity the incomplete gamma underflows; there B = (1 − r)(1 + r / a(1 − r)²) up
    # to O(a⁻²), with r = c / a.
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        blocking = np.exp(log_term - np.log(survival))
        free = 1.0 - c / a
        overloaded = free + c / (a * a * free)
    return np.asarray(np.clip(np.where(survival > 1e-280, blocking, overloaded), 0.0, 1.0))


def erlang_c(servers: ArrayLike, offered: ArrayLike) -> Floats:
    """Return the probability of waiting in M/M/c for real servers; 1 where ``offered ≥ servers``.

    Examples
    --------
    >>> round(float(erlang_c(2, 1.0)), 6)   # 1/3
    0.333333
    """
    c = np.asarray(servers, dtype=float)
    a = np.asarray(offered, dtype=float)
    blocking = erlang_b(c, a)
    with np.errstate(divide="ignore", invalid="ignore"):
        waiting = c * blocking / (c - a * (1.0 - blocking))
    return np.where(a < c, np.clip(waiting, 0.0, 1.0), 1.0)


def effective_variability(
    servers: Floats,
    utilisation: Floats,
    service_mean_s: float,
    service_cv2: float,
    scales_s: ArrayLike,
    dispersion: ArrayLike,
) -> Floats:
    """Return the arrival variability ca² that rules at each number of servers, shape (c,).

    Parameters
    ----------
    servers, utilisation
        Number of servers c and ρ = A / c < 1, shape (c,).
    service_mean_s, service_cv2
        Mean service time [s] and its squared coefficient of variation.
    scales_s, dispersion
        Time scales [s], increasing, and the index of dispersion for counts there.

    Notes
    -----
    Robust queueing (Whitt & You, 2018): the mean wait is
    ``sup_x { −(1 − ρ) x + sqrt(2 ρ x I_w(x) E[S] / c) }`` with ``I_w = I_a + cs²``; the constant
    index that gives the same supremum is ``I = 2 c (1 − ρ) W / (ρ E[S])``. x is offered work
    time, so the pool of c servers looks at the time scale x itself.
    """
    x = HORIZONS_S
    index = np.interp(LOG_HORIZONS, np.log(np.asarray(scales_s)), np.asarray(dispersion))
    index = index + service_cv2
    rho, free = utilisation[:, None], 1.0 - utilisation
    work = np.sqrt(2.0 * service_mean_s * (x * index)) * np.sqrt(rho / servers[:, None])
    work -= (1.0 - rho) * x
    # Wait per unit of index. Beyond the grid the index is constant and the supremum is where
    # x = I · unit / (1 − ρ), of height I · unit.
    unit_s = utilisation * service_mean_s / (2.0 * servers * free)
    beyond_s = np.where(index[-1] * unit_s > free * x[-1], index[-1] * unit_s, 0.0)
    total = np.maximum(np.max(work, axis=1), beyond_s) / unit_s
    return np.asarray(np.clip(total - service_cv2, np.min(dispersion), np.max(dispersion)))


def wait_tail(
    servers: Floats,
    offered: ArrayLike,
    waits_s: Floats,
    service_mean_s: float,
    service_cv2: float,
    scales_s: ArrayLike,
    dispersion: ArrayLike,
) -> Floats:
    """Return P(W > t) of a shared queue, shape (c, t); 1 where the queue is not stable.

    Parameters
    ----------
    servers
        Numbers of servers c, shape (c,).
    offered
        Offered work A = λ E[S] [servers], for all of them or shape (c,).
    waits_s
        Waiting times t ≥ 0 [s], shape (t,).
    service_mean_s, service_cv2
        E[S] [s] and cs².
    scales_s, dispersion
        Time scales [s], increasing, and the index of dispersion for counts I_a there.

    Notes
    -----
    ``C(c / z, A / z) · exp(−min_x c (t + (1 − ρ) x)² / (2 x E[S] I_w(x)))`` with
    ``I_w = I_a + cs²``: a wait of t is a surplus of work that some stretch x brings in, and the
    stretch that does so most easily rules (the dominant time scale: Norros, 1994; Choe & Shroff,
    1998). A long wait looks at a longer scale, where real traffic is burstier. C is Erlang C with
    Hayward's ``z = 1 + (ca² − 1) / 2`` (sizing §2), ca² from `effective_variability`. With
    one index at all scales the stretch is ``t / (1 − ρ)`` and the exponent
    ``2 (1 − ρ) c t / (E[S] (ca² + cs²))``: exact for M/M/c.
    """
    offered = np.asarray(offered, dtype=float)
    rho = offered / servers
    stable = np.minimum(rho, 1.0 - 1e-9)
    free = 1.0 - stable
    variability = effective_variability(
        servers, stable, service_mean_s, service_cv2, scales_s, dispersion
    )
    peakedness = np.maximum(1.0 + 0.5 * (variability - 1.0), 0.1)
    waiting = erlang_c(servers / peakedness, offered / peakedness)
    log_scales, index = np.log(np.asarray(scales_s)), np.asarray(dispersion) + service_cv2
    fixed = np.interp(LOG_STRETCHES, log_scales, index)
    # (t + (1 − ρ) x)² / (x I) is least where its root is, which is cheaper over so many values.
    root_s = waits_s / np.sqrt(STRETCHES_S * fixed)[:, None, None]
    root_s = root_s + free[:, None] * np.sqrt(STRETCHES_S / fixed)[:, None, None]
    least = np.min(root_s, axis=0) ** 2
    # The stretch x = t / (1 − ρ), where (t + (1 − ρ) x)² / x = 4 (1 − ρ) t.
    own = np.interp(np.log(np.maximum(waits_s / free[:, None], 1e-9)), log_scales, index)
    least = np.minimum(least, 4.0 * free[:, None] * waits_s / own)
    least *= 0.5 * servers[:, None] / service_mean_s
    tail = waiting[:, None] * np.exp(-least)
    return np.where((rho < 1.0)[:, None], tail, 1.0)


def occupancy(ratios: Floats, levels: ArrayLike = 1) -> Floats:
    """Return the stationary distribution of birth–death processes, shape (..., n + 1).

    Parameters
    ----------
    ratios
        Ratio birth(k − 1) / death(k) for k = 1 … n, shape (..., n): for decode
        ``λ E[OSL] ITL(k / c) / k``, state-dependent processor sharing, exact for Poisson
        arrivals and insensitive to the length distribution (sizing §3). Zeros at the end cut a
        process short.
    levels
        Levels that each ratio stands for: so many equal steps at once; broadcast to `ratios`.

    Examples
    --------
    >>> occupancy(np.array([1.0, 0.5])).round(3).tolist()   # M/G/2/2 at 1 erlang
    [0.4, 0.4, 0.2]
    """
    log_weight = np.zeros((*ratios.shape[:-1], ratios.shape[-1] + 1))
    np.cumsum(levels * np.log(np.maximum(ratios, 1e-300)), axis=-1, out=log_weight[..., 1:])
    log_weight -= np.max(log_weight, axis=-1, keepdims=True)
    weight = np.exp(np.maximum(log_weight, LOG_NOTHING))
    return np.asarray(weight / np.sum(weight, axis=-1, keepdims=True), dtype=float)
