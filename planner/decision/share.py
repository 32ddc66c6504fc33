"""What several services ask for at once, cut to what their nodes hold together. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from planner.decision.allocate import Ask, Grant, allocate
from planner.errors import ClusterError
from planner.model import Decision, Fleet, Mode, Patch, Service, ServiceKey
from planner.topology.capacity import Stock
from planner.topology.tree import Tree

Grants = Mapping[str, Grant]
"""What each pool of one service may have, by pool name."""


def share(
    services: Sequence[Service],
    fleets: Mapping[ServiceKey, Fleet | ClusterError],
    decisions: Mapping[ServiceKey, Decision],
    stock: Stock,
    tree: Tree,
) -> dict[ServiceKey, Decision]:
    """Return the decisions with every growth that all of them together have room for.

    Parameters
    ----------
    services
        Those that decided in this tick.
    fleets, decisions
        Their pools as they are, and what each would do alone.
    stock, tree
        The nodes and the network they are in.
    """
    asks = [ask for s in services for ask in _asks(s, fleets[s.key], decisions[s.key])]
    grants: dict[ServiceKey, dict[str, Grant]] = {}
    for (key, pool), grant in (allocate(asks, stock, tree) if asks else {}).items():
        grants.setdefault(key, {})[pool] = grant
    return {s.key: granted(s, decisions[s.key], grants.get(s.key, {})) for s in services}


def _asks(service: Service, fleet: Fleet | ClusterError, decision: Decision) -> list[Ask]:
    """Return the pools that are about to grow, and those whose pods still wait for nodes.

    Advice takes nothing from anybody.
    """
    if isinstance(fleet, ClusterError) or service.mode is not Mode.ACT:
        return []
    asks: list[Ask] = []
    for pool in service.pools:
        found, told = fleet.pools[pool.name], decision.pools[pool.name]
        if found.shape is None:
            continue
        placed = sum(1 for p in found.pods if p.node is not None and not p.terminating)
        running = min(placed // pool.pods_per_replica, told.current)
        desired = max(told.desired, told.current)
        if desired == running:
            continue
        planned = decision.plan.pools[pool.name].up if decision.plan else desired
        asks.append(
            Ask(
                key=service.key,
                pool=pool.name,
                running_replicas=running,
                desired_replicas=desired,
                needed_replicas=max(planned, 1),
                pods_per_replica=pool.pods_per_replica,
                shape=found.shape,
                domain=told.domain,
                ordered_replicas=told.current,
                floor_replicas=pool.min_replicas,
                is_elastic=service.topology.is_elastic,
                # A pod that is leaving keeps others from its node until it is gone.
                occupied=frozenset(p.node for p in found.pods if p.node is not None),
            )
        )
    return asks


def granted(service: Service, decision: Decision, grants: Grants) -> Decision:
    """Return a decision with its growth cut to what was granted, and why."""
    short = {
        pool: grant
        for pool, grant in grants.items()
        if grant.replicas < decision.pools[pool].desired
    }
    if not short or decision.patch is None:
        return decision
    pools, replicas = dict(decision.pools), dict(decision.patch.replicas)
    for name, grant in short.items():
        pools[name] = replace(pools[name], desired=grant.replicas)
        replicas[name] = grant.replicas * service.pool(name).pods_per_replica
        if grant.replicas <= pools[name].current:
            del replicas[name]
    patch = Patch(replicas, decision.patch.drain, decision.patch.keep)
    reasons = tuple(grant.reason for grant in short.values() if grant.reason is not None)
    return replace(
        decision,
        pools=pools,
        patch=patch or None,
        reasons=(*reasons, *decision.reasons),
    )
