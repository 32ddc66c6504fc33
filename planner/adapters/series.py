"""From labelled series to the pods of a service: filing, matching, adding up. Pure.

Whatever can't be told apart for sure is a `MetricsError` that names the pod, the metric and the
label: a figure that might be counted twice is worse than none.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

from planner.adapters.completeness import complete
from planner.adapters.sources import Family, Kind, Metric, Scheme, Source
from planner.adapters.targets import pod_pattern
from planner.errors import MetricsError
from planner.model import Histogram, PodSample, Pool, Sample, Service, Signal

Labels = Mapping[str, str]
REGEX = "=~"  # a selector's value that starts so is a regular expression, as in PromQL


class Place(NamedTuple):
    """Where a series belongs: its exporter, known by the labels all its metrics share; its name."""

    exporter: frozenset[tuple[str, str]]
    name: str
    le: str


@dataclass(slots=True)
class Exporter:
    """What one scraped endpoint said of one model.

    Attributes
    ----------
    labels
        The labels that all its series share.
    values
        By series name and `le` ("" without one), one value for each engine rank.
    trail
        By counter name, scrape time [s] → requests so far.
    """

    labels: Labels
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    trail: dict[str, dict[float, float]] = field(default_factory=dict)

    @property
    def pod(self) -> str:
        """The pod's name, elsewhere the scraped address."""
        return self.labels.get("pod") or self.labels.get("instance") or "without a name"

    def add(self, place: Place, value: float) -> None:
        """Take the current value of a series."""
        self.values.setdefault(place.name, {}).setdefault(place.le, []).append(value)

    def add_trail(self, name: str, points: Iterable[tuple[float, float]]) -> None:
        """Take a counter's scrapes; ranks of one scrape share its time and are added."""
        trail = self.trail.setdefault(name, {})
        for at_s, value in points:
            trail[at_s] = trail.get(at_s, 0.0) + value


def file_under(source: Source, known: Mapping[str, Labels], labels: Labels) -> Place | None:
    """Return where a series belongs, None if it is not one of the `known` of the source."""
    name = labels.get("__name__", "")
    matchers = known.get(name)
    if matchers is None or any(labels.get(k) != v for k, v in matchers.items()):
        return None
    own = frozenset(
        item
        for item in labels.items()
        if item[0] not in {"__name__", "le"}
        and item[0] not in matchers
        and item[0] not in source.sum_over
    )
    return Place(own, name, labels.get("le", ""))


def gather(
    values: Iterable[tuple[Place, float]],
    trails: Iterable[tuple[Place, Iterable[tuple[float, float]]]],
) -> list[Exporter]:
    """Return the exporters that the series come from."""
    exporters: dict[frozenset[tuple[str, str]], Exporter] = {}

    def exporter(place: Place) -> Exporter:
        if place.exporter not in exporters:
            exporters[place.exporter] = Exporter(dict(place.exporter))
        return exporters[place.exporter]

    for place, value in values:
        exporter(place).add(place, value)
    for place, points in trails:
        exporter(place).add_trail(place.name, points)
    return list(exporters.values())


def sample_of(
    service: Service, source: Source, exporters: Sequence[Exporter], now_s: float, window: float
) -> Sample:
    """Return what the exporters say of a service; its selector has been applied to them.

    Raises
    ------
    MetricsError
        If a pool has no series, or a figure is ambiguous, garbled or not finite.
    """
    namespace = service.selector.get("namespace", service.key.namespace)
    # Without values: scraped for the first time between the two queries, so not seen yet.
    mine = [
        e for e in exporters if e.values and _fits(namespace, e.labels.get("namespace", namespace))
    ]
    since_s = now_s - window
    try:
        pools = {
            pool.name: _pods(source.roles[pool.role], _members(pool, mine), since_s)
            for pool in service.pools
        }
        gateway = _gateway(source, mine, since_s)
    except MetricsError as error:
        raise MetricsError(f"{service.key}: {error}") from error
    return complete(service, source, Sample(now_s, pools, gateway), window)


def matches(selector: Labels, labels: Labels) -> bool:
    """Return whether labels satisfy a selector of equalities and `=~` expressions."""
    return all(_fits(wanted, labels.get(name, "")) for name, wanted in selector.items())


def _fits(wanted: str, value: str) -> bool:
    if wanted.startswith(REGEX):
        return re.fullmatch(wanted.removeprefix(REGEX), value) is not None
    return wanted == value


def _members(pool: Pool, exporters: Iterable[Exporter]) -> list[Exporter]:
    """Return the exporters of a pool: by its selector, without one by its target's pod names."""
    if pool.selector:
        return [e for e in exporters if matches(pool.selector, e.labels)]
    pattern = re.compile(pod_pattern(pool.target))
    return [e for e in exporters if pattern.fullmatch(e.labels.get("pod", ""))]


def _gateway(source: Source, exporters: Iterable[Exporter], since_s: float) -> PodSample | None:
    if source.gateway is None:
        return None
    names = set(source.gateway.trail_series())
    pods = _pods(source.gateway, [e for e in exporters if names & e.trail.keys()], since_s)
    if len(pods) > 1:
        # Sums over gateway pods would jump when one goes: arrivals out of nothing.
        named = ", ".join(pod.pod for pod in pods)
        raise MetricsError(
            f"{len(pods)} gateway pods report ({named}), legal is 1; narrow selector"
        )
    return pods[0] if pods else None


