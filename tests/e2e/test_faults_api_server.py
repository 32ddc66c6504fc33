"""The way to the cluster breaks: API server, etcd and webhooks hang, die, refuse and come back."""

import threading
from collections.abc import Iterator

import pytest

from planner.adapters.clock import stopwatch_s
from planner.record import TickRecord
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
from tests.cluster.rest import Refused, core, jobs
from tests.cluster.topologies import eight_nodes
from tests.cluster.waiting import OUTAGE_S, patience, wait_for

IMPATIENT_S, DRAIN_S = 1.0, 2.0


@pytest.fixture
def serving(own_control_plane: ControlPlane, own_namespace: str) -> str:
    own_control_plane.lay_out(eight_nodes())
    place(own_control_plane, own_namespace)
    wait_ready(own_control_plane.rest, own_namespace, QUIET)
    return own_namespace


@pytest.fixture
def pilot(own_control_plane: ControlPlane, serving: str) -> Iterator[Pilot]:
    service = acting_service(serving, DRAIN_S)
    with piloted(own_control_plane, service, timeout_s=IMPATIENT_S) as flying:
        yield flying


@pytest.fixture
def history(own_control_plane: ControlPlane, serving: str, pilot: Pilot) -> Iterator[History]:
    with recorded(own_control_plane, serving, pilot.now_s) as seen:
        yield seen
    assert breaches(seen, BOUNDS, DRAIN_S) == []


def wait_seen(plane: ControlPlane, namespace: str, history: History) -> None:
    """Wait until changes are seen again as they happen: the history too comes through the server.

    Otherwise a mark that it is told of late looks too short.
    """
    pod = core(namespace, "pods", history.pods[0].name)

    def is_seen() -> bool:
        try:
            written = plane.rest.patch(pod, {"metadata": {"labels": {"seen": "again"}}})
        except Refused:
            return False
        version = int(written["metadata"]["resourceVersion"])
        return any(seen.version >= version for seen in history.pods)

    wait_for("the history to go on", is_seen, OUTAGE_S)


def hold_code(told: TickRecord) -> str | None:
    return told.decision.hold.reason.code if told.decision.hold else None


def test_a_frozen_api_server_holds_every_tick_within_a_bounded_time(
    own_control_plane: ControlPlane, pilot: Pilot, history: History
):
    pilot.until("it rests", is_at_rest)
    own_control_plane.freeze("kube-apiserver")
    try:
        pilot.load.rps = BUSY
        for _ in range(3):
            took_s = stopwatch_s()
            told = pilot.tick()
            assert took_s() < 2.0 * IMPATIENT_S * patience()
            assert hold_code(told) == "ClusterUnavailable"
            assert "gave no answer within 1 s" in told.decision.hold.reason.message
    finally:
        own_control_plane.go_on("kube-apiserver")
    pilot.until("it goes on", is_at_rest)
    history.wait_for_counts({"pd-prefill": [1, 3], "pd-decode": [1, 2]})


def test_what_a_webhook_refuses_is_told_and_other_services_go_on(
    own_control_plane: ControlPlane, own_namespace: str, serving: str
):
    place(own_control_plane, serving, prefix="other")
    services = [acting_service(serving), acting_service(serving, prefix="other")]
    rest, words = own_control_plane.rest, "no more than 2 of anything before Friday"
    asked: list[int] = []

    def judge(job: str, _: int, after: int) -> str | None:
        if job != "pd-prefill":
            return None
        asked.append(after)
        return words

    with (
        gate(own_control_plane, serving, judge, "pd-prefill"),
        piloted(own_control_plane, *services, rps=BUSY) as pilot,
    ):
        first = pilot.tick_all()
        told = first[services[0].key]
        assert (told.applied, words in (told.error or "")) == (False, True)
        assert "patch jobs.batch.volcano.sh pd-prefill" in (told.error or "")
        assert first[services[1].key].applied
        for _ in range(3):
            pilot.tick_all()

        def events() -> list[str]:
            found = rest.items(core(serving, "events"), fieldSelector="reason=FailedRescale")
            return [e["message"] for e in found if e["involvedObject"]["name"] == "pd-prefill"]

        wait_for("an Event tells of it", events)
        assert len(events()) == 1
        assert words in events()[0]
    counts = {
        name: rest.get(jobs(serving, name))["spec"]["tasks"][0]["replicas"]
        for name in ("pd-prefill", "pd-decode", "other-prefill", "other-decode")
    }
    assert counts == {"pd-prefill": 1, "pd-decode": 2, "other-prefill": 3, "other-decode": 2}
    assert set(asked) == {3}


def test_a_webhook_that_is_down_is_waited_for_and_written_to_once(
    own_control_plane: ControlPlane, pilot: Pilot, history: History
):
    pilot.until("it rests", is_at_rest)
    own_control_plane.kill("vc-webhook-manager")
    try:
        pilot.load.rps = BUSY
        told = pilot.until("it wants more", lambda told: told.decision.patch is not None)
        for _ in range(3):
            assert told.applied is False
            assert "an admission webhook is down, tried again later" in (told.error or "")
            assert "connection refused" in (told.error or "")
            told = pilot.tick()
        assert history.counts("pd-prefill") == [1]
    finally:
        own_control_plane.start("vc-webhook-manager")
    pilot.until("it is written", is_at_rest)
    history.wait_for_counts({"pd-prefill": [1, 3], "pd-decode": [1, 2]})


def test_an_api_server_killed_in_the_middle_of_a_patch_loses_and_doubles_nothing(
    own_control_plane: ControlPlane, serving: str, pilot: Pilot, history: History
):
    pilot.until("it rests", is_at_rest)
    arrived, may_end = threading.Event(), threading.Event()

    def judge(*_: object) -> None:
        arrived.set()
        may_end.wait(OUTAGE_S)

    told: list[TickRecord] = []
    with gate(own_control_plane, serving, judge, "pd-prefill"):
        pilot.load.rps = BUSY

        def kill() -> None:
            arrived.wait(OUTAGE_S)
            own_control_plane.kill("kube-apiserver")

        killer = threading.Thread(target=kill)
        killer.start()
        told.append(pilot.until("it patches", lambda told: told.decision.patch is not None))
        killer.join()
        may_end.set()
        assert told[0].applied is False
        took_s = stopwatch_s()
        assert hold_code(pilot.tick()) == "ClusterUnavailable"
        assert took_s() < 2.0 * IMPATIENT_S * patience()
        own_control_plane.start("kube-apiserver")
    pilot.until("it goes on", is_at_rest, OUTAGE_S)
    history.wait_for_counts({"pd-prefill": [1, 3], "pd-decode": [1, 2]})
    wait_ready(own_control_plane.rest, serving, BUSY)


def test_an_etcd_that_dies_and_comes_back_is_a_hold(
    own_control_plane: ControlPlane, serving: str, pilot: Pilot, history: History
):
    pilot.load.rps = BUSY
    pilot.until("it has three", serves(BUSY), OUTAGE_S)
    own_control_plane.kill("etcd")
    pilot.load.rps = QUIET
    for _ in range(2):
        took_s = stopwatch_s()
        assert hold_code(pilot.tick()) == "ClusterUnavailable"
        assert took_s() < 2.0 * IMPATIENT_S * patience()
    own_control_plane.start("etcd")
    wait_seen(own_control_plane, serving, history)
    pilot.until("it has one", serves(QUIET), OUTAGE_S)
    history.wait_for_counts({"pd-prefill": [1, 3, 1], "pd-decode": [1, 2, 1]})
