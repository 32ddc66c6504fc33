"""Step 2, correct: how wrong the profile is, from what measures service and not waiting. Pure.

One filter for both roles: observed over profiled latency is fitted by ``level + slope · fill``
by recursive least squares with the profile (1, 0) as prior and bounded covariance (sizing §6.1).
TTFT alone is never used: it confounds service and waiting.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from planner.decision.lengths import points
from planner.model import (
    Factor,
    Factors,
    Observation,
    Pool,
    PoolObservation,
    Role,
    Service,
    Sla,
    Statistic,
)

# Prior standard deviations of level and slope: profiles are wrong by some 20 %.
PRIOR_SD = (0.2, 0.2)
# Standard deviation of one interval's ratio: noise of the mean, and of the mix inside it.
NOISE_SD = 0.05
# Time in which what was learnt grows as uncertain as the prior, and in which it is forgotten
# when nothing is measured any more [s].
LEARN_S, FORGET_S = 600.0, 3600.0
# Requests below which an interval's mean latency says nothing.
MIN_REQUESTS = 20.0


@dataclass(frozen=True, slots=True)
class Fit:
    """State of one pool's filter: the estimate and its 2 × 2 covariance."""

    factor: Factor = field(default_factory=Factor)
    variance_level: float = PRIOR_SD[0] ** 2
    covariance: float = 0.0
    variance_slope: float = PRIOR_SD[1] ** 2


@dataclass(frozen=True, slots=True)
class CorrectMemory:
    """What correction remembers: one fit by pool name."""

    fits: Mapping[str, Fit] = field(default_factory=dict)


def correct(
    service: Service, memory: CorrectMemory, observation: Observation
) -> tuple[CorrectMemory, Factors]:
    """Return the factors after one more interval, and what to remember.

    A pool whose pods came or went inside the interval is frozen: warming engines are slow for a
    reason that passes. A pool without a usable latency decays towards 1.
    """
    fits: dict[str, Fit] = {}
    frozen: list[str] = []
    for pool in service.pools:
        fit = memory.fits.get(pool.name, Fit())
        seen = observation.pools[pool.name]
        if seen.changed:
            frozen.append(pool.name)
        elif service.sla.statistic is Statistic.MEAN:
            fit = _classic(pool, fit, observation)
        else:
            ratio = _ratio(pool, service.sla, observation, seen)
            elapsed_s = observation.span_s
            fit = _decay(fit, elapsed_s) if ratio is None else _learn(fit, *ratio, elapsed_s)
        fits[pool.name] = fit
    factors = Factors({name: fit.factor for name, fit in fits.items()}, tuple(frozen))
    return CorrectMemory(fits), factors


def _ratio(
    pool: Pool, sla: Sla, observation: Observation, seen: PoolObservation
) -> tuple[float, float] | None:
    """Return (observed ÷ profiled latency, fill), None without enough requests."""
    prompts, outputs = observation.prompts, observation.outputs
    if seen.service_s is None or prompts is None or prompts.count < MIN_REQUESTS:
        return None
    isl, weights = points(prompts)
    if pool.role is Role.PREFILL:
        assert pool.prefill is not None
        computed = isl * observation.uncached_ratio
        expected_s = float(np.dot(weights, pool.prefill.service_s(computed)))
        return seen.service_s / expected_s, 0.0
    if outputs is None or outputs.count < MIN_REQUESTS or seen.concurrency <= 0.0:
        return None
    assert pool.decode is not None
    osl, shares = points(outputs)
    context = float(isl @ weights) + 0.5 * float(osl**2 @ shares) / float(osl @ shares)
    expected_s = float(pool.decode.itl_s(max(seen.concurrency, 1.0), context))
    return seen.service_s / expected_s, min(expected_s / sla.itl_s, 2.0)


def _learn(fit: Fit, ratio: float, fill: float, elapsed_s: float) -> Fit:
    """Return the fit after one measured ratio (one step of a Kalman filter, H = [1, fill])."""
    ratio = min(max(ratio, 0.25), 4.0)
    grow = elapsed_s / LEARN_S
    p00 = min(fit.variance_level + grow * PRIOR_SD[0] ** 2, PRIOR_SD[0] ** 2)
    p11 = min(fit.variance_slope + grow * PRIOR_SD[1] ** 2, PRIOR_SD[1] ** 2)
    p01 = max(min(fit.covariance, math.sqrt(p00 * p11)), -math.sqrt(p00 * p11))
    h0, h1 = p00 + p01 * fill, p01 + p11 * fill
    innovation_variance = h0 + h1 * fill + NOISE_SD**2
    error = ratio - (fit.factor.level + fit.factor.slope * fill)
    k0, k1 = h0 / innovation_variance, h1 / innovation_variance
    return Fit(
        Factor(fit.factor.level + k0 * error, fit.factor.slope + k1 * error),
        p00 - k0 * h0,
        p01 - k0 * h1,
        p11 - k1 * h1,
    )


def _decay(fit: Fit, elapsed_s: float) -> Fit:
    """Return the fit moved towards the profile, because nothing was measured."""
    keep = math.exp(-elapsed_s / FORGET_S)
    level = 1.0 + (fit.factor.level - 1.0) * keep
    return replace(fit, factor=Factor(level, fit.factor.slope * keep))


def _classic(pool: Pool, fit: Fit, observation: Observation) -> Fit:
    """Return the factor of the mean formula: observed TTFT or ITL over the interpolated one.

    Notes
    -----
    Unsmoothed, from the last interval, as the classic planner does; without both latencies the
    last factor stays.
    """
    if observation.prompts is None or observation.prompts.count <= 0.0:
        return fit
    isl = observation.prompts.sum / observation.prompts.count
    if pool.role is Role.PREFILL:
        assert pool.prefill is not None
        seen_s, expected_s = observation.ttft_mean_s, float(pool.prefill.service_s(isl))
    else:
        assert pool.decode is not None
        outputs = observation.outputs
        osl = outputs.mean if outputs is not None and outputs.mean else 0.0
        concurrency = max(observation.pools[pool.name].concurrency, 1.0)
        seen_s = observation.itl_mean_s
        expected_s = float(pool.decode.itl_s(concurrency, isl + 0.5 * osl))
    return fit if not seen_s else replace(fit, factor=Factor(seen_s / expected_s))
