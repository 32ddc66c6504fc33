"""What a service finds in the cluster: room and domain of each pool, its KV path, notes. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from planner.inventory import Network, PodShape
from planner.model import Fleet, Pod, Pool, PoolFleet, Reason, Room, Service, Transfer
from planner.topology import notes
from planner.topology.capacity import Bound, Stock
from planner.topology.domains import Reach, nodes_of, placed, reaches
from planner.topology.tree import Tree

# A prompt to price a path with, where no load is known [tokens].
PROMPT_TOKENS = 1000.0


@dataclass(frozen=True, slots=True)
class Survey:
    """What the cluster means for one service.

    Attributes
    ----------
    rooms
        By name of the pools that are capped.
    domains
        By pool name the domain its pods must be in, None where there is none.
    transfer
        How KV caches move between the pods, None if that is not known.
    notes
        What matters now, one a fact.
    """

    rooms: Mapping[str, Room]
    domains: Mapping[str, str | None]
    transfer: Transfer | None
    notes: tuple[Reason, ...]


def survey(
    service: Service,
    fleet: Fleet,
    stock: Stock,
    tree: Tree,
    network: Network,
    prompt_tokens: float = PROMPT_TOKENS,
) -> Survey:
    """Return what the cluster means for a service.

    Parameters
    ----------
    service
        Its pools and where they may be.
    fleet
        Its pods, their shapes, and the tiers that they are pinned at.
    stock
        The nodes, made once from an inventory for all services.
    tree
        The domains; it holds while HyperNodes and the labels of nodes stay.
    network
        What links between domains give.
    prompt_tokens
        Mean prompt length, to price paths with [tokens].

    Notes
    -----
    A pool's room is what runs and what still fits beside it: pods that are ordered and wait are
    part of it. It is never below what runs. Rooms of pools that share nodes are each the pool's
    own; `allocate` shares them out.
    """
    found = reaches(service, fleet, tree)
    rooms, waiting = _rooms(service, fleet, found, stock, tree)
    paths = notes.paths_of(service, fleet, stock, tree, network)
    told = (
        *notes.unreadable(found, tree),
        *waiting,
        *notes.outside(service, fleet, found, tree),
        *notes.mixed(service, paths, network, prompt_tokens),
        *notes.locality(service, fleet, found, stock, tree, network, prompt_tokens),
    )
    domains = {name: reach.domain for name, reach in found.items()}
    transfer = paths.transfer if paths is not None and network.links else None
    return Survey(rooms, domains, transfer, told)


def _rooms(
    service: Service, fleet: Fleet, found: Mapping[str, Reach], stock: Stock, tree: Tree
) -> tuple[dict[str, Room], list[Reason]]:
    """Return the rooms of the pools that are capped, and which pods of the others wait."""
    rooms: dict[str, Room] = {}
    waiting: list[Reason] = []
    for pool in service.pools:
        here, reach = fleet.pools[pool.name], found[pool.name]
        if here.shape is None:
            continue
        bound = further(stock, tree, reach, here.shape, here.pods, service.key.namespace)
        if service.topology.is_elastic and not reach.barred:
            waiting += notes.waiting_for_nodes(service, pool, here, bound)
        else:
            rooms[pool.name] = _room(pool, here, bound)
    return rooms, waiting


def further(
    stock: Stock,
    tree: Tree,
    reach: Reach,
    shape: PodShape,
    pods: tuple[Pod, ...],
    namespace: str,
) -> Bound:
    """Return how many pods find a place beyond those that have one, and what binds.

    Of several domains the one with most room counts. A quota counts pods when they are made, so
    those that wait for a node are in it already.
    """
    if reach.barred:
        return Bound(0, "nodes", reach.barred)
    occupied = nodes_of(pods) if shape.one_per_node else ()
    bounds = [stock.node_bound(shape, [tree.domains[d] for d in reach.domains], occupied)]
    queue = stock.queue_bound(shape)
    quota = stock.quota_bound(shape, namespace)
    if queue is not None:
        bounds.append(queue)
    if quota is not None:
        waiting = sum(1 for pod in pods if pod.node is None and not pod.terminating)
        bounds.append(replace(quota, pods=quota.pods + waiting))
    return min(bounds, key=lambda bound: bound.pods)


def _room(pool: Pool, here: PoolFleet, bound: Bound) -> Room:
    """Return the replicas that run and those that still fit.

    Pods that are asked for and not listed are as good as waiting: they take room first.
    """
    running = len(placed(here.pods))
    pods = running + bound.pods
    replicas = pods // pool.pods_per_replica
    if not here.pods and not here.is_listed:
        replicas = max(replicas, here.replicas // pool.pods_per_replica)
    return Room(replicas, bound.why)
