"""What the loop needs of the outside world, as protocols; every adapter is held to one of them."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from planner.errors import ClusterError, MetricsError
from planner.inventory import Inventory
from planner.model import Fleet, Patch, Sample, Service, ServiceKey
from planner.record import TickRecord


class Metrics(Protocol):
    """Cumulative metrics of many services, read in few batched queries."""

    def read(
        self, services: Sequence[Service], now_s: float
    ) -> Mapping[ServiceKey, Sample | MetricsError]:
        """Return what is known at `now_s` [s, Unix], one entry a service; never raises."""
        ...

    def history(
        self, service: Service, start_s: float, end_s: float, step_s: float
    ) -> Sequence[Sample | MetricsError]:
        """Return what `read` would have said at start, start + step, … ≤ end [s, Unix]."""
        ...


class Cluster(Protocol):
    """Scale targets and their pods."""

    def fleets(
        self, services: Sequence[Service], now_s: float
    ) -> Mapping[ServiceKey, Fleet | ClusterError]:
        """Return the pools as they are at `now_s` [s, Unix], one entry a service; never raises."""
        ...

    def inventory(self, now_s: float) -> Inventory | ClusterError | None:
        """Return nodes and network at `now_s` [s, Unix], None if nothing bounds; never raises."""
        ...

    def apply(self, service: Service, patch: Patch, now_s: float) -> None:
        """Write a patch, one write a target.

        Raises
        ------
        ClusterError
            If a write was refused or the cluster could not be reached. Each target is written
            whole or not at all; what was written before the fault stands.
        """
        ...


class Probe(Protocol):
    """What pods show right now of their queues, for the check between two ticks."""

    def read(
        self, services: Sequence[Service], now_s: float
    ) -> Mapping[ServiceKey, Sample | MetricsError]:
        """Return what is seen at `now_s` [s, Unix]; no entry: nothing new. Never raises.

        A sample holds of every pod the requests waiting, running and finished, and may hold more.
        """
        ...


class Clock(Protocol):
    """The only source of time."""

    def now_s(self) -> float:
        """Return the time [s, Unix]."""
        ...

    def wait_until(self, at_s: float) -> bool:
        """Wait until `at_s` [s, Unix]; return False if asked to stop before."""
        ...


class Telemetry(Protocol):
    """Where finished ticks go: log, record file, metrics, page."""

    def record(self, tick: TickRecord) -> None:
        """Take one tick; never raises."""
        ...
