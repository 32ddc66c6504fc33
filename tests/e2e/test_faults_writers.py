"""Somebody else writes to the same Jobs: little things are written over, counts are told of."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from planner.decision.contention import MOST_REVERTS
from tests.cluster.control_plane import ControlPlane
from tests.cluster.gate import gate
from tests.cluster.history import History, breaches, recorded
from tests.cluster.pilot import (
    BOUNDS,
    BUSY,
    QUIET,
    Pilot,
    acting_service,
    is_at_rest,
    piloted,
    place,
    serves,
    wait_ready,
)
from tests.cluster.rest import Manifest, Rest, jobs
from tests.cluster.topologies import eight_nodes
from tests.cluster.workloads import scale

EVERY_S, DRAIN_S = 0.2, 1.0
REREADS = 3  # after so many conflicts of one write it is left to the next tick


@pytest.fixture
def serving(own_control_plane: ControlPlane, own_namespace: str) -> str:
    own_control_plane.lay_out(eight_nodes())
    place(own_control_plane, own_namespace)
    wait_ready(own_control_plane.rest, own_namespace, QUIET)
    return own_namespace


@pytest.fixture
def pilot(own_control_plane: ControlPlane, serving: str) -> Iterator[Pilot]:
    with piloted(own_control_plane, acting_service(serving, DRAIN_S)) as flying:
        flying.until("it rests", is_at_rest)
        yield flying


@pytest.fixture
def history(own_control_plane: ControlPlane, serving: str, pilot: Pilot) -> Iterator[History]:
    with recorded(own_control_plane, serving, pilot.now_s) as seen:
        yield seen


@contextlib.contextmanager
def storm(plane: ControlPlane, write: Callable[[Rest], object]) -> Iterator[list[int]]:
    # Another writer, every 200 ms until the block ends; yields the number of its writes.
    stop, done = threading.Event(), [0]

    def rage() -> None:
        with plane.client(plane.site.trust.admin_token) as rest:
            while not stop.wait(EVERY_S):
                write(rest)
                done[0] += 1

    thread = threading.Thread(target=rage)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


def labelled(value: int) -> Manifest:
    return {"metadata": {"labels": {"storm": str(value)}}}


def test_a_storm_of_labels_and_statuses_stops_no_order(
    own_control_plane: ControlPlane, serving: str, pilot: Pilot, history: History
):
    numbers = count()

    def write(rest: Rest) -> None:
        for job in BOUNDS:
            number = next(numbers)
            rest.patch(jobs(serving, job), labelled(number))
            rest.patch(jobs(serving, f"{job}/status"), {"status": {"pending": number % 7}})

    with storm(own_control_plane, write) as written:
        for rps in (BUSY, QUIET) * 3:
            pilot.load.rps = rps
            pilot.until("an order is written", lambda told: bool(told.applied))
            # A pod that becomes Ready as it is removed was not drained: see all of them serve.
            pilot.until("it has what it ordered", serves(rps))
    assert written[0] > 10
    assert history.all_counts() == {
        "pd-prefill": [1, 3, 1, 3, 1, 3, 1],
        "pd-decode": [1, 2, 1, 2, 1, 2, 1],
    }
    assert breaches(history, BOUNDS, DRAIN_S) == []


@pytest.mark.parametrize(
    ("times", "applied"),
    [pytest.param(REREADS, True, id="in time"), pytest.param(REREADS + 1, False, id="too often")],
)
def test_a_write_that_was_overtaken_is_read_again_and_written(
    own_control_plane: ControlPlane,
    serving: str,
    pilot: Pilot,
    history: History,
    times: int,
    applied: bool,
):
    asked = count(1)

    def judge(job: str, *_: int) -> None:
        if job == "pd-prefill" and (number := next(asked)) <= times:
            own_control_plane.rest.patch(jobs(serving, job), labelled(number))

    with gate(own_control_plane, serving, judge, "pd-prefill"):
        pilot.load.rps = BUSY
        told = pilot.until("it orders", lambda told: told.decision.patch is not None)
        assert told.applied is applied
        if not applied:
            assert "the object has been modified" in (told.error or "")
        pilot.until("it has what it ordered", serves(BUSY))
    assert history.all_counts() == {"pd-prefill": [1, 3], "pd-decode": [1, 2]}
    assert breaches(history, BOUNDS, DRAIN_S) == []


def test_an_order_on_a_count_that_has_changed_meanwhile_is_decided_anew(
    own_control_plane: ControlPlane, serving: str, pilot: Pilot, history: History
):
    overtaken = threading.Event()

    def judge(job: str, *_: int) -> None:
        if job == "pd-prefill" and not overtaken.is_set():
            overtaken.set()
            own_control_plane.rest.patch(jobs(serving, job), scale((0, 2)))

    with gate(own_control_plane, serving, judge, "pd-prefill"):
        pilot.load.rps = BUSY
        told = pilot.until("it orders", lambda told: told.decision.patch is not None)
        assert told.applied is False
        assert f"Job {serving}/pd-prefill was at 1 of prefill-worker" in (told.error or ""), (
            told.error
        )
        assert (told.error or "").endswith("decided anew at the next tick")
        pilot.until("it has what it ordered", serves(BUSY))
    assert history.all_counts() == {"pd-prefill": [1, 2, 3], "pd-decode": [1, 2]}


def test_a_writer_that_takes_every_order_back_is_named_and_left_alone(
    own_control_plane: ControlPlane, serving: str, pilot: Pilot, history: History
):
    def write(rest: Rest) -> None:
        rest.patch(jobs(serving, "pd-prefill"), scale((0, 2)))

    with storm(own_control_plane, write):
        pilot.load.rps = BUSY
        told = pilot.until("it gives up", lambda told: told.decision.hold is not None)
        assert told.decision.hold.reason.code == "TargetContended"
        assert told.decision.hold.reason.message == (
            f"tests undid {MOST_REVERTS} orders within the hour: not writing; let it leave the "
            "replicas alone (GitOps: ignore the field), or set mode: Recommend"
        )
        for _ in range(5):
            assert pilot.tick().decision.patch is None
    seen = history.counts("pd-prefill")
    assert seen.count(3) == MOST_REVERTS
    assert set(seen) == {1, 2, 3}
    pilot.skip(3600.0)
    pilot.until("an hour later it tries again", serves(BUSY))
