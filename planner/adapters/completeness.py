"""What a sample must hold before anyone decides upon it, whatever it was read from. Pure."""

import math
from collections.abc import Iterable

from planner.adapters.sources import Scheme, Source
from planner.adapters.targets import pod_pattern
from planner.errors import MetricsError
from planner.model import PodSample, Pool, Sample, Service


def window_s(service: Service, scrape_interval_s: float) -> float:
    """Return how far back a pod's last scrape counts [s].

    The whole interval, so that a pod that died within it shows its last values; two scrapes at
    least, so that one that is late does not hide a pod.
    """
    return max(service.interval_s, 2.0 * scrape_interval_s)


def complete(service: Service, source: Source, sample: Sample, window: float) -> Sample:
    """Return the sample if nothing is missing or not finite in it.

    A pool with a floor of 0 may be empty, as long as the service is not: no series of a pool that
    must exist means that we are blind, not that there is no load.

    Raises
    ------
    MetricsError
        If a pool that must have pods or the gateway has no series, or a value is not finite.
    """
    some = sample.gateway is not None or any(sample.pools.values())
    for pool in service.pools:
        if not sample.pools[pool.name] and not (pool.min_replicas == 0 and some):
            scheme = source.roles[pool.role]
            raise MetricsError(_nothing(service, f"pool {pool.name}", scheme, pool, window))
    if source.gateway is not None and sample.gateway is None:
        raise MetricsError(_nothing(service, "the gateway", source.gateway, None, window))
    every = [(name, pod) for name, pods in sample.pools.items() for pod in pods]
    if sample.gateway is not None:
        every.append(("the gateway", sample.gateway))
    for name, pod in every:
        _check_finite(service, name, pod)
    return sample


def _check_finite(service: Service, pool: str, sample: PodSample) -> None:
    for signal, value in _figures(sample):
        if not math.isfinite(value):
            raise MetricsError(
                f"{service.key}: {pool}, pod {sample.pod}: {signal} is {value}, not a finite number"
            )


def _figures(sample: PodSample) -> Iterable[tuple[str, float]]:
    yield from sample.counters.items()
    yield from sample.gauges.items()
    yield from (("requests", count) for _, count in sample.trail)
    for signal, histogram in sample.histograms.items():
        yield signal, histogram.sum
        yield from ((signal, count) for count in histogram.cumulative)


def _nothing(service: Service, what: str, scheme: Scheme, pool: Pool | None, window: float) -> str:
    matchers = [f"{name}={value}" for name, value in service.selector.items()]
    matchers.append(f"namespace={service.key.namespace}")
    if pool is not None and pool.selector:
        matchers += [f"{name}={value}" for name, value in pool.selector.items()]
    elif pool is not None:
        matchers.append(f"pod=~{pod_pattern(pool.target)}")
    return (
        f"{service.key}: {what} has no series in the last {window:g} s; looked for "
        f"{' or '.join(scheme.trail_series())} with {', '.join(matchers)}; "
        "check that its pods are scraped and the selectors fit"
    )
