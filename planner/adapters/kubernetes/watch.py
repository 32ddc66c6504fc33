"""What the cluster holds, kept up to date by list and watch, one daemon thread a resource.

Reading is a look at a dictionary and never waits. Each cache knows up to when it is right, so that
a watch that died is seen and not trusted. A lost connection goes on from the last version seen; a
version that the server has forgotten is a new list. Network I/O.
"""

import contextlib
import logging
import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from planner.adapters.kubernetes.api import EventStream, KubernetesApi
from planner.adapters.kubernetes.faults import ExpiredError, ForbiddenError, Resource
from planner.adapters.kubernetes.values import Json
from planner.errors import ClusterError, TargetError
from planner.ports import Clock

_LOG = logging.getLogger(__name__)

T = TypeVar("T")

# A watch renews itself every 30 s: three of those without a word, and it is dead [s].
STALE_S: Final = 90.0
_FIRST_RETRY_S: Final = 0.5
_LONGEST_RETRY_S: Final = 20.0
# A right may be granted, or a CRD installed, while we run [s].
_ABSENT_RETRY_S: Final = 60.0
_RESUMES: Final = 4  # failed attempts to go on from a version; then everything is listed anew
_STOP_S: Final = 2.0
_GARBAGE = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError)


class Reader(Protocol[T]):
    """Makes what is kept of an object out of its JSON and what was kept before; None: nothing."""

    def __call__(self, raw: Json, before: T | None, /) -> T | None:
        """Return the value."""
        ...


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[T]):
    """What a cache holds.

    Attributes
    ----------
    values
        All values, in no order.
    synced_s
        Up to when they are right [s, Unix]; None before the first list.
    error
        Why nothing newer is there, None while all is well.
    is_absent
        Whether the cluster does not serve the resource, or not to us.
    """

    values: tuple[T, ...]
    synced_s: float | None
    error: ClusterError | None = None
    is_absent: bool = False

    def is_fresh(self, now_s: float) -> bool:
        """Return whether the values can be trusted at a time [s, Unix]."""
        return self.synced_s is not None and now_s - self.synced_s <= STALE_S


