"""What the network does to a service, told once a fact and only where it matters. Pure."""

from collections.abc import Mapping, Sequence

from planner.inventory import Network, PodShape
from planner.model import Fleet, Pool, PoolFleet, Reason, Role, Service, Transfer
from planner.topology.capacity import Bound, Stock, demand_of, pods_within, spoken
from planner.topology.domains import Reach, breaking_fault, home_of, placed
from planner.topology.transfer import Paths, kv_bytes_per_token, link_transfer, paths_between
from planner.topology.tree import Tree

# A path that costs less than this more is as good [s].
WORTH_TELLING_S = 1e-4
GIGABIT = 1e9 / 8.0


def unreadable(found: Mapping[str, Reach], tree: Tree) -> tuple[Reason, ...]:
    """Tell that Volcano places none of the service's pods, if so."""
    fault = breaking_fault(tree)
    barred = sorted(name for name, reach in found.items() if reach.barred)
    if fault is None or not barred:
        return ()
    message = (
        f"{fault.message}: Volcano schedules no Job with a network topology, so no scale-up of "
        f"{', '.join(barred)}; {fault.mend}"
    )
    return (Reason("TopologyUnreadable", message),)


def waiting_for_nodes(
    service: Service, pool: Pool, here: PoolFleet, bound: Bound
) -> tuple[Reason, ...]:
    """Tell how many pods wait for nodes that a cluster autoscaler is to add."""
    waiting = sum(1 for pod in here.pods if pod.node is None and not pod.terminating)
    short = waiting - bound.pods
    if short <= 0:
        return ()
    startup_s = service.topology.node_startup_s
    message = (
        f"pool {pool.name}: {short} of {waiting} waiting pods fit nowhere now ({bound.why}); "
        f"they wait for new nodes, about {startup_s:.0f} s"
    )
    values = {"waiting_pods": float(waiting), "short_pods": float(short), "startup_s": startup_s}
    return (Reason("WaitingForNodes", message, pool.name, values),)


def outside(
    service: Service, fleet: Fleet, found: Mapping[str, Reach], tree: Tree
) -> tuple[Reason, ...]:
    """Tell which pods are not in the domain where their pool must be."""
    told: list[Reason] = []
    for pool in service.pools:
        domain, pods = found[pool.name].domain, placed(fleet.pools[pool.name].pods)
        if domain is None:
            continue
        inside = tree.domains[domain].nodes
        away = [p for p in pods if p.node in tree.by_node and p.node not in inside]
        if not away:
            continue
        where = tree.lowest_common(p.node for p in away if p.node is not None)
        message = (
            f"pool {pool.name}: {len(away)} of {len(pods)} pods are outside {domain}, in {where} "
            f"({_some([p.name for p in away])})"
        )
        told.append(Reason("OutsideDomain", message, pool.name, {"pods": float(len(away))}))
    return tuple(told)


def paths_of(
    service: Service, fleet: Fleet, stock: Stock, tree: Tree, network: Network
) -> Paths | None:
    """Return the paths between the pods of the two roles, None unless both have any."""
    prefill, decode = (_spread(service, fleet, role) for role in (Role.PREFILL, Role.DECODE))
    return paths_between(prefill, decode, tree, network, stock.labels_of, service.transfer)


def mixed(
    service: Service, paths: Paths | None, network: Network, prompt_tokens: float
) -> tuple[Reason, ...]:
    """Tell that KV caches cross from one type of network to another, and what that costs."""
    if paths is None or paths.mixed_share <= 0.0:
        return ()
    types = " and ".join(paths.types)
    message = f"prefill and decode sit in different network types ({types})"
    values = {"mixed_ratio": paths.mixed_share}
    if network.links:
        cost_s = _cost_s(service, paths.transfer, paths.together, prompt_tokens)
        values |= {"cost_ms": 1e3 * cost_s, "prompt_tokens": prompt_tokens}
        message += (
            f": {1e3 * cost_s:.1f} ms more for the KV cache of {prompt_tokens:.0f} tokens than "
            f"together ({_gigabits(paths.transfer)} instead of {_gigabits(paths.together)} Gbit/s)"
        )
    else:
        message += "; what that costs is not known without network links in the settings"
    return (Reason("MixedNetwork", message, values=values),)


