"""The inventory out of five caches, on an API server held in memory."""

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from planner.adapters.clock import ManualClock
from planner.adapters.kubernetes.caches import ClusterCaches
from planner.adapters.kubernetes.faults import (
    HYPER_NODES,
    NODES,
    PODS,
    QUEUES,
    QUOTAS,
    ForbiddenError,
    Resource,
)
from planner.errors import ClusterError, TargetError
from planner.inventory import Inventory

Json = dict[str, Any]
GPU = "nvidia.com/gpu"
PATIENCE_S = 10.0


def named(name: str, namespace: str | None = None) -> Json:
    meta = {"name": name, "uid": f"uid-{name}", "creationTimestamp": "2026-11-22T18:00:00Z"}
    return meta | ({"namespace": namespace} if namespace else {})


def pod(name: str, node: str | None, namespace: str = "serving", phase: str = "Running") -> Json:
    containers = [{"resources": {"requests": {GPU: "2"}}}]
    spec = {"containers": containers} | ({"nodeName": node} if node else {})
    return {"metadata": named(name, namespace), "spec": spec, "status": {"phase": phase}}


def node(name: str) -> Json:
    return {"metadata": named(name), "status": {"allocatable": {GPU: "8"}}}


class Silence:
    """A watch in which nothing happens until it is ended."""

    def __init__(self) -> None:
        self._ended = threading.Event()

    def __iter__(self) -> Iterator[Json]:
        self._ended.wait(PATIENCE_S)
        return iter(())

    def end(self) -> None:
        self._ended.set()

    def close(self) -> None:
        pass


class Held:
    """Lists of what is held by resource, cluster-wide or by namespace; errors where they are."""

    def __init__(self, held: Mapping[Resource, list[Json] | ClusterError]) -> None:
        self.held = held

    def pages(self, resource: Resource, namespace: str | None) -> Iterator[Json]:
        found = self.held.get(resource, [])
        if isinstance(found, ClusterError):
            if namespace is None or not isinstance(found, ForbiddenError):
                raise found
            found = [pod("pd-0", "node0")] if resource is PODS else []
        items = [o for o in found if namespace in {None, o["metadata"].get("namespace")}]
        yield {"metadata": {"resourceVersion": "1"}, "items": items}

    def watch(self, _: Resource, __: str | None, ___: str) -> Silence:
        return Silence()


def look(held: Mapping[Resource, list[Json] | ClusterError], aged_s: float = 0.0) -> object:
    clock = ManualClock(1000.0)
    caches = ClusterCaches(Held(held), ["serving"], clock)
    caches.start(PATIENCE_S)
    try:
        clock.advance(aged_s)
        return caches.inventory(1000.0 + aged_s)
    finally:
        caches.stop()


def inventory(held: Mapping[Resource, list[Json] | ClusterError]) -> Inventory:
    found = look(held)
    assert isinstance(found, Inventory), found
    return found


def test_a_node_holds_what_its_pods_ask_for() -> None:
    found = inventory({
        NODES: [node("node1"), node("node0")],
        PODS: [
            pod("a", "node0"),
            pod("b", "node0", namespace="other"),
            pod("ended", "node0", phase="Succeeded"),
            pod("waits", None),
        ],
    })
    assert [one.name for one in found.nodes] == ["node0", "node1"]
    assert found.nodes[0].requested == {GPU: 4.0, "pods": 2.0}
    assert found.nodes[1].requested == {}
    assert (found.at_s, found.unseen) == (1000.0, ())


def test_network_queues_and_quotas() -> None:
    quota = {"metadata": named("q", "serving"), "status": {"hard": {"requests.cpu": "4"}}}
    found = inventory({
        HYPER_NODES: [{"metadata": named("s0"), "spec": {"tier": 1}}],
        QUEUES: [{"metadata": named("default")}],
        QUOTAS: [quota],
    })
    assert [one.name for one in found.hypernodes] == ["s0"]
    assert [one.name for one in found.queues] == ["default"]
    assert [one.hard for one in found.quotas["serving"]] == [{"cpu": 4.0}]


@pytest.mark.parametrize(
    ("resource", "said"),
    [
        pytest.param(HYPER_NODES, "the network between nodes is not known", id="hypernodes"),
        pytest.param(QUEUES, "limits of Volcano queues are not counted", id="queues"),
    ],
)
def test_what_may_be_missing_is_told(resource: Resource, said: str) -> None:
    (line,) = inventory({resource: TargetError("the cluster does not serve it")}).unseen
    assert line == f"{said}: the cluster does not serve it"


def test_pods_of_other_namespaces_that_are_hidden_are_told() -> None:
    found = inventory({PODS: ForbiddenError("may not list pods"), NODES: [node("node0")]})
    assert found.nodes[0].requested == {GPU: 2.0, "pods": 1.0}
    (line,) = found.unseen
    assert "in the services' namespaces alone (serving)" in line


def test_without_nodes_nothing_is_known_to_bound() -> None:
    assert look({NODES: ForbiddenError("may not list nodes")}) is None


@pytest.mark.parametrize("resource", [NODES, PODS, HYPER_NODES], ids=str)
def test_an_outage_is_no_inventory(resource: Resource) -> None:
    found = look({resource: ClusterError("unreachable")})
    assert isinstance(found, ClusterError)
    assert str(found) == f"{resource} are not read yet: unreachable"


def test_an_old_look_is_not_trusted() -> None:
    found = look({}, aged_s=91.0)
    assert isinstance(found, ClusterError)
    assert str(found) == "nodes were last seen 91 s ago: the watch is silent"