class WatchedResource(Generic[T]):
    """The cache of one resource in one namespace, or in all.

    Parameters
    ----------
    api
        The connection.
    resource, namespace
        What is followed, and where; None: everywhere.
    reader
        What is kept of each object.
    clock
        Says what time it is.
    forbidden
        Called, from the cache's thread, when it may not be listed; it then ends for good.
    """

    def __init__(
        self,
        api: KubernetesApi,
        resource: Resource,
        namespace: str | None,
        reader: Reader[T],
        clock: Clock,
        forbidden: Callable[[], None] | None = None,
    ) -> None:
        self.resource, self.namespace = resource, namespace
        self._api, self._reader, self._clock, self._forbidden = api, reader, clock, forbidden
        self._lock = threading.Lock()
        self._values: dict[str, T] = {}
        self._version: str | None = None
        self._synced_s: float | None = None
        self._error: ClusterError | None = None
        self._stop, self._settled = threading.Event(), threading.Event()
        self._stream: EventStream | None = None
        where = namespace or "all namespaces"
        self._thread = threading.Thread(
            target=self._run, name=f"watch {resource} in {where}", daemon=True
        )

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def settle(self, timeout_s: float) -> bool:
        """Wait for the first list, or for the first failure to get one; False if neither came."""
        return self._settled.wait(timeout_s)

    def stop(self) -> None:
        """Tell the thread to end, at once even while it waits for an event."""
        self._stop.set()
        if (stream := self._stream) is not None:
            stream.end()

    def join(self) -> None:
        """Wait a moment for the thread to end."""
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_STOP_S)

    def snapshot(self) -> Snapshot[T]:
        """Return what is known."""
        error = self._error
        is_absent = isinstance(error, ForbiddenError | TargetError)
        with self._lock:
            values = tuple(self._values.values())
        return Snapshot(values, self._synced_s, error, is_absent)

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                moved = self._follow()
            except ExpiredError:
                self._version = None
                failures += 1
            except (ForbiddenError, TargetError) as error:
                if self._forbidden is not None and isinstance(error, ForbiddenError):
                    self._forbidden()  # first: whoever waits for this cache waits for those then
                    self._fail(error)
                    return
                self._fail(error)
                self._stop.wait(_ABSENT_RETRY_S)
                continue
            except ClusterError as error:
                failures += 1
                self._fail(error)
            else:
                failures = 0 if moved else 1
            if failures >= _RESUMES:
                self._version = None
            self._stop.wait(_retry_s(failures))

    def _follow(self) -> bool:
        """Follow one watch to its end; return whether anything came."""
        if self._version is None:
            self._list()
        moved = False
        stream = self._api.watch(self.resource, self.namespace, self._version or "")
        with contextlib.closing(stream):
            self._stream = stream
            self._error = None
            if self._stop.is_set():  # told so before there was a stream to end
                return False
            for event in stream:
                self._take(event)
                moved = True
                self._synced_s = self._clock.now_s()
        # The server ended it in good order, so that up to now nothing was missed.
        self._synced_s = self._clock.now_s()
        return moved

    def _list(self) -> None:
        at_s = self._clock.now_s()
        found: dict[str, T] = {}
        version = ""
        for page in self._api.pages(self.resource, self.namespace):
            version = page["metadata"]["resourceVersion"]
            for raw in page["items"]:
                self._keep(found, raw)
        with self._lock:
            self._values = found
        self._version, self._synced_s = version, at_s
        self._settled.set()

    def _take(self, event: Json) -> None:
        raw = event["object"]
        self._version = raw["metadata"]["resourceVersion"]
        with self._lock:
            if event["type"] == "DELETED":
                self._values.pop(raw["metadata"]["uid"], None)
            elif event["type"] in {"ADDED", "MODIFIED"}:
                self._keep(self._values, raw)

    def _keep(self, values: dict[str, T], raw: Json) -> None:
        uid = raw["metadata"]["uid"]
        try:
            value = self._reader(raw, self._values.get(uid))
        except _GARBAGE as error:
            _LOG.warning("%s %s is left out: %r", self.resource, raw["metadata"]["name"], error)
            value = None
        if value is None:
            values.pop(uid, None)
        else:
            values[uid] = value

    def _fail(self, error: ClusterError) -> None:
        if self._error is None and not self._stop.is_set():
            # What is not granted is meant so, or `check` says it; it is no news at every start.
            level = logging.INFO if isinstance(error, ForbiddenError) else logging.WARNING
            _LOG.log(level, "%s", error)
        self._error = error
        self._settled.set()


class WatchedPlaces(Generic[T]):
    """The caches of one resource: one for the whole cluster or, if that is forbidden, some places.

    Parameters
    ----------
    make
        Makes the cache of a namespace, or of all for None; the second argument is what to call
        when that is forbidden.
    namespaces
        The namespaces to fall back to; empty: none, the resource is in no namespace.
    """

    def __init__(
        self,
        make: Callable[[str | None, Callable[[], None] | None], WatchedResource[T]],
        namespaces: Iterable[str] = (),
    ) -> None:
        self._make = make
        self._namespaces = tuple(namespaces)
        self._lock = threading.Lock()
        self._stopped = False
        self.is_narrow = False
        self._caches = [make(None, self._narrow if self._namespaces else None)]

    def start(self) -> None:
        """Begin to follow."""
        self._caches[0].start()

    def settle(self, timeout_s: float) -> bool:
        """Wait until each cache has tried; False if one has not."""
        return self._caches[0].settle(timeout_s) and all(
            cache.settle(timeout_s) for cache in list(self._caches)
        )

    def stop(self) -> None:
        """Tell all threads to end."""
        with self._lock:
            self._stopped = True
            caches = list(self._caches)
        for cache in caches:
            cache.stop()
        for cache in caches:
            cache.join()

    def snapshots(self) -> dict[str | None, Snapshot[T]]:
        """Return what is known by namespace, under None where it is known for all."""
        return {cache.namespace: cache.snapshot() for cache in list(self._caches)}

    def _narrow(self) -> None:
        with self._lock:
            if self._stopped:
                return
            self.is_narrow = True
            self._caches = [self._make(namespace, None) for namespace in self._namespaces]
            for cache in self._caches:
                cache.start()


def _retry_s(failures: int) -> float:
    """Return how long to wait [s]: doubled with each failure, and never in step with others."""
    if not failures:
        return 0.0
    doubled_s = _FIRST_RETRY_S * 2.0 ** min(failures, 10)
    return random.uniform(0.5, 1.0) * min(doubled_s, _LONGEST_RETRY_S)
