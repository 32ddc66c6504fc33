"""Between two ticks: a queue that grows asks for replicas at once, and never gives any back. Pure.

A tick sees the mean of an interval and answers once in it; a step of the load has then queued for
most of a minute. What every pod shows by itself, looked at every few seconds, tells it in ten.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from planner.decision.lead import lead_times_s
from planner.decision.need import failing_weight
from planner.model import (
    Factors,
    Fleet,
    Load,
    PodSample,
    Pool,
    PoolFleet,
    Role,
    Sample,
    Service,
    Signal,
)
from planner.sizing import decode, prefill

# How often is looked [s], and how far back arrivals are counted [s].
CHECK_S, WINDOW_S = 5.0, 20.0
# Looks that make a rate: fewer are one burst. Where looks are rarer than every 5 s (Prometheus has
# a new figure once a scrape) they are kept longer, but none longer than a tick usually takes [s].
MIN_LOOKS, STALE_S = 3, 60.0
# A pod that was not seen before is new, unless it has finished more than so many times what a
# replica can since the last look: then it was there and did not answer.
MOST_WORK = 2.0
# Share of the time that the TTFT leaves for waiting, from which a queue is too long.
LONG_WAIT = 0.5
# Utilisation that an order aims at.
FILL = 0.95
# What is ready is at most multiplied by this: a rate over seconds is not known better.
MOST_RATIO = 6.0


@dataclass(frozen=True, slots=True)
class Limit:
    """What a replica can do, from the last plan.

    Attributes
    ----------
    rate_rps
        Requests/s of one replica; decode: with as many sequences as it may run.
    slack_s
        Prefill: time that the TTFT leaves for waiting, mean over prompts [s].
    dispersion
        Index of dispersion of arrivals counted over `WINDOW_S`, decode: of the sequences inside; 1
        for Poisson.
    batch
        Decode: sequences that a replica may run within the ITL.
    itl_s
        Decode: inter-token latency with 0, 1, … sequences [s].
    """

    rate_rps: float = math.inf
    slack_s: float = math.inf
    dispersion: float = 1.0
    batch: int = 0
    itl_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """One pool at one moment: pods seen, requests waiting and inside, and finished by pod."""

    at_s: float
    pods: int
    waiting: float
    inside: float
    finished: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RiseMemory:
    """What the check remembers: limits by pool name, looks by pool name, oldest first."""

    limits: Mapping[str, Limit] = field(default_factory=dict)
    looks: Mapping[str, tuple[Look, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rise:
    """Replicas that a pool should have at once, and the figures that say so.

    Attributes
    ----------
    replicas
        What it should have.
    waiting, inside
        Requests that wait in the pool, and all that are in it.
    ready
        Replicas that serve.
    rate_rps
        Requests/s that arrive; decode: that prefill will hand over, 0 where what is inside asks.
    """

    replicas: int
    waiting: float
    inside: float
    ready: int
    rate_rps: float


def arm(service: Service, memory: RiseMemory, load: Load, factors: Factors) -> RiseMemory:
    """Return the memory with the limits of a new plan."""
    limits: dict[str, Limit] = {}
    dispersion = float(np.interp(np.log(WINDOW_S), np.log(load.scales_s), load.dispersion))
    for pool in service.pools:
        factor = factors.of(pool.name)
        if pool.role is Role.PREFILL:
            of_pool = prefill.prefill_load(
                pool, service, load, factor, 1.0, service.sla.ttft_s, service.interval_s
            )
            slack_s = np.clip(of_pool.slack_s, 0.0, service.sla.ttft_s) @ of_pool.weights
            rate_rps = 1.0 / of_pool.service_mean_s
            limits[pool.name] = Limit(rate_rps, float(slack_s), dispersion)
        else:
            sequences = decode.decode_load(pool, load, factor, 1.0, service.sla.itl_s)
            rate_rps = decode.throughput_tps(sequences) / max(load.lengths.osl_mean_tokens, 1.0)
            limits[pool.name] = Limit(
                rate_rps,
                dispersion=sequences.dispersion,
                batch=decode.batch_limit(sequences),
                itl_s=tuple(sequences.itl_s.tolist()),
            )
    return replace(memory, limits=limits)


def look(service: Service, memory: RiseMemory, sample: Sample, now_s: float) -> RiseMemory:
    """Return the memory after one more look at the pods."""
    looks: dict[str, tuple[Look, ...]] = {}
    for pool in service.pools:
        kept = _kept(memory.looks.get(pool.name, ()), now_s)
        seen = _look(sample.pools.get(pool.name, ()), pool, now_s)
        is_new = not kept or seen.at_s > kept[-1].at_s
        looks[pool.name] = (*kept, seen) if is_new else kept
    return replace(memory, looks=looks)


def _kept(looks: tuple[Look, ...], now_s: float) -> tuple[Look, ...]:
    """Return the looks that still count: those of the window, or the few that make a rate."""
    fresh = tuple(past for past in looks if past.at_s >= now_s - WINDOW_S)
    last = tuple(past for past in looks[1 - MIN_LOOKS :] if past.at_s >= now_s - STALE_S)
    return max(fresh, last, key=len)


def is_pressed(service: Service, memory: RiseMemory, sample: Sample) -> bool:
    """Return whether a look may call for replicas, however many there are: else `rises` is empty.

    It needs no fleet, so that a service without a queue costs the cluster no question.
    """
    for pool in service.pools:
        seen = _look(sample.pools.get(pool.name, ()), pool, sample.at_s)
        limit, looks = memory.limits.get(pool.name), memory.looks.get(pool.name, ())
        if limit is None or seen.pods == 0 or len(looks) < MIN_LOOKS - 1:
            continue
        # The fleet may hold fewer ready replicas than answered, at least one.
        if pool.role is Role.PREFILL and seen.waiting > 0.0:
            return True
        if 0 < limit.batch < seen.inside:
            return True
    return False


def _look(pods: tuple[PodSample, ...], pool: Pool, now_s: float) -> Look:
    counted = Signal.PROMPT_TOKENS if pool.role is Role.PREFILL else Signal.OUTPUT_TOKENS
    waiting = sum(pod.gauges.get(Signal.WAITING, 0.0) for pod in pods)
    running = sum(pod.gauges.get(Signal.RUNNING, 0.0) for pod in pods)
    finished = {p.pod: p.histograms[counted].count for p in pods if counted in p.histograms}
    # When the figures are of: Prometheus may show the same scrape twice.
    at_s = max((pod.at_s for pod in pods), default=now_s)
    return Look(at_s, len(pods), waiting, waiting + running, finished)


def rises(service: Service, memory: RiseMemory, fleet: Fleet) -> dict[str, Rise]:
    """Return the pools that need more replicas now than they are asked to have, by pool name.

    Parameters
    ----------
    service
        Whose pools these are.
    memory
        After `arm` and `look`.
    fleet
        Pods that exist and replicas that are ordered.

    Notes
    -----
    Prefill: where the queue would take longer than half of what the TTFT leaves for waiting, the
    arrivals of the last seconds, one standard deviation of their counts less, over the rate of a
    replica, and what works off the queue that an order made now will find. While all are busy the
    rate of a replica is the one measured: prompts that got longer look like fewer of them. Decode:
    where more sequences are inside than all batches may hold, batches for those who would be if
    each kept its limit; and where prefill orders, what takes all that it will hand over then.
    """
    needs = [
        (stand, _for_prompts(stand)) for stand in _stands(service, memory, fleet, Role.PREFILL)
    ]
    handed_rps = 0.0
    if any(need.replicas > 0.0 for _, need in needs):
        handed_rps = sum(need.handed_rps for _, need in needs)
    # Pools of decode share what comes as they share what is ordered now.
    load_ratio = _load_ratio(service, memory, fleet, handed_rps)
    for stand in _stands(service, memory, fleet, Role.DECODE):
        inside, handed = _for_sequences(stand), stand.ordered * load_ratio
        handed_need = _Need(min(handed, MOST_RATIO * stand.ready), handed_rps)
        needs.append((stand, inside if inside.replicas >= handed else handed_need))
    return {
        stand.pool.name: Rise(
            math.ceil(need.replicas), stand.waiting, stand.inside, stand.ready, need.rate_rps
        )
        for stand, need in needs
        if math.ceil(need.replicas) > stand.ordered
    }


@dataclass(frozen=True, slots=True)
class _Stand:
    """One pool that can be judged: looks enough, a limit, and replicas that serve.

    Attributes
    ----------
    pool, limit, looks
        Whose they are; what a replica of it can do; what was seen.
    ready, ordered
        Replicas that serve, and that are asked for.
    lead_s, starts_in_s
        Time until an order made now serves [s], and until those under way do, on average.
    failing_weight
        What all requests failing costs, in multiples of the work offered.
    """

    pool: Pool
    limit: Limit
    looks: tuple[Look, ...]
    ready: int
    ordered: int
    lead_s: float
    starts_in_s: float
    failing_weight: float

    @property
    def paid_s(self) -> float:
        """Time that a replica is paid for if it is ordered and released as soon as it may be."""
        return self.lead_s + self.pool.behavior.scale_down.stabilization_window_s

    @property
    def span_s(self) -> float:
        return self.looks[-1].at_s - self.looks[0].at_s

    @property
    def waiting(self) -> float:
        return self.looks[-1].waiting

    @property
    def inside(self) -> float:
        return self.looks[-1].inside


@dataclass(frozen=True, slots=True)
class _Need:
    """Replicas, 0 without a reason for any; requests/s that come, and that prefill hands over."""

    replicas: float = 0.0
    rate_rps: float = 0.0
    handed_rps: float = 0.0


def _stands(service: Service, memory: RiseMemory, fleet: Fleet, role: Role) -> tuple[_Stand, ...]:
    """Return how the pools of a role stand, without those that can't be judged."""
    found: list[_Stand] = []
    leads_s = lead_times_s(service, fleet.pools)
    weight = failing_weight(service, service.sla.failure_budget)
    for pool in service.pools_of(role):
        limit, looks = memory.limits.get(pool.name), memory.looks.get(pool.name, ())
        of_pool = fleet.pools[pool.name]
        seen = looks[-1].pods // pool.pods_per_replica if looks else 0
        ready = min(of_pool.ready(pool.pods_per_replica), seen)
        if limit is None or ready == 0 or len(looks) < MIN_LOOKS:
            continue
        ordered = of_pool.replicas // pool.pods_per_replica
        lead_s = leads_s[pool.name]
        starts_in_s = _starts_in_s(of_pool, lead_s, fleet.at_s)
        found.append(_Stand(pool, limit, looks, ready, ordered, lead_s, starts_in_s, weight))
    return tuple(found)