def stays_home(old: int, new: int, cells: int) -> bool:
    """Return whether a Job that grows from `old` to `new` pods gets them in its home domain.

    For a Job pinned above its home's own tier: Volcano scores a HyperNode with the whole new Job
    on top of what is there already, so beyond about half full an emptier sibling wins (measured
    on Volcano 1.15.1: of 8 cells 3 → 4 stays, 4 → 5 goes).

    Examples
    --------
    >>> stays_home(3, 4, 8), stays_home(4, 5, 8)
    (True, False)
    """
    return old + new <= cells


def locality(
    service: Service,
    fleet: Fleet,
    found: Mapping[str, Reach],
    stock: Stock,
    tree: Tree,
    network: Network,
    prompt_tokens: float,
) -> tuple[Reason, ...]:
    """Tell which pools leave their home domain with their next pod, where that costs time."""
    told: list[Reason] = []
    for pool in service.pools:
        here, domains = fleet.pools[pool.name], found[pool.name].domains
        home = home_of(service, pool, fleet, tree)
        if here.pinned_tier is None or here.shape is None or home is None or len(domains) != 1:
            continue
        old = len(placed(here.pods))
        cells = old + home_cells(stock, tree, home, here.shape)
        away = stock.within(tree.domains[domains[0]]) & ~stock.within(tree.domains[home])
        has_room_away = bool(stock.cells(here.shape)[away].any())
        if not has_room_away or stays_home(old, old + pool.pods_per_replica, cells):
            continue
        cost_s = _moving_cost_s(service, home, domains[0], stock, tree, network, prompt_tokens)
        if cost_s < WORTH_TELLING_S:
            continue
        message = (
            f"pool {pool.name}: with {old} pods in {home}, which holds {cells}, the next ones go "
            f"to another part of {spoken(domains[0])}: {1e3 * cost_s:.1f} ms more for the KV cache "
            f"of {prompt_tokens:.0f} tokens; highestTierAllowed: {tree.domains[home].tier} keeps "
            "them home"
        )
        values = {"pods": float(old), "cells": float(cells), "cost_ms": 1e3 * cost_s}
        told.append(Reason("LocalityLoss", message, pool.name, values))
    return tuple(told)


def _moving_cost_s(
    service: Service,
    home: str,
    domain: str,
    stock: Stock,
    tree: Tree,
    network: Network,
    prompt_tokens: float,
) -> float:
    """Return what a path through `domain` costs a prompt over one that stays in `home` [s]."""
    here = (stock.labels_of[n] for n in tree.domains[home].nodes if n in stock.labels_of)
    kinds = {labels.get(network.type_label) for labels in here}
    kind = kinds.pop() if len(kinds) == 1 else None
    near, far = (
        link_transfer(network, tree.domains[name].tier, kind, service.transfer)
        for name in (home, domain)
    )
    return _cost_s(service, far, near, prompt_tokens)


def home_cells(stock: Stock, tree: Tree, home: str, shape: PodShape) -> int:
    """Return the pods that a domain still holds by the sum of its nodes, as Volcano scores it."""
    within = stock.within(tree.domains[home])
    demand = demand_of(shape)
    free = {name: float(stock.free(name)[within].sum()) for name, _ in demand}
    return pods_within(free, {}, demand) or 0


def _spread(service: Service, fleet: Fleet, role: Role) -> dict[str, float]:
    """Return the pods of a role by node, each weighted by its part of a replica."""
    spread: dict[str, float] = {}
    for pool in service.pools_of(role):
        for pod in placed(fleet.pools[pool.name].pods):
            assert pod.node is not None
            spread[pod.node] = spread.get(pod.node, 0.0) + 1.0 / pool.pods_per_replica
    return spread


def _cost_s(service: Service, actual: Transfer, better: Transfer, prompt_tokens: float) -> float:
    """Return how much longer a prompt's KV cache takes than on a better path [s], at least 0."""
    per_token = kv_bytes_per_token(service)
    longer = actual.time_s(prompt_tokens, per_token) - better.time_s(prompt_tokens, per_token)
    return max(longer, 0.0)


def _gigabits(transfer: Transfer) -> str:
    """Return a bandwidth in Gbit/s."""
    return f"{transfer.bandwidth_bytes_per_s / GIGABIT:.0f}"


def _some(names: Sequence[str], most: int = 3) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
