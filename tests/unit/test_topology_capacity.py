"""Capacity: which nodes admit a pod, how many more fit, and what queues and quotas leave."""

from dataclasses import replace

import pytest

from planner.inventory import (
    Inventory,
    Node,
    Operator,
    PodShape,
    Queue,
    Quota,
    Requirement,
    Taint,
    Toleration,
)
from planner.topology.capacity import DEFAULT_MAX_PODS, Stock
from planner.topology.tree import ROOT, build_tree

GPU = "nvidia.com/gpu"
SPOT = Taint("spot", "NoSchedule", "yes")


def stocked(*nodes, **over):
    return Stock(Inventory(0.0, nodes, **over))


def gpus(count, **over):
    return PodShape({GPU: float(count)}, **over)


def fits(shape, *nodes, occupied=()):
    return int(stocked(*nodes).cells(shape, occupied).sum())


def node(name="n1", **over):
    return Node(name, **({"allocatable": {GPU: 8.0, "cpu": 32.0}} | over))


def affinity(*terms):
    return PodShape({GPU: 1.0}, any_of=tuple(terms))


def rule(key, operator, *values):
    return (Requirement(key, Operator(operator), values),)


@pytest.mark.parametrize(
    ("shape", "over", "count"),
    [
        pytest.param(gpus(1), {}, 8, id="an empty node"),
        pytest.param(gpus(3), {}, 2, id="whole pods"),
        pytest.param(gpus(1), {"requested": {GPU: 7.0}}, 1, id="the last GPU"),
        pytest.param(gpus(1), {"requested": {GPU: 8.0}}, 0, id="full"),
        pytest.param(gpus(1), {"requested": {GPU: 9.0}}, 0, id="more than full"),
        pytest.param(PodShape({GPU: 1.0, "cpu": 20.0}), {}, 1, id="the scarcest resource"),
        pytest.param(PodShape({"amd.com/gpu": 1.0}), {}, 0, id="a resource it has not"),
        pytest.param(PodShape({"cpu": 0.1}), {"allocatable": {"cpu": 0.3}}, 3, id="rounding"),
        pytest.param(gpus(1), {"allocatable": {GPU: 8.0, "pods": 110.0},
                               "requested": {"pods": 108.0}}, 2, id="pods are a resource"),
        pytest.param(PodShape({GPU: 1.0, "cpu": 0.0}), {"allocatable": {GPU: 8.0}}, 8,
                     id="asked 0 of"),
        pytest.param(PodShape(), {}, int(DEFAULT_MAX_PODS), id="asks nothing"),
        pytest.param(gpus(1, one_per_node=True), {}, 1, id="one a node"),
        pytest.param(gpus(1), {"is_schedulable": False}, 0, id="cordoned"),
        pytest.param(gpus(1), {"is_ready": False}, 0, id="not ready"),
    ],
)  # fmt: skip
def test_how_many_fit_on_a_node(shape, over, count):
    assert fits(shape, node(**over)) == count


def test_one_per_node_keeps_off_the_nodes_of_the_pool():
    shape = gpus(1, one_per_node=True)
    assert fits(shape, node("n1"), node("n2"), occupied=["n1", "gone"]) == 1


@pytest.mark.parametrize(
    ("shape", "admits"),
    [
        pytest.param(gpus(1, selector={"zone": "a"}), True, id="selector"),
        pytest.param(gpus(1, selector={"zone": "b"}), False, id="selector, other value"),
        pytest.param(gpus(1, selector={"rack": "a"}), False, id="selector, no such label"),
        pytest.param(affinity(rule("zone", "In", "b", "a")), True, id="in"),
        pytest.param(affinity(rule("zone", "NotIn", "a")), False, id="not in"),
        pytest.param(affinity(rule("rack", "NotIn", "a")), True, id="not in, without the label"),
        pytest.param(affinity(rule("zone", "Exists")), True, id="exists"),
        pytest.param(affinity(rule("zone", "DoesNotExist")), False, id="does not exist"),
        pytest.param(affinity(rule("gen", "Gt", "8")), True, id="greater"),
        pytest.param(affinity(rule("gen", "Gt", "9")), False, id="not greater"),
        pytest.param(affinity(rule("gen", "Lt", "10")), True, id="less"),
        pytest.param(affinity(rule("zone", "Gt", "1")), False, id="no number to compare"),
        pytest.param(affinity(rule("gen", "Gt", "x")), False, id="compared with no number"),
        pytest.param(affinity(rule("zone", "In", "b"), rule("gen", "Exists")), True, id="any"),
        pytest.param(affinity(rule("zone", "In", "a") + rule("gen", "Lt", "9")), False, id="all"),
        pytest.param(affinity(()), False, id="an empty term matches nothing"),
    ],
)
def test_which_nodes_are_admitted(shape, admits):
    assert (fits(shape, node(labels={"zone": "a", "gen": "9"})) > 0) is admits