def _pods(scheme: Scheme, exporters: Iterable[Exporter], since_s: float) -> tuple[PodSample, ...]:
    """Return a sample of every pod scraped after `since_s`, in the order of their names."""
    by_pod: dict[str, list[Exporter]] = {}
    for exporter in exporters:
        by_pod.setdefault(exporter.pod, []).append(exporter)
    samples = (_pod(scheme, pod, by_pod[pod], since_s) for pod in sorted(by_pod))
    return tuple(sample for sample in samples if sample is not None)


def _pod(
    scheme: Scheme, pod: str, exporters: Sequence[Exporter], since_s: float
) -> PodSample | None:
    """Return one pod's sample, None if its last scrape is too old."""
    trails = [_trail(scheme, exporter) for exporter in exporters]
    last = _last_incarnation(scheme, pod, exporters, trails)
    trail = sorted(point for points in trails for point in points.items() if point[0] > since_s)
    if not trail:
        return None
    sample = PodSample(pod, trail[-1][0], *_translate(scheme, pod, last))
    if len(trail) > 1 and scheme.requests(sample) == trail[-2][1] != trail[-1][1]:
        # Scraped between the query for values and that for trails: the values are one behind.
        trail.pop()
    return replace(sample, at_s=trail[-1][0], trail=tuple(trail))


def _trail(scheme: Scheme, exporter: Exporter) -> Mapping[float, float]:
    known = (exporter.trail[name] for name in scheme.trail_series() if name in exporter.trail)
    return next(known, {})


def _last_incarnation(
    scheme: Scheme, pod: str, exporters: Sequence[Exporter], trails: Sequence[Mapping[float, float]]
) -> Exporter:
    """Return the exporter that speaks for a pod now.

    A pod that was made again under its name (StatefulSet, Volcano Job) has another address: its
    series follow each other in time. Series at the same time are one figure split by a label.

    Raises
    ------
    MetricsError
        If a label splits the pod's series, or none of them counts its requests.
    """
    silent = [e for e, trail in zip(exporters, trails, strict=True) if not trail]
    lives = sorted(
        ((min(trail), max(trail), e) for e, trail in zip(exporters, trails, strict=True) if trail),
        key=lambda life: life[:2],
    )
    if not lives:
        raise MetricsError(f"pod {pod} does not expose {' or '.join(scheme.trail_series())}")
    for exporter in silent:
        raise MetricsError(_split(pod, exporter, lives[-1][2]))
    for (_, ended_s, earlier), (began_s, _, later) in pairwise(lives):
        if began_s <= ended_s:
            raise MetricsError(_split(pod, earlier, later))
    return lives[-1][2]


def _split(pod: str, one: Exporter, other: Exporter) -> str:
    names = {name for name, _ in one.labels.items() ^ other.labels.items()}
    metric = min(one.values or other.values or one.trail, default="its metrics")
    return (
        f"pod {pod}: label {', '.join(sorted(names))} splits {metric} into several series "
        "where one is expected; add it to the selector, or stop scraping the pod twice"
    )


_Figures = tuple[dict[Signal, float], dict[Signal, Histogram], dict[Signal, float]]


def _translate(scheme: Scheme, pod: str, exporter: Exporter) -> _Figures:
    """Return an exporter's counters, histograms and gauges; a signal it lacks is left out."""
    counters: dict[Signal, float] = {}
    histograms: dict[Signal, Histogram] = {}
    gauges: dict[Signal, float] = {}
    for signal, metric in scheme.metrics.items():
        if metric.kind in {Kind.HISTOGRAM, Kind.SUMMARY}:
            if (histogram := _histogram(metric, pod, exporter)) is not None:
                histograms[signal] = histogram
        elif (value := _value(metric, exporter)) is not None:
            (counters if metric.kind is Kind.COUNTER else gauges)[signal] = value
    return counters, histograms, gauges


def _value(metric: Metric, exporter: Exporter) -> float | None:
    for family in metric.families:
        if ranks := exporter.values.get(family.name, {}).get(""):
            return sum(ranks) / (len(ranks) if metric.kind is Kind.RATIO else 1)
    return None


def _histogram(metric: Metric, pod: str, exporter: Exporter) -> Histogram | None:
    read = _buckets if metric.kind is Kind.HISTOGRAM else _count_alone
    for family in metric.families:
        total = exporter.values.get(f"{family.name}_sum", {}).get("")
        if total and (buckets := read(family, pod, exporter)):
            bounds, counts = zip(*buckets, strict=True)
            return Histogram(bounds, counts, sum(total))
    return None


def _buckets(family: Family, pod: str, exporter: Exporter) -> list[tuple[float, float]]:
    """Return (upper bound, cumulative count), ascending; empty if not exposed.

    Raises
    ------
    MetricsError
        If the bounds are not different numbers up to +Inf.
    """
    series = exporter.values.get(f"{family.name}_bucket", {})
    buckets = sorted((_bound(le), sum(ranks)) for le, ranks in series.items())
    bounds = [bound for bound, _ in buckets]
    ascend = all(one < other for one, other in pairwise(bounds))  # false for a NaN, too
    if buckets and not (ascend and bounds[-1] == math.inf):
        raise MetricsError(
            f"pod {pod}: {family.name}_bucket has the bounds {', '.join(series)}; legal are "
            "different numbers and +Inf; look at what the pod exposes"
        )
    return buckets


def _bound(le: str) -> float:
    try:
        return float(le)
    except ValueError:
        return math.nan


def _count_alone(family: Family, _pod: str, exporter: Exporter) -> list[tuple[float, float]]:
    ranks = exporter.values.get(f"{family.name}_count", {}).get("")
    return [(math.inf, sum(ranks))] if ranks else []
