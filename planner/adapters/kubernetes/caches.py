"""All that is kept of the cluster between ticks: pods, nodes, HyperNodes, queues, quotas.

Wires the caches of `kubernetes_watch` to the values of `kubernetes_objects`. Reading never waits
and never raises; what can't be trusted is an error, what may be left out is told.
"""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from planner.adapters.clock import Deadline
from planner.adapters.kubernetes.api import KubernetesApi
from planner.adapters.kubernetes.faults import HYPER_NODES, NODES, PODS, QUEUES, QUOTAS, Resource
from planner.adapters.kubernetes.objects import (
    SeenPod,
    hyper_node,
    node,
    queue,
    quota,
    seen_pod,
)
from planner.adapters.kubernetes.values import Json, total
from planner.adapters.kubernetes.watch import Reader, Snapshot, WatchedPlaces, WatchedResource
from planner.adapters.targets import KINDS
from planner.errors import ClusterError
from planner.inventory import HyperNode, Inventory, Node, Queue, Quota
from planner.ports import Clock

T = TypeVar("T")
_Looks = list[tuple[Resource, Snapshot[Any]]]

_KEPT_LABELS: Final = frozenset(label for row in KINDS for label, _ in row.labels)
_NOT_COUNTED: Final = {
    HYPER_NODES: "the network between nodes is not known",
    QUEUES: "limits of Volcano queues are not counted",
    QUOTAS: "ResourceQuotas are not counted",
}


class ClusterCaches:
    """The caches of one cluster.

    Parameters
    ----------
    api
        The connection.
    namespaces
        Those of the services: what is read where the whole cluster may not be.
    clock
        Says what time it is.
    """

    def __init__(self, api: KubernetesApi, namespaces: Iterable[str], clock: Clock) -> None:
        self._clock = clock
        self._namespaces = tuple(sorted(set(namespaces)))

        def places(
            resource: Resource, reader: Reader[T], within: Iterable[str] = ()
        ) -> WatchedPlaces[T]:
            def make(
                namespace: str | None, forbidden: Callable[[], None] | None
            ) -> WatchedResource[T]:
                return WatchedResource(api, resource, namespace, reader, clock, forbidden)

            return WatchedPlaces(make, within)

        self._pods = places(PODS, _read_pod, self._namespaces)
        self._nodes = places(NODES, _read_node)
        self._hyper_nodes = places(HYPER_NODES, _read_hyper_node)
        self._queues = places(QUEUES, _read_queue)
        self._quotas = places(QUOTAS, _read_quota, self._namespaces)
        self._all = (self._pods, self._nodes, self._hyper_nodes, self._queues, self._quotas)

    def start(self, timeout_s: float) -> None:
        """Begin to follow everything, and wait at most so long for the first look at it [s]."""
        deadline = Deadline(timeout_s)
        for one in self._all:
            one.start()
        for one in self._all:
            one.settle(deadline.left_s())

    def stop(self) -> None:
        """End all threads."""
        for one in self._all:
            one.stop()

    def pods(self, namespace: str) -> list[SeenPod] | ClusterError:
        """Return the pods of a namespace that have not ended."""
        snapshots = self._pods.snapshots()
        snapshot = snapshots.get(namespace) or snapshots.get(None)
        if snapshot is None:
            return ClusterError(f"the pods of namespace {namespace} are not read: restart")
        if (error := _distrust(PODS, snapshot, self._clock.now_s())) is not None:
            return error
        return [p for p in snapshot.values if p.namespace == namespace and not p.is_over]

    def uids(self, namespace: str, names: Container[str]) -> dict[str, str]:
        """Return the uids of a namespace's pods by their names."""
        snapshots = self._pods.snapshots()
        snapshot = snapshots.get(namespace) or snapshots.get(None)
        seen = snapshot.values if snapshot else ()
        return {
            one.pod.name: one.uid
            for one in seen
            if one.namespace == namespace and one.pod.name in names
        }

    def tiers(self) -> dict[str, int]:
        """Return the tier by its name, as far as HyperNodes give names."""
        snapshot = self._hyper_nodes.snapshots()[None]
        return {one.tier_name: one.tier for one in snapshot.values if one.tier_name}

    def inventory(self, now_s: float) -> Inventory | ClusterError | None:
        """Return nodes, network, queues and quotas as they are at `now_s` [s, Unix].

        An error if any of it is out of date; None if nodes may not be listed at all, so that
        nothing is known to bound anything.
        """
        pods, quotas = self._pods.snapshots(), self._quotas.snapshots()
        nodes = self._nodes.snapshots()[None]
        network, queues = self._hyper_nodes.snapshots()[None], self._queues.snapshots()[None]
        if nodes.is_absent:
            return None
        needed: _Looks = [(NODES, nodes), *((PODS, one) for one in pods.values())]
        optional: _Looks = [(HYPER_NODES, network), (QUEUES, queues)]
        optional += [(QUOTAS, one) for one in quotas.values()]
        unseen = [_absence(resource, one) for resource, one in optional if one.is_absent]
        needed += [(resource, one) for resource, one in optional if not one.is_absent]
        for resource, one in needed:
            if (error := _distrust(resource, one, self._clock.now_s())) is not None:
                return error
        if self._pods.is_narrow:
            unseen.append(
                "pods may be listed in the services' namespaces alone "
                f"({', '.join(self._namespaces)}): what others take of the nodes is not counted"
            )
        seen = [pod for one in pods.values() for pod in one.values]
        return Inventory(
            at_s=now_s,
            nodes=_with_requests(nodes.values, seen),
            hypernodes=_by_name(() if network.is_absent else network.values),
            queues=_by_name(() if queues.is_absent else queues.values),
            quotas=_by_namespace(quotas.values()),
            unseen=tuple(dict.fromkeys(unseen)),
        )


