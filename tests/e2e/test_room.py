"""Room on the real cluster: what is full, taken, shared, limited, broken or replaced.

Ticks are the planner's own on the real API server, scheduler and webhooks; only load and time are
the test's. One leaf holds 8 GPUs, and Jobs pinned to tier 1 stay in theirs.
"""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from planner.adapters.kubernetes.api import KubernetesAccess
from planner.adapters.kubernetes.cluster import KubernetesCluster
from planner.model import Patch, Role, Service
from planner.record import TickRecord
from tests.cluster.control_plane import ControlPlane
from tests.cluster.pilot import (
    BUSY,
    NEEDED,
    QUIET,
    RUSH,
    Load,
    Pilot,
    acting_service,
    job_of,
    piloted,
)
from tests.cluster.rest import HYPER_NODES, QUEUES, Rest, core, jobs
from tests.cluster.room import Room, desired, messages, until_all
from tests.cluster.topologies import GPU, SWITCH, SWITCH_TYPE, eight_nodes
from tests.cluster.waiting import wait_for

LEAF = "ib-switch0"
IN_LEAF = {SWITCH: LEAF}
LEAF_GPUS = 8
# Longer than a pod may wait for a node before it counts as stuck [s].
STUCK_S = 70.0


@pytest.fixture
def room(control_plane: ControlPlane, namespace: str) -> Room:
    control_plane.lay_out(eight_nodes())
    return Room(control_plane, namespace)


SHORT = ("CapacityShortage", "SharedCapacity")


def grow(pilot: Pilot) -> TickRecord:
    """Let the load come that five replicas a pool are needed for; return the last record."""
    pilot.load.rps = RUSH
    return pilot.until("it asks for more than fits", lambda tick: bool(messages(tick, *SHORT)))


# ── as much as fits, no more ─────────────────────────────────────────────────────────────────────


def test_a_pool_grows_to_the_last_free_gpu_and_takes_the_next_that_is_freed(room: Room):
    room.place(tier=1, within=IN_LEAF)
    first, *_ = room.strangers("node0", "node1", "node1")
    with piloted(room.plane, acting_service(room.namespace)) as pilot:
        told = grow(pilot)
        total = sum(desired(told).values())
        assert total == LEAF_GPUS - 3
        assert LEAF in messages(told, *SHORT)
        room.settled(**desired(told))
        pilot.tick()
        assert desired(pilot.tick()) == desired(told)
        assert not room.waiting("pd-prefill", "pd-decode")
        room.leave(first)
        told = pilot.until("it is used", lambda tick: sum(desired(tick).values()) > total)
        assert sum(desired(told).values()) == total + 1
        room.settled(**desired(told))


def test_a_cordoned_node_has_no_room_until_it_is_opened(room: Room):
    room.place(tier=1, within=IN_LEAF | {"kubernetes.io/hostname": "node0"})
    room.cordon("node0")
    try:
        with piloted(room.plane, acting_service(room.namespace)) as pilot:
            told = grow(pilot)
            assert desired(told) == {"prefill": 1, "decode": 1}
            assert told.decision.patch is None
            room.cordon("node0", is_closed=False)
            told = pilot.until("it is used", lambda tick: sum(desired(tick).values()) > 2)
            assert sum(desired(told).values()) == 4
            room.settled(**desired(told))
    finally:
        room.cordon("node0", is_closed=False)


def test_two_services_never_both_take_the_last_gpu(room: Room):
    services = [acting_service(room.namespace, prefix=prefix) for prefix in ("one", "two")]
    for prefix in ("one", "two"):
        room.place(prefix, tier=1, within=IN_LEAF)
    room.strangers("node0", "node0", "node1")
    with piloted(room.plane, *services) as pilot:
        pilot.load.rps = RUSH
        told = until_all(pilot, "one grows", lambda t: any(x.decision.patch for x in t.values()))
        assert sum(sum(desired(tick).values()) for tick in told.values()) == 5
        assert "one" in "".join(messages(told["two"], "SharedCapacity"))
        for prefix, tick in told.items():
            room.settled(prefix, **desired(tick))


def test_a_queue_bounds_what_its_jobs_get(room: Room):
    name = f"limited-{room.namespace}"
    queue = {"metadata": {"name": name}, "spec": {"weight": 1, "capability": {GPU: "4"}}}
    room.rest.create(
        QUEUES, queue | {"apiVersion": "scheduling.volcano.sh/v1beta1", "kind": "Queue"}
    )
    try:
        wait_for("it is open", lambda: queue_state(room.rest, name) == "Open")
        for role in Role:
            job = job_of(role, 1)
            job["spec"]["queue"] = name
            room.rest.create(jobs(room.namespace), job)
        room.settled(prefill=1, decode=1)
        with piloted(room.plane, acting_service(room.namespace)) as pilot:
            told = grow(pilot)
            assert sum(desired(told).values()) == 4
            assert f"queue {name}" in messages(told, *SHORT)
            room.settled(**desired(told))
            assert desired(pilot.tick()) == desired(told)
    finally:
        for role in Role:
            room.rest.delete(jobs(room.namespace, f"pd-{role}"))
        wait_for("its Jobs are gone", lambda: not room.rest.items(jobs(room.namespace)))
        room.rest.patch(f"{QUEUES}/{name}", {"spec": {"state": "Closed"}})
        room.rest.delete(f"{QUEUES}/{name}")


def queue_state(rest: Rest, name: str) -> str:
    return str(rest.get(f"{QUEUES}/{name}").get("status", {}).get("state", ""))


