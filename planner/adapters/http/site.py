"""All that is told over HTTP, behind one listener: metrics, recent ticks, health."""

from collections.abc import Callable, Iterable, Sequence

from planner.adapters.clock import stopwatch_s
from planner.adapters.http.health import Health
from planner.adapters.http.records import RecentRecords
from planner.adapters.metrics_export import MetricsExport
from planner.model import Service, ServiceKey
from planner.record import TickRecord


class Site:
    """Takes every tick and gives it to whatever is served.

    Parameters
    ----------
    services
        What the process drives.
    elapsed_s
        Time since any fixed moment [s], of a clock that nobody sets.
    """

    def __init__(
        self, services: Sequence[Service], elapsed_s: Callable[[], float] | None = None
    ) -> None:
        self.metrics = MetricsExport(services)
        self.records = RecentRecords(services)
        self.health = Health(services, elapsed_s or stopwatch_s())

    def record(self, tick: TickRecord) -> None:
        """Take one tick."""
        self.metrics.record(tick)
        self.records.record(tick)
        self.health.record(tick)

    def took(self, keys: Iterable[ServiceKey], duration_s: float) -> None:
        """Note how long the tick of these services took together [s]."""
        self.metrics.took(keys, duration_s)

    def follow(self, services: Sequence[Service]) -> None:
        """Serve these services from now on: what is told of others ends."""
        self.metrics.follow(services)
        self.records.follow(services)
        self.health.follow(services)

    def lead(self, *, is_leader: bool) -> None:
        """Note whether this process decides or stands by."""
        self.metrics.lead(is_leader=is_leader)
        self.health.lead(is_leader=is_leader)
