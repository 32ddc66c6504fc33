"""Between services that share GPUs: size all, share out once, so that no GPU is promised twice.

Pure. Replicas are given one at a time to whoever is relatively worst staffed, floors first.
"""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from planner.inventory import PodShape
from planner.model import Reason, ServiceKey
from planner.topology.capacity import Stock, spoken
from planner.topology.ledger import Claim, Ledger, Walk, candidates_of
from planner.topology.tree import ROOT, Tree

Name = tuple[ServiceKey, str]
# So many of those who took the rest are named.
NAMED_TAKERS = 3


@dataclass(frozen=True, slots=True)
class Ask:
    """A pool that is to grow, or whose pods still wait for nodes.

    Attributes
    ----------
    running_replicas
        Those whose pods have nodes.
    desired_replicas, needed_replicas
        What was decided, and what the load needs (`up` of the plan).
    domain
        Where its pods must be, None: anywhere.
    ordered_replicas
        Those asked of the target already; a grant is never below, and those that wait come first,
        as the scheduler has them already.
    floor_replicas
        Floors come before everybody's needs.
    is_elastic
        Whether nodes are added for what does not fit: then it is granted all the same.
    occupied
        Nodes that hold a pod of the pool; matters where the shape is one per node.
    """

    key: ServiceKey
    pool: str
    running_replicas: int
    desired_replicas: int
    needed_replicas: int
    pods_per_replica: int
    shape: PodShape
    domain: str | None = None
    ordered_replicas: int = 0
    floor_replicas: int = 0
    is_elastic: bool = False
    occupied: frozenset[str] = frozenset()

    @property
    def name(self) -> Name:
        """Which pool of which service asks."""
        return self.key, self.pool

    @property
    def missing_pods(self) -> int:
        """Pods that must still find a node."""
        return (self.desired_replicas - self.running_replicas) * self.pods_per_replica


@dataclass(frozen=True, slots=True)
class Grant:
    """Replicas that a pool may be ordered to have; `reason` is set where it wanted more."""

    replicas: int
    reason: Reason | None = None


def allocate(asks: Sequence[Ask], stock: Stock, tree: Tree) -> Mapping[Name, Grant]:
    """Return what each pool may have, by service and pool.

    Parameters
    ----------
    asks
        All pools that want more than runs, each once; their order does not matter.
    stock
        The nodes, the same as the services were surveyed with.
    tree
        Their domains.

    Notes
    -----
    The next replica goes to the pool with the lowest ready share of what it needs, ordered ones
    first, then floors, then the rest; equals by name. Pods go to the fullest node that takes them,
    as a packing scheduler puts them. A pool that fits and
    shares nothing with another is granted what it asks for without a turn.
    """
    places = _nodes_of(asks, stock, tree)
    contested = _contested(asks, places, stock)
    grants = {ask.name: Grant(ask.desired_replicas) for ask in asks}
    sharing = _Sharing(stock)
    for ask in (ask for ask in asks if ask.name in contested):
        sharing.enter(ask, places[ask.name])
    sharing.share_out()
    for entry in sharing.entries.values():
        grants[entry.ask.name] = sharing.grant(entry)
    return grants


@dataclass(frozen=True, slots=True)
class _Nodes:
    """Nodes with room, fullest first, and for how many pods; equal asks share the object."""

    walk: Walk
    pods: int
    mask: np.ndarray[tuple[int], np.dtype[np.bool_]]


def _nodes_of(asks: Sequence[Ask], stock: Stock, tree: Tree) -> dict[Name, _Nodes]:
    """Return where each ask's pods may go."""
    known: dict[object, _Nodes] = {}
    found: dict[Name, _Nodes] = {}
    for ask in asks:
        domain = tree.domains.get(ask.domain or ROOT, tree.domains[ROOT])
        shape = ask.shape
        key = (
            domain.name,
            frozenset(shape.requests.items()),
            frozenset(shape.selector.items()),
            shape.any_of,
            shape.tolerations,
            shape.one_per_node and ask.occupied,
        )
        if key not in known:
            cells = stock.cells(shape, ask.occupied)
            within = stock.within(domain)
            known[key] = _Nodes(
                Walk(candidates_of(cells, within)), int(cells[within].sum()), within & (cells > 0)
            )
        found[ask.name] = known[key]
    return found


def _contested(asks: Sequence[Ask], places: Mapping[Name, _Nodes], stock: Stock) -> set[Name]:
    """Return the asks that must share: nodes with another, a queue or a quota, or that fit nowhere.

    Nodes are added for the pods of an elastic ask, so alone it contests nothing.
    """
    takers = np.zeros(len(stock.nodes), dtype=np.int64)
    for ask in asks:
        takers += places[ask.name].mask
    crowded = takers > 1
    return {
        ask.name
        for ask in asks
        if bool((places[ask.name].mask & crowded).any())
        or stock.queue_bound(ask.shape) is not None
        or ask.key.namespace in stock.inventory.quotas
        or (not ask.is_elastic and ask.missing_pods > places[ask.name].pods)
    }


