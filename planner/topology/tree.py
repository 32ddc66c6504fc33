"""The tree of network domains that HyperNodes make, as Volcano's scheduler sees it. Pure.

A tree that is wrong is never an error here: its faults are told, and what can be read is read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from planner.inventory import HyperNode, Inventory, Node
from planner.topology.faults import BREAKING, Fault, misplaced, shared_nodes
from planner.topology.labels import Labels
from planner.topology.members import Names, direct_nodes, parents_of

# Volcano's name of the virtual domain above all HyperNodes, which holds every node.
ROOT = "<cluster-top-hypernode>"


@dataclass(frozen=True, slots=True)
class Domain:
    """One HyperNode: its place in the tree, and the nodes in it and below it."""

    name: str
    tier: int
    parent: str | None
    children: tuple[str, ...]
    nodes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Tree:
    """All domains, the root included.

    Attributes
    ----------
    domains
        By name.
    by_node
        Names of the domains that hold a node, lowest first; the root is the last.
    faults
        What is wrong with the HyperNodes.
    """

    domains: Mapping[str, Domain]
    by_node: Mapping[str, tuple[str, ...]]
    faults: tuple[Fault, ...] = ()

    @property
    def is_broken(self) -> bool:
        """Whether Volcano places no pod of any Job that has a network topology."""
        return any(fault.code in BREAKING for fault in self.faults)

    def ancestors(self, domain: str) -> tuple[str, ...]:
        """Return a domain and all above it, lowest first."""
        found: list[str] = []
        above: str | None = domain
        while above is not None:
            found.append(above)
            above = self.domains[above].parent
        return tuple(found)

    def lowest_common(self, nodes: Iterable[str]) -> str | None:
        """Return the lowest domain that holds all the nodes, None without any that is known.

        Volcano finds the domain of a running Job in this way from where its pods are (session,
        recoverAllocatedHyperNode). A node that is gone says nothing.
        """
        known = [node for node in set(nodes) if node in self.by_node]
        if not known:
            return None
        common = self.by_node[known[0]]
        for node in known[1:]:
            common = tuple(name for name in common if node in self.domains[name].nodes)
        return common[0]

    def meeting(self, one: str, other: str) -> str:
        """Return the lowest common ancestor of two domains."""
        above = set(self.ancestors(one))
        return next(name for name in self.ancestors(other) if name in above)

    def highest_within(self, domain: str, tier: int) -> str | None:
        """Return the highest ancestor of at most `tier`, None if the domain itself is higher.

        Source: Volcano, network-topology-aware, getHighestAllowedHyperNode.
        """
        highest = None
        for name in self.ancestors(domain):
            if self.domains[name].tier > tier:
                break
            highest = name
        return highest

    def widest_within(self, tier: int) -> tuple[str, ...]:
        """Return the largest domains of at most `tier`, by name."""
        found = {self.highest_within(name, tier) for name in self.domains}
        return tuple(sorted(name for name in found if name is not None))


def build_tree(hypernodes: Sequence[HyperNode], nodes: Sequence[Node]) -> Tree:
    """Return the tree and its faults; never raises, whatever the HyperNodes say."""
    ordered = sorted(hypernodes, key=lambda hypernode: hypernode.name)
    names = Names([node.name for node in nodes], Labels([node.labels for node in nodes]))
    faults: list[Fault] = []
    parents = parents_of(ordered, faults)
    direct = {h.name: direct_nodes(h, names, faults) for h in ordered}
    faults += misplaced({h.name: h.tier for h in ordered}, parents)
    faults += shared_nodes(direct, parents)
    domains = _domains(ordered, parents, direct, frozenset(names.places))
    return Tree(domains, _by_node(domains), tuple(faults))


def is_same_network(before: Inventory, after: Inventory) -> bool:
    """Return whether a tree built from `before` also holds for `after`."""
    return before.hypernodes == after.hypernodes and [
        (node.name, node.labels) for node in before.nodes
    ] == [(node.name, node.labels) for node in after.nodes]


@dataclass(slots=True)
class _Draft:
    """A domain in the making."""

    nodes: set[str]
    children: list[str] = field(default_factory=list)


def _domains(
    hypernodes: Sequence[HyperNode],
    parents: Mapping[str, str],
    direct: Mapping[str, frozenset[str]],
    everything: frozenset[str],
) -> dict[str, Domain]:
    """Return all domains with the nodes below them; parents hold no cycle."""
    drafts = {name: _Draft(set(nodes)) for name, nodes in direct.items()}
    tops: list[str] = []
    for name, nodes in direct.items():
        above = parents.get(name)
        drafts[above].children.append(name) if above is not None else tops.append(name)
        while above is not None:
            drafts[above].nodes |= nodes
            above = parents.get(above)
    found = {
        h.name: Domain(
            h.name,
            h.tier,
            parents.get(h.name, ROOT),
            tuple(drafts[h.name].children),
            frozenset(drafts[h.name].nodes),
        )
        for h in hypernodes
    }
    tier = max((h.tier for h in hypernodes), default=0) + 1
    found[ROOT] = Domain(ROOT, max(tier, 1), None, tuple(tops), everything)
    return found


def _by_node(domains: Mapping[str, Domain]) -> dict[str, tuple[str, ...]]:
    """Return the domains of every node; equal tiers: the one with fewer nodes, then by name."""
    found: dict[str, list[str]] = {node: [] for node in domains[ROOT].nodes}
    lowest_first = sorted(domains.values(), key=lambda d: (d.tier, len(d.nodes), d.name))
    for domain in lowest_first:
        for node in domain.nodes:
            found[node].append(domain.name)
    return {node: tuple(names) for node, names in found.items()}
