"""What one role needs: the share of requests that fails with each number of replicas. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from planner.model import Factors, Load, Pool, Reason, Role, Service, TokenLoad
from planner.sizing import decode, prefill
from planner.sizing.queueing import Floats

# Less than a token in a quarter of an hour is silence [tokens/s].
SILENT_TPS = 1e-3
# What all requests failing weighs at a caution of 1, as multiples of the cost of the work offered:
# enough that serving pays at all, and so much divided by the share ε that may fail.
SERVING, PRICE = 1.5, 0.02

Points = tuple[tuple[float, float], ...]
Shares = Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True)
class Need:
    """What one role must serve: failing share by replicas of its reference pool.

    `offered` is the work in such replicas, `worth` the capacity of one replica of each pool.
    """

    shares: Shares
    offered: float
    worth: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Target:
    """What sizing aims at: the SLA, or the best effort where it can't be met."""

    ttft_s: float
    itl_s: float
    failure_budget: float
    best_ttft_s: float
    best_itl_s: float
    reasons: tuple[Reason, ...] = ()


def points_of(tokens: TokenLoad) -> Points:
    """Return the distribution of a load, or the one quantile that is sized for."""
    return tokens.up_points or ((tokens.up_tps, 1.0),)


def mean_point(tokens: TokenLoad) -> Points:
    """Return the predicted mean as if it were certain; nothing where next to nothing is."""
    return ((tokens.mean_tps if tokens.mean_tps > SILENT_TPS else 0.0, 1.0),)


def failing_weight(service: Service, failure_budget: float) -> float:
    """Return what all requests failing would cost, in multiples of the cost of the work offered."""
    return service.caution * (SERVING + PRICE / failure_budget)


def need_of(
    service: Service, load: Load, factors: Factors, target: Target, role: Role, points: Points
) -> Need:
    """Return what one role needs for a distribution of tokens/s."""
    mean_tps = sum(tps * probability for tps, probability in points)
    of_role = _prefill_need if role is Role.PREFILL else _decode_need
    return of_role(service, load, factors, target, mean_tps, points)


def _prefill_need(
    service: Service, load: Load, factors: Factors, target: Target, mean_tps: float, points: Points
) -> Need:
    pools = service.pools_of(Role.PREFILL)
    drain_s = service.interval_s + max(p.startup_s for p in pools)
    loads = [
        prefill.prefill_load(p, service, load, factors.of(p.name), mean_tps, target.ttft_s, drain_s)
        for p in pools
    ]
    first = loads[0]
    rps = first.arrivals_rps / mean_tps if mean_tps > 0.0 else 0.0
    queues = [(replace(first, arrivals_rps=rps * tps), tps * chance) for tps, chance in points]
    shares = _expected([(partial(prefill.failure_shares, q), weight) for q, weight in queues])
    speed = [1.0 / p.service_mean_s for p in loads]
    return Need(_remembered(shares), first.offered, _worth(pools, speed))


def _decode_need(
    service: Service, load: Load, factors: Factors, target: Target, mean_tps: float, points: Points
) -> Need:
    pools = service.pools_of(Role.DECODE)
    batches = [
        decode.decode_load(p, load, factors.of(p.name), mean_tps, target.itl_s) for p in pools
    ]
    first = batches[0]
    fills = [(replace(first, output_tps=tps), tps * chance) for tps, chance in points]
    shares = _expected([(partial(decode.failure_shares, fill), weight) for fill, weight in fills])
    full_tps = [max(decode.throughput_tps(b), 1e-6) for b in batches]
    return Need(_remembered(shares), mean_tps / full_tps[0], _worth(pools, full_tps))


def _expected(shares: Sequence[tuple[Shares, float]]) -> Shares:
    """Return the share of all requests that fail, over loads weighed by the requests they bring.

    Notes
    -----
    ``E[Λ f(c, Λ)] / E[Λ]`` (sizing §1): failures count requests and not moments.
    """
    total = sum(weight for _, weight in shares)
    if total <= 0.0:
        return shares[-1][0]

    def failing(replicas: Floats) -> Floats:
        found = [of_load(replicas) * weight for of_load, weight in shares]
        return np.asarray(np.sum(found, axis=0) / total)

    return failing


def _remembered(shares: Shares) -> Shares:
    """Return the same function that works out every number of replicas once: searches overlap."""
    known: dict[float, float] = {}

    def look_up(replicas: Floats) -> Floats:
        new = [c for c in replicas.tolist() if c not in known]
        if new:
            known.update(zip(new, shares(np.array(new)).tolist(), strict=True))
        return np.minimum.accumulate(np.array([known[c] for c in replicas.tolist()]))

    return look_up


def _worth(pools: Sequence[Pool], speed: Sequence[float]) -> Mapping[str, float]:
    """Return the capacity of one replica of each pool, in replicas of the first."""
    return {pool.name: s / speed[0] for pool, s in zip(pools, speed, strict=True)}
