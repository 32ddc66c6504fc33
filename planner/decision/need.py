"""What one role needs: the share of requests that fails with each number of replicas. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
# Failing shares by replicas, shape (c,); and by loads and replicas, shape (m, c).
Shares = Callable[[Floats], Floats]
Table = Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True)
class Need:
    """What one role must serve: failing share by replicas of its reference pool.

    `offered` is the work in such replicas, `most` that of the highest load that may come, `worth`
    the capacity of one replica of each pool.
    """

    shares: Shares
    offered: float
    most: float
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


def kept_point(tokens: TokenLoad) -> Points:
    """Return the load for which replicas are kept, where one quantile is sized for."""
    return ((tokens.up_tps if tokens.keep_tps is None else tokens.keep_tps, 1.0),)


def failing_weight(service: Service, failure_budget: float) -> float:
    """Return what all requests failing would cost, in multiples of the cost of the work offered."""
    return service.caution * (SERVING + PRICE / failure_budget)


def needs_of(
    service: Service, load: Load, factors: Factors, target: Target, role: Role, *cases: Points
) -> tuple[Need, ...]:
    """Return what one role needs for each of several distributions of its tokens/s.

    All of them are evaluated together, for little more than the price of one.
    """
    reference_tps = max(tps for points in cases for tps, _ in points)
    of_role = _prefill_staff if role is Role.PREFILL else _decode_staff
    staff = of_role(service, load, factors, target, reference_tps)
    weighed = [_multiples(points, reference_tps) for points in cases]
    ends = np.cumsum([multiples.size for multiples, _ in weighed]).tolist()
    table = _remembered(partial(staff.table, np.concatenate([m for m, _ in weighed])))
    needs = []
    for (multiples, weights), end in zip(weighed, ends, strict=True):
        rows = slice(end - multiples.size, end)
        offered = staff.standing + staff.arriving * float(np.sum(weights))
        most = staff.standing + staff.arriving * float(np.max(multiples))
        needs.append(Need(partial(_expected, table, rows, weights), offered, most, staff.worth))
    return tuple(needs)


def _multiples(points: Points, reference_tps: float) -> tuple[Floats, Floats]:
    """Return the loads in multiples of a reference, and their shares of all requests, unscaled."""
    multiples = np.array([tps for tps, _ in points]) / max(reference_tps, 1e-12)
    return multiples, multiples * [chance for _, chance in points]


@dataclass(frozen=True, slots=True)
class _Staff:
    """What a role's pools can do about a reference load.

    `table` gives failing shares by multiples of that load and by replicas; `arriving` is its work
    in replicas, `standing` the work that is there besides.
    """

    table: Callable[[Floats, Floats], Floats]
    arriving: float
    standing: float
    worth: Mapping[str, float]


def _prefill_staff(
    service: Service, load: Load, factors: Factors, target: Target, reference_tps: float
) -> _Staff:
    pools = service.pools_of(Role.PREFILL)
    drain_s = service.interval_s + max(p.startup_s for p in pools)
    loads = [
        prefill.prefill_load(
            p, service, load, factors.of(p.name), reference_tps, target.ttft_s, drain_s
        )
        for p in pools
    ]
    first = loads[0]
    speed = [1.0 / p.service_mean_s for p in loads]
    table = partial(prefill.failure_table, first)
    return _Staff(table, first.arriving, first.standing, _worth(pools, speed))


def _decode_staff(
    service: Service, load: Load, factors: Factors, target: Target, reference_tps: float
) -> _Staff:
    pools = service.pools_of(Role.DECODE)
    batches = [
        decode.decode_load(p, load, factors.of(p.name), reference_tps, target.itl_s) for p in pools
    ]
    full_tps = [max(decode.throughput_tps(b), 1e-6) for b in batches]
    table = partial(decode.failure_table, batches[0])
    return _Staff(table, reference_tps / full_tps[0], 0.0, _worth(pools, full_tps))


def _worth(pools: Sequence[Pool], speed: Sequence[float]) -> Mapping[str, float]:
    """Return the capacity of one replica of each pool, in replicas of the first."""
    return {pool.name: s / speed[0] for pool, s in zip(pools, speed, strict=True)}


def _expected(table: Table, rows: slice, weights: Floats, replicas: Floats) -> Floats:
    """Return the share of all requests that fail, over loads weighed by the requests they bring.

    Notes
    -----
    ``E[Λ f(c, Λ)] / E[Λ]`` (sizing §1): failures count requests and not moments. Without any
    load it is what stands there already that may fail.
    """
    shares, total = table(replicas)[rows], float(np.sum(weights))
    failing = weights @ shares / total if total > 0.0 else shares[-1]
    return np.asarray(np.minimum.accumulate(failing))


def _remembered(table: Table) -> Table:
    """Return the same table that works out every number of replicas once: searches overlap."""
    known: dict[float, Floats] = {}

    def look_up(replicas: Floats) -> Floats:
        new = [c for c in replicas.tolist() if c not in known]
        if new:
            known.update(zip(new, table(np.array(new)).T, strict=True))
        return np.array([known[c] for c in replicas.tolist()]).T

    return look_up
