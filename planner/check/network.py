"""Where pods are, what still fits beside them, what the way of a KV cache costs. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from planner.check.finding import Finding, error, ok, warning
from planner.check.placing import absent_findings, placing_findings
from planner.check.rules import Rule
from planner.errors import ClusterError, TargetError
from planner.inventory import Inventory, Network
from planner.model import Fleet, Pool, Reason, Role, Service
from planner.topology.capacity import Stock
from planner.topology.domains import ANYWHERE, home_of, nodes_of, placed, reaches
from planner.topology.faults import BREAKING
from planner.topology.notes import WORTH_TELLING_S, home_cells
from planner.topology.survey import PROMPT_TOKENS, Survey, survey
from planner.topology.transfer import link_transfer
from planner.topology.tree import ROOT, Tree, build_tree


@dataclass(frozen=True, slots=True)
class Site:
    """One service in its cluster, with what was worked out about it once.

    Attributes
    ----------
    stock, tree
        What is free, and the domains.
    network
        What links give.
    found
        Room, domains and transfer of the service.
    prompt_tokens
        Mean prompt, to price paths with [tokens].
    wanted
        Replicas that are recommended now, by pool name.
    """

    service: Service
    fleet: Fleet
    stock: Stock
    tree: Tree
    network: Network
    found: Survey
    prompt_tokens: float
    wanted: Mapping[str, int]

    @property
    def is_placed(self) -> bool:
        """Whether any pod of the service has a node."""
        return any(placed(here.pods) for here in self.fleet.pools.values())


def site(
    service: Service,
    fleet: Fleet,
    inventory: Inventory,
    network: Network,
    prompt_tokens: float | None = None,
    wanted: Mapping[str, int] | None = None,
) -> Site:
    """Return a service in its cluster.

    Parameters
    ----------
    service, fleet, inventory, network
        What is asked, its pods, the nodes and what links between them give.
    prompt_tokens
        Mean prompt length [tokens], None if no prompt was seen.
    wanted
        Replicas that are recommended now, by pool name, where a plan was made.
    """
    stock = Stock(inventory)
    tree = build_tree(inventory.hypernodes, inventory.nodes)
    tokens = prompt_tokens or PROMPT_TOKENS
    found = survey(service, fleet, stock, tree, network, tokens)
    return Site(service, fleet, stock, tree, network, found, tokens, wanted or {})


def network_findings(here: Site) -> Iterator[Finding]:
    """Yield what the network and the nodes do to a service.

    Yields
    ------
    Finding
        About the tree, and about the domain and the room of each pool.
    """
    for line in here.stock.inventory.unseen:
        mend = "grant it (see the lines about permissions) or install what is missing"
        yield warning("cluster", line, mend, Rule.INVENTORY)
    yield from _tree(here)
    for pool in here.service.pools:
        yield from _domain(here, pool)
        yield from _home_tier(here, pool)
        yield from _room(here, pool)
    yield from _notes(here.found.notes)
    if here.is_placed:
        yield from _path(here)
    else:
        yield from _placing(here)


def unplaced_findings(
    service: Service,
    fleet: Fleet | ClusterError,
    inventory: Inventory,
    network: Network,
    wanted: Mapping[str, int],
) -> Iterator[Finding]:
    """Yield where a service belongs of which nothing runs yet.

    Yields
    ------
    Finding
        None for a service that has pods on nodes, or whose targets can't be read.
    """
    if isinstance(fleet, TargetError) and fleet.code == "TargetNotFound":
        yield from absent_findings(service, wanted, inventory, network)
    elif isinstance(fleet, Fleet):
        here = site(service, fleet, inventory, network, None, wanted)
        if not here.is_placed:
            yield from _placing(here)


def _placing(here: Site) -> Iterator[Finding]:
    pools = here.fleet.pools.items()
    return placing_findings(
        here.service,
        here.wanted,
        {name: seen.shape for name, seen in pools if seen.shape is not None},
        here.stock,
        here.tree,
        here.network,
        here.prompt_tokens,
    )


def _is_bound(here: Site) -> bool:
    pinned = any(pool.pinned_tier is not None for pool in here.fleet.pools.values())
    return pinned or here.service.topology.highest_tier is not None


def _tree(here: Site) -> Iterator[Finding]:
    for fault in here.tree.faults:
        breaks = fault.code in BREAKING
        what = fault.message
        if breaks:
            what += ": Volcano places no pod of any Job with a networkTopology, and does not say so"
        make = error if breaks and _is_bound(here) else warning
        yield make("HyperNodes", what, fault.mend, Rule.TREE)
    if not here.tree.faults and len(here.tree.domains) > 1:
        tiers = sorted({d.tier for d in here.tree.domains.values() if d.name != ROOT})
        shown = ", ".join(map(str, tiers))
        yield ok("HyperNodes", f"{len(here.tree.domains) - 1} domains, tiers {shown}, no fault")


def _domain(here: Site, pool: Pool) -> Iterator[Finding]:
    where = f"pool {pool.name}: domain"
    reach = reaches(here.service, here.fleet, here.tree)[pool.name]
    if reach.barred:
        mend = "correct the HyperNodes, or the tier that the Job or spec.topology asks for"
        yield error(where, f"{reach.barred}: no pod can be added", mend, Rule.DOMAIN)
    elif reach.domain is not None:
        tier = here.tree.domains[reach.domain].tier
        yield ok(where, f"must stay in {reach.domain} (tier {tier})")
    elif reach != ANYWHERE:
        yield ok(where, f"none chosen yet: one of {', '.join(reach.domains)}")


def _home_tier(here: Site, pool: Pool) -> Iterator[Finding]:
    """Yield that a Job's tier lets its pods leave the domain in which they could stay.

    Yields
    ------
    Finding
        At most one; it needs pods that run.
    """
    seen = here.fleet.pools[pool.name]
    home = home_of(here.service, pool, here.fleet, here.tree)
    if home is None or seen.pinned_tier is None or seen.shape is None:
        return
    tier = here.tree.domains[home].tier
    cells = len(placed(seen.pods)) + home_cells(here.stock, here.tree, home, seen.shape)
    # Growing from n to n + 1 pods stays home while n + (n + 1) <= cells.
    last = (cells + 1) // 2
    if tier >= seen.pinned_tier or pool.max_replicas * pool.pods_per_replica <= last:
        return
    domain = here.tree.highest_within(home, seen.pinned_tier) or home
    where = f"{pool.target.kind} {pool.target.name} spec.networkTopology.highestTierAllowed"
    what = (
        f"is {seen.pinned_tier}, above tier {tier} of {home}, where its pods are and {cells} fit: "
        f"beyond {last} pods new ones go elsewhere in {domain}"
    )
    cost_s = _cost_s(here, home, domain)
    if cost_s is not None and cost_s < WORTH_TELLING_S:
        yield ok(where, f"{what}, which costs less than {1e3 * WORTH_TELLING_S:g} ms a prompt")
        return
    price = "what that costs is not known without PD_PLANNER_NETWORK__LINKS"
    if cost_s is not None:
        price = f"{1e3 * cost_s:.1f} ms more for the KV cache of {here.prompt_tokens:.0f} tokens"
    yield warning(
        where,
        f"{what}; {price}",
        f"create the Job anew with highestTierAllowed: {tier}, if {cells} pods are enough",
        Rule.HOME_TIER,
    )


def _cost_s(here: Site, home: str, domain: str) -> float | None:
    """Return what a KV cache's way through `domain` costs over one inside `home` [s]."""
    if not here.network.links:
        return None
    label = here.network.type_label
    kinds = {here.stock.labels_of[node].get(label) for node in here.tree.domains[home].nodes}
    kind = kinds.pop() if len(kinds) == 1 else None
    sizes = [p.kv_bytes_per_token or 0.0 for p in here.service.pools_of(Role.PREFILL)]
    near, far = (
        link_transfer(here.network, here.tree.domains[name].tier, kind, here.service.transfer)
        .time_s(here.prompt_tokens, max(sizes, default=0.0))
        for name in (home, domain)
    )  # fmt: skip
    return max(far - near, 0.0)


