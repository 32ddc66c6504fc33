"""What a cluster has: nodes, the network between them, queues; and what a pod asks of a node.

Frozen values: the Kubernetes adapter fills them in, `planner.topology` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

# Resource amounts are in Kubernetes' base units: GPUs and pods counted, CPU in cores, memory in
# bytes. A resource that is absent is 0.
Amounts = Mapping[str, float]


class Operator(StrEnum):
    """How a label is compared, as in a node selector."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"
    GT = "Gt"
    LT = "Lt"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One demand on a label: `key` compared with `values` by `operator`."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Taint:
    """Keeps pods without a matching toleration away from a node."""

    key: str
    effect: str  # NoSchedule, PreferNoSchedule, NoExecute
    value: str = ""


@dataclass(frozen=True, slots=True)
class Toleration:
    """Which taints a pod bears; without a key all, without an effect every effect."""

    key: str | None = None
    operator: str = "Equal"  # Equal, Exists
    value: str = ""
    effect: str | None = None


@dataclass(frozen=True, slots=True)
class PodShape:
    """What one pod of a pool asks of a node.

    Attributes
    ----------
    requests
        Resources it asks for.
    selector
        Labels that the node must carry (`nodeSelector`).
    any_of
        Required node affinity: one of these lists must hold as a whole; empty: any node.
    tolerations
        Taints it bears.
    queue
        Volcano queue it is counted in; None: none.
    one_per_node
        Whether required anti-affinity keeps a second pod of the pool from the same node.
    """

    requests: Amounts = field(default_factory=dict)
    selector: Mapping[str, str] = field(default_factory=dict)
    any_of: tuple[tuple[Requirement, ...], ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    queue: str | None = None
    one_per_node: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """One node; `requested` is what the pods on it ask for, those that are leaving included."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    is_schedulable: bool = True
    is_ready: bool = True
    allocatable: Amounts = field(default_factory=dict)
    requested: Amounts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a HyperNode's members: nodes, or other HyperNodes by their exact name.

    Exactly one of `exact`, `pattern` (searched for, as Go's regexp does) and `labels` is set.
    """

    is_hypernode: bool
    exact: str | None = None
    pattern: str | None = None
    labels: tuple[Requirement, ...] | None = None


@dataclass(frozen=True, slots=True)
class HyperNode:
    """A network domain as Volcano knows it: the lower the tier, the faster the network inside."""

    name: str
    tier: int
    members: tuple[Member, ...] = ()
    tier_name: str | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """A Volcano queue: what it may hold (absent: no limit) and what it holds."""

    name: str
    is_open: bool = True
    capability: Amounts = field(default_factory=dict)
    allocated: Amounts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Quota:
    """A ResourceQuota of a namespace: hard limits and what is used of them, by resource.

    Resources are named as a pod's requests are; ``pods`` counts pods.
    """

    name: str
    hard: Amounts
    used: Amounts


@dataclass(frozen=True, slots=True)
class Link:
    """What a network path gives whose lowest common HyperNode is of `tier`.

    `network_type` is that of both ends, None for a path between two types or for any type.
    """

    tier: int
    network_type: str | None
    bandwidth_bytes_per_s: float
    latency_s: float


@dataclass(frozen=True, slots=True)
class Network:
    """What is known of the network beforehand: its paths, and the node label of its type."""

    links: tuple[Link, ...] = ()
    type_label: str = "topology.kubernetes.io/switch-type"


@dataclass(frozen=True, slots=True)
class Inventory:
    """The cluster at `at_s` [s, Unix].

    Attributes
    ----------
    nodes, hypernodes, queues
        All of them.
    quotas
        By namespace.
    unseen
        What could not be read and so is not counted, one line each.
    """

    at_s: float
    nodes: tuple[Node, ...] = ()
    hypernodes: tuple[HyperNode, ...] = ()
    queues: tuple[Queue, ...] = ()
    quotas: Mapping[str, tuple[Quota, ...]] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()
