"""Caches that follow a scripted API server: going on, starting over, growing old, ending."""

import queue
from collections.abc import Iterator

import pytest

from planner.adapters.clock import ManualClock
from planner.adapters.kubernetes.faults import NODES, PODS, ExpiredError, ForbiddenError, Resource
from planner.adapters.kubernetes.values import Json
from planner.adapters.kubernetes.watch import (
    STALE_S,
    Snapshot,
    WatchedPlaces,
    WatchedResource,
)
from planner.errors import ClusterError, TargetError

PATIENCE_S = 10.0


def thing(name: str, version: int = 1) -> Json:
    return {"metadata": {"name": name, "uid": name, "resourceVersion": str(version)}}


def event(kind: str, name: str, version: int) -> Json:
    return {"type": kind, "object": thing(name, version)}


class Stream:
    """The events of one watch: as they are put, until an end or an error is."""

    def __init__(self) -> None:
        self.script: queue.Queue[Json | Exception | None] = queue.Queue()

    def __iter__(self) -> Iterator[Json]:
        while (one := self.script.get(timeout=PATIENCE_S)) is not None:
            if isinstance(one, Exception):
                raise one
            yield one

    def end(self) -> None:
        self.script.put(None)

    def close(self) -> None:
        pass


class Server:
    """Lists and watches as they are scripted; tells of each request."""

    def __init__(self) -> None:
        self.asked: queue.Queue[tuple[str, str]] = queue.Queue()
        self.lists: queue.Queue[list[Json] | Exception] = queue.Queue()
        self.watches: queue.Queue[Stream | Exception] = queue.Queue()

    def pages(self, _: Resource, namespace: str | None) -> Iterator[Json]:
        self.asked.put(("list", namespace or ""))
        answer = self.lists.get(timeout=PATIENCE_S)
        if isinstance(answer, Exception):
            raise answer
        for part in (answer[:1], answer[1:]):
            yield {"metadata": {"resourceVersion": "10"}, "items": part}

    def watch(self, _: Resource, __: str | None, version: str) -> Stream:
        self.asked.put(("watch", version))
        answer = self.watches.get(timeout=PATIENCE_S)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def next(self) -> tuple[str, str]:
        return self.asked.get(timeout=PATIENCE_S)


def version_of(raw: Json, before: str | None) -> str:
    told = "" if before is None else f"{before} "
    return told + raw["metadata"]["name"] + raw["metadata"]["resourceVersion"]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


@pytest.fixture
def cache(server: Server, clock: ManualClock) -> Iterator[WatchedResource[str]]:
    made = WatchedResource(server, NODES, None, version_of, clock)
    yield made
    made.stop()
    for waiting in (server.lists, server.watches):
        waiting.put(ClusterError("the test is over"))
    made.join()
    assert not made._thread.is_alive()


def begin(server: Server, cache: WatchedResource[str], *names: str) -> Stream:
    stream = Stream()
    server.lists.put([thing(name) for name in names])
    server.watches.put(stream)
    cache.start()
    assert cache.settle(PATIENCE_S)
    assert (server.next(), server.next()) == (("list", ""), ("watch", "10"))
    return stream


def after(server: Server, stream: Stream, *events: Json | Exception | None) -> Stream:
    """Play events that end the watch; return the stream of the next, once it is asked for."""
    following = Stream()
    server.watches.put(following)
    for one in events:
        stream.script.put(one)
    return following


def test_a_list_over_two_pages_and_what_came_after(
    server: Server, cache: WatchedResource[str]
) -> None:
    stream = begin(server, cache, "a", "b")
    assert sorted(cache.snapshot().values) == ["a1", "b1"]
    after(
        server,
        stream,
        event("ADDED", "c", 11),
        event("MODIFIED", "a", 12),
        event("DELETED", "b", 13),
        event("BOOKMARK", "", 20),
        None,
    )
    assert server.next() == ("watch", "20")
    assert sorted(cache.snapshot().values) == ["a1 a12", "c11"]


def test_a_broken_watch_goes_on_where_it_was(server: Server, cache: WatchedResource[str]) -> None:
    stream = begin(server, cache, "a")
    after(server, stream, event("ADDED", "b", 11), ClusterError("connection reset"))
    assert server.next() == ("watch", "11")
    assert sorted(cache.snapshot().values) == ["a1", "b11"]


