"""What carries the pods breaks: controllers, scheduler, nodes and the network above them."""

import contextlib
import re
from collections.abc import Iterator

import pytest

from planner.decision.stuck import FIRST_HOLD_S, STUCK_AFTER_S
from planner.model import Patch, Role, Topology
from planner.record import TickRecord
from tests.cluster.control_plane import ControlPlane
from tests.cluster.history import History, breaches, recorded
from tests.cluster.pilot import (
    BOUNDS,
    BUSY,
    CEILING,
    NEEDED,
    QUIET,
    RUSH,
    Pilot,
    acting_service,
    is_at_rest,
    job_of,
    piloted,
    place,
    serves,
    wait_ready,
)
from tests.cluster.rest import HYPER_NODES, NODES, core, jobs
from tests.cluster.topologies import SWITCH, eight_nodes, over_hyper_nodes
from tests.cluster.waiting import patience, wait_for
from tests.cluster.workloads import has_condition, is_ready, node_of, pods_of

DRAIN_S = 2.0
LEAF = {Role.PREFILL: "ib-switch0", Role.DECODE: "ib-switch1"}


@pytest.fixture
def serving(own_control_plane: ControlPlane, own_namespace: str) -> str:
    own_control_plane.lay_out(eight_nodes())
    return own_namespace


@pytest.fixture
def pilot(own_control_plane: ControlPlane, serving: str) -> Iterator[Pilot]:
    place(own_control_plane, serving)
    wait_ready(own_control_plane.rest, serving, QUIET)
    with piloted(own_control_plane, acting_service(serving, DRAIN_S)) as flying:
        flying.until("it rests", is_at_rest)
        yield flying


@pytest.fixture
def history(own_control_plane: ControlPlane, serving: str, pilot: Pilot) -> Iterator[History]:
    with recorded(own_control_plane, serving, pilot.now_s) as seen:
        yield seen
    assert breaches(seen, BOUNDS, DRAIN_S) == []


@pytest.fixture
def homed(own_control_plane: ControlPlane, serving: str) -> Iterator[Pilot]:
    # Each Job in a leaf of its own, of eight GPUs on two nodes.
    for role, leaf in LEAF.items():
        job = job_of(role, NEEDED[BUSY][role], tier=1, within={SWITCH: leaf})
        own_control_plane.rest.create(jobs(serving), job)
    wait_ready(own_control_plane.rest, serving, BUSY)
    service = acting_service(serving, DRAIN_S, topology=Topology(highest_tier=2))
    with piloted(own_control_plane, service, rps=BUSY) as flying:
        flying.until("it rests", is_at_rest)
        yield flying


@pytest.fixture
def homed_history(own_control_plane: ControlPlane, serving: str, homed: Pilot) -> Iterator[History]:
    with recorded(own_control_plane, serving, homed.now_s) as seen:
        yield seen
    assert breaches(seen, BOUNDS, DRAIN_S) == []


def codes(told: TickRecord) -> set[str]:
    return {reason.code for reason in told.decision.reasons}


def message(told: TickRecord, code: str) -> str:
    return next(r.message for r in told.decision.reasons if r.code == code)


def test_without_controllers_an_order_waits_and_is_not_given_twice(
    own_control_plane: ControlPlane, serving: str, pilot: Pilot, history: History
):
    own_control_plane.kill("vc-controller-manager")
    pilot.load.rps = BUSY
    assert pilot.until("it orders", lambda told: told.decision.patch is not None).applied
    for _ in range(4):
        told = pilot.tick()
        assert is_at_rest(told), told
        pilot.skip(STUCK_AFTER_S)
    assert len(pods_of(own_control_plane.rest, serving, "pd-prefill")) == 1
    own_control_plane.start("vc-controller-manager")
    wait_ready(own_control_plane.rest, serving, BUSY)
    assert is_at_rest(pilot.tick())
    assert history.all_counts() == {"pd-prefill": [1, 3], "pd-decode": [1, 2]}


def test_without_a_scheduler_an_order_is_taken_back_and_given_again_later(
    own_control_plane: ControlPlane, serving: str, pilot: Pilot, history: History
):
    own_control_plane.kill("vc-scheduler")
    pilot.load.rps = BUSY
    assert pilot.until("it orders", lambda told: told.decision.patch is not None).applied
    rest = own_control_plane.rest
    wait_for("the pods are made", lambda: len(pods_of(rest, serving, "pd-prefill")) == 3)
    assert is_at_rest(pilot.tick())
    pilot.skip(STUCK_AFTER_S + 5.0)
    told = pilot.tick()
    said = re.search(r"2 pods have found no node for (\d+) s", message(told, "ScaleUpStuck"))
    assert said is not None
    assert STUCK_AFTER_S <= int(said[1]) < STUCK_AFTER_S + 10.0 * patience()
    assert "2 taken back" in message(told, "ScaleUpStuck")
    assert told.applied
    told = pilot.until("it rests", is_at_rest)
    assert "an order beyond that found no nodes" in message(told, "CapacityShortage")
    own_control_plane.start("vc-scheduler")
    assert is_at_rest(pilot.tick())
    pilot.skip(FIRST_HOLD_S)
    pilot.until("it is ordered again", lambda told: told.decision.patch is not None)
    wait_ready(rest, serving, BUSY)
    assert history.all_counts() == {"pd-prefill": [1, 3, 1, 3], "pd-decode": [1, 2, 1, 2]}


