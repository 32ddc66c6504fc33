"""What no mix of services may make `allocate` do."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from planner.decision.allocate import Ask, allocate
from planner.inventory import HyperNode, Inventory, Member, Node, PodShape
from planner.model import ServiceKey
from planner.topology.capacity import Stock
from planner.topology.tree import ROOT, build_tree

GPU = "nvidia.com/gpu"
LEAVES = ("leaf0", "leaf1")
SWITCHES = (
    *(HyperNode(leaf, 1, (Member(is_hypernode=False, pattern=f"^{leaf}-"),)) for leaf in LEAVES),
    HyperNode("top", 2, tuple(Member(is_hypernode=True, exact=leaf) for leaf in LEAVES)),
)
ONE = PodShape({GPU: 1.0})

FREE = st.lists(st.tuples(st.sampled_from(LEAVES), st.integers(0, 4)), min_size=1, max_size=5)


@st.composite
def asks(draw, gpus=(1.0, 2.0), domains=(None, "top", *LEAVES)):
    found = []
    for number in range(draw(st.integers(1, 6))):
        running = draw(st.integers(0, 3))
        desired = running + draw(st.integers(0, 5))
        found.append(
            Ask(
                ServiceKey("ns", f"s{number // 2}"),
                f"pool{number}",
                running,
                desired,
                draw(st.integers(0, 8)),
                draw(st.integers(1, 2)),
                replace(ONE, requests={GPU: draw(st.sampled_from(gpus))}),
                draw(st.sampled_from(domains)),
                ordered_replicas=draw(st.integers(0, running + 1)),
                floor_replicas=draw(st.integers(0, 3)),
            )
        )
    return found


def cluster(free):
    nodes = tuple(
        Node(f"{leaf}-{i}", allocatable={GPU: 4.0}, requested={GPU: 4.0 - gpus})
        for i, (leaf, gpus) in enumerate(free)
    )
    return nodes, build_tree(SWITCHES, nodes)


def shared_out(given_asks, free):
    nodes, tree = cluster(free)
    return allocate(given_asks, Stock(Inventory(0.0, nodes, SWITCHES)), tree)


def new_gpus(ask, grant):
    # What is ordered already is not taken back, whether it fits or not.
    new = grant.replicas - max(ask.running_replicas, min(ask.ordered_replicas, grant.replicas))
    return max(new, 0) * ask.pods_per_replica * ask.shape.requests[GPU]


@given(asks(), FREE)
def test_no_domain_gives_more_than_it_has(given_asks, free):
    nodes, tree = cluster(free)
    grants = shared_out(given_asks, free)
    for name, domain in tree.domains.items():
        within = [a for a in given_asks if name in tree.ancestors(a.domain or ROOT)]
        has = sum(4.0 - n.requested[GPU] for n in nodes if n.name in domain.nodes)
        assert sum(new_gpus(a, grants[a.name]) for a in within) <= has


@given(asks(), FREE)
def test_grants_stay_between_what_is_there_and_what_is_wanted(given_asks, free):
    grants = shared_out(given_asks, free)
    assert set(grants) == {ask.name for ask in given_asks}
    for ask in given_asks:
        grant = grants[ask.name]
        there = max(ask.running_replicas, ask.ordered_replicas)
        assert min(there, ask.desired_replicas) <= grant.replicas <= ask.desired_replicas
        assert (grant.reason is None) == (grant.replicas == ask.desired_replicas)


@given(asks(), FREE, st.randoms(use_true_random=False))
def test_the_order_of_services_and_nodes_does_not_matter(given_asks, free, rng):
    nodes, tree = cluster(free)
    shuffled, others = list(given_asks), list(nodes)
    rng.shuffle(shuffled)
    rng.shuffle(others)
    one = allocate(given_asks, Stock(Inventory(0.0, nodes)), tree)
    other = allocate(shuffled, Stock(Inventory(0.0, tuple(others))), tree)
    assert one == other


@given(asks(gpus=(1.0,), domains=(None,)), FREE)
def test_alike_pods_use_all_that_there_is(given_asks, free):
    singles = [replace(ask, pods_per_replica=1, ordered_replicas=0) for ask in given_asks]
    grants = shared_out(singles, free)
    wanted = sum(ask.desired_replicas - ask.running_replicas for ask in singles)
    given_out = sum(grants[ask.name].replicas - ask.running_replicas for ask in singles)
    assert given_out == min(wanted, sum(gpus for _, gpus in free))


@given(asks(gpus=(1.0,), domains=(None,)), FREE)
def test_nobody_is_far_better_staffed_than_who_got_less(given_asks, free):
    singles = [
        replace(ask, pods_per_replica=1, ordered_replicas=0, floor_replicas=0) for ask in given_asks
    ]
    grants = shared_out(singles, free)
    for poor in singles:
        if grants[poor.name].replicas == poor.desired_replicas:
            continue
        staffed = grants[poor.name].replicas / max(poor.needed_replicas, 1)
        for rich in singles:
            held = grants[rich.name].replicas
            if held > rich.running_replicas:
                assert (held - 1) / max(rich.needed_replicas, 1) <= staffed