def test_a_version_that_is_forgotten_is_a_new_list(
    server: Server, cache: WatchedResource[str]
) -> None:
    stream = begin(server, cache, "a", "b")
    server.lists.put([thing("b", 30)])
    after(server, stream, ExpiredError("too old"))
    assert (server.next(), server.next()) == (("list", ""), ("watch", "10"))
    assert cache.snapshot().values == ("b1 b30",)  # what was kept of it is known again


def test_a_server_that_never_goes_on_is_asked_for_a_new_list(
    server: Server, cache: WatchedResource[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("planner.adapters.kubernetes.watch._FIRST_RETRY_S", 0.001)
    stream = begin(server, cache, "a")
    for _ in range(3):
        server.watches.put(ClusterError("resource version too large"))
    stream.script.put(ClusterError("reset"))
    server.lists.put([thing("z")])
    asked = [server.next() for _ in range(4)]
    assert asked == [("watch", "10")] * 3 + [("list", "")]


def test_an_object_that_can_not_be_read_is_left_out(
    server: Server, cache: WatchedResource[str], caplog: pytest.LogCaptureFixture
) -> None:
    stream = begin(server, cache, "a")
    cache._reader = lambda *_: 1 / 0
    after(server, stream, event("MODIFIED", "a", 11), None)
    assert server.next() == ("watch", "11")
    assert cache.snapshot().values == ()
    assert "nodes a is left out: ZeroDivisionError" in caplog.text


def test_a_cache_knows_up_to_when_it_is_right(
    server: Server, cache: WatchedResource[str], clock: ManualClock
) -> None:
    stream = begin(server, cache, "a")
    assert cache.snapshot().synced_s == 1000.0
    clock.advance(STALE_S)
    assert cache.snapshot().is_fresh(clock.now_s())
    clock.advance(1.0)
    assert not cache.snapshot().is_fresh(clock.now_s())
    after(server, stream, None)  # the server ended the watch in good order
    server.next()
    assert cache.snapshot().is_fresh(clock.now_s())


def test_nothing_is_fresh_before_the_first_list() -> None:
    assert not Snapshot((), None).is_fresh(0.0)


@pytest.mark.parametrize("error", [TargetError("not served"), ForbiddenError("may not")], ids=str)
def test_what_is_not_there_settles_as_absent(
    server: Server, cache: WatchedResource[str], error: ClusterError
) -> None:
    server.lists.put(error)
    cache.start()
    assert cache.settle(PATIENCE_S)
    found = cache.snapshot()
    assert (found.is_absent, found.error, found.synced_s) == (True, error, None)


def test_an_outage_is_told_and_is_not_absence(server: Server, cache: WatchedResource[str]) -> None:
    server.lists.put(ClusterError("unreachable"))
    cache.start()
    assert cache.settle(PATIENCE_S)
    assert not cache.snapshot().is_absent
    assert str(cache.snapshot().error) == "unreachable"


def test_a_cache_that_waits_for_an_event_ends_at_once(
    server: Server, cache: WatchedResource[str]
) -> None:
    begin(server, cache, "a")
    cache.stop()
    cache.join()
    assert not cache._thread.is_alive()


def test_what_is_forbidden_everywhere_is_followed_where_it_is_allowed(server: Server) -> None:
    clock = ManualClock(1000.0)
    places = WatchedPlaces(
        lambda where, forbidden: WatchedResource(server, PODS, where, version_of, clock, forbidden),
        ["one", "two"],
    )
    server.lists.put(ForbiddenError("may not list pods"))
    server.lists.put([thing("a")])
    server.lists.put([thing("b")])
    streams = [Stream(), Stream()]
    for stream in streams:
        server.watches.put(stream)
    places.start()
    assert places.settle(PATIENCE_S)
    assert places.is_narrow
    found = places.snapshots()
    assert set(found) == {"one", "two"}
    assert sorted(one.values for one in found.values()) == [("a1",), ("b1",)]
    places.stop()
    assert not any(cache._thread.is_alive() for cache in places._caches)
