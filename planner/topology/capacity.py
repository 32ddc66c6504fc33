"""What is free: which nodes admit a pod, how many more fit on them, what queues allow. Pure."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.inventory import Amounts, Inventory, Node, PodShape, Taint, Toleration
from planner.topology.labels import Labels, Mask
from planner.topology.tree import ROOT, Domain

PODS = "pods"
# Pods that a kubelet takes where its node does not say (kubelet configuration, maxPods).
DEFAULT_MAX_PODS = 110.0
# Effects that keep a pod away; PreferNoSchedule does not.
REPELLING = frozenset({"NoSchedule", "NoExecute"})
# Amounts are sums of decimal quantities: so much [pods] is rounding, not shortage.
ROUNDING = 1e-6

Cells = NDArray[np.int64]
Column = NDArray[np.float64]
Demand = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Bound:
    """How many further pods of a shape find a place, and what binds them.

    Attributes
    ----------
    pods
        Further pods.
    by
        ``nodes``, ``queue NAME`` or ``quota NAME``.
    why
        That in words, as the end of a sentence.
    nodes, matching
        Nodes looked at, and those that admit the shape.
    free_gpus
        GPUs without a pod on the matching nodes.
    """

    pods: int
    by: str
    why: str
    nodes: int = 0
    matching: int = 0
    free_gpus: float = 0.0


def demand_of(shape: PodShape) -> Demand:
    """Return what one pod takes, itself counted among the pods; what it asks 0 of is left out."""
    asked = {PODS: 1.0, **shape.requests}
    return tuple((name, amount) for name, amount in sorted(asked.items()) if amount > 0.0)


def gpu_of(shape: PodShape) -> str | None:
    """Return the name of the shape's GPUs: extended resources carry their vendor's domain."""
    return next((name for name in sorted(shape.requests) if "/" in name), None)


def pods_within(limits: Amounts, used: Amounts, demand: Demand) -> int | None:
    """Return how many further pods limits leave, None where they limit nothing of the demand."""
    fits = [
        _whole((limits[name] - used.get(name, 0.0)) / amount)
        for name, amount in demand
        if name in limits
    ]
    return min(fits, default=None)


class Stock:
    """The nodes of one inventory as columns, in the order of their names.

    Built once a tick and shared by all services: what a shape may use is worked out once.
    """

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory
        self.nodes: tuple[Node, ...] = tuple(sorted(inventory.nodes, key=lambda node: node.name))
        self.names = tuple(node.name for node in self.nodes)
        self.places: Mapping[str, int] = {name: place for place, name in enumerate(self.names)}
        self.labels_of = {node.name: node.labels for node in self.nodes}
        self.labels = Labels([node.labels for node in self.nodes])
        self.queues = {queue.name: queue for queue in inventory.queues}
        self._open = np.array([n.is_ready and n.is_schedulable for n in self.nodes], dtype=np.bool_)
        self._tainted = _by_taints(self.nodes)
        self._free: dict[str, Column] = {}
        self._admitting: dict[object, Mask] = {}
        self._within: dict[frozenset[str], Mask] = {}

    def mask(self, names: Iterable[str]) -> Mask:
        """Return the nodes of these names."""
        mask = np.zeros(len(self.nodes), dtype=np.bool_)
        mask[[self.places[name] for name in names if name in self.places]] = True
        return mask

    def within(self, domain: Domain) -> Mask:
        """Return the nodes of a domain."""
        if domain.nodes not in self._within:
            self._within[domain.nodes] = self.mask(domain.nodes)
        return self._within[domain.nodes]

    def free(self, resource: str) -> Column:
        """Return what is neither requested nor out of reach of one resource, by node."""
        if resource not in self._free:
            default = DEFAULT_MAX_PODS if resource == PODS else 0.0
            self._free[resource] = np.array([
                node.allocatable.get(resource, default) - node.requested.get(resource, 0.0)
                for node in self.nodes
            ])
        return self._free[resource]

    def admitting(self, shape: PodShape) -> Mask:
        """Return the nodes that a pod may go to, were there room on them."""
        key = (frozenset(shape.selector.items()), shape.any_of, shape.tolerations)
        if key not in self._admitting:
            mask = self._open & ~self._repelling(shape.tolerations)
            for name, value in shape.selector.items():
                has = np.zeros(len(self.nodes), dtype=np.bool_)
                has[self.labels.column(name).get(value, [])] = True
                mask &= has
            if shape.any_of:
                mask &= self._any_of(shape)
            self._admitting[key] = mask
        return self._admitting[key]

    def _any_of(self, shape: PodShape) -> Mask:
        """Return the nodes that satisfy one term of the affinity; an empty term matches nothing."""
        mask = np.zeros(len(self.nodes), dtype=np.bool_)
        for term in shape.any_of:
            if term:
                mask |= self.labels.matching(term)
        return mask

    def _repelling(self, tolerations: Iterable[Toleration]) -> Mask:
        """Return the nodes with a taint that none of the tolerations bears."""
        borne = tuple(tolerations)
        mask = np.zeros(len(self.nodes), dtype=np.bool_)
        for taints, places in self._tainted.items():
            if not all(any(bears(t, taint) for t in borne) for taint in taints):
                mask[places] = True
        return mask

    def cells(self, shape: PodShape, occupied: Collection[str] = ()) -> Cells:
        """Return how many further pods fit on each node; `occupied` ones hold one of the pool."""
        fits = np.full(len(self.nodes), np.inf)
        for resource, amount in demand_of(shape):
            np.minimum(fits, self.free(resource) / amount, out=fits)
        cells = np.floor(np.maximum(fits + ROUNDING, 0.0))
        cells[~self.admitting(shape)] = 0.0
        if shape.one_per_node:
            np.minimum(cells, 1.0, out=cells)
            cells[self.mask(occupied)] = 0.0
        return cells.astype(np.int64)

    def node_bound(
        self, shape: PodShape, domains: Sequence[Domain], occupied: Collection[str] = ()
    ) -> Bound:
        """Return what the nodes still take of a shape in that of the domains which takes most."""
        cells = self.cells(shape, occupied)
        domain = max(domains, key=lambda d: int(cells[self.within(d)].sum()))
        within, where = self.within(domain), spoken(domain.name)
        matching = self.admitting(shape) & within
        pods = int(cells[within].sum())
        gpu = gpu_of(shape)
        free = float(np.maximum(self.free(gpu)[matching], 0.0).sum()) if gpu else 0.0
        nodes, found = int(within.sum()), int(matching.sum())
        if found == 0:
            why = f"none of the {nodes} nodes of {where} admits its pods"
        else:
            gpus = f", which have {free:g} GPUs free" if gpu else ""
            why = f"{where} has room for {pods} more pods on {found} of {nodes} nodes{gpus}"
        return Bound(pods, "nodes", why, nodes, found, free)

    def queue_bound(self, shape: PodShape) -> Bound | None:
        """Return what the shape's queue still takes, None if it does not limit it."""
        queue = self.queues.get(shape.queue or "")
        if queue is None:
            return None
        if not queue.is_open:
            return Bound(0, f"queue {queue.name}", f"queue {queue.name} is closed")
        pods = pods_within(queue.capability, queue.allocated, demand_of(shape))
        why = f"queue {queue.name} leaves room for {pods} more pods"
        return None if pods is None else Bound(pods, f"queue {queue.name}", why)

    def quota_bound(self, shape: PodShape, namespace: str) -> Bound | None:
        """Return what the namespace's tightest quota still takes, None if none limits it."""
        bounds = []
        for quota in self.inventory.quotas.get(namespace, ()):
            pods = pods_within(quota.hard, quota.used, demand_of(shape))
            if pods is not None:
                why = f"quota {quota.name} leaves room for {pods} more pods"
                bounds.append(Bound(pods, f"quota {quota.name}", why))
        return min(bounds, key=lambda bound: (bound.pods, bound.by), default=None)


def spoken(domain: str | None) -> str:
    """Return a domain's name as a sentence has it."""
    return "the cluster" if domain in {None, ROOT} else str(domain)


def bears(toleration: Toleration, taint: Taint) -> bool:
    """Return whether a toleration bears a taint (Kubernetes, Toleration.ToleratesTaint)."""
    if toleration.effect is not None and toleration.effect != taint.effect:
        return False
    if toleration.key is None:
        return True
    if toleration.key != taint.key:
        return False
    return toleration.operator == "Exists" or (
        toleration.operator == "Equal" and toleration.value == taint.value
    )


def _by_taints(nodes: Iterable[Node]) -> dict[tuple[Taint, ...], list[int]]:
    """Return the places of the nodes that repel pods, by what they repel them with."""
    found: dict[tuple[Taint, ...], list[int]] = {}
    for place, node in enumerate(nodes):
        taints = tuple(taint for taint in node.taints if taint.effect in REPELLING)
        if taints:
            found.setdefault(taints, []).append(place)
    return found


def _whole(pods: float) -> int:
    """Return whole pods, none where nothing is left."""
    return max(math.floor(pods + ROUNDING), 0)