@dataclass(slots=True)
class _Entry:
    """One ask in the round: what it holds so far and what stopped it."""

    ask: Ask
    nodes: _Nodes
    held: int
    ordered: Claim
    further: Claim
    stopped_by: str = ""

    def turn(self) -> tuple[int, float, Name]:
        """Return when it is this ask's turn, lowest first."""
        ask = self.ask
        kind = 2
        if self.held < ask.ordered_replicas:
            kind = 0
        elif self.held < ask.floor_replicas:
            kind = 1
        return kind, self.held / max(ask.needed_replicas, 1), ask.name


@dataclass(slots=True)
class _Sharing:
    """One sharing-out: whose turn it is, and who took what where."""

    stock: Stock
    ledger: Ledger = field(init=False)
    entries: dict[Name, _Entry] = field(init=False, default_factory=dict)
    on_node: dict[int, Counter[Name]] = field(init=False, default_factory=dict)
    takers: dict[object, Counter[Name]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.stock)

    def enter(self, ask: Ask, nodes: _Nodes) -> None:
        """Let an ask take part; what is ordered already is in the namespace's quotas."""
        walk = Walk(nodes.walk.candidates) if ask.shape.one_per_node else nodes.walk
        ordered = self.ledger.claim_on(walk, ask.shape)
        further = self.ledger.claim_on(walk, ask.shape, ask.key.namespace)
        held = ask.running_replicas
        self.entries[ask.name] = _Entry(ask, nodes, held, ordered, further)

    def share_out(self) -> None:
        """Give replicas one at a time until nobody wants or gets any more."""
        turns = [entry.turn() for entry in self.entries.values()]
        heapq.heapify(turns)
        while turns:
            *_, name = heapq.heappop(turns)
            entry = self.entries[name]
            if entry.held < entry.ask.desired_replicas and self._give(entry):
                heapq.heappush(turns, entry.turn())

    def _give(self, entry: _Entry) -> bool:
        """Place one replica, if it fits."""
        is_ordered = entry.held < entry.ask.ordered_replicas
        claim = entry.ordered if is_ordered else entry.further
        placed = self.ledger.place(claim, entry.ask.pods_per_replica)
        if isinstance(placed, str):
            entry.stopped_by = placed
            return False
        entry.held += 1
        for node in placed:
            self.on_node.setdefault(node, Counter())[entry.ask.name] += 1
        return True

    def grant(self, entry: _Entry) -> Grant:
        """Return what an ask gets, with a reason if it is less than it wanted."""
        ask = entry.ask
        if ask.is_elastic or entry.held >= ask.desired_replicas:
            return Grant(ask.desired_replicas)
        granted = min(max(entry.held, ask.ordered_replicas), ask.desired_replicas)
        return Grant(granted, self._short(entry, granted))

    def _short(self, entry: _Entry, granted: int) -> Reason | None:
        """Say what an ask did not get, and who has it."""
        ask, short = entry.ask, entry.ask.desired_replicas - granted
        if short <= 0:
            return None
        where = (
            f"{spoken(ask.domain)} has no room for more"
            if entry.stopped_by == "nodes"
            else f"{entry.stopped_by} is full"
        )
        takers = self._takers(entry)
        own = takers.get(ask.name, 0)
        message = f"pool {ask.pool} gets {granted} of {ask.desired_replicas} replicas: {where}"
        others = len(takers) - (own > 0)
        if others:
            message += f"; {_told(takers, ask.name, others)} took the rest"
        values = {
            "wanted": float(ask.desired_replicas),
            "granted": float(granted),
            "short": float(short),
            "taken_pods": float(takers.total() - own),
        }
        code = "SharedCapacity" if others else "CapacityShortage"
        return Reason(code, message, ask.pool, values)

    def _takers(self, entry: _Entry) -> Counter[Name]:
        """Return who got pods where the ask did not, most first: on its nodes, in its account."""
        kind, _, _ = entry.stopped_by.partition(" ")
        key: object = id(entry.nodes) if kind == "nodes" else _account(entry.ask, kind)
        if key not in self.takers:
            found: Counter[Name] = Counter()
            for node, pods in self.on_node.items():
                if kind == "nodes":
                    found.update(pods if entry.nodes.mask[node] else {})
                else:
                    of = (n for n in pods if _account(self.entries[n].ask, kind) == key)
                    found.update({n: pods[n] for n in of})
            most_first = sorted(found.items(), key=lambda item: (-item[1], item[0]))
            self.takers[key] = Counter(dict(most_first))
        return self.takers[key]


def _account(ask: Ask, kind: str) -> object:
    """Return the queue or the namespace that an ask is counted in."""
    return kind, ask.shape.queue if kind == "queue" else ask.key.namespace


def _told(takers: Mapping[Name, int], me: Name, others: int) -> str:
    """Name those who took most, and how many more there are."""
    first = islice((item for item in takers.items() if item[0] != me), NAMED_TAKERS)
    named = ", ".join(f"{key} {pool} ({pods})" for (key, pool), pods in first)
    more = others - NAMED_TAKERS
    return named + (f" and {more} more" if more > 0 else "")