def test_a_quota_of_the_namespace_bounds_it(room: Room):
    room.place()
    quota = {"metadata": {"name": "gpus"}, "spec": {"hard": {f"requests.{GPU}": "5"}}}
    room.rest.create(core(room.namespace, "resourcequotas"), quota)
    path = core(room.namespace, "resourcequotas", "gpus")
    wait_for("it is counted", lambda: room.rest.get(path).get("status", {}).get("used"))
    with piloted(room.plane, acting_service(room.namespace)) as pilot:
        told = grow(pilot)
        assert sum(desired(told).values()) == 5
        assert "quota gpus" in messages(told, *SHORT)
        room.settled(**desired(told))
        assert desired(pilot.tick()) == desired(told)


# ── stuck ────────────────────────────────────────────────────────────────────────────────────────


class Forestalled(KubernetesCluster):
    """A cluster in which somebody does something between every decision and its write."""

    between: Callable[[], None]

    def apply(self, service: Service, patch: Patch, now_s: float) -> None:
        self.between()
        super().apply(service, patch, now_s)


@contextlib.contextmanager
def forestalled(room: Room, asked: Service, between: Callable[[], None]) -> Iterator[Pilot]:
    access = KubernetesAccess(room.plane.kubeconfig)
    with contextlib.closing(Forestalled(access, [asked])) as cluster:
        cluster.between = between
        cluster.start()
        with contextlib.closing(Pilot([asked], cluster, Load(QUIET))) as pilot:
            yield pilot


def test_an_order_whose_gpus_somebody_else_took_is_taken_back(room: Room):
    room.place(tier=1, within=IN_LEAF)
    taken: list[str] = []

    def take() -> None:
        if not taken:
            taken.extend(room.strangers(*["node0"] * 4, *["node1"] * 4))

    with forestalled(room, acting_service(room.namespace), take) as pilot:
        pilot.load.rps = RUSH
        told = pilot.until("it orders", lambda tick: tick.decision.patch is not None)
        ordered = told.decision.patch.replicas
        assert set(ordered) == set(Role)

        def all_wait() -> bool:
            jobs = {role: f"pd-{role}" for role in ordered}
            made = {role: len(room.pods(job)) for role, job in jobs.items()}
            waiting = {role: len(room.waiting(job)) for role, job in jobs.items()}
            return made == ordered and all(n == made[role] - 1 for role, n in waiting.items())

        wait_for("all that were ordered wait", all_wait)
        pilot.skip(STUCK_S)
        told = pilot.tick()
        assert "taken back" in messages(told, "ScaleUpStuck")
        room.settled(prefill=1, decode=1)
        assert desired(pilot.tick()) == {"prefill": 1, "decode": 1}


def test_a_pod_that_waits_below_one_that_runs_is_told_of_and_left(room: Room):
    room.place(prefill=3, decode=2, tier=1, within=IN_LEAF)
    with piloted(room.plane, acting_service(room.namespace), rps=BUSY) as pilot:
        room.strangers(*["node0"] * 4, *["node1"] * 4)
        room.rest.delete(core(room.namespace, "pods", "pd-prefill-prefill-worker-0"), grace_s=0)
        wait_for("its successor waits", lambda: room.waiting("pd-prefill"))
        pilot.until("it is seen", lambda tick: len(tick.decision.pools) > 0)
        pilot.skip(STUCK_S)
        told = pilot.until("it is told", lambda tick: bool(messages(tick, "ScaleUpStuck")))
        assert "left, since lowering the replicas" in messages(told, "ScaleUpStuck")
        assert told.decision.patch is None
        assert len(room.pods("pd-prefill")) == 3


# ── a network that cannot be read ────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def member_added(rest: Rest, parent: str, child: str) -> Iterator[None]:
    path = f"{HYPER_NODES}/{parent}"
    before = rest.get(path)["spec"]["members"]
    member = {"type": "HyperNode", "selector": {"exactMatch": {"name": child}}}
    rest.patch(path, {"spec": {"members": [*before, member]}})
    try:
        yield
    finally:
        rest.patch(path, {"spec": {"members": before}})


@pytest.mark.parametrize(
    ("parent", "child", "words"),
    [
        pytest.param("eth-switch5", "ib-switch0", "member of both", id="two parents"),
        pytest.param("ib-switch4", "eth-switch6", "hold each other", id="a cycle"),
    ],
)
def test_a_broken_network_stops_those_that_need_it_and_heals(
    room: Room, parent: str, child: str, words: str
):
    room.place("pinned", tier=1, within=IN_LEAF)
    room.place("free", within={SWITCH_TYPE: "ethernet"})
    services = [acting_service(room.namespace, prefix=p) for p in ("pinned", "free")]
    with piloted(room.plane, *services, rps=QUIET) as pilot:
        with member_added(room.rest, parent, child):
            pilot.until("it is seen", lambda t: bool(messages(t, "TopologyUnreadable")))
            pilot.load.rps = BUSY
            told = until_all(pilot, "the other grows", lambda t: desired(t["free"]) == NEEDED[BUSY])
            assert words in messages(told["pinned"], "TopologyUnreadable")
            assert desired(told["pinned"]) == {"prefill": 1, "decode": 1}
            room.settled("free", **NEEDED[BUSY])
        told = pilot.until("it heals", lambda tick: desired(tick) == NEEDED[BUSY])
        assert not messages(told, "TopologyUnreadable")
        room.settled("pinned", **desired(told))
        (warning,) = [e for e in room.events("pinned-prefill") if e[0] == "TopologyUnreadable"]
        assert words in warning[1]
