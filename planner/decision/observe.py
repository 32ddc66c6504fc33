"""Step 1, observe: two cumulative samples become one validated interval, or a Hold. Pure.

Unknown is not zero: what is missing, stale or not a number holds the decision.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from statistics import median

from planner.decision.difference import Interval, difference
from planner.model import (
    Attainment,
    Fleet,
    Histogram,
    Hold,
    Observation,
    PodSample,
    PoolObservation,
    Reason,
    Role,
    Sample,
    Service,
    Signal,
)

# Pods below which the spread of running sequences over them says nothing.
SPREAD_PODS = 3


def observe(
    service: Service, previous: Sample | None, sample: Sample, fleet: Fleet, now_s: float
) -> Observation | Hold:
    """Return what one interval of metrics says, or a Hold that says what is missing.

    Parameters
    ----------
    service
        Whose metrics these are.
    previous, sample
        The last usable sample (None at the start) and the one read now.
    fleet
        Pods that exist, to tell "no traffic" from "no metrics".
    now_s
        Time of the decision [s, Unix].
    """
    fault = _fault(service, previous, sample, fleet, now_s)
    if fault is not None:
        return Hold(fault)
    assert previous is not None  # _fault holds without one
    intervals = {
        pool.name: difference(previous.pools.get(pool.name, ()), sample.pools.get(pool.name, ()))
        for pool in service.pools
    }
    return _assemble(service, intervals, previous, sample, now_s)


def _fault(
    service: Service, previous: Sample | None, sample: Sample, fleet: Fleet, now_s: float
) -> Reason | None:
    """Return why the sample can't be used, None if it can."""
    if not _is_finite(sample):
        message = "a metric is NaN, infinite or negative, or a histogram's buckets fall; holding"
        return Reason("MetricsNotFinite", message)
    return _missing(service, sample, fleet) or _stale(service, previous, sample, now_s)


def _missing(service: Service, sample: Sample, fleet: Fleet) -> Reason | None:
    """Return which pool is not scraped, None if enough of every pool is."""
    for pool in service.pools:
        seen = len(sample.pools.get(pool.name, ()))
        ready = fleet.pools[pool.name].ready(pool.pods_per_replica) * pool.pods_per_replica
        # Pods that were just started may not have been scraped yet; half of them must be.
        if ready > 0 and 2 * seen < ready:
            message = f"metrics of {seen} of {ready} ready pods of pool {pool.name}; holding"
            return Reason("MetricsMissing", message, pool.name, {"seen": seen, "ready": ready})
    return None


def _stale(
    service: Service, previous: Sample | None, sample: Sample, now_s: float
) -> Reason | None:
    """Return why two samples make no interval, None if they do."""
    newest_s = newest(sample)
    if newest_s is None:
        return Reason("MetricsMissing", "no pod and no gateway is scraped; holding")
    age_s = now_s - newest_s
    earlier_s = None if previous is None else newest(previous)
    if age_s > max(service.interval_s, 45.0) or (earlier_s is not None and newest_s <= earlier_s):
        message = f"the newest metric is {age_s:.0f} s old; holding"
        return Reason("MetricsStale", message, values={"age_s": age_s})
    if previous is None:
        return Reason("WarmingUp", "first sample: rates need two; holding")
    return None


def newest(sample: Sample) -> float | None:
    """Return the time of the latest scrape in a sample [s, Unix], None if it holds none."""
    times = [pod.at_s for pods in sample.pools.values() for pod in pods]
    if sample.gateway is not None:
        times.append(sample.gateway.at_s)
    return max(times, default=None)


def _is_finite(sample: Sample) -> bool:
    """Whether every number of the sample is finite and not negative, and no histogram falls."""
    pods = [pod for pods in sample.pools.values() for pod in pods]
    if sample.gateway is not None:
        pods.append(sample.gateway)

    return all(_is_finite_pod(pod) for pod in pods)


def _is_finite_pod(pod: PodSample) -> bool:
    """Whether one pod's numbers are finite and not negative, and no histogram falls."""
    numbers = [pod.at_s, *pod.counters.values(), *pod.gauges.values(), *chain(*pod.trail)]
    for histogram in pod.histograms.values():
        counts = histogram.cumulative
        numbers += (histogram.sum, *counts)
        # Sorted in C: thousands of buckets are looked at in every tick.
        if list(counts) != sorted(counts):
            return False
    return min(numbers) >= 0.0 and math.isfinite(sum(numbers))


