"""Whether every metric that a decision rests on is there and fresh. Pure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Final

from planner.adapters.sources import Scheme, source_named
from planner.check.finding import Finding, error, ok, warning
from planner.check.rules import Rule
from planner.check.traffic import SHARE_UNKNOWN, traffic_findings
from planner.errors import ClusterError, MetricsError
from planner.model import Fleet, PodSample, Pool, Role, Sample, Service, Signal
from planner.spec.quantities import format_duration

STALE_S: Final = 45.0
"""Age of the newest metric beyond which a decision holds, if the interval is no longer [s]."""

_LENGTHS: Final = "lengths are not known, and no decision is made"

WITHOUT: Final[Mapping[tuple[Role | None, Signal], str]] = {
    (Role.PREFILL, Signal.PROMPT_TOKENS): _LENGTHS,
    (Role.PREFILL, Signal.COMPUTED_TOKENS): "every prompt token counts as computed, cached or not",
    (Role.PREFILL, Signal.TTFT): SHARE_UNKNOWN,
    (Role.PREFILL, Signal.PREFILL_TIME): "the profile is not corrected by what really runs",
    (Role.PREFILL, Signal.RUNNING): "requests that have not finished do not count as load",
    (Role.PREFILL, Signal.WAITING): "requests that queue do not count as load",
    (Role.DECODE, Signal.OUTPUT_TOKENS): _LENGTHS,
    (Role.DECODE, Signal.TOKEN_GAP): "the profile is not corrected by what really runs",
    (Role.DECODE, Signal.ITL): SHARE_UNKNOWN,
    (Role.DECODE, Signal.TTFT): "the handover from prefill to decode counts as instant",
    (Role.DECODE, Signal.RUNNING): "an uneven spread of requests over pods is not seen",
    (None, Signal.ARRIVALS): "requests count only once a pod has them",
}
"""What the planner can't do without a signal; those that are absent here decide nothing."""


def metrics_findings(
    service: Service,
    sample: Sample | MetricsError,
    fleet: Fleet | ClusterError,
    *,
    at_s: float,
    took_s: float,
    scrape_interval_s: float,
) -> Iterator[Finding]:
    """Yield what the metrics of one service lack.

    Parameters
    ----------
    service
        Whose metrics these are.
    sample
        What was read, or why nothing could be.
    fleet
        The pods that ought to be seen.
    at_s
        When it was read [s, Unix].
    took_s
        How long the answer took [s].
    scrape_interval_s
        How often the planner takes pods to be scraped [s].

    Yields
    ------
    Finding
        At least one.
    """
    if isinstance(sample, MetricsError):
        mend = "see --prometheus and metrics.selector, or start what is to be scraped"
        yield error("metrics", str(sample), mend, Rule.METRICS)
        return
    yield _latency(service, took_s)
    for pool in service.pools:
        pods = sample.pools.get(pool.name, ())
        yield from _scraped(pool, len(pods), _ready(pool, fleet))
        scheme = source_named(service.source).roles[pool.role]
        yield from _signals(f"pool {pool.name}: metrics", pool.role, scheme, pods)
    yield from _gateway(service, sample)
    yield from _age(service, sample, at_s)
    yield from _scrapes(service, sample, scrape_interval_s)
    yield from traffic_findings(service, sample)


def _latency(service: Service, took_s: float) -> Finding:
    shown = format_duration(round(took_s, 3))
    if took_s > 0.1 * service.interval_s:
        return warning(
            "metrics",
            f"the answer took {shown}, more than a tenth of the interval of "
            f"{format_duration(service.interval_s)}",
            "give Prometheus more room, or raise interval",
            Rule.PROMETHEUS_LATENCY,
        )
    return ok("metrics", f"answered in {shown}")


def _ready(pool: Pool, fleet: Fleet | ClusterError) -> int | None:
    if isinstance(fleet, ClusterError) or pool.name not in fleet.pools:
        return None
    return fleet.pools[pool.name].ready(pool.pods_per_replica) * pool.pods_per_replica


