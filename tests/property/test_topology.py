"""What no cluster may make the topology do."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.inventory import (
    HyperNode,
    Inventory,
    Member,
    Network,
    Node,
    Operator,
    PodShape,
    Queue,
    Quota,
    Requirement,
    Taint,
)
from planner.model import Fleet, Pod, PoolFleet, Role, Service, Topology
from planner.topology.capacity import Stock
from planner.topology.ledger import Ledger
from planner.topology.survey import survey
from planner.topology.tree import ROOT, build_tree
from tests.builders import START_S, pool, service

GPU = "nvidia.com/gpu"
NAMES = ("n0", "n1", "n2", "n3", "n4")
DOMAINS = ("d0", "d1", "d2", "d3")

MEMBERS = st.one_of(
    st.builds(lambda n: Member(is_hypernode=True, exact=n), st.sampled_from((*DOMAINS, "gone"))),
    st.builds(lambda n: Member(is_hypernode=False, exact=n), st.sampled_from((*NAMES, "gone"))),
    st.builds(lambda p: Member(is_hypernode=False, pattern=p), st.sampled_from(("n[0-2]", "(", ""))
              | st.text(max_size=4)),
    st.builds(lambda v: Member(False, labels=(Requirement("zone", Operator.IN, (v,)),)),
              st.sampled_from(("a", "b", "c"))),
    st.just(Member(is_hypernode=False, labels=())),
    st.just(Member(is_hypernode=True, pattern="d")),
)  # fmt: skip
HYPERNODES = st.lists(
    st.builds(HyperNode, st.sampled_from(DOMAINS), st.integers(0, 4),
              st.lists(MEMBERS, max_size=3).map(tuple)),
    max_size=4, unique_by=lambda h: h.name,
)  # fmt: skip
AMOUNTS = st.integers(0, 10).map(float)
NODES = st.lists(
    st.builds(
        Node,
        st.sampled_from(NAMES),
        st.sampled_from(({}, {"zone": "a"}, {"zone": "b"})),
        st.sampled_from(((), (Taint("spot", "NoSchedule"),))),
        st.booleans(),
        st.booleans(),
        st.fixed_dictionaries({GPU: AMOUNTS, "cpu": AMOUNTS}),
        st.fixed_dictionaries({GPU: AMOUNTS, "cpu": AMOUNTS}),
    ),
    max_size=5, unique_by=lambda n: n.name,
).map(tuple)  # fmt: skip
SHAPES = st.builds(
    PodShape,
    st.sampled_from(({GPU: 1.0}, {GPU: 2.0, "cpu": 1.0}, {"cpu": 0.5}, {})),
    st.sampled_from(({}, {"zone": "a"})),
    queue=st.sampled_from((None, "q")),
    one_per_node=st.booleans(),
)
PODS = st.lists(
    st.builds(lambda node, going: Pod("p", 0.0, None, going, None, node),
              st.sampled_from((*NAMES, None, "gone")), st.booleans()),
    max_size=6,
).map(tuple)  # fmt: skip
FLEETS = st.builds(
    lambda *pools: Fleet(START_S, dict(zip(("prefill", "decode"), pools, strict=True))),
    *(st.builds(PoolFleet, st.integers(0, 6), PODS, st.none(), st.none() | SHAPES,
                st.none() | st.integers(0, 5)) for _ in range(2)),
)  # fmt: skip
SERVICES = st.builds(
    lambda tier, elastic, each: service(
        pools=(pool(Role.PREFILL, pods_per_replica=each), pool(Role.DECODE)),
        topology=Topology(tier, elastic, 60.0),
    ),
    st.none() | st.integers(0, 5), st.booleans(), st.integers(1, 3),
)  # fmt: skip
INVENTORIES = st.builds(
    lambda nodes, hypernodes, queue, quota: Inventory(
        START_S, nodes, tuple(hypernodes), queue, {"inference": quota}),
    NODES, HYPERNODES,
    st.sampled_from(((), (Queue("q", True, {GPU: 3.0}, {GPU: 1.0}),), (Queue("q", False),))),
    st.sampled_from(((), (Quota("team", {"pods": 4.0}, {"pods": 2.0}),))),
)  # fmt: skip


def found(who: Service, fleet: Fleet, there: Inventory):
    tree = build_tree(there.hypernodes, there.nodes)
    return survey(who, fleet, Stock(there), tree, Network())


def running(pods):
    return sum(1 for pod in pods if pod.node is not None and not pod.terminating)


@given(HYPERNODES, NODES)
def test_a_tree_never_raises_and_its_domains_nest(hypernodes, nodes):
    tree = build_tree(hypernodes, nodes)
    everything = {node.name for node in nodes}
    assert tree.domains[ROOT].nodes == everything
    assert set(tree.by_node) == everything
    for domain in tree.domains.values():
        assert tree.ancestors(domain.name)[-1] == ROOT
        for child in domain.children:
            assert tree.domains[child].parent == domain.name
            assert tree.domains[child].nodes <= domain.nodes
    if everything:
        common = tree.lowest_common(everything)
        assert tree.domains[common].nodes == everything


@given(HYPERNODES, NODES, st.randoms(use_true_random=False))
def test_a_tree_does_not_depend_on_order(hypernodes, nodes, rng):
    shuffled, others = list(hypernodes), list(nodes)
    rng.shuffle(shuffled)
    rng.shuffle(others)
    assert build_tree(shuffled, others) == build_tree(hypernodes, nodes)


@given(SERVICES, FLEETS, INVENTORIES)
def test_rooms_are_never_below_what_runs(who, fleet, there):
    for name, room in found(who, fleet, there).rooms.items():
        each = who.pool(name).pods_per_replica
        assert room.replicas >= running(fleet.pools[name].pods) // each
        assert room.why


@given(SERVICES, FLEETS, INVENTORIES)
def test_rooms_never_exceed_what_the_whole_cluster_takes(who, fleet, there):
    stock = Stock(there)
    for name, room in found(who, fleet, there).rooms.items():
        here, each = fleet.pools[name], who.pool(name).pods_per_replica
        assert here.shape is not None
        most = running(here.pods) + int(stock.cells(here.shape).sum())
        unlisted = 0 if here.pods else here.replicas // each
        assert room.replicas <= max(most // each, unlisted)


@given(SERVICES, FLEETS, INVENTORIES, st.sampled_from(NAMES), AMOUNTS)
def test_more_room_on_a_node_never_gives_less(who, fleet, there, name, gpus):
    freed = tuple(
        replace(n, allocatable={**n.allocatable, GPU: n.allocatable[GPU] + gpus})
        if n.name == name else n
        for n in there.nodes
    )  # fmt: skip
    before = found(who, fleet, there).rooms
    after = found(who, fleet, replace(there, nodes=freed)).rooms
    assert before.keys() == after.keys()
    assert all(after[name].replicas >= room.replicas for name, room in before.items())


@given(NODES, st.lists(SHAPES, min_size=1, max_size=3), st.lists(st.integers(1, 3), max_size=12))
@settings(max_examples=200)
def test_a_ledger_never_fills_a_node_beyond_its_brim(nodes, shapes, orders):
    stock = Stock(Inventory(START_S, nodes))
    ledger = Ledger(stock)
    everywhere = stock.mask(stock.names)
    claims = [(shape, ledger.claim(shape, everywhere)) for shape in shapes]
    taken: dict[int, dict[str, float]] = {}
    per_claim: list[list[int]] = [[] for _ in claims]
    for turn, pods in enumerate(orders):
        shape, claim = claims[turn % len(claims)]
        placed = ledger.place(claim, pods)
        if isinstance(placed, str):
            continue
        assert len(placed) == pods
        per_claim[turn % len(claims)] += placed
        for place in placed:
            on = taken.setdefault(place, {})
            for resource, amount in shape.requests.items():
                on[resource] = on.get(resource, 0.0) + amount
    for place, on in taken.items():
        assert all(amount <= stock.free(name)[place] + 1e-6 for name, amount in on.items())
        assert stock.nodes[place].is_ready
        assert stock.nodes[place].is_schedulable
    for (shape, _), places in zip(claims, per_claim, strict=True):
        assert not shape.one_per_node or len(places) == len(set(places))