def _assemble(
    service: Service,
    intervals: Mapping[str, Interval],
    previous: Sample,
    sample: Sample,
    now_s: float,
) -> Observation:
    """Put the pools' intervals together into one observation."""
    prefill = [intervals[p.name] for p in service.pools_of(Role.PREFILL)]
    decode = [intervals[p.name] for p in service.pools_of(Role.DECODE)]
    gateway = _gateway(previous, sample)
    prompts = _total(prefill, Signal.PROMPT_TOKENS)
    handover = _mean(_total(decode, Signal.TTFT))
    ttft, itl = _total(prefill, Signal.TTFT), _total(decode, Signal.ITL)
    # A prefill pod's TTFT ends before the handover to decode; a client's holds it already.
    shift_s = handover or 0.0
    if gateway is not None and Signal.TTFT in gateway.added:
        ttft, shift_s = gateway.added[Signal.TTFT], 0.0
    if gateway is not None:
        itl = gateway.added.get(Signal.ITL, itl)
    ttft_mean_s = _mean(ttft)
    newest_s = newest(sample)
    return Observation(
        at_s=now_s,
        span_s=max((i.span_s for i in intervals.values()), default=0.0) or service.interval_s,
        arrivals_rps=_arrivals_rps(prefill, gateway),
        finished=prompts.count if prompts else 0.0,
        uncached_ratio=_uncached_ratio(prefill, prompts),
        pools={pool.name: _pool(intervals[pool.name], pool.role) for pool in service.pools},
        prompts=_lengths(prompts),
        outputs=_lengths(_total(decode, Signal.OUTPUT_TOKENS)),
        ttft_mean_s=None if ttft_mean_s is None else ttft_mean_s + shift_s,
        itl_mean_s=_mean(itl),
        ttft=attainment(ttft, service.sla.ttft_s - shift_s),
        itl=attainment(itl, service.sla.itl_s),
        handover_s=handover,
        age_s=0.0 if newest_s is None else max(now_s - newest_s, 0.0),
        arrival_bins=arrival_bins(prefill if gateway is None else [gateway]),
    )


def _gateway(previous: Sample, sample: Sample) -> Interval | None:
    """Difference the gateway, None where the source has none."""
    if sample.gateway is None or previous.gateway is None:
        return None
    return difference([previous.gateway], [sample.gateway])


def _total(intervals: Sequence[Interval], signal: Signal) -> Histogram | None:
    """Add up one histogram over the pools of a role, None if no pool has it."""
    total: Histogram | None = None
    for interval in intervals:
        if signal in interval.added:
            histogram = interval.added[signal]
            total = histogram if total is None else total.plus(histogram)
    return total


def _lengths(histogram: Histogram | None) -> Histogram | None:
    """Return the lengths, None if there are no tokens: entries without any are a fault."""
    return histogram if histogram is not None and histogram.sum > 0.0 else None


def _mean(histogram: Histogram | None) -> float | None:
    """Return a histogram's mean, None without entries."""
    return None if histogram is None else histogram.mean


def _arrivals_rps(prefill: Sequence[Interval], gateway: Interval | None) -> float:
    """Return the requests/s that arrived.

    Notes
    -----
    What finishes stops at capacity, so the change of what is inside is added (sizing §1):
    ``λ = (Δ finished + Δ (running + waiting)) / Δt``.
    """
    if gateway is not None and Signal.ARRIVALS in gateway.counted and gateway.span_s > 0.0:
        return gateway.counted[Signal.ARRIVALS] / gateway.span_s
    total = 0.0
    for interval in prefill:
        if interval.span_s <= 0.0:
            continue
        finished = interval.added.get(Signal.PROMPT_TOKENS)
        inside = _inside(interval.gauges_now) - _inside(interval.gauges_before)
        total += ((finished.count if finished else 0.0) + inside) / interval.span_s
    return max(total, 0.0)


def _inside(gauges: Mapping[Signal, float]) -> float:
    """Return the requests that are in a pool, running or waiting."""
    return gauges.get(Signal.RUNNING, 0.0) + gauges.get(Signal.WAITING, 0.0)