def _scraped(pool: Pool, seen: int, ready: int | None) -> Iterator[Finding]:
    where = f"pool {pool.name}: metrics"
    mend = "scrape every pod of the target (labels namespace and pod kept), or mend the selector"
    if ready == 0:
        yield warning(where, "no pod is ready yet, so none can be seen", "start one, check again",
                      Rule.PODS_SCRAPED)  # fmt: skip
    elif seen == 0 or (ready is not None and 2 * seen < ready):
        of = "" if ready is None else f" of {ready} ready ones"
        what = f"metrics of {seen} pods{of}: every decision holds"
        yield error(where, what, mend, Rule.PODS_SCRAPED)
    elif ready is not None and seen < ready:
        what = f"metrics of {seen} of {ready} ready pods: the load of the others is not seen"
        yield warning(where, what, mend, Rule.PODS_SCRAPED)
    else:
        yield ok(where, f"{seen} pods are scraped")


def _signals(
    where: str, role: Role | None, scheme: Scheme, pods: Sequence[PodSample]
) -> Iterator[Finding]:
    for signal, metric in scheme.metrics.items():
        without = WITHOUT.get((role, signal))
        lacking = [pod.pod for pod in pods if not _has(pod, signal)]
        if without is None or not lacking:
            continue
        names = " or ".join(family.name for family in metric.families)
        everywhere = len(lacking) == len(pods)
        who = "no pod exposes" if everywhere else f"{', '.join(lacking[:3])} does not expose"
        make = error if without is _LENGTHS and everywhere else warning
        yield make(
            where,
            f"{who} {names}: {without}",
            "let the engine expose it and Prometheus keep it (metric_relabel_configs)",
            Rule.METRIC_MISSING,
        )


def _has(pod: PodSample, signal: Signal) -> bool:
    return signal in pod.histograms or signal in pod.counters or signal in pod.gauges


def _gateway(service: Service, sample: Sample) -> Iterator[Finding]:
    scheme = source_named(service.source).gateway
    if scheme is None:
        return
    if sample.gateway is None:
        yield error(
            "gateway: metrics",
            f"the source {service.source} has a gateway, and none is scraped: requests count only "
            "once a pod has them, and a pool of 0 replicas never wakes",
            "scrape the gateway with the labels of metrics.selector, or write source: vllm",
            Rule.METRIC_MISSING,
        )
    else:
        yield from _signals("gateway: metrics", None, scheme, [sample.gateway])


def _age(service: Service, sample: Sample, at_s: float) -> Iterator[Finding]:
    pods = [(name, pod) for name, pods in sample.pools.items() for pod in pods]
    if not pods:
        return
    oldest_s = max(service.interval_s, STALE_S)
    ages = {pod.pod: at_s - pod.at_s for _, pod in pods}
    newest_s = min(ages.values())
    mend = "see Prometheus' Targets page for the pods, and its clock"
    if newest_s > oldest_s:
        what = f"the newest is {newest_s:.0f} s old: every decision holds"
        yield error("metrics", what, mend, Rule.METRIC_STALE)
        return
    stale = sorted(pod for pod, age_s in ages.items() if age_s > oldest_s)
    if stale:
        what = f"of {', '.join(stale[:3])} are older than {format_duration(oldest_s)}"
        yield warning("metrics", what, mend, Rule.METRIC_STALE)
    else:
        yield ok("metrics", f"the oldest is {max(ages.values()):.0f} s old")


def _scrapes(service: Service, sample: Sample, expected_s: float) -> Iterator[Finding]:
    steps = [later - earlier for pods in sample.pools.values() for pod in pods
             for (earlier, _), (later, _) in pairwise(pod.trail)]  # fmt: skip
    if not steps:
        return
    step_s = median(steps)
    shown = format_duration(round(step_s, 1))
    if step_s > service.interval_s / 2:
        yield warning(
            "metrics: scrapes",
            f"pods are scraped every {shown}, and an interval of "
            f"{format_duration(service.interval_s)} holds fewer than two scrapes",
            f"write scrape_interval: {format_duration(service.interval_s / 4)} in Prometheus' "
            f"configuration, or interval: {format_duration(math.ceil(4 * step_s))} here",
            Rule.SCRAPE_INTERVAL,
        )
    elif step_s > 1.5 * expected_s:
        yield warning(
            "metrics: scrapes",
            f"pods are scraped every {shown}, and the planner counts on "
            f"{format_duration(expected_s)}: one that missed a scrape counts as gone",
            f"write scrape_interval: {format_duration(expected_s)} in Prometheus' configuration",
            Rule.SCRAPE_INTERVAL,
        )
    else:
        yield ok("metrics: scrapes", f"every {shown}")
