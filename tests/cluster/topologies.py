"""Nodes and HyperNodes: the small tree of most tests, the scenario's seven switches, any size."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tests.cluster.rest import Manifest

GPU = "nvidia.com/gpu"
SWITCH = "topology.kubernetes.io/switch"
SWITCH_TYPE = "topology.kubernetes.io/switch-type"
GPU_TYPE = "gpu-type"

# The scenario: which of the 256 nodes hold the GPUs that its service asks for.
H100_NODES = frozenset({0, 1, 5, 10, 15, 20, 64, 65, 70, 75, 80, 85})
RTX4090_NODES = frozenset({2, 3, 6, 11, 16, 21, 66, 67, 71, 76, 81, 86})
LEAVES = ("ib-switch0", "ib-switch1", "eth-switch2", "eth-switch3")
SPINES = {"ib-switch4": ("ib-switch0", "ib-switch1"), "eth-switch5": ("eth-switch2", "eth-switch3")}
CORE = "eth-switch6"


@dataclass(frozen=True, slots=True)
class Topology:
    """Nodes and the HyperNodes above them, as manifests."""

    nodes: tuple[Manifest, ...]
    hyper_nodes: tuple[Manifest, ...]


def node(name: str, gpus: int, labels: Mapping[str, str] | None = None) -> Manifest:
    """Return a node with room for pods that ask for GPUs."""
    room = {"cpu": "256", "memory": "2Ti", "pods": "512", GPU: str(gpus)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "status": {"allocatable": room, "capacity": room},
    }


def over_nodes(name: str, nodes: Iterable[str], tier: int = 1) -> Manifest:
    """Return a HyperNode over nodes named one by one."""
    return _hyper_node(name, tier, [_exactly("Node", node) for node in nodes])


def over_labels(name: str, labels: Mapping[str, str], tier: int = 1) -> Manifest:
    """Return a HyperNode over the nodes that carry all these labels."""
    selector = {"labelMatch": {"matchLabels": dict(labels)}}
    return _hyper_node(name, tier, [{"type": "Node", "selector": selector}])


def over_hyper_nodes(name: str, children: Iterable[str], tier: int) -> Manifest:
    """Return a HyperNode over others."""
    return _hyper_node(name, tier, [_exactly("HyperNode", child) for child in children])


def _exactly(kind: str, name: str) -> Manifest:
    return {"type": kind, "selector": {"exactMatch": {"name": name}}}


def _hyper_node(name: str, tier: int, members: list[Manifest]) -> Manifest:
    return {
        "apiVersion": "topology.volcano.sh/v1alpha1",
        "kind": "HyperNode",
        "metadata": {"name": name},
        "spec": {"tier": tier, "members": members},
    }


def _upper_switches() -> tuple[Manifest, ...]:
    spines = (over_hyper_nodes(name, leaves, tier=2) for name, leaves in SPINES.items())
    return (*spines, over_hyper_nodes(CORE, SPINES, tier=3))


def _under(leaf: str) -> dict[str, str]:
    return {SWITCH: leaf, SWITCH_TYPE: "ib" if leaf.startswith("ib") else "ethernet"}


def eight_nodes(gpus: int = 4) -> Topology:
    """Return seven switches over node0 to node7, two a leaf: 8 GPUs in tier 1, 16 in tier 2."""
    nodes = tuple(node(f"node{i}", gpus, _under(LEAVES[i // 2])) for i in range(8))
    leaves = (
        over_nodes(leaf, (f"node{2 * i}", f"node{2 * i + 1}")) for i, leaf in enumerate(LEAVES)
    )
    return Topology(nodes, (*leaves, *_upper_switches()))


def seven_switches() -> Topology:
    """Return the scenario: 256 nodes of 8 GPUs, 64 a leaf; 12 are H100s, 12 are RTX 4090s."""
    nodes = tuple(node(f"node{i}", 8, _under(LEAVES[i // 64]) | _gpu_type(i)) for i in range(256))
    leaves = (over_labels(leaf, _under(leaf)) for leaf in LEAVES)
    return Topology(nodes, (*leaves, *_upper_switches()))


def _gpu_type(number: int) -> dict[str, str]:
    if number in H100_NODES:
        return {GPU_TYPE: "h100"}
    return {GPU_TYPE: "rtx4090"} if number in RTX4090_NODES else {}


def of_size(nodes: int, leaves: int, gpus: int = 8) -> Topology:
    """Return nodes spread evenly under leaves, eight leaves a spine, one core: for scale tests."""
    names = [f"leaf{i}" for i in range(leaves)]
    spines = {f"spine{i // 8}": tuple(names[i : i + 8]) for i in range(0, leaves, 8)}
    made = tuple(node(f"node{i}", gpus, {SWITCH: names[i * leaves // nodes]}) for i in range(nodes))
    return Topology(
        made,
        (
            *(over_labels(name, {SWITCH: name}) for name in names),
            *(over_hyper_nodes(name, below, tier=2) for name, below in spines.items()),
            over_hyper_nodes("core", spines, tier=3),
        ),
    )
