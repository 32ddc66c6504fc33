"""The sources table backwards: samples as an engine's own `/metrics` would show them. Pure.

Feeds a real Prometheus, by scraping or by `promtool tsdb create-blocks-from openmetrics`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isinf

from planner.adapters.series import REGEX, Labels
from planner.adapters.sources import Kind, Scheme, source_named
from planner.model import Histogram, PodSample, Service

Scrape = Mapping[str, Iterable[PodSample]]


@dataclass(frozen=True, slots=True)
class Line:
    """One series' value at `at_s` [s, Unix]."""

    family: str
    kind: Kind
    name: str
    labels: Mapping[str, str]
    value: float
    at_s: float


def lines(service: Service, scrape: Scrape, gateway: PodSample | None = None) -> list[Line]:
    """Return all series of a scrape, by pool name, under the newest names of the source.

    Labels are the service's selector, its pool's, `namespace`, `pod` and, of pods, `engine`.
    """
    source = source_named(service.source)
    own = {"namespace": service.key.namespace, **_plain(service.selector)}
    found: list[Line] = []
    for pool in service.pools:
        for sample in scrape.get(pool.name, ()):
            labels = {**own, **_plain(pool.selector), "pod": sample.pod, "engine": "0"}
            found += _sample(source.roles[pool.role], labels, sample)
    if gateway is not None and source.gateway is not None:
        found += _sample(source.gateway, {**own, "pod": gateway.pod}, gateway)
    return found


def _plain(selector: Labels) -> dict[str, str]:
    return {name: value for name, value in selector.items() if not value.startswith(REGEX)}


def text_format(found: Iterable[Line], *, stamped: bool = False) -> str:
    """Return the lines in Prometheus' text format, each with its time if `stamped`."""
    families: dict[str, list[Line]] = {}
    for line in found:
        families.setdefault(line.family, []).append(line)
    rows = []
    for family, members in families.items():
        kind = members[0].kind
        rows.append(f"# TYPE {family} {'gauge' if kind is Kind.RATIO else kind}")
        rows += [_row(line) + (f" {line.at_s * 1000:.0f}" if stamped else "") for line in members]
    return "".join(f"{row}\n" for row in rows)


def openmetrics_format(found: Iterable[Line]) -> str:
    """Return the lines of one or many scrapes, oldest first, with their times, as OpenMetrics."""
    rows = [f"{_row(line)} {line.at_s:.3f}" for line in found]
    return "".join(f"{row}\n" for row in (*rows, "# EOF"))


def _row(line: Line) -> str:
    labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in line.labels.items())
    return f"{line.name}{{{labels}}} {_number(line.value)}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value))  # the shortest text that reads back as the same number


def _sample(scheme: Scheme, labels: Mapping[str, str], sample: PodSample) -> Iterator[Line]:
    for signal, metric in scheme.metrics.items():
        family = metric.families[0]
        own = {**labels, **family.matchers}
        if signal in sample.histograms:
            series = _histogram(metric.kind, sample.histograms[signal])
        elif (value := {**sample.counters, **sample.gauges}.get(signal)) is not None:
            series = iter([("", {}, value)])
        else:
            continue
        for suffix, bound, value in series:
            name = family.name + suffix
            yield Line(family.name, metric.kind, name, {**own, **bound}, value, sample.at_s)


def _histogram(kind: Kind, histogram: Histogram) -> Iterator[tuple[str, dict[str, str], float]]:
    if kind is Kind.HISTOGRAM:
        for bound, count in zip(histogram.upper_bounds, histogram.cumulative, strict=True):
            yield "_bucket", {"le": _number(bound)}, count
    yield "_sum", {}, histogram.sum
    yield "_count", {}, histogram.count
