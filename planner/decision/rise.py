"""Between two ticks: a queue that grows asks for replicas at once, and never gives any back. Pure.

A tick sees the mean of an interval and answers once in it; a step of the load has then queued for
most of a minute. What every pod shows by itself, looked at every few seconds, tells it in ten.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from planner.model import Factors, Fleet, Load, PodSample, Pool, Role, Sample, Service, Signal
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
# Utilisation that an order aims at, and the time in which it works off the queue [s].
FILL, DRAIN_S = 0.95, 30.0
# What is ready is at most multiplied by this: a rate over seconds is not known better, and while an
# order starts its queue goes on growing, which is no reason for another.
MOST_RATIO = 3.0


@dataclass(frozen=True, slots=True)
class Limit:
    """What a replica can do, from the last plan.

    Attributes
    ----------
    rate_rps
        Prefill: prompts/s of one replica.
    slack_s
        Prefill: time that the TTFT leaves for waiting, mean over prompts [s].
    batch
        Decode: sequences that a replica may run within the ITL.
    itl_s
        Decode: inter-token latency with 0, 1, … sequences [s].
    """

    rate_rps: float = math.inf
    slack_s: float = math.inf
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
    """Replicas that a pool should have at once, and the figures that say so."""

    replicas: int
    waiting: float
    ready: int
    rate_rps: float


def arm(service: Service, memory: RiseMemory, load: Load, factors: Factors) -> RiseMemory:
    """Return the memory with the limits of a new plan."""
    limits: dict[str, Limit] = {}
    for pool in service.pools:
        factor = factors.of(pool.name)
        if pool.role is Role.PREFILL:
            of_pool = prefill.prefill_load(
                pool, service, load, factor, 1.0, service.sla.ttft_s, service.interval_s
            )
            slack_s = np.clip(of_pool.slack_s, 0.0, service.sla.ttft_s) @ of_pool.weights
            limits[pool.name] = Limit(1.0 / of_pool.service_mean_s, float(slack_s))
        else:
            sequences = decode.decode_load(pool, load, factor, 1.0, service.sla.itl_s)
            batch = decode.batch_limit(sequences)
            limits[pool.name] = Limit(batch=batch, itl_s=tuple(sequences.itl_s.tolist()))
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
    arrivals of the last seconds, one standard deviation of Poisson less, over the rate of a
    replica, and what works off the queue in half a minute. While all are busy the rate is the one
    measured: prompts that got longer look like fewer of them. Decode: where more sequences are
    inside than all batches may hold, batches for those who would be if each kept its limit.
    """
    found: dict[str, Rise] = {}
    for pool in service.pools:
        limit, looks = memory.limits.get(pool.name), memory.looks.get(pool.name, ())
        of_pool = fleet.pools[pool.name]
        seen = looks[-1].pods // pool.pods_per_replica if looks else 0
        ready = min(of_pool.ready(pool.pods_per_replica), seen)
        if limit is None or ready == 0 or len(looks) < MIN_LOOKS:
            continue
        need = (_for_prompts if pool.role is Role.PREFILL else _for_sequences)(limit, looks, ready)
        ordered = of_pool.replicas // pool.pods_per_replica
        replicas = math.ceil(min(need.replicas, MOST_RATIO * ready)) if need else 0
        if need is not None and replicas > ordered:
            found[pool.name] = Rise(replicas, need.waiting, ready, need.rate_rps)
    return found


@dataclass(frozen=True, slots=True)
class _Need:
    replicas: float
    waiting: float
    rate_rps: float


def _for_prompts(limit: Limit, looks: tuple[Look, ...], ready: int) -> _Need | None:
    first, last = looks[0], looks[-1]
    span_s = last.at_s - first.at_s
    finished = sum(_finished(a, b, limit.rate_rps) for a, b in pairwise(looks))
    rate_rps = max(finished + last.inside - first.inside, 0.0) / span_s
    each_rps = limit.rate_rps
    if finished >= 1.0 and all(seen.waiting > 0.0 for seen in looks):
        each_rps = min(each_rps, finished / span_s / ready)
    if last.waiting / (each_rps * ready) <= LONG_WAIT * limit.slack_s:
        return None
    surely_rps = max(rate_rps - math.sqrt(rate_rps / span_s), 0.0)
    replicas = surely_rps / (FILL * each_rps) + last.waiting / (each_rps * DRAIN_S)
    return _Need(replicas, last.waiting, rate_rps)


def _finished(earlier: Look, later: Look, each_rps: float) -> float:
    """Return what finished between two looks, on pods that did not start anew."""
    most = MOST_WORK * each_rps * (later.at_s - earlier.at_s)
    changes = (
        n - earlier.finished[pod] if pod in earlier.finished else n if n <= most else 0.0
        for pod, n in later.finished.items()
    )
    return sum(change for change in changes if change > 0.0)


def _for_sequences(limit: Limit, looks: tuple[Look, ...], ready: int) -> _Need | None:
    inside = looks[-1].inside
    if limit.batch <= 0 or inside <= ready * limit.batch:
        return None
    # A batch beyond its limit is slow, and who is in it stays the longer: on target fewer would be
    # inside (Little's law), and more replicas for the pile would stand idle when they are ready.
    crowd = min(int(inside / ready), len(limit.itl_s) - 1)
    pace = limit.itl_s[limit.batch] / limit.itl_s[crowd] if limit.itl_s else 1.0
    return _Need(inside * pace / (FILL * limit.batch), looks[-1].waiting, 0.0)
