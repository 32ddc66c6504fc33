"""Choosing a domain for a service that is not placed, and the manifests that put it there."""

from dataclasses import replace

import pytest

from planner.inventory import HyperNode, Inventory, Member, Node, PodShape, Queue
from planner.topology.capacity import Stock
from planner.topology.choice import rank_domains
from planner.topology.placement import MOST_VALUES, placement
from planner.topology.tree import ROOT, build_tree
from tests.unit.topology_cluster import (
    GIGABIT,
    GPU,
    H100,
    NETWORK,
    SWITCH,
    TREE,
    TYPE,
    asked,
    inventory,
    node,
    shape,
    switches,
)

SHAPES = {"prefill": shape(gpu_type="h100"), "decode": shape(gpu_type="rtx4090")}


def ranked(prefill, decode, tier=None, there=None, shapes=SHAPES, tree=TREE):
    replicas = {"prefill": prefill, "decode": decode}
    stock = Stock(there or inventory())
    return rank_domains(asked(tier), replicas, shapes, stock, tree, NETWORK)


@pytest.mark.parametrize(
    ("prefill", "decode", "tier", "fitting"),
    [
        pytest.param(12, 12, 2, ["ib-switch0", "ib-switch1", "ib-switch4"], id="the leaves first"),
        pytest.param(49, 12, 2, ["ib-switch4"], id="too big for a leaf"),
        pytest.param(49, 12, 1, [], id="too big for the tier"),
        pytest.param(97, 12, None, [], id="too big for the cluster"),
        pytest.param(60, 60, None, ["ib-switch4", "eth-switch6", ROOT], id="any tier"),
    ],
)
def test_where_the_whole_plan_fits(prefill, decode, tier, fitting):
    found = ranked(prefill, decode, tier)
    assert [c.domain for c in found if c.fits] == fitting
    assert all(tier is None or c.tier <= tier for c in found)
    # What does not fit comes last.
    assert [c.fits for c in found] == sorted((c.fits for c in found), reverse=True)


def test_the_tightest_leaf_wins():
    busy = tuple(
        replace(n, requested={GPU: 6.0}) if n.name in {"node-64", "node-66"} else n
        for n in inventory().nodes
    )
    best, second, *_ = ranked(12, 12, 2, inventory(nodes=busy))
    assert (best.domain, best.spare_gpus) == ("ib-switch1", 96 - 12 - 24)
    assert (second.domain, second.spare_gpus) == ("ib-switch0", 96 - 24)


def test_a_faster_path_is_worth_more_than_a_tighter_fit():
    any_gpu = {"prefill": shape(), "decode": shape()}
    nodes = (*(node(i) for i in H100), *(replace(node(i), allocatable={"cpu": 64.0, GPU: 8.0})
                                         for i in (128, 129)))  # fmt: skip
    best, *_ = ranked(4, 4, 1, inventory(nodes=nodes), any_gpu)
    assert best.domain in {"ib-switch0", "ib-switch1"}
    by_name = {c.domain: c for c in ranked(4, 4, 1, inventory(nodes=nodes), any_gpu)}
    assert by_name["eth-switch2"].fits
    assert by_name["eth-switch2"].spare_gpus < best.spare_gpus
    # 320 MB at 100 and at 200 Gbit/s, and 5 ms of set-up.
    assert by_name["eth-switch2"].transfer_s == pytest.approx(0.0306, abs=1e-4)
    assert best.transfer_s == pytest.approx(0.0178, abs=1e-4)
    assert best.transfer.bandwidth_bytes_per_s == pytest.approx(200 * GIGABIT)


def test_why_a_domain_is_not_taken():
    found = {c.domain: c.why_not for c in ranked(49, 12)}
    assert found["ib-switch0"] == "ib-switch0 has room for 48 of 49 replicas of pool prefill"
    assert found["eth-switch2"] == "eth-switch2 has room for 0 of 49 replicas of pool prefill"
    assert found[ROOT] == ""


def test_pools_that_share_nodes_must_fit_together():
    both = {"prefill": shape(gpu_type="h100"), "decode": shape(2.0, gpu_type="h100")}
    found = {c.domain: c.why_not for c in ranked(10, 20, 1, shapes=both)}
    assert found["ib-switch0"] == "ib-switch0 has room for 8 of 10 replicas of pool prefill"


def test_a_queue_bounds_every_domain():
    of = {name: replace(s, queue="q") for name, s in SHAPES.items()}
    full = inventory(queues=(Queue("q", capability={GPU: 20.0}),))
    found = ranked(12, 12, 2, full, of)
    assert not any(c.fits for c in found)
    assert "queue q has room for 8 of 12 replicas of pool decode" in {c.why_not for c in found}


def test_the_price_is_the_plan_s():
    assert {c.price_per_hour for c in ranked(3, 4)} == {7.0}