@pytest.mark.parametrize(
    ("tolerations", "taint", "admits"),
    [
        pytest.param((), SPOT, False, id="repelled"),
        pytest.param((), Taint("spot", "PreferNoSchedule"), True, id="only preferred"),
        pytest.param((), Taint("spot", "NoExecute"), False, id="NoExecute"),
        pytest.param((Toleration("spot", "Equal", "yes"),), SPOT, True, id="equal"),
        pytest.param((Toleration("spot", "Equal", "no"),), SPOT, False, id="other value"),
        pytest.param((Toleration("spot", "Exists"),), SPOT, True, id="exists"),
        pytest.param((Toleration("other", "Exists"),), SPOT, False, id="other key"),
        pytest.param((Toleration(None, "Exists"),), SPOT, True, id="everything"),
        pytest.param((Toleration("spot", "Exists", effect="NoExecute"),), SPOT, False,
                     id="other effect"),
        pytest.param((Toleration("spot", "Exists", effect="NoSchedule"),), SPOT, True,
                     id="same effect"),
        pytest.param((Toleration("spot", "Matches", "yes"),), SPOT, False, id="unknown operator"),
    ],
)  # fmt: skip
def test_taints_and_tolerations(tolerations, taint, admits):
    shape = gpus(1, tolerations=tolerations)
    assert (fits(shape, node(taints=(taint,))) > 0) is admits


def test_every_taint_must_be_borne():
    shape = gpus(1, tolerations=(Toleration("spot", "Exists"),))
    assert fits(shape, node(taints=(SPOT, Taint("maintenance", "NoExecute")))) == 0


def test_the_bound_tells_its_numbers():
    nodes = [node("n1", requested={GPU: 6.0}), node("n2", labels={"zone": "b"}), node("n3")]
    stock, tree = stocked(*nodes), build_tree((), nodes)
    shape = gpus(4, selector={"zone": "b"})
    bound = stock.node_bound(shape, [tree.domains[ROOT]])
    assert (bound.pods, bound.by, bound.nodes, bound.matching, bound.free_gpus) == (
        2, "nodes", 3, 1, 8.0,
    )  # fmt: skip
    assert bound.why == (
        "the cluster has room for 2 more pods on 1 of 3 nodes, which have 8 GPUs free"
    )
    nowhere = stock.node_bound(gpus(1, selector={"zone": "c"}), [tree.domains[ROOT]])
    assert nowhere.why == "none of the 3 nodes of the cluster admits its pods"


@pytest.mark.parametrize(
    ("queue", "left"),
    [
        pytest.param(Queue("q", capability={GPU: 8.0}, allocated={GPU: 5.0}), 1, id="room"),
        pytest.param(Queue("q", capability={GPU: 8.0}, allocated={GPU: 9.0}), 0, id="over it"),
        pytest.param(Queue("q", capability={"memory": 8.0}), None, id="limits something else"),
        pytest.param(Queue("q"), None, id="no limit"),
        pytest.param(Queue("q", is_open=False), 0, id="closed"),
        pytest.param(Queue("other", is_open=False), None, id="another queue"),
    ],
)
def test_what_a_queue_leaves(queue, left):
    bound = stocked(queues=(queue,)).queue_bound(gpus(2, queue="q"))
    assert (None if bound is None else bound.pods) == left


def test_the_tightest_quota_of_the_namespace_counts():
    quotas = {"ns": (Quota("gpus", {GPU: 8.0}, {GPU: 2.0}), Quota("pods", {"pods": 5.0}, {}),
                     Quota("memory", {"memory": 1.0}, {}))}  # fmt: skip
    stock = stocked(quotas=quotas)
    bound = stock.quota_bound(gpus(2), "ns")
    assert bound is not None
    assert (bound.pods, bound.by) == (3, "quota gpus")
    assert bound.why == "quota gpus leaves room for 3 more pods"
    assert stock.quota_bound(gpus(1), "ns").by == "quota pods"  # type: ignore[union-attr]
    assert stock.quota_bound(gpus(1), "elsewhere") is None


def test_the_order_of_nodes_does_not_matter():
    one, two = node("a", requested={GPU: 3.0}), node("b")
    shape = gpus(2)
    assert list(stocked(one, two).cells(shape)) == list(stocked(two, one).cells(shape)) == [2, 4]


def test_shapes_that_ask_alike_share_what_was_found():
    stock = stocked(node(labels={"zone": "a"}))
    shape = gpus(1, selector={"zone": "a"})
    bigger = replace(shape, requests={GPU: 8.0})
    assert stock.admitting(shape) is stock.admitting(bigger)
    assert stock.cells(bigger).sum() == 1
