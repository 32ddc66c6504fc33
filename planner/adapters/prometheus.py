"""The `Metrics` port on Prometheus: two queries an interval for all services alike.

Nothing is differenced or rated here: `rate()` drops a new pod's first and a dead pod's last
increments, a bias exactly while scaling. Every failure is a `MetricsError` in the answer; each
read, and each stretch of history, ends within twice the timeout.
"""

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from planner.adapters.clock import Deadline
from planner.adapters.prometheus_http import PrometheusAccess, PrometheusQueries
from planner.adapters.promql import Batch, batches
from planner.adapters.series import Exporter, Labels, Place, file_under, gather, sample_of
from planner.adapters.sources import Source, source_named
from planner.adapters.targets import pod_pattern
from planner.errors import InputError, MetricsError
from planner.model import Sample, Service, ServiceKey

__all__ = ["PrometheusAccess", "PrometheusMetrics"]

# Steps of history asked for at once: 4 h at 60 s, some 360,000 values from ten pods. Prometheus
# itself refuses more than 11,000 points a series.
_STEPS_AT_ONCE = 240

Point = tuple[float, float]
_T = TypeVar("_T")


class PrometheusMetrics:
    """The `Metrics` port on a Prometheus, or on whatever speaks its query API."""

    def __init__(self, access: PrometheusAccess) -> None:
        self._access = access
        self.scrape_interval_s = access.scrape_interval_s
        self._queries = PrometheusQueries(access)

    def read(
        self, services: Sequence[Service], now_s: float
    ) -> Mapping[ServiceKey, Sample | MetricsError]:
        """Return what is known at `now_s` [s, Unix], one entry a service; never raises."""
        deadline = Deadline(self._access.timeout_s)
        faults = {service.key: _fault(service) for service in services}
        answers: dict[ServiceKey, Sample | MetricsError] = {
            key: fault for key, fault in faults.items() if fault is not None
        }
        usable = [service for service in services if faults[service.key] is None]
        for batch in batches(usable, self._access.scrape_interval_s):
            answers.update(self._read_batch(batch, now_s, deadline))
        return answers

    def history(
        self, service: Service, start_s: float, end_s: float, step_s: float
    ) -> Sequence[Sample | MetricsError]:
        """Return what `read` would have said at start, start + step, … ≤ end [s, Unix].

        Once Prometheus does not answer, the rest is that error: it is not asked on and on.
        """
        count = max(math.floor((end_s - start_s) / step_s + 1e-9) + 1, 0)
        times = [start_s + i * step_s for i in range(count)]
        answers: list[Sample | MetricsError] = []
        fault = _fault(service)
        while fault is None and len(answers) < count:
            stretch = times[len(answers) : len(answers) + _STEPS_AT_ONCE]
            try:
                answers += self._replay(service, stretch, step_s)
            except MetricsError as error:
                fault = error
        if fault is not None:
            answers += [fault] * (count - len(answers))
        return answers

    def _read_batch(
        self, batch: Batch, now_s: float, deadline: Deadline
    ) -> Iterator[tuple[ServiceKey, Sample | MetricsError]]:
        try:
            rows = self._queries.instant(batch.values_query(), now_s, deadline)
            values = list(_filed(batch.source, batch.source.series(), rows, _value))
            trails = self._trails(batch, now_s, batch.window_s, deadline)
        except MetricsError as error:
            yield from ((service.key, error) for service in batch.services)
            return
        for service, own in batch.share(gather(values, trails)):
            yield service.key, _sample(service, batch, own, now_s)

    def _trails(
        self, batch: Batch, at_s: float, range_s: float, deadline: Deadline
    ) -> list[tuple[Place, list[Point]]]:
        rows = self._queries.instant(batch.trail_query(range_s), at_s, deadline)
        return list(_filed(batch.source, batch.source.trail_series(), rows, _points))

    def _replay(
        self, service: Service, times: Sequence[float], step_s: float
    ) -> list[Sample | MetricsError]:
        """Return the samples at consecutive times, from one query for values and one for trails."""
        (batch,) = batches([service], self._access.scrape_interval_s)
        deadline = Deadline(self._access.timeout_s)
        start_s, end_s = times[0], times[-1]
        rows = self._queries.span(batch.values_query(), start_s, end_s, step_s, deadline)
        values = _filed(batch.source, batch.source.series(), rows, _points)
        by_step = _by_step(values, start_s, step_s, len(times))
        trails = self._trails(batch, end_s, end_s - start_s + batch.window_s, deadline)
        answers = []
        for at_s, current in zip(times, by_step, strict=True):
            exporters = gather(current, _between(trails, at_s - batch.window_s, at_s))
            ((_, own),) = batch.share(exporters)
            answers.append(_sample(service, batch, own, at_s))
        return answers


def _fault(service: Service) -> MetricsError | None:
    """Return why a service's series can't even be asked for, None if they can."""
    selectors = [service.selector, *(pool.selector for pool in service.pools)]
    try:
        source_named(service.source)
        for pool in service.pools:
            if not pool.selector:
                pod_pattern(pool.target)
        for value in (value for selector in selectors for value in selector.values()):
            re.compile(value)
    except InputError as error:
        return MetricsError(f"{service.key}: {error}")
    except re.error as error:
        return MetricsError(f"{service.key}: metrics.selector {value}: {error}")
    return None


def _sample(
    service: Service, batch: Batch, exporters: Sequence[Exporter], at_s: float
) -> Sample | MetricsError:
    try:
        return sample_of(service, batch.source, exporters, at_s, batch.window_s)
    except MetricsError as error:
        return error


def _by_step(
    series: Iterable[tuple[Place, Iterable[Point]]], start_s: float, step_s: float, count: int
) -> list[list[tuple[Place, float]]]:
    """Return the values at each of `count` steps.

    Raises
    ------
    MetricsError
        If a point is at none of them.
    """
    by_step: list[list[tuple[Place, float]]] = [[] for _ in range(count)]
    for place, points in series:
        for at_s, value in points:
            step = round((at_s - start_s) / step_s)
            if not 0 <= step < count:
                raise MetricsError(f"Prometheus answered for {at_s}, a time that was not asked for")
            by_step[step].append((place, value))
    return by_step


def _between(
    trails: Iterable[tuple[Place, Sequence[Point]]], since_s: float, until_s: float
) -> Iterator[tuple[Place, Sequence[Point]]]:
    # The interval is closed, as in the query for values; series.py leaves out what is too old.
    for place, points in trails:
        first = bisect_left(points, (since_s, -math.inf))
        last = bisect_right(points, (until_s, math.inf))
        if first < last:
            yield place, points[first:last]


def _filed(
    source: Source,
    known: Mapping[str, Labels],
    rows: Iterable[Any],
    read: Callable[[Mapping[str, Any]], _T],
) -> Iterator[tuple[Place, _T]]:
    # Series that belong to the source, each with what `read` makes of its row.
    for row in rows:
        try:
            place = file_under(source, known, row["metric"])
            figures = read(row)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise MetricsError(f"Prometheus sent a garbled series: {str(row)[:120]}") from error
        if place is not None:
            yield place, figures


def _value(row: Mapping[str, Any]) -> float:
    _, value = row["value"]
    return float(value)


def _points(row: Mapping[str, Any]) -> list[Point]:
    points = [(float(at_s), float(value)) for at_s, value in row["values"]]
    if not all(math.isfinite(at_s) for at_s, _ in points):
        raise ValueError("a time is not finite")
    return points
