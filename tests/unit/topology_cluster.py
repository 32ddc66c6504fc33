"""The scenario's cluster: seven switches, 256 nodes, and pods that sit on them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from planner.inventory import (
    HyperNode,
    Inventory,
    Link,
    Member,
    Network,
    Node,
    Operator,
    PodShape,
    Requirement,
)
from planner.model import Fleet, Pod, PoolFleet, Role, Service, Topology
from planner.topology.capacity import Stock
from planner.topology.survey import Survey, survey
from planner.topology.tree import Tree, build_tree
from tests.builders import START_S, pool, service

SWITCH, TYPE, GPU = (
    "topology.kubernetes.io/switch", "topology.kubernetes.io/switch-type", "nvidia.com/gpu",
)  # fmt: skip
LEAVES = ("ib-switch0", "ib-switch1", "eth-switch2", "eth-switch3")
H100 = (0, 1, 5, 10, 15, 20, 64, 65, 70, 75, 80, 85)
RTX4090 = (2, 3, 6, 11, 16, 21, 66, 67, 71, 76, 81, 86)
GIGABIT = 1e9 / 8.0
NETWORK = Network((
    Link(1, "ib", 200 * GIGABIT, 2e-6),
    Link(2, "ib", 200 * GIGABIT, 5e-6),
    Link(1, "ethernet", 100 * GIGABIT, 10e-6),
    Link(2, "ethernet", 10 * GIGABIT, 20e-6),
    Link(3, None, 100 * GIGABIT, 10e-6),
))  # fmt: skip


def name(place: int) -> str:
    return f"node-{place}"


def node(place: int, gpus: float = 8.0, **over: Any) -> Node:
    switch = LEAVES[place // 64]
    kind = "h100" if place in H100 else "rtx4090" if place in RTX4090 else "none"
    labels = {
        SWITCH: switch,
        TYPE: switch.split("-", maxsplit=1)[0].replace("eth", "ethernet"),
        "kubernetes.io/hostname": name(place),
        "gpu-type": kind,
    }
    allocatable = {"cpu": 64.0, GPU: gpus if kind != "none" else 0.0}
    return Node(name(place), **({"labels": labels, "allocatable": allocatable} | over))


def switches() -> tuple[HyperNode, ...]:
    def leaf(name: str) -> HyperNode:
        rule = (Requirement(SWITCH, Operator.IN, (name,)),)
        return HyperNode(name, 1, (Member(is_hypernode=False, labels=rule),))

    def above(name: str, tier: int, *children: str) -> HyperNode:
        members = tuple(Member(is_hypernode=True, exact=child) for child in children)
        return HyperNode(name, tier, members)

    return (
        *(leaf(name) for name in LEAVES),
        above("ib-switch4", 2, *LEAVES[:2]),
        above("eth-switch5", 2, *LEAVES[2:]),
        above("eth-switch6", 3, "ib-switch4", "eth-switch5"),
    )


TREE = build_tree(switches(), [node(i) for i in range(256)])


def inventory(**over: Any) -> Inventory:
    nodes = tuple(node(i) for i in range(256))
    return Inventory(START_S, **({"nodes": nodes, "hypernodes": switches()} | over))


def shape(gpus: float = 1.0, **selector: str) -> PodShape:
    """Return a pod of so many GPUs: `shape(gpu_type="h100")`."""
    wanted = {key.replace("_", "-"): value for key, value in selector.items()}
    return PodShape(requests={"cpu": 4.0, GPU: gpus}, selector=wanted)


def pods(places: Iterable[int], waiting: int = 0, leaving: Iterable[int] = ()) -> tuple[Pod, ...]:
    """Return pods on these nodes, then some that are leaving others, then some without a node."""
    seats = [(name(p), False) for p in places] + [(name(p), True) for p in leaving]
    seats += [(None, False)] * waiting  # type: ignore[list-item]
    return tuple(
        Pod(f"p-{i}", START_S - 600.0, None if seat is None else START_S, going, i, seat)
        for i, (seat, going) in enumerate(seats)
    )


def seated(there: Inventory, fleets: Sequence[Fleet]) -> Inventory:
    """Return the inventory with what the fleets' pods ask for on their nodes."""
    asked: dict[str, dict[str, float]] = {}
    for fleet in fleets:
        for found in fleet.pools.values():
            for pod in found.pods:
                if pod.node is not None and found.shape is not None:
                    on = asked.setdefault(pod.node, {"pods": 0.0})
                    for resource, amount in {"pods": 1.0, **found.shape.requests}.items():
                        on[resource] = on.get(resource, 0.0) + amount
    nodes = tuple(
        replace(n, requested={
            k: n.requested.get(k, 0.0) + asked.get(n.name, {}).get(k, 0.0)
            for k in {*n.requested, *asked.get(n.name, {})}
        })
        for n in there.nodes
    )  # fmt: skip
    return replace(there, nodes=nodes)


def pair(
    prefill: tuple[Pod, ...] = (),
    decode: tuple[Pod, ...] = (),
    shapes: Mapping[str, PodShape] | None = None,
    **over: Any,
) -> Fleet:
    """Return a fleet of two pools of one GPU a pod; `over` is for both pools' fleets."""
    each = {"prefill": prefill, "decode": decode}
    given = {"prefill": shape(gpu_type="h100"), "decode": shape(gpu_type="rtx4090")}
    given |= shapes or {}
    return Fleet(
        START_S,
        {n: PoolFleet(**({"replicas": len(found), "pods": found, "shape": given[n]} | over))
         for n, found in each.items()},
    )  # fmt: skip


def asked(tier: int | None = None, **over: Any) -> Service:
    kv = {"kv_bytes_per_token": 320_000.0}  # a 70B model's
    return service(
        pools=(pool(Role.PREFILL, **kv), pool(Role.DECODE, **kv)),
        topology=Topology(highest_tier=tier, **over),
    )


def surveyed(
    fleet: Fleet,
    who: Service | None = None,
    there: Inventory | None = None,
    tree: Tree = TREE,
    network: Network = NETWORK,
) -> Survey:
    """Survey with the fleet's pods on their nodes."""
    stock = Stock(seated(there or inventory(), [fleet]))
    return survey(who or asked(), fleet, stock, tree, network)
