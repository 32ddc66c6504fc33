"""Between two ticks: what the pods show, looked at every few seconds. Pure.

A tick sees the mean of an interval and answers once in it; a step of the load has then queued for
most of a minute. What every pod shows by itself, looked at every few seconds, tells it in ten.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from planner.model import Factors, Load, PodSample, Pool, Role, Sample, Service, Signal
from planner.sizing import decode, prefill

# How often is looked [s], and how far back arrivals are counted [s].
CHECK_S, WINDOW_S = 5.0, 20.0
# Looks that make a rate: fewer are one burst. Where looks are rarer than every 5 s (Prometheus has
# a new figure once a scrape) they are kept longer, but none longer than a tick usually takes [s].
MIN_LOOKS, STALE_S = 3, 60.0


@dataclass(frozen=True, slots=True)
class Capacity:
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
class LookMemory:
    """What the check remembers by pool name: capacities, and looks, oldest first."""

    capacities: Mapping[str, Capacity] = field(default_factory=dict)
    looks: Mapping[str, tuple[Look, ...]] = field(default_factory=dict)


def arm(service: Service, memory: LookMemory, load: Load, factors: Factors) -> LookMemory:
    """Return the memory with the capacities of a new plan."""
    capacities: dict[str, Capacity] = {}
    dispersion = float(np.interp(np.log(WINDOW_S), np.log(load.scales_s), load.dispersion))
    for pool in service.pools:
        factor = factors.of(pool.name)
        if pool.role is Role.PREFILL:
            of_pool = prefill.prefill_load(
                pool, service, load, factor, 1.0, service.sla.ttft_s, service.interval_s
            )
            slack_s = np.clip(of_pool.slack_s, 0.0, service.sla.ttft_s) @ of_pool.weights
            rate_rps = 1.0 / of_pool.service_mean_s
            capacities[pool.name] = Capacity(rate_rps, float(slack_s), dispersion)
        else:
            sequences = decode.decode_load(pool, load, factor, 1.0, service.sla.itl_s)
            rate_rps = decode.throughput_tps(sequences) / max(load.lengths.osl_mean_tokens, 1.0)
            capacities[pool.name] = Capacity(
                rate_rps,
                dispersion=sequences.dispersion,
                batch=decode.batch_limit(sequences),
                itl_s=tuple(sequences.itl_s.tolist()),
            )
    return replace(memory, capacities=capacities)


def look(service: Service, memory: LookMemory, sample: Sample, now_s: float) -> LookMemory:
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


def is_pressed(service: Service, memory: LookMemory, sample: Sample) -> bool:
    """Return whether a look may call for replicas, however many there are: else `rises` is empty.

    It needs no fleet, so that a service without a queue costs the cluster no question.
    """
    for pool in service.pools:
        seen = _look(sample.pools.get(pool.name, ()), pool, sample.at_s)
        capacity, looks = memory.capacities.get(pool.name), memory.looks.get(pool.name, ())
        if capacity is None or seen.pods == 0 or len(looks) < MIN_LOOKS - 1:
            continue
        # The fleet may hold fewer ready replicas than answered, at least one.
        if pool.role is Role.PREFILL and seen.waiting > 0.0:
            return True
        if 0 < capacity.batch < seen.inside:
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
