"""What can be wrong with HyperNodes, and how to mend it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

# With one of these Volcano's tree does not build, and no Job with a network topology is scheduled.
BREAKING = frozenset({"Cycle", "TwoParents"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: what, where, and what to do about it.

    Codes: Cycle, TwoParents, MissingMember, IgnoredMember, BadPattern, TierOrder, SharedNode.
    """

    code: str
    hypernode: str
    message: str
    mend: str


def cycle(members: list[str]) -> Fault:
    """Tell of HyperNodes that hold each other."""
    ring = " → ".join([*members, members[0]])
    mend = f"take one HyperNode of the ring out of the members of another: {', '.join(members)}"
    return Fault("Cycle", members[0], f"HyperNodes hold each other: {ring}", mend)


def two_parents(child: str, first: str, second: str) -> Fault:
    """Tell of a HyperNode that is a member of two."""
    message = f"HyperNode {child} is a member of both {first} and {second}"
    return Fault("TwoParents", child, message, f"take {child} out of the members of one of them")


def missing(hypernode: str, what: str) -> Fault:
    """Tell of a member that does not exist, or a rule that finds none."""
    message = f"HyperNode {hypernode}: {what}"
    mend = f"correct the member, or take it out of {hypernode}"
    return Fault("MissingMember", hypernode, message, mend)


def ignored(hypernode: str) -> Fault:
    """Tell of a member that Volcano passes over."""
    message = f"HyperNode {hypernode}: members of type HyperNode count by exactMatch only"
    return Fault("IgnoredMember", hypernode, message, "name each member HyperNode by exactMatch")


def bad_pattern(hypernode: str, pattern: str, why: str) -> Fault:
    """Tell of a pattern that is no regular expression."""
    message = f"HyperNode {hypernode}: regexMatch {pattern!r} cannot be read: {why}"
    mend = "write a regular expression that Go and Python share, or use labelMatch"
    return Fault("BadPattern", hypernode, message, mend)


def misplaced(tiers: Mapping[str, int], parents: Mapping[str, str]) -> list[Fault]:
    """Return the HyperNodes that are not below their parents' tier."""
    return [
        Fault(
            "TierOrder",
            child,
            f"HyperNode {child} has tier {tiers[child]}, its parent {parent} {tiers[parent]}",
            f"give {parent} a tier above {tiers[child]}",
        )
        for child, parent in sorted(parents.items())
        if tiers[child] >= tiers[parent]
    ]


def shared_nodes(direct: Mapping[str, frozenset[str]], parents: Mapping[str, str]) -> list[Fault]:
    """Return the pairs of HyperNodes, neither above the other, that name the same nodes."""
    first: dict[str, str] = {}
    pairs: dict[tuple[str, str], list[str]] = {}
    for name, nodes in direct.items():
        for node in nodes:
            holder = first.setdefault(node, name)
            if holder != name:
                pairs.setdefault((holder, name), []).append(node)
    return [
        Fault(
            "SharedNode",
            other,
            f"HyperNodes {one} and {other} both hold {_some(sorted(nodes))}",
            f"let each node be a member of one HyperNode: narrow the members of {one} or {other}",
        )
        for (one, other), nodes in sorted(pairs.items())
        if not (_is_above(one, other, parents) or _is_above(other, one, parents))
    ]


def _is_above(one: str, other: str, parents: Mapping[str, str]) -> bool:
    """Return whether `one` is an ancestor of `other`."""
    above = parents.get(other)
    while above is not None and above != one:
        above = parents.get(above)
    return above is not None


def _some(names: list[str], most: int = 3) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