def _uncached_ratio(prefill: Sequence[Interval], prompts: Histogram | None) -> float:
    """Return the share of prompt tokens that were computed, 1 where it can't be told."""
    computed = [i.counted[Signal.COMPUTED_TOKENS] for i in prefill
                if Signal.COMPUTED_TOKENS in i.counted]  # fmt: skip
    if not computed or prompts is None or prompts.sum <= 0.0:
        return 1.0
    return min(max(sum(computed) / prompts.sum, 0.0), 1.0)


def _pool(interval: Interval, role: Role) -> PoolObservation:
    """Describe one pool over the interval."""
    clock = Signal.PREFILL_TIME if role is Role.PREFILL else Signal.TOKEN_GAP
    busy = interval.added.get(clock)
    pods = len(interval.live)
    # Little's law: time spent by all sequences over time passed is their mean number. It sees
    # the whole interval, where a gauge sees the two instants at its ends.
    occupied = busy.sum / interval.span_s / pods if busy and pods and interval.span_s > 0 else 0.0
    return PoolObservation(
        pods=pods,
        service_s=_mean(busy),
        concurrency=occupied,
        waiting=interval.gauges_now.get(Signal.WAITING, 0.0),
        changed=interval.changed,
        concurrency_spread=_spread(interval.live),
    )


def _spread(pods: Sequence[PodSample]) -> float | None:
    """Return variance over mean of the running sequences on different pods."""
    running = [pod.gauges.get(Signal.RUNNING, 0.0) for pod in pods]
    if len(running) < SPREAD_PODS or sum(running) <= 0.0:
        return None
    mean = sum(running) / len(running)
    return sum((r - mean) ** 2 for r in running) / (len(running) - 1) / mean


def attainment(latencies: Histogram | None, target_s: float) -> Attainment | None:
    """Return the share of requests within a target, from the bucket below and the one above.

    Examples
    --------
    >>> h = Histogram((0.25, 0.5, float("inf")), (80.0, 99.0, 100.0), 20.0)
    >>> attainment(h, 0.5), attainment(h, 0.4).lower
    (Attainment(lower=0.99, upper=0.99, requests=100.0), 0.8)
    """
    if latencies is None or latencies.count <= 0.0 or len(latencies.upper_bounds) < 2:
        return None
    pairs = list(zip(latencies.upper_bounds, latencies.cumulative, strict=True))
    below = max((n for bound, n in pairs if bound <= target_s), default=0.0)
    above = min((n for bound, n in pairs if bound >= target_s), default=latencies.count)
    return Attainment(below / latencies.count, above / latencies.count, latencies.count)


def arrival_bins(intervals: Sequence[Interval]) -> tuple[float, tuple[float, ...]]:
    """Return the bin width [s] and the requests of each scrape interval inside, over all pods.

    Empty where pods came or went: what moves between pods would look like a burst.
    """
    if any(interval.changed for interval in intervals):
        return 0.0, ()
    steps = [step for interval in intervals for pod in interval.live
             for step in _scrape_steps(interval.before[pod.pod], pod)]  # fmt: skip
    if not steps:
        return 0.0, ()
    width_s = median(width_s for _, width_s, _ in steps)
    bins: dict[int, float] = {}
    for age_s, step_s, count in steps:
        # A step over a missed scrape is spread evenly over the scrapes it stands for.
        many = max(round(step_s / width_s), 1)
        for index in range(many):
            key = round(age_s / width_s) + index
            bins[key] = bins.get(key, 0.0) + count / many
    return width_s, tuple(bins[key] for key in sorted(bins, reverse=True))


def _scrape_steps(before: PodSample, pod: PodSample) -> list[tuple[float, float, float]]:
    """Return (age [s], width [s], requests) of a pod's scrape intervals since `before`.

    Age counts back from the pod's own last scrape: pods are scraped at different moments, and
    from one moment common to all the first and the last bin would lack some of them.
    """
    seen_s = before.trail[-1][0] if before.trail else -math.inf
    points = [*before.trail[-1:], *(point for point in pod.trail if point[0] > seen_s)]
    return [
        (points[-1][0] - end_s, end_s - start_s, max(later - earlier, 0.0))
        for (start_s, earlier), (end_s, later) in pairwise(points)
    ]
