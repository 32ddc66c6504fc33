"""The few queries that fetch the series of many services, as text. Pure.

Services whose selectors use the same labels share a query: the union of their values is asked
for, and what belongs to whom is sorted out afterwards.
"""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from planner.adapters.completeness import window_s
from planner.adapters.series import REGEX, Exporter
from planner.adapters.sources import Source, source_named
from planner.model import Service

_LOG = logging.getLogger(__name__)

# Characters of matchers in one query: proxies refuse URLs over 8 KiB, and escapes cost double.
_MATCHERS_CHARS = 2500


@dataclass(frozen=True, slots=True)
class Batch:
    """Services that share their queries.

    `names` are the labels that tell their series apart; none where a batch is a single service.
    """

    source: Source
    window_s: float
    names: tuple[str, ...]
    matchers: str
    services: tuple[Service, ...]

    def values_query(self) -> str:
        """Return the query for the last value of every series within the window."""
        return f"last_over_time({self._selector(self.source.series())}[{_duration(self.window_s)}])"

    def trail_query(self, range_s: float) -> str:
        """Return the query for every scrape of the request counters within a time."""
        return f"{self._selector(self.source.trail_series())}[{_duration(range_s)}]"

    def _selector(self, names: Iterable[str]) -> str:
        union = _one_of("__name__", names)
        return "{" + (f"{union},{self.matchers}" if self.matchers else union) + "}"

    def share(self, exporters: Iterable[Exporter]) -> list[tuple[Service, list[Exporter]]]:
        """Return each service with the exporters that its selector picks."""
        by_values: dict[tuple[str, ...], list[Exporter]] = {}
        for exporter in exporters:
            values = tuple(exporter.labels.get(name, "") for name in self.names)
            by_values.setdefault(values, []).append(exporter)
        return [
            (service, by_values.get(tuple(service.selector[name] for name in self.names), []))
            for service in self.services
        ]


def batches(services: Sequence[Service], scrape_interval_s: float) -> list[Batch]:
    """Return the batches that cover all services; their sources must be known."""
    groups: dict[tuple[object, ...], list[Service]] = {}
    for service in services:
        groups.setdefault(_shared(service, scrape_interval_s), []).append(service)
    if len(groups) > 1:
        for group in groups.values():
            if len(group) == 1:
                _LOG.debug("%s costs queries of its own: selector %s is shared by no other service",
                           group[0].key, dict(group[0].selector))  # fmt: skip
    return [
        _batch(part, window_s(part[0], scrape_interval_s))
        for group in groups.values()
        for part in _parts(group)
    ]


def _shared(service: Service, scrape_interval_s: float) -> tuple[object, ...]:
    """Return what services must have in common to share a query."""
    own = service.key if _is_alone(service) else None
    names = tuple(sorted(service.selector))
    return service.source, window_s(service, scrape_interval_s), names, own


def _is_alone(service: Service) -> bool:
    return any(value.startswith(REGEX) for value in service.selector.values())


def _batch(services: Sequence[Service], window: float) -> Batch:
    first = services[0]
    alone = _is_alone(first)
    names = () if alone else tuple(sorted(first.selector))
    matchers = [
        _expression(name, value) if value.startswith(REGEX) else _one_of(name, [value])
        for name, value in (first.selector.items() if alone else ())
    ]
    matchers += [_one_of(name, (s.selector[name] for s in services)) for name in names]
    if "namespace" not in first.selector:
        # "" matches series without the label: not every scrape configuration adds it.
        matchers.append(_one_of("namespace", [*(s.key.namespace for s in services), ""]))
    source = source_named(first.source)
    return Batch(source, window, names, ",".join(matchers), tuple(services))


def _parts(services: Iterable[Service]) -> Iterator[list[Service]]:
    # Parts whose matchers stay short enough for a URL.
    part: list[Service] = []
    size = 0
    for service in services:
        length = sum(map(len, service.selector.values())) + len(service.key.namespace)
        if part and size + length > _MATCHERS_CHARS:
            yield part
            part, size = [], 0
        part.append(service)
        size += length
    if part:
        yield part


def _one_of(name: str, values: Iterable[str]) -> str:
    """Return the matcher of a label that may have one of several values."""
    distinct = sorted(set(values))
    if len(distinct) == 1:
        return f"{name}={_quoted(distinct[0])}"
    return f"{name}=~{_quoted('|'.join(map(re.escape, distinct)))}"


def _expression(name: str, value: str) -> str:
    return f"{name}=~{_quoted(value.removeprefix(REGEX))}"


def _quoted(text: str) -> str:
    # PromQL's strings are Go's: JSON's escapes mean the same there.
    return json.dumps(text, ensure_ascii=False)


def _duration(duration_s: float) -> str:
    return f"{round(duration_s * 1000)}ms"