def test_a_lost_node_costs_no_replicas_and_its_return_is_used(
    own_control_plane: ControlPlane, serving: str, homed: Pilot, homed_history: History
):
    rest = own_control_plane.rest
    homed.load.rps = RUSH
    homed.until("five of each serve", serves(RUSH), 60.0)
    found = pods_of(rest, serving, "pd-prefill")
    fullest = max(("node0", "node1"), key=[node_of(pod) for pod in found.values()].count)
    (manifest,) = [n for n in eight_nodes().nodes if n["metadata"]["name"] == fullest]
    rest.delete(f"{NODES}/{fullest}")
    try:
        for name, pod in found.items():  # as the garbage collector of pods does
            if node_of(pod) == fullest:
                rest.delete(core(serving, "pods", name), grace_s=0)

        def half_are_back() -> bool:
            now = pods_of(rest, serving, "pd-prefill").values()
            return len(now) == 5 and sum(map(is_ready, now)) == 4

        wait_for("the other node of the leaf is full", half_are_back)
        told = homed.until("it sees four", lambda told: told.decision.pools["prefill"].ready == 4)
        assert told.decision.patch is None
        homed.skip(STUCK_AFTER_S + 5.0)
        assert "1 pods have found no node" in message(homed.tick(), "ScaleUpStuck")
        assert set(homed_history.counts("pd-prefill")) <= {3, 4, 5}
    finally:
        rest.create(NODES, manifest)
    homed.until("five of each serve again", serves(RUSH), 60.0)
    assert homed_history.counts("pd-prefill")[-1] == 5


def test_a_node_that_is_not_ready_has_no_room(
    own_control_plane: ControlPlane, serving: str, homed: Pilot, homed_history: History
):
    rest = own_control_plane.rest
    at = [node_of(pod) for pod in pods_of(rest, serving, "pd-prefill").values()]
    down, up = sorted(("node0", "node1"), key=at.count)
    own_control_plane.freeze("kwok")  # it would say at once that the node is fine
    try:
        not_ready = {"type": "Ready", "status": "False", "reason": "Lost", "message": "gone"}
        rest.patch(f"{NODES}/{down}/status", {"status": {"conditions": [not_ready]}})

        def is_seen() -> bool:
            return any(n.name == down and not n.is_ready for n in homed.inventory().nodes)

        wait_for("the planner sees it", is_seen)
        homed.load.rps = 200.0
        told = homed.until("it orders", lambda told: "CapacityShortage" in codes(told))
        fits = 3 + 4 - at.count(up)
        assert told.decision.pools["prefill"].desired == fits
        assert "ib-switch0" in message(told, "CapacityShortage")
    finally:
        own_control_plane.go_on("kwok")
    wait_for("it is Ready", lambda: has_condition(rest.get(f"{NODES}/{down}"), "Ready", "True"))
    homed.until("it has all", lambda told: told.decision.pools["prefill"].current == CEILING)
    assert homed_history.counts("pd-prefill")[:2] == [3, fits]


UNREADABLE = {
    "deleted": "its pods are spread over <cluster-top-hypernode>",
    "cyclic": "HyperNodes hold each other: eth-switch6 → ib-switch4 → eth-switch6",
}


@contextlib.contextmanager
def broken_network(plane: ControlPlane, fault: str) -> Iterator[None]:
    # Until the block ends; then it is healed.
    rest = plane.rest
    name = "ib-switch0" if fault == "deleted" else "ib-switch4"
    path = f"{HYPER_NODES}/{name}"
    sound = rest.get(path)
    if fault == "deleted":
        rest.delete(path)
    else:
        ring = over_hyper_nodes(name, ("ib-switch0", "ib-switch1", "eth-switch6"), tier=2)
        rest.patch(path, {"spec": ring["spec"]})
    try:
        yield
    finally:
        if fault == "deleted":
            rest.create(HYPER_NODES, sound | {"metadata": {"name": name}})
            # A HyperNode made anew under an old name is passed over by a scheduler that runs.
            plane.kill("vc-scheduler")
            plane.start("vc-scheduler")
        else:
            rest.patch(path, {"spec": sound["spec"]})


@pytest.mark.parametrize("fault", UNREADABLE)
def test_a_broken_network_stops_growth_but_not_shrinking_and_heals(
    own_control_plane: ControlPlane,
    homed: Pilot,
    homed_history: History,
    fault: str,
):
    before = homed.inventory().hypernodes
    with broken_network(own_control_plane, fault):
        wait_for("the planner sees it", lambda: homed.inventory().hypernodes != before)
        homed.load.rps = RUSH
        told = homed.until("it is told", lambda told: "CapacityShortage" in codes(told))
        assert UNREADABLE[fault] in message(told, "CapacityShortage")
        for _ in range(5):
            assert "prefill" not in (homed.tick().decision.patch or Patch()).replicas
        assert homed_history.counts("pd-prefill") == [3]
        homed.load.rps = QUIET
        homed.until("both are small", serves(QUIET), 60.0)
    homed.load.rps = RUSH
    homed.until("both grow again", serves(RUSH), 60.0)
    assert homed_history.counts("pd-prefill")[:2] == [3, 1]