def _starts_in_s(of_pool: PoolFleet, lead_s: float, now_s: float) -> float:
    """Return when what is ordered and not ready will serve, on average; the lead if nothing is."""
    left_s = [
        lead_s
        if pod.unschedulable is not None
        else min(max(pod.created_s + lead_s - now_s, 0.0), lead_s)
        for pod in of_pool.pods
        if pod.ready_s is None and not pod.terminating
    ]
    return sum(left_s) / len(left_s) if left_s else lead_s


def _for_prompts(stand: _Stand) -> _Need:
    """Return what a queue of prompts asks for."""
    limit, looks, span_s, pool = stand.limit, stand.looks, stand.span_s, stand.pool
    finished = sum(_finished(a, b, limit.rate_rps) for a, b in pairwise(looks))
    rate_rps = max(finished + stand.inside - looks[0].inside, 0.0) / span_s
    each_rps = limit.rate_rps
    if finished >= 1.0 and all(seen.waiting > 0.0 for seen in looks):
        # Who became ready meanwhile has done nothing before.
        worked_s = sum(
            (b.at_s - a.at_s) * min(a.pods // pool.pods_per_replica, stand.ready)
            for a, b in pairwise(looks)
        )
        each_rps = min(each_rps, finished / worked_s) if worked_s > 0.0 else each_rps
    surely_rps = max(rate_rps - math.sqrt(limit.dispersion * rate_rps / span_s), 0.0)
    if stand.waiting / (each_rps * stand.ready) <= LONG_WAIT * limit.slack_s:
        return _Need(0.0, rate_rps, surely_rps)
    queue = _queue_found(stand, surely_rps, each_rps)
    queue_rps = queue / _drain_s(stand, queue, rate_rps)
    replicas = surely_rps / (FILL * each_rps) + queue_rps / each_rps
    replicas = min(replicas, MOST_RATIO * stand.ready)
    serving = max(min(replicas, pool.max_replicas), stand.ordered)
    return _Need(replicas, rate_rps, min(surely_rps + queue_rps, serving * each_rps))


def _queue_found(stand: _Stand, rate_rps: float, each_rps: float) -> float:
    """Return the prompts that an order made now will find waiting when it serves.

    Notes
    -----
    Until what is under way serves the queue grows as it does, but by no more than it has: what
    lasted for some time is expected to last as long again. From then on it shrinks.
    """
    grows_rps = rate_rps - stand.ready * each_rps
    shrinks_rps = max(stand.ordered * each_rps - rate_rps, 0.0)
    until_start = stand.waiting + min(grows_rps * stand.starts_in_s, stand.waiting)
    return max(max(until_start, 0.0) - shrinks_rps * (stand.lead_s - stand.starts_in_s), 0.0)


def _drain_s(stand: _Stand, queue: float, rate_rps: float) -> float:
    """Return the time in which a queue is best worked off [s].

    Notes
    -----
    Where the arrivals of b seconds wait, working them off in T takes b / T of the work offered
    more, which is paid for `paid_s`; and for T all requests fail, which weighs `failing_weight`
    times the work offered. The sum is least at ``T = √(b · paid_s / failing_weight)``.
    """
    if rate_rps <= 0.0:
        return math.inf
    queue_s = queue / rate_rps
    return max(math.sqrt(queue_s * stand.paid_s / stand.failing_weight), CHECK_S)


def _finished(earlier: Look, later: Look, each_rps: float) -> float:
    """Return what finished between two looks, on pods that did not start anew."""
    most = MOST_WORK * each_rps * (later.at_s - earlier.at_s)
    changes = (
        n - earlier.finished[pod] if pod in earlier.finished else n if n <= most else 0.0
        for pod, n in later.finished.items()
    )
    return sum(change for change in changes if change > 0.0)


def _for_sequences(stand: _Stand) -> _Need:
    """Return what the sequences inside ask for, and those that are surely still to come."""
    limit, inside = stand.limit, stand.inside
    beyond = inside - stand.ready * limit.batch
    if limit.batch <= 0 or beyond <= 0.0:
        return _Need()
    grown = inside - stand.looks[0].inside - math.sqrt(limit.dispersion * inside)
    inside += min(max(grown, 0.0) / stand.span_s * stand.lead_s, beyond)
    # A batch beyond its limit is slow, and who is in it stays the longer: on target fewer would be
    # inside (Little's law), and more replicas for the pile would stand idle when they are ready.
    crowd = min(int(inside / stand.ready), len(limit.itl_s) - 1)
    pace = limit.itl_s[limit.batch] / limit.itl_s[crowd] if limit.itl_s else 1.0
    return _Need(min(inside * pace / (FILL * limit.batch), MOST_RATIO * stand.ready))


def _load_ratio(service: Service, memory: RiseMemory, fleet: Fleet, handed_rps: float) -> float:
    """Return what prefill will hand over, over what the replicas ordered for decode can take.

    A queue before prefill hides from decode what comes.
    """
    takes_rps = sum(
        fleet.pools[pool.name].replicas // pool.pods_per_replica * memory.limits[pool.name].rate_rps
        for pool in service.pools_of(Role.DECODE)
        if pool.name in memory.limits
    )
    return handed_rps / (FILL * takes_rps) if 0.0 < takes_rps < math.inf else 0.0