def test_a_broken_tree_leaves_the_cluster_as_a_whole():
    extra = HyperNode("extra", 2, (Member(is_hypernode=True, exact="ib-switch0"),))
    tree = build_tree((*switches(), extra), [node(i) for i in range(256)])
    found = ranked(3, 4, tree=tree)
    assert [c.domain for c in found if c.fits] == [ROOT]
    assert "cannot be read" in found[-1].why_not


def test_a_pool_without_a_shape_takes_nothing():
    found = ranked(3, 400, 1, shapes={"prefill": SHAPES["prefill"]})
    assert {c.domain for c in found if c.fits} == {"ib-switch0", "ib-switch1"}


@pytest.mark.parametrize(
    ("domain", "tier", "rules"),
    [
        pytest.param("ib-switch0", 1, {SWITCH: ["ib-switch0"]}, id="a leaf"),
        pytest.param("ib-switch4", 2, {TYPE: ["ib"]}, id="fewest values"),
        pytest.param("eth-switch6", 3, {}, id="all nodes: nothing to single out"),
    ],
)
def test_placement_by_labels(domain, tier, rules):
    found = placement(domain, Stock(inventory()), TREE)
    assert found.network_topology == {"mode": "hard", "highestTierAllowed": tier}
    assert found.notes == ()
    required = found.node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {})
    terms = required.get("nodeSelectorTerms", [{"matchExpressions": []}])
    (term,) = terms
    assert {e["key"]: e["values"] for e in term["matchExpressions"]} == rules
    assert all(e["operator"] == "In" for e in term["matchExpressions"])


def leafed(labels, others):
    """Return a stock and a tree with the nodes of `labels` in a leaf, the others outside."""
    inside = [Node(f"in-{i}", of) for i, of in enumerate(labels)]
    outside = [Node(f"out-{i}", of) for i, of in enumerate(others)]
    leaf = HyperNode("leaf", 1, (Member(is_hypernode=False, pattern="^in-"),))
    nodes = (*inside, *outside)
    return Stock(Inventory(0.0, nodes, (leaf,))), build_tree([leaf], nodes)


def rules_of(found):
    if not found.node_affinity:
        return {}
    ((_, required),) = found.node_affinity.items()
    return {e["key"]: e["values"] for e in required["nodeSelectorTerms"][0]["matchExpressions"]}


HOST = "kubernetes.io/hostname"


@pytest.mark.parametrize(
    ("inside", "others", "rules"),
    [
        pytest.param([{"a": "1", "b": "1"}], [{"a": "1", "b": "2"}, {"a": "2", "b": "1"}],
                     {"a": ["1"], "b": ["1"]}, id="two labels together"),
        pytest.param([{"a": "1"}, {"a": "2"}], [{"a": "3"}, {}], {"a": ["1", "2"]},
                     id="several values"),
        pytest.param([{"a": "1", HOST: "x"}, {"a": "1", HOST: "y"}], [{"a": "1", HOST: "z"}],
                     {HOST: ["x", "y"]}, id="host names last"),
        pytest.param([{"a": "1"}], [{"a": "1"}], {}, id="nothing tells them apart"),
        pytest.param([{"a": "1"}, {"b": "1"}], [{}], {}, id="no label in common"),
        pytest.param([{HOST: str(i)} for i in range(MOST_VALUES + 1)], [{HOST: "x"}], {},
                     id="too many host names"),
        pytest.param([], [{"a": "1"}], {}, id="no nodes"),
    ],
)  # fmt: skip
def test_which_labels_single_a_domain_out(inside, others, rules):
    found = placement("leaf", *leafed(inside, others))
    assert rules_of(found) == rules
    assert bool(found.notes) is not bool(rules)


def test_the_note_says_what_to_do():
    (note,) = placement("leaf", *leafed([{"a": "1"}], [{"a": "1"}])).notes
    assert note == (
        "no label singles out the 1 nodes of leaf: the scheduler may take any of 1 HyperNodes of "
        "tier 1; label its nodes and add them to the affinity"
    )


def test_the_whole_cluster_needs_no_placement():
    found = placement(ROOT, Stock(inventory()), TREE)
    assert (found.network_topology, found.node_affinity) == ({}, {})


def test_a_pool_without_gpus_costs_none():
    of = {"prefill": SHAPES["prefill"], "decode": PodShape({"cpu": 1.0})}
    spare = {c.domain: c.spare_gpus for c in ranked(12, 12, 1, shapes=of) if c.fits}
    assert spare["ib-switch0"] == 48 - 12


def test_pods_that_go_nowhere_have_no_path():
    nowhere = dict.fromkeys(("prefill", "decode"), PodShape({"amd.com/gpu": 1.0}))
    found = ranked(1, 1, 1, shapes=nowhere)
    assert not any(c.fits for c in found)
    assert {c.transfer for c in found} == {asked().transfer}
