"""Kubernetes Events on the scale targets: one for every change, none for a tick like the last.

Never in the way of a tick: events wait in a bounded queue for a thread of their own, and what the
API server does not take is lost. Network I/O.
"""

import logging
import queue
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from planner.adapters.kubernetes.faults import EVENTS, Resource
from planner.adapters.kubernetes.values import Json, rfc3339
from planner.errors import ClusterError
from planner.model import Pool, Service, ServiceKey
from planner.record import TickRecord

_LOG = logging.getLogger(__name__)

COMPONENT: Final = "pd-planner"
_LONGEST_MESSAGE: Final = 1000  # the API takes 1024 characters
_WAITING: Final = 1000
_STOP_S: Final = 2.0
# Which event tells of a reason's code; of any other code none does.
_CONDITIONS: Final = {
    "CapacityShortage": "CapacityShortage",
    "WaitingForNodes": "CapacityShortage",
    "ScaleUpStuck": "CapacityShortage",
    "SLAUnreachable": "SLAUnreachable",
    "TopologyUnreadable": "TopologyUnreadable",
    "TargetContended": "FailedRescale",
}


class Poster(Protocol):
    """The one call of the API client that is used here; a failure is a ClusterError."""

    def post(self, resource: Resource, namespace: str | None, body: Json) -> Json:
        """Create an object."""
        ...


@dataclass(frozen=True, slots=True)
class Notice:
    """What an event says: its reason, whether it is a warning, and the message."""

    reason: str
    message: str
    is_warning: bool = True

    @property
    def change(self) -> str:
        """What makes it another event than the last: its numbers do not."""
        return self.reason + (
            re.sub(r"[0-9]+", "", self.message) if self.reason == "FailedRescale" else ""
        )


class KubernetesEvents:
    """A telemetry listener that writes Events.

    Parameters
    ----------
    api
        The connection.
    services
        Whose targets.
    uid_of
        Which object a service's pool is, so that `kubectl describe` shows its events.
    """

    def __init__(
        self,
        api: Poster,
        services: Sequence[Service],
        uid_of: Callable[[ServiceKey, str], str | None],
    ) -> None:
        self._api, self._uid_of = api, uid_of
        self._services = {service.key: service for service in services}
        self._told: dict[tuple[ServiceKey, str], frozenset[str]] = {}
        self._waiting: queue.Queue[tuple[str, Json] | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._post_all, name="events", daemon=True)
        self._thread.start()

    def record(self, tick: TickRecord) -> None:
        """Take one tick; never raises and never waits."""
        service = self._services.get(tick.service)
        for pool in service.pools if service else ():
            place = (tick.service, pool.name)
            notices = {one.change: one for one in notices_of(tick, pool.name)}
            told = self._told.get(place, frozenset())
            warned = frozenset(c for c, one in notices.items() if one.is_warning)
            # An order between two ticks knows nothing of what the last tick warned of: it goes on.
            self._told[place] = warned | told if tick.is_check else warned
            for change, one in notices.items():
                if change not in told:
                    self._put(tick, pool, one)

    def close(self) -> None:
        """Post what waits, within a moment."""
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(_STOP_S)

    def _put(self, tick: TickRecord, pool: Pool, notice: Notice) -> None:
        namespace = tick.service.namespace
        uid = self._uid_of(tick.service, pool.name)
        try:
            event = event_of(namespace, pool, notice, tick.decision.at_s, uid)
            self._waiting.put_nowait((namespace, event))
        except queue.Full:
            _LOG.debug("an event is lost: the API server takes them too slowly")

    def _post_all(self) -> None:
        while (one := self._waiting.get()) is not None:
            namespace, event = one
            try:
                self._api.post(EVENTS, namespace, event)
            except ClusterError as error:
                _LOG.debug("an event is lost: %s", error)


def notices_of(tick: TickRecord, pool: str) -> Iterator[Notice]:
    """List what there is to say of one pool after a tick.

    Yields
    ------
    Notice
        Each once, whether it was said before or not.
    """
    decision = tick.decision
    patched: Mapping[str, int] = decision.patch.replicas if decision.patch else {}
    if pool in patched:
        if tick.applied:
            why = tick.why([pool])
            message = f"New size: {patched[pool]}" + (f"; reason: {why}" if why else "")
            yield Notice("SuccessfulRescale", message, is_warning=False)
        elif tick.error:
            yield Notice("FailedRescale", tick.error)
    if decision.hold is not None:
        held = decision.hold.reason
        if held.code.startswith("Metrics"):
            yield Notice("MetricsUnavailable", held.message)
        elif held.code.startswith(("Target", "Cluster", "Scale")):
            yield Notice("FailedRescale", held.message)
    for reason in decision.reasons:
        if reason.code in _CONDITIONS and reason.pool in {pool, None}:
            yield Notice(_CONDITIONS[reason.code], reason.message)


def event_of(namespace: str, pool: Pool, notice: Notice, at_s: float, uid: str | None) -> Json:
    """Return a core/v1 Event on a pool's target."""
    target = pool.target
    involved: dict[str, Any] = {
        "apiVersion": target.api_version,
        "kind": target.kind,
        "namespace": namespace,
        "name": target.name,
    }
    at = rfc3339(at_s)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{target.name}.", "namespace": namespace},
        "involvedObject": involved | ({"uid": uid} if uid else {}),
        "reason": notice.reason,
        "message": f"{pool.name}: {notice.message}"[:_LONGEST_MESSAGE],
        "type": "Warning" if notice.is_warning else "Normal",
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": COMPONENT,
    }
