"""Metrics and a cluster held in memory: for simulation, `recommend --current` and failure drills.

They keep the contract of the real ones, scrape interval, staleness and refusals included: a
simulation that saw fresher figures than Prometheus shows would flatter the planner.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from planner.adapters.completeness import complete, window_s
from planner.adapters.sources import Scheme, source_named
from planner.errors import ClusterError, InputError, MetricsError
from planner.inventory import Inventory
from planner.model import (
    Fleet,
    Patch,
    Pod,
    PodSample,
    PoolFleet,
    Room,
    Sample,
    Service,
    ServiceKey,
)

Counts = Mapping[str, Mapping[str, float]]
PodsOf = Callable[[ServiceKey, str], tuple[Pod, ...]]
Applied = Callable[[Service, Patch, float], None]
_GATEWAY = None  # the pool name under which the gateway is kept


@dataclass(slots=True)
class _Series:
    """One pod's scrapes, oldest first: a whole sample, or its request count alone."""

    times: list[float] = field(default_factory=list)
    scrapes: list[PodSample | float] = field(default_factory=list)

    def add(self, at_s: float, scrape: PodSample | float) -> None:
        self.times.append(at_s)
        self.scrapes.append(scrape)

    def forget(self, until_s: float) -> None:
        gone = bisect_right(self.times, until_s)
        del self.times[:gone], self.scrapes[:gone]

    def at(self, scheme: Scheme, now_s: float, window: float) -> PodSample | None:
        """Return the last whole sample in the window, with the trail up to it."""
        first = bisect_right(self.times, now_s - window)
        last = bisect_right(self.times, now_s) - 1
        while last >= first and not isinstance(self.scrapes[last], PodSample):
            last -= 1
        if last < first:
            return None
        trail = (
            (self.times[i], _requests(scheme, self.scrapes[i])) for i in range(first, last + 1)
        )
        sample = self.scrapes[last]
        assert isinstance(sample, PodSample)
        known = tuple((at_s, count) for at_s, count in trail if count is not None)
        return replace(sample, at_s=self.times[last], trail=known)


def _requests(scheme: Scheme, scrape: PodSample | float) -> float | None:
    return scheme.requests(scrape) if isinstance(scrape, PodSample) else scrape


class MemoryMetrics:
    """The `Metrics` port on scrapes that are handed in.

    Parameters
    ----------
    scrape_interval_s
        How often `store` is called [s].
    retention_s
        How long a scrape is kept [s], and how far back `history` reaches.
    """

    def __init__(self, scrape_interval_s: float = 15.0, retention_s: float = 7200.0) -> None:
        self.scrape_interval_s = scrape_interval_s
        self._retention_s = retention_s
        self._series: dict[ServiceKey, dict[tuple[str | None, str], _Series]] = {}
        self._last_s: dict[ServiceKey, float] = {}
        self._swept_s: dict[ServiceKey, float] = {}
        self._failures: dict[ServiceKey, MetricsError] = {}
        self._outages: list[tuple[float, float, MetricsError]] = []

    def store(
        self,
        key: ServiceKey,
        scrape: Mapping[str, Iterable[PodSample]],
        gateway: PodSample | None,
        at_s: float,
    ) -> None:
        """Take a scrape of all pods, by pool name, at `at_s` [s, Unix], later than the last."""
        series = self._opened(key, at_s)
        for pool, samples in scrape.items():
            for sample in samples:
                series.setdefault((pool, sample.pod), _Series()).add(at_s, sample)
        if gateway is not None:
            series.setdefault((_GATEWAY, gateway.pod), _Series()).add(at_s, gateway)

    def store_light(self, key: ServiceKey, at_s: float, counts: Counts) -> None:
        """Take the finished requests of all pods, by pool and pod name.

        It stands for a scrape that no one reads more of than the trail: the last scrape before a
        `read` must be a whole one, since values are those of the last whole scrape.
        """
        series = self._opened(key, at_s)
        for pool, pods in counts.items():
            for pod, count in pods.items():
                series.setdefault((pool, pod), _Series()).add(at_s, float(count))

    def fail(self, key: ServiceKey, error: MetricsError | None) -> None:
        """Answer for a service with an error from now on; None heals it."""
        if error is None:
            self._failures.pop(key, None)
        else:
            self._failures[key] = error

    def outage(self, start_s: float, end_s: float, error: MetricsError | None = None) -> None:
        """Answer every `read` in [start, end) [s, Unix] with an error."""
        lost = MetricsError("the metrics source is unreachable: an outage was asked for")
        self._outages.append((start_s, end_s, error or lost))

    def read(
        self, services: Sequence[Service], now_s: float
    ) -> Mapping[ServiceKey, Sample | MetricsError]:
        """Return what is known at `now_s` [s, Unix], one entry a service; never raises."""
        for start_s, end_s, error in self._outages:
            if start_s <= now_s < end_s:
                return {service.key: error for service in services}
        return {service.key: self._sample(service, now_s) for service in services}

    def history(
        self, service: Service, start_s: float, end_s: float, step_s: float
    ) -> Sequence[Sample | MetricsError]:
        """Return what `read` would have said at start, start + step, … ≤ end [s, Unix].

        A time out of retention is an error; an outage is not: the scrapes went on.
        """
        count = max(math.floor((end_s - start_s) / step_s + 1e-9) + 1, 0)
        return [self._sample(service, start_s + i * step_s) for i in range(count)]

    def _sample(self, service: Service, now_s: float) -> Sample | MetricsError:
        if service.key in self._failures:
            return self._failures[service.key]
        try:
            source = source_named(service.source)
            window = window_s(service, self.scrape_interval_s)
            pools = {
                pool.name: self._pods(
                    service.key, pool.name, source.roles[pool.role], now_s, window
                )
                for pool in service.pools
            }
            gateway = (
                self._pods(service.key, _GATEWAY, source.gateway, now_s, window)
                if source.gateway
                else ()
            )
            sample = Sample(now_s, pools, gateway[-1] if gateway else None)
            return complete(service, source, sample, window)
        except MetricsError as error:
            return error
        except InputError as error:
            return MetricsError(f"{service.key}: {error}")

    def _pods(
        self, key: ServiceKey, pool: str | None, scheme: Scheme, now_s: float, window: float
    ) -> tuple[PodSample, ...]:
        """Return the pool's pods seen within the window, in the order of their names."""
        series = self._series.get(key, {})
        names = sorted(name for owner, name in series if owner == pool)
        samples = (series[pool, name].at(scheme, now_s, window) for name in names)
        return tuple(sample for sample in samples if sample is not None)

    def _opened(self, key: ServiceKey, at_s: float) -> dict[tuple[str | None, str], _Series]:
        """Return the series of a service, after forgetting what is out of retention.

        Raises
        ------
        ValueError
            If the scrape is not later than the one before.
        """
        last_s = self._last_s.get(key, -math.inf)
        if at_s <= last_s:
            raise ValueError(f"{key}: a scrape at {at_s} s came after one at {last_s} s")
        self._last_s[key] = at_s
        series = self._series.setdefault(key, {})
        # A sweep costs as much as there are pods: one a quarter of the retention is enough.
        if at_s - self._swept_s.setdefault(key, at_s) > self._retention_s / 4:
            self._swept_s[key] = at_s
            for pod in list(series):
                series[pod].forget(at_s - self._retention_s)
                if not series[pod].times:
                    del series[pod]
        return series


