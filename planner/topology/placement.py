"""The fragments of a Job's manifest that put it in a domain and keep it there. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from planner.topology.capacity import Stock, spoken
from planner.topology.tree import ROOT, Domain, Tree

HOSTNAME = "kubernetes.io/hostname"
# Values that a rule of the affinity may list before it says less than it hides.
MOST_VALUES = 16

# A label, and the values that it has on the nodes of a domain.
Rule = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Placement:
    """What to write into a Job.

    Attributes
    ----------
    network_topology
        For ``spec.networkTopology``; empty: leave it out.
    node_affinity
        For ``affinity.nodeAffinity`` of the pods; empty: leave it out.
    notes
        What these two do not hold, one line each.
    """

    network_topology: Mapping[str, Any]
    node_affinity: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def placement(domain: str, stock: Stock, tree: Tree) -> Placement:
    """Return what puts pods into a domain and keeps them there.

    Hard mode at the domain's own tier keeps elastic pods home; it does not say in which of the
    domains of that tier, so the affinity names the domain by labels that its nodes alone share.
    """
    place = tree.domains[domain]
    if place.name == ROOT:
        return Placement({}, {}, (f"{spoken(ROOT)} needs no placement",))
    topology = {"mode": "hard", "highestTierAllowed": place.tier}
    rules = _rules(place, stock)
    if not rules:
        return Placement(topology, {}, () if rules == [] else (_no_rule(place, tree),))
    term = {"matchExpressions": [
        {"key": key, "operator": "In", "values": list(values)} for key, values in rules
    ]}  # fmt: skip
    required = {"nodeSelectorTerms": [term]}
    return Placement(topology, {"requiredDuringSchedulingIgnoredDuringExecution": required})


def _rules(domain: Domain, stock: Stock) -> list[Rule] | None:
    """Return the fewest labels that single the domain's nodes out, None if none do.

    Each rule is a label that all of them have, with the values it takes on them. Host names are
    used where nothing else tells.
    """
    inside = {node for node in domain.nodes if node in stock.places}
    others = set(stock.names) - inside
    if not inside:
        return None
    options = _options(inside, stock)
    by_host = options.pop(HOSTNAME, None)
    rules = _narrowed(options, others, stock)
    if rules is None and by_host is not None:
        return [(HOSTNAME, by_host)]
    return rules


def _narrowed(
    options: dict[str, tuple[str, ...]], others: set[str], stock: Stock
) -> list[Rule] | None:
    """Return labels that no other node has all of; the one that leaves fewest is taken first."""
    rules: list[Rule] = []
    while others:
        left = {
            key: {n for n in others if stock.labels_of[n].get(key) in values}
            for key, values in options.items()
        }
        key = min(left, key=lambda k: (len(left[k]), len(options[k]), k), default=None)
        if key is None or len(left[key]) == len(others):
            return None
        others = left[key]
        rules.append((key, options.pop(key)))
    return rules


def _options(inside: set[str], stock: Stock) -> dict[str, tuple[str, ...]]:
    """Return the labels that all nodes inside have, with their values, where these are few."""
    labels = [stock.labels_of[node] for node in inside]
    shared = set(labels[0]).intersection(*labels[1:])
    values = {key: tuple(sorted({of[key] for of in labels})) for key in shared}
    return {key: found for key, found in values.items() if len(found) <= MOST_VALUES}


def _no_rule(domain: Domain, tree: Tree) -> str:
    """Say what is missing where no label singles a domain out."""
    peers = sum(1 for d in tree.domains.values() if d.tier == domain.tier) - 1
    return (
        f"no label singles out the {len(domain.nodes)} nodes of {domain.name}: the scheduler may "
        f"take any of {peers + 1} HyperNodes of tier {domain.tier}; label its nodes and add them "
        "to the affinity"
    )