def _room(here: Site, pool: Pool) -> Iterator[Finding]:
    where = f"pool {pool.name}: room"
    room = here.found.rooms.get(pool.name)
    if room is None:
        elastic = here.service.topology.is_elastic
        if elastic:
            yield ok(where, "not bounded: a cluster autoscaler adds nodes (capacity: Elastic)")
        else:
            what = "what its pods ask of a node is not known: replicas are not capped by what fits"
            mend = "let the planner read the target's pod template"
            yield warning(where, what, mend, Rule.ROOM)
        return
    short = _short(here, pool, room.replicas)
    if short is None:
        yield ok(where, f"{room.replicas} replicas fit, maxReplicas is {pool.max_replicas}")
        return
    what = f"{room.replicas} replicas fit, fewer than {short}: {room.why}"
    mend = f"free or add nodes, or set maxReplicas of the pool to {max(room.replicas, 1)}"
    make = error if room.replicas < pool.min_replicas else warning
    yield make(where, what, mend, Rule.ROOM)


def _short(here: Site, pool: Pool, replicas: int) -> str | None:
    """Return what of the pool's counts does not fit, the smallest first, None if all do."""
    fallback = here.service.fallback
    promises = (
        ("minReplicas", pool.min_replicas),
        ("the plan of now,", here.wanted.get(pool.name, 0)),
        ("the fallback,", 0 if fallback is None else fallback.replicas[pool.name]),
        ("maxReplicas", pool.max_replicas),
    )
    return next((f"{name} {count}" for name, count in promises if count > replicas), None)


def _notes(notes: tuple[Reason, ...]) -> Iterator[Finding]:
    mends = {
        "OutsideDomain": (
            Rule.DOMAIN,
            "pods move when they are replaced; create the Job anew with a hard networkTopology",
        ),
        "WaitingForNodes": (Rule.ROOM, "see the cluster autoscaler, or lower maxReplicas"),
        "MixedNetwork": (
            Rule.TRANSFER,
            "require the label of one network type by node affinity in both pod templates",
        ),
    }
    for note in notes:
        if note.code in mends:
            rule, mend = mends[note.code]
            where = "network" if note.pool is None else f"pool {note.pool}: network"
            yield warning(where, note.message.removeprefix(f"pool {note.pool}: "), mend, rule)


def _path(here: Site) -> Iterator[Finding]:
    nodes = [n for seen in here.fleet.pools.values() for n in nodes_of(placed(seen.pods))]
    common = here.tree.lowest_common(nodes)
    sizes = [p.kv_bytes_per_token or 0.0 for p in here.service.pools_of(Role.PREFILL)]
    if common is None or not max(sizes, default=0.0):
        return
    transfer = here.found.transfer or here.service.transfer
    spent_ms = 1e3 * transfer.time_s(here.prompt_tokens, max(sizes))
    measured = "" if here.found.transfer else " by the settings' bandwidth and latency"
    within = "the whole cluster" if common == ROOT else common
    yield ok(
        "network",
        f"all pods are in {within} (tier {here.tree.domains[common].tier}); the KV cache of "
        f"{here.prompt_tokens:.0f} tokens moves in {spent_ms:.1f} ms{measured}",
    )
