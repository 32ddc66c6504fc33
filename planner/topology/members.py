"""Who is in a HyperNode: its nodes by name, pattern or labels, and whose member it is. Pure."""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from planner.inventory import HyperNode, Member, Requirement
from planner.topology import faults
from planner.topology.faults import Fault
from planner.topology.labels import Labels

# Go's regexp knows these by other names than Python's re.
_GO_SYNTAX = {
    r"\z": r"\Z",
    "[:alnum:]": "0-9A-Za-z",
    "[:alpha:]": "A-Za-z",
    "[:digit:]": "0-9",
    "[:lower:]": "a-z",
    "[:upper:]": "A-Z",
    "[:xdigit:]": "0-9A-Fa-f",
}


@dataclass(slots=True)
class Names:
    """The nodes that there are, and what was found among them by rules that recur."""

    nodes: Sequence[str]
    labels: Labels
    places: Mapping[str, int] = field(init=False)
    by_pattern: dict[str, frozenset[str]] = field(init=False, default_factory=dict)
    by_labels: dict[tuple[Requirement, ...], frozenset[str]] = field(
        init=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        self.places = {name: place for place, name in enumerate(self.nodes)}

    def searched(self, pattern: str) -> frozenset[str]:
        """Return the nodes whose name a pattern occurs in, as Go's MatchString has it."""
        if pattern not in self.by_pattern:
            search = _compiled(pattern)
            self.by_pattern[pattern] = frozenset(name for name in self.nodes if search(name))
        return self.by_pattern[pattern]

    def labelled(self, requirements: tuple[Requirement, ...]) -> frozenset[str]:
        """Return the nodes whose labels match; no requirement selects nothing."""
        if not requirements:
            return frozenset()
        if requirements not in self.by_labels:
            places = np.flatnonzero(self.labels.matching(requirements))
            self.by_labels[requirements] = frozenset(self.nodes[int(place)] for place in places)
        return self.by_labels[requirements]


def parents_of(hypernodes: Sequence[HyperNode], found: list[Fault]) -> dict[str, str]:
    """Return each HyperNode's parent, and add what is wrong to `found`.

    Of two parents the first by name counts. A cycle is opened above its highest tier, which no
    parent can rightly be above.
    """
    tiers = {hypernode.name: hypernode.tier for hypernode in hypernodes}
    parents: dict[str, str] = {}
    for hypernode in hypernodes:
        for member in hypernode.members:
            if not member.is_hypernode:
                continue
            child = member.exact
            if child is None:
                found.append(faults.ignored(hypernode.name))
            elif child not in tiers:
                what = f"its member HyperNode {child} does not exist"
                found.append(faults.missing(hypernode.name, what))
            elif parents.setdefault(child, hypernode.name) != hypernode.name:
                found.append(faults.two_parents(child, parents[child], hypernode.name))
    for start in sorted(parents):
        ring = _ring(start, parents)
        if ring:
            found.append(faults.cycle(ring))
            del parents[max(ring, key=lambda name: tiers[name])]
    return parents


def _ring(start: str, parents: Mapping[str, str]) -> list[str]:
    """Return the cycle that `start` is part of, from it upwards; empty if it is in none."""
    path, above = [start], parents.get(start)
    while above is not None and above not in path:
        path.append(above)
        above = parents.get(above)
    return path if above == start else []


def direct_nodes(hypernode: HyperNode, names: Names, found: list[Fault]) -> frozenset[str]:
    """Return the nodes that a HyperNode names itself, and add what is wrong to `found`."""
    nodes: set[str] = set()
    for member in hypernode.members:
        if not member.is_hypernode:
            nodes |= _nodes_of(hypernode.name, member, names, found)
    return frozenset(nodes)


def _nodes_of(hypernode: str, member: Member, names: Names, found: list[Fault]) -> frozenset[str]:
    """Return the nodes of one member."""
    if member.exact is not None:
        nodes = frozenset({member.exact}) if member.exact in names.places else frozenset()
        what = f"its member node {member.exact} does not exist"
    elif member.pattern is not None:
        try:
            nodes = names.searched(member.pattern)
        except (re.error, OverflowError, RecursionError) as error:
            found.append(faults.bad_pattern(hypernode, member.pattern, str(error)))
            return frozenset()
        what = f"its regexMatch {member.pattern!r} finds no node"
    else:
        nodes = names.labelled(member.labels or ())
        what = "its labelMatch finds no node"
    if not nodes:
        found.append(faults.missing(hypernode, what))
    return nodes


def _compiled(pattern: str) -> Callable[[str], object]:
    """Return the search of a pattern in Go's syntax; one that Python cannot read raises."""
    for go, python in _GO_SYNTAX.items():
        pattern = pattern.replace(go, python)
    with warnings.catch_warnings():
        # Python warns of sets that it may read otherwise one day; Go reads them as Python does now.
        warnings.simplefilter("ignore", FutureWarning)
        return re.compile(pattern, re.ASCII).search
