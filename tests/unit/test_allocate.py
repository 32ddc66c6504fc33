"""Sharing out: two services never both get the last GPU, and whoever gets less is told why."""

from dataclasses import replace

import pytest

from planner.decision.allocate import Ask, allocate
from planner.inventory import Inventory, Node, PodShape, Queue, Quota
from planner.model import ServiceKey
from planner.topology.capacity import Stock
from planner.topology.tree import build_tree
from tests.unit.topology_cluster import TREE, inventory

GPU = "nvidia.com/gpu"
ONE = PodShape({GPU: 1.0})


def node(name="n1", gpus=8.0, used=0.0, **labels):
    return Node(name, labels, allocatable={GPU: gpus}, requested={GPU: used})


def ask(name, desired, running=1, pool="decode", **over):
    given = {"needed_replicas": desired, "pods_per_replica": 1, "shape": ONE}
    key = over.pop("key", ServiceKey("ns", name))
    return Ask(key, pool, running, desired, **(given | over))


def shared_out(asks, *nodes, **over):
    stock = Stock(Inventory(0.0, nodes, **over))
    return allocate(asks, stock, build_tree((), nodes))


def given(grants):
    return {key.name: grant.replicas for (key, _), grant in grants.items()}


@pytest.mark.parametrize(
    ("asks", "free", "expected"),
    [
        pytest.param([ask("a", 2), ask("b", 2)], 1, {"a": 2, "b": 1}, id="the last GPU"),
        pytest.param([ask("b", 2), ask("a", 2)], 1, {"a": 2, "b": 1}, id="the last, other order"),
        pytest.param([ask("a", 2), ask("b", 2)], 2, {"a": 2, "b": 2}, id="enough"),
        pytest.param([ask("a", 9), ask("b", 3)], 6, {"a": 6, "b": 2}, id="by staffed share"),
        pytest.param([ask("a", 4, running=3), ask("b", 4)], 2, {"a": 3, "b": 3}, id="worst first"),
        pytest.param([ask("a", 4, floor_replicas=0), ask("b", 8, running=2, floor_replicas=4)], 2,
                     {"a": 1, "b": 4}, id="floors first"),
        pytest.param([ask("a", 6, needed_replicas=3, running=3), ask("b", 3, running=2)], 1,
                     {"a": 3, "b": 3}, id="needed before held back"),
        pytest.param([ask("a", 3, ordered_replicas=3), ask("b", 9)], 2, {"a": 3, "b": 1},
                     id="ordered pods have the scheduler's ear"),
        pytest.param([ask("a", 3, ordered_replicas=3), ask("b", 2)], 0, {"a": 3, "b": 1},
                     id="never below what is ordered"),
        pytest.param([ask("a", 0, running=0, needed_replicas=0), ask("b", 2)], 1,
                     {"a": 0, "b": 2}, id="nothing wanted"),
        pytest.param([ask("a", 3, is_elastic=True), ask("b", 3)], 2, {"a": 3, "b": 2},
                     id="elastic is granted but takes its turn"),
        pytest.param([ask("a", 3, pods_per_replica=2), ask("b", 2)], 3, {"a": 2, "b": 2},
                     id="whole replicas"),
        pytest.param([ask("a", 9, pods_per_replica=2), ask("b", 4)], 3, {"a": 2, "b": 2},
                     id="what half a replica would take is left to others"),
        pytest.param([ask("a", 3, shape=PodShape({GPU: 8.0})), ask("b", 3)], 4,
                     {"a": 1, "b": 3}, id="big pods that fit nowhere"),
    ],
)  # fmt: skip
def test_what_each_gets(asks, free, expected):
    assert given(shared_out(asks, node(used=8.0 - free))) == expected


def test_the_reason_names_domain_shortage_and_takers():
    grants = shared_out([ask("a", 4), ask("b", 4), ask("c", 2)], node(used=3.0))
    assert given(grants) == {"a": 3, "b": 3, "c": 2}
    reason = grants[ServiceKey("ns", "a"), "decode"].reason
    assert reason is not None
    assert reason.code == "SharedCapacity"
    assert reason.pool == "decode"
    assert reason.message == (
        "pool decode gets 3 of 4 replicas: the cluster has no room for more; ns/b decode (2), "
        "ns/c decode (1) took the rest"
    )
    assert reason.values == {"wanted": 4.0, "granted": 3.0, "short": 1.0, "taken_pods": 3.0}
    assert grants[ServiceKey("ns", "c"), "decode"].reason is None


def test_many_takers_are_counted():
    asks = [ask(f"s{i}", 2) for i in range(6)]
    reason = shared_out(asks, node(used=3.0))[ServiceKey("ns", "s5"), "decode"].reason
    assert reason is not None
    assert reason.message.endswith(
        "ns/s0 decode (1), ns/s1 decode (1), ns/s2 decode (1) and 2 more took the rest"
    )


def test_whoever_shares_nothing_is_granted_untouched():
    asks = [ask("a", 9, shape=replace(ONE, selector={"zone": "a"})),
            ask("b", 2, shape=replace(ONE, selector={"zone": "b"})),
            ask("c", 50, shape=replace(ONE, selector={"zone": "c"}), is_elastic=True)]  # fmt: skip
    grants = shared_out(asks, node("n1", zone="a"), node("n2", zone="b"))
    assert given(grants) == {"a": 9, "b": 2, "c": 50}
    assert all(grant.reason is None for grant in grants.values())


