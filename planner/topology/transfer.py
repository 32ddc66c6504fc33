"""How a prompt's KV cache travels between the nodes where prefill and decode really sit. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from planner.inventory import Link, Network
from planner.model import Role, Service, Transfer
from planner.topology.tree import ROOT, Tree

# Share of a pool's pods by node; need not sum to 1.
Spread = Mapping[str, float]
# The kind of place an end of a path is: its lowest domain, and its network type.
_Spot = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class Paths:
    """The paths between two pools, weighted by the pairs of pods that use them.

    Attributes
    ----------
    transfer
        Their mean: the time of a prompt is the mean time over the pairs.
    together
        What the better of the two networks would give if all pods were in it; the same as
        `transfer` where the ends are of one type.
    mixed_share
        Share of the pairs whose ends are in networks of different types.
    types
        The network types of the ends, by name.
    """

    transfer: Transfer
    together: Transfer
    mixed_share: float
    types: tuple[str, ...]


def kv_bytes_per_token(service: Service) -> float:
    """Return the KV cache of one prompt token [bytes], 0 where no profile says."""
    sizes = (pool.kv_bytes_per_token or 0.0 for pool in service.pools_of(Role.PREFILL))
    return max(sizes, default=0.0)


def link_transfer(
    network: Network, tier: int, network_type: str | None, otherwise: Transfer
) -> Transfer:
    """Return what a path gives whose lowest common HyperNode is of `tier`.

    The row of the tier for ends of this network type, else the tier's row for any type, else
    `otherwise`. The set-up of a transfer, which is in `otherwise`, is not in a link's latency.
    """
    by_type: dict[str | None, Link] = {
        link.network_type: link for link in network.links if link.tier == tier
    }
    link = by_type.get(network_type) or by_type.get(None)
    if link is None:
        return otherwise
    return Transfer(link.bandwidth_bytes_per_s, otherwise.latency_s + link.latency_s)


def paths_between(
    prefill: Spread,
    decode: Spread,
    tree: Tree,
    network: Network,
    labels: Mapping[str, Mapping[str, str]],
    otherwise: Transfer,
) -> Paths | None:
    """Return the paths between two pools, None unless both have pods on nodes.

    Parameters
    ----------
    prefill, decode
        Where their pods are.
    tree, network
        Domains, and what links between them give.
    labels
        Labels of the nodes, by name.
    otherwise
        Where no link is given.

    Notes
    -----
    Every pair of pods carries the same share of prompts. A prompt of b bytes takes b / B + L on a
    path, so the mean time needs the harmonic mean of the bandwidths and the mean of the latencies.
    """
    starts = _spots(prefill, tree, network, labels)
    ends = _spots(decode, tree, network, labels)
    pairs = {(a, b): starts[a] * ends[b] for a in starts for b in ends}
    total = sum(pairs.values())
    if total <= 0.0:
        return None
    shares = {pair: weight / total for pair, weight in pairs.items()}
    transfer = _mean(shares, tree, network, otherwise)
    mixed = sum(share for ((_, one), (_, other)), share in shares.items()
                if None not in {one, other} and one != other)  # fmt: skip
    types = tuple(sorted({kind for _, kind in (*starts, *ends) if kind is not None}))
    if mixed <= 0.0:
        return Paths(transfer, transfer, 0.0, types)
    homes = [_within(kind, (*starts, *ends), tree, network, otherwise) for kind in types]
    return Paths(transfer, max(homes, key=lambda t: t.bandwidth_bytes_per_s), mixed, types)


def _mean(
    shares: Mapping[tuple[_Spot, _Spot], float], tree: Tree, network: Network, otherwise: Transfer
) -> Transfer:
    """Return the mean of the paths between pairs of places."""
    per_byte = latency_s = 0.0
    for ((one, type_one), (other, type_other)), share in shares.items():
        tier = tree.domains[tree.meeting(one, other)].tier
        kind = type_one if type_one == type_other else None
        path = link_transfer(network, tier, kind, otherwise)
        per_byte += share / path.bandwidth_bytes_per_s
        latency_s += share * path.latency_s
    return Transfer(1.0 / per_byte, latency_s)


def _spots(
    spread: Spread, tree: Tree, network: Network, labels: Mapping[str, Mapping[str, str]]
) -> dict[_Spot, float]:
    """Return the weights of the kinds of places; nodes that are not known have none."""
    spots: dict[_Spot, float] = {}
    for node, weight in spread.items():
        if node in tree.by_node and weight > 0.0:
            spot = (tree.by_node[node][0], labels.get(node, {}).get(network.type_label))
            spots[spot] = spots.get(spot, 0.0) + weight
    return spots


def _within(
    kind: str, spots: Iterable[_Spot], tree: Tree, network: Network, otherwise: Transfer
) -> Transfer:
    """Return the path between the places of one network type."""
    meeting = ""
    for domain, found in spots:
        if found == kind:
            meeting = tree.meeting(meeting, domain) if meeting else domain
    return link_transfer(network, tree.domains[meeting or ROOT].tier, kind, otherwise)