class MemoryCluster:
    """The `Cluster` port on counts: those given, changed by `apply`.

    Parameters
    ----------
    replicas
        Replicas by service and pool.
    pods
        The pods of a pool as they are now (of a plant); without it none are listed.
    applied
        Called after each patch with the service, the patch and the time [s, Unix].
    room_replicas
        What each pool may at most have, by service and pool; absent: not capped.
    """

    def __init__(
        self,
        replicas: Mapping[ServiceKey, Mapping[str, int]],
        pods: PodsOf | None = None,
        applied: Applied | None = None,
        room_replicas: Mapping[ServiceKey, Mapping[str, int]] | None = None,
    ) -> None:
        self._replicas = {key: dict(pools) for key, pools in replicas.items()}
        self._pods = pods
        self._applied = applied
        self._room = dict(room_replicas or {})
        self._failures: dict[ServiceKey, ClusterError] = {}

    def fail(self, key: ServiceKey, error: ClusterError | None) -> None:
        """Answer for a service with an error from now on; None heals it."""
        if error is None:
            self._failures.pop(key, None)
        else:
            self._failures[key] = error

    def fleets(
        self, services: Sequence[Service], now_s: float
    ) -> Mapping[ServiceKey, Fleet | ClusterError]:
        """Return the pools as they are at `now_s` [s, Unix], one entry a service; never raises."""
        return {service.key: self._fleet(service, now_s) for service in services}

    def inventory(self, now_s: float) -> Inventory | ClusterError | None:  # noqa: ARG002 - the port
        """Return None: counts have no nodes."""
        return None

    def apply(self, service: Service, patch: Patch, now_s: float) -> None:
        """Write the replicas of a patch; there is nobody to tell of marks.

        Raises
        ------
        ClusterError
            If a pool is unknown, a count is negative, or a failure was asked for.
        """
        known = self._replicas.get(service.key, {})
        if service.key in self._failures:
            raise self._failures[service.key]
        for pool, count in patch.replicas.items():
            if pool not in known:
                raise ClusterError(f"{service.key}: there is no scale target for pool {pool}")
            if count < 0:
                raise ClusterError(f"{service.key}: pool {pool}: replicas is {count}, legal is ≥ 0")
        known.update(patch.replicas)
        if self._applied is not None:
            self._applied(service, patch, now_s)

    def _fleet(self, service: Service, now_s: float) -> Fleet | ClusterError:
        if service.key in self._failures:
            return self._failures[service.key]
        known = self._replicas.get(service.key, {})
        for pool in service.pools:
            if pool.name not in known:
                return ClusterError(f"{service.key}: there is no scale target for pool {pool.name}")
        pools = {
            pool.name: PoolFleet(
                known[pool.name], self._pods(service.key, pool.name) if self._pods else ()
            )
            for pool in service.pools
        }
        room = self._room.get(service.key, {})
        return Fleet(now_s, pools, {pool: Room(replicas) for pool, replicas in room.items()})
