"""Many services, one process: one batched read, then every service's own loop."""

from collections.abc import Sequence

from planner.errors import ClusterError, MetricsError
from planner.loop import Loop
from planner.model import Fleet, Service, ServiceKey
from planner.ports import Cluster, Metrics, Telemetry
from planner.record import TickRecord

# Intervals of history that a restart replays, and the most it goes back [s].
HISTORY_INTERVALS, HISTORY_S = 240, 24 * 3600.0


class Supervisor:
    """Ticks the loops of several services.

    Parameters
    ----------
    services
        What is asked; keys all different.
    metrics, cluster
        Where all of them are read and written.
    telemetry
        Who is told of every tick.
    """

    def __init__(
        self,
        services: Sequence[Service],
        metrics: Metrics,
        cluster: Cluster,
        telemetry: Sequence[Telemetry] = (),
    ) -> None:
        self._metrics = metrics
        self._cluster = cluster
        self._loops = {s.key: Loop(s, cluster, telemetry) for s in services}

    @property
    def services(self) -> tuple[Service, ...]:
        """The services in the order given."""
        return tuple(loop.service for loop in self._loops.values())

    def restore(self, now_s: float) -> int:
        """Replay what happened before `now_s` [s, Unix]; return the intervals replayed."""
        fleets = self._cluster.fleets(self.services, now_s)
        replayed = 0
        for loop in self._loops.values():
            window_s = min(HISTORY_INTERVALS * loop.service.interval_s, HISTORY_S)
            fleet = fleets.get(loop.service.key)
            alive_now = fleet if isinstance(fleet, Fleet) else None
            replayed += loop.restore(self._metrics, now_s, window_s, alive_now)
        return replayed

    def tick(
        self, now_s: float, services: Sequence[Service] | None = None
    ) -> dict[ServiceKey, TickRecord]:
        """Read, decide and apply for all services, or those given, at `now_s` [s, Unix]."""
        due = self.services if services is None else services
        samples = self._metrics.read(due, now_s)
        fleets = self._cluster.fleets(due, now_s)
        return {
            service.key: self._loops[service.key].tick(
                samples.get(service.key, MetricsError("the metrics source left the service out")),
                fleets.get(service.key, ClusterError("the cluster left the service out")),
                now_s,
            )
            for service in due
        }
