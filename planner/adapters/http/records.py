"""The last ticks of every service, in memory: what the page draws and the API returns."""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from planner.model import Service, ServiceKey
from planner.record import TickRecord

# Ticks kept of one service: six hours of minutes, which is what the page draws.
KEEP_MOST: Final = 360
# Ticks kept of all services together, some 4 KB each; every service keeps `KEEP_LEAST`.
KEEP_TOGETHER, KEEP_LEAST = 6_000, 10


class RecentRecords:
    """Keeps the last ticks of the services given, oldest first, in a bounded ring each.

    Parameters
    ----------
    services
        Whose ticks are kept; the tick of any other service is passed over.
    """

    def __init__(self, services: Sequence[Service]) -> None:
        self._lock = threading.Lock()
        self._services: dict[ServiceKey, Service] = {}
        self._rings: dict[ServiceKey, deque[TickRecord]] = {}
        self.follow(services)

    def follow(self, services: Sequence[Service]) -> None:
        """Keep the ticks of these services from now on, and forget those of others."""
        share = KEEP_TOGETHER // max(len(services), 1)
        most = min(max(share, KEEP_LEAST), KEEP_MOST)
        with self._lock:
            self._services = {service.key: service for service in services}
            self._rings = {key: deque(self._rings.get(key, ()), most) for key in self._services}

    def record(self, tick: TickRecord) -> None:
        """Take one tick."""
        slim = _without_evidence(tick)
        with self._lock:
            if (ring := self._rings.get(tick.service)) is not None:
                ring.append(slim)

    def services(self) -> tuple[Service, ...]:
        """Return the services, by namespace and name."""
        with self._lock:
            return tuple(self._services[key] for key in sorted(self._services))

    def service(self, key: ServiceKey) -> Service | None:
        """Return a service, None if it is not followed."""
        with self._lock:
            return self._services.get(key)

    def of(self, key: ServiceKey) -> tuple[TickRecord, ...]:
        """Return the ticks kept of a service, oldest first."""
        with self._lock:
            return tuple(self._rings.get(key, ()))

    def last(self, key: ServiceKey) -> TickRecord | None:
        """Return the last tick of a service, None before the first."""
        with self._lock:
            ring = self._rings.get(key)
            return ring[-1] if ring else None


def _without_evidence(tick: TickRecord) -> TickRecord:
    """Return a tick without the raw buckets and bins, which its JSON leaves out as well."""
    seen = tick.decision.observation
    if seen is None:
        return tick
    slim = replace(seen, prompts=None, outputs=None, arrival_bins=(0.0, ()))
    return replace(tick, decision=replace(tick.decision, observation=slim))