def test_alone_it_gets_what_fits():
    grants = shared_out([ask("a", 10)], node())
    assert given(grants) == {"a": 9}
    reason = grants[ServiceKey("ns", "a"), "decode"].reason
    assert reason is not None
    assert reason.code == "CapacityShortage"
    assert reason.message == "pool decode gets 9 of 10 replicas: the cluster has no room for more"


def test_pools_of_one_service_share_too():
    asks = [ask("a", 3, pool="prefill"), ask("a", 3, pool="decode")]
    grants = shared_out(asks, node(used=5.0))
    key = ServiceKey("ns", "a")
    assert (grants[key, "prefill"].replicas, grants[key, "decode"].replicas) == (2, 3)


@pytest.mark.parametrize(
    ("over", "asks", "expected", "says"),
    [
        pytest.param(
            {"queues": (Queue("q", capability={GPU: 4.0}, allocated={GPU: 2.0}),)},
            [ask("a", 3, shape=replace(ONE, queue="q", selector={"zone": "a"})),
             ask("b", 3, shape=replace(ONE, queue="q", selector={"zone": "b"}))],
            {"a": 2, "b": 2}, "queue q is full; ns/a decode (1) took the rest", id="queue",
        ),
        pytest.param(
            {"queues": (Queue("q", is_open=False),)},
            [ask("a", 3, shape=replace(ONE, queue="q")), ask("b", 3, shape=ONE)],
            {"a": 1, "b": 3}, None, id="closed queue",
        ),
        pytest.param(
            {"quotas": {"ns": (Quota("team", {"pods": 6.0}, {"pods": 3.0}),)}},
            [ask("a", 3, shape=replace(ONE, selector={"zone": "a"})),
             ask("b", 3, shape=replace(ONE, selector={"zone": "b"}))],
            {"a": 3, "b": 2}, "quota team is full; ns/a decode (2) took the rest", id="quota",
        ),
        pytest.param(
            {"quotas": {"ns": (Quota("team", {"pods": 2.0}, {"pods": 2.0}),)}},
            [ask("a", 3, ordered_replicas=3), ask("b", 2)],
            {"a": 3, "b": 1}, None, id="ordered pods are in the quota already",
        ),
    ],
)  # fmt: skip
def test_queues_and_quotas_are_shared_too(over, asks, expected, says):
    grants = shared_out(asks, node("n1", zone="a"), node("n2", zone="b"), **over)
    assert given(grants) == expected
    if says:
        reason = grants[ServiceKey("ns", "b"), "decode"].reason
        assert reason is not None
        assert reason.message.endswith(says)


def test_one_per_node_keeps_off_its_own_nodes():
    single = replace(ONE, one_per_node=True)
    asks = [ask("a", 4, shape=single, occupied=frozenset({"n1"})), ask("b", 2)]
    assert given(shared_out(asks, node("n1"), node("n2"), node("n3"))) == {"a": 3, "b": 2}


def test_two_pools_of_one_per_node_each_use_every_node():
    asks = [ask(name, 3, shape=replace(ONE, one_per_node=True)) for name in ("a", "b")]
    assert given(shared_out(asks, node("n1"), node("n2"))) == {"a": 3, "b": 3}


def test_ordered_pods_take_their_gpu_even_where_the_quota_is_full():
    full = {"ns": (Quota("team", {"pods": 2.0}, {"pods": 2.0}),)}
    asks = [ask("a", 2, ordered_replicas=2), ask("c", 2, key=ServiceKey("other", "c"))]
    assert given(shared_out(asks, node(used=7.0), quotas=full)) == {"a": 2, "c": 1}


def test_domains_bound_what_is_shared():
    h100 = PodShape({GPU: 8.0}, {"gpu-type": "h100"})
    asks = [
        ask("leaf", 7, shape=h100, domain="ib-switch0"),
        ask("pair", 12, shape=h100, domain="ib-switch4"),
        ask("other", 5, domain="eth-switch5", shape=PodShape({"cpu": 1.0})),
    ]
    grants = allocate(asks, Stock(inventory()), TREE)
    found = given(grants)
    assert found["other"] == 5
    # Twelve empty nodes: six under the leaf, and both run one pod elsewhere already.
    assert found["leaf"] + found["pair"] == 12 + 2
    assert found["leaf"] <= 1 + 6
    reason = grants[ServiceKey("ns", "pair"), "decode"].reason
    assert reason is None or "ib-switch4" in reason.message


def test_a_shortage_of_its_own_is_not_blamed_on_others():
    full = Queue("q", capability={GPU: 1.0}, allocated={GPU: 1.0})
    asks = [ask("a", 3, shape=replace(ONE, queue="q")), ask("b", 2)]
    grants = shared_out(asks, node(), queues=(full,))
    assert given(grants) == {"a": 1, "b": 2}
    reason = grants[ServiceKey("ns", "a"), "decode"].reason
    assert reason is not None
    assert reason.code == "CapacityShortage"
    assert reason.message == "pool decode gets 1 of 3 replicas: queue q is full"


def test_a_freed_gpu_is_given_at_the_next_call():
    asks = [ask("a", 2), ask("b", 2)]
    assert given(shared_out(asks, node(used=7.0))) == {"a": 2, "b": 1}
    next_tick = [ask("b", 2)]
    assert given(shared_out(next_tick, node(used=7.0))) == {"b": 2}