def _read_pod(raw: Json, before: SeenPod | None) -> SeenPod:
    return seen_pod(raw, before, _KEPT_LABELS)


def _read_node(raw: Json, before: Node | None) -> Node:  # noqa: ARG001 - a reader's arguments
    return node(raw)


def _read_hyper_node(raw: Json, before: HyperNode | None) -> HyperNode:  # noqa: ARG001
    return hyper_node(raw)


def _read_queue(raw: Json, before: Queue | None) -> Queue:  # noqa: ARG001
    return queue(raw)


def _read_quota(
    raw: Json,
    before: tuple[str, Quota] | None,  # noqa: ARG001
) -> tuple[str, Quota] | None:
    found = quota(raw)
    return None if found is None else (raw["metadata"]["namespace"], found)


def _distrust(resource: Resource, one: Snapshot[T], now_s: float) -> ClusterError | None:
    """Return why what a cache holds can't be trusted, None if it can."""
    if one.is_absent and one.error is not None:
        return one.error
    if one.is_fresh(now_s):
        return None
    why = one.error or "the watch is silent"
    if one.synced_s is None:
        return ClusterError(f"{resource} are not read yet: {why}")
    return ClusterError(f"{resource} were last seen {now_s - one.synced_s:.0f} s ago: {why}")


def _absence(resource: Resource, one: Snapshot[T]) -> str:
    return f"{_NOT_COUNTED[resource]}: {one.error}"


def _with_requests(nodes: Iterable[Node], pods: Iterable[SeenPod]) -> tuple[Node, ...]:
    """Return the nodes with what their pods ask for, those that are leaving included."""
    by_node: dict[str, list[Mapping[str, float]]] = {}
    for one in pods:
        if one.pod.node is not None and not one.is_over:
            by_node.setdefault(one.pod.node, []).append(one.requests)
    return _by_name(replace(one, requested=total(by_node.get(one.name, ()))) for one in nodes)


Named = TypeVar("Named", Node, HyperNode, Queue)


def _by_name(values: Iterable[Named]) -> tuple[Named, ...]:
    return tuple(sorted(values, key=lambda one: one.name))


def _by_namespace(
    snapshots: Iterable[Snapshot[tuple[str, Quota]]],
) -> dict[str, tuple[Quota, ...]]:
    found: dict[str, list[Quota]] = {}
    for namespace, one in (pair for snapshot in snapshots for pair in snapshot.values):
        found.setdefault(namespace, []).append(one)
    return {name: tuple(sorted(ones, key=lambda q: q.name)) for name, ones in found.items()}
