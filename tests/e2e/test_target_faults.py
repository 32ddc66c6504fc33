"""Targets that are replaced, missing, misspelt, over or somebody else's: one line, others go on.

Ticks are the planner's own on the real API server and webhooks; load and time are the test's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from planner.model import Behavior, Role, ScalingRules, Service, ServiceKey
from tests.cluster.control_plane import ControlPlane
from tests.cluster.pilot import NEEDED, QUIET, RUSH, acting_service, piloted
from tests.cluster.rest import Manifest, apps, core, jobs
from tests.cluster.room import Room, desired, messages, until_all
from tests.cluster.topologies import eight_nodes
from tests.cluster.waiting import wait_for
from tests.cluster.workloads import deployment


@pytest.fixture
def room(control_plane: ControlPlane, namespace: str) -> Room:
    control_plane.lay_out(eight_nodes())
    return Room(control_plane, namespace)


def test_a_target_that_is_replaced_keeps_its_history_and_starts_over_gently(room: Room):
    window_s = 30.0
    gentle = Behavior(scale_down=ScalingRules(stabilization_window_s=window_s))
    asked = acting_service(room.namespace)
    asked = replace(asked, pools=tuple(replace(p, behavior=gentle) for p in asked.pools))
    room.place(prefill=2, decode=2)
    with piloted(room.plane, asked, rps=QUIET) as pilot:
        assert desired(pilot.tick()) == {"prefill": 1, "decode": 1}
        room.settled(prefill=1, decode=1)
        room.delete_job("pd-prefill")
        gone = pilot.tick()
        assert gone.decision.hold is not None
        room.create_again(Role.PREFILL, 4)
        told = pilot.until("it is seen", lambda tick: bool(messages(tick, "TargetReplaced")))
        assert told.decision.observation is not None
        assert desired(told) == {"prefill": 4, "decode": 1}
        for _ in range(2):
            pilot.skip(window_s / 3)
            assert desired(pilot.tick())["prefill"] == 4
        pilot.skip(window_s / 3)
        assert desired(pilot.tick())["prefill"] == 1
        room.settled(prefill=1, decode=1)


def other(namespace: str, name: str, target: Mapping[str, Any]) -> Service:
    """Return a service that scales well but for one thing about its prefill pool's target."""
    asked = acting_service(namespace, prefix=name)
    prefill, decode = asked.pools
    return replace(
        asked, pools=(replace(prefill, target=replace(prefill.target, **target)), decode)
    )


# What is wrong with a service's prefill target, the code it is told under, and words of the line.
WRONG: Mapping[str, tuple[Mapping[str, Any], str, tuple[str, ...]]] = {
    "missing": ({"name": "mising-prefill"}, "TargetNotFound", ("there is no Job",
                "missing-prefill")),
    "kind": ({"api_version": "apps/v1", "kind": "Deployment", "task": None}, "TargetNotFound",
             ("of that name there is batch.volcano.sh/v1alpha1 Job",)),
    "unknown": ({"api_version": "batch/v1", "task": None}, "TargetUnusable",
                ("batch/v1 Job", "known are apps/Deployment")),
    "task": ({"task": "prefil-worker"}, "TargetNotFound",
             ("has no task prefil-worker; it has prefill-worker",)),
    "over": ({}, "TargetUnusable", ("Completed", "create it anew")),
    "hpa": ({"api_version": "apps/v1", "kind": "Deployment", "name": "scaled", "task": None},
            "TargetContended", ("HorizontalPodAutoscaler scaled",)),
    "twice": ({}, "TargetContended", ("again", "leave it to one of them")),
    "again": ({}, "TargetContended", ("twice", "leave it to one of them")),
}  # fmt: skip


def test_a_bad_target_stops_its_own_service_with_one_line(room: Room):
    named = {name: other(room.namespace, name, target) for name, (target, *_) in WRONG.items()}
    key = ServiceKey(room.namespace, "again")
    named |= {"good": other(room.namespace, "good", {}), "again": replace(named["twice"], key=key)}
    set_up(room, named.keys() - {"again"})
    with piloted(room.plane, *named.values()) as pilot:
        pilot.load.rps = RUSH
        told = until_all(
            pilot, "the good one grows", lambda told: desired(told["good"]) == NEEDED[RUSH]
        )
    del told["good"]
    for name, tick in told.items():
        _, code, words = WRONG[name]
        hold = tick.decision.hold
        assert hold is not None, name
        assert hold.reason.code == code, name
        assert "\n" not in hold.reason.message
        assert all(word in hold.reason.message for word in words), hold.reason.message
        assert tick.decision.patch is None
    room.settled("good", **NEEDED[RUSH])
    for target in ("task-prefill", "over-prefill", "scaled", "twice-prefill"):
        (event,) = room.events(target)
        assert event[0] == "FailedRescale"


def set_up(room: Room, prefixes: Iterable[str]) -> None:
    """Create sound Jobs for all; then one completes, and an HPA scales a Deployment."""
    for prefix in prefixes:
        room.place(prefix)
    room.rest.create(apps(room.namespace, "deployments"), deployment("scaled", 1))
    autoscalers = f"/apis/autoscaling/v2/namespaces/{room.namespace}/horizontalpodautoscalers"
    room.rest.create(autoscalers, autoscaler("scaled"))
    complete(room, "over-prefill")


def autoscaler(name: str) -> Manifest:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    return {"metadata": {"name": name}, "spec": {"maxReplicas": 3, "scaleTargetRef": target}}


def complete(room: Room, job: str) -> None:
    """Let the pods of a Job end well, so that it completes."""
    for name in room.pods(job):
        path = core(room.namespace, "pods", name) + "/status"
        room.rest.patch(path, {"status": {"phase": "Succeeded"}})
    path = jobs(room.namespace, job)
    wait_for(
        f"{job} is over", lambda: room.rest.get(path)["status"]["state"]["phase"] == "Completed"
    )
