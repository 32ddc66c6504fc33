"""`check` of the network: tree, domain, room, tier and the way of a KV cache."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from planner.check.finding import Finding, Level
from planner.check.network import network_findings, site
from planner.check.placing import absent_findings
from planner.check.rules import Rule
from planner.inventory import HyperNode, Inventory, Link, Member, Network, Node, PodShape
from planner.model import Fallback, Fleet, Pod, PoolFleet, Role, Service, Topology
from tests import builders
from tests.builders import START_S

GPU = "nvidia.com/gpu"
SHAPE = PodShape({GPU: 1.0})
TYPE = "topology.kubernetes.io/switch-type"
# Ten times slower between leaves than within one.
NETWORK = Network((Link(1, "ib", 25e9, 0.0), Link(2, "ib", 2.5e9, 0.0)), TYPE)


def nodes(used: Sequence[float] = ()) -> tuple[Node, ...]:
    """Return four nodes of four GPUs; `used` is what pods ask for, node by node."""
    asked = [*used, 0.0, 0.0, 0.0, 0.0]
    return tuple(
        Node(f"n{i}", {TYPE: "ib"}, allocatable={GPU: 4.0}, requested={GPU: asked[i]})
        for i in range(4)
    )


def exactly(*names: str, hypernodes: bool = False) -> tuple[Member, ...]:
    return tuple(Member(hypernodes, exact=name) for name in names)


LEAF0, LEAF1 = (HyperNode(f"leaf{i}", 1, exactly(f"n{2 * i}", f"n{2 * i + 1}")) for i in (0, 1))
SPINE = HyperNode("spine", 2, exactly("leaf0", "leaf1", hypernodes=True))


def inventory(**over: Any) -> Inventory:
    """Return four nodes under two leaves; prefill runs on n0, decode on n1."""
    given = {"nodes": nodes((2.0, 2.0)), "hypernodes": (LEAF0, LEAF1, SPINE)}
    return Inventory(START_S, **(given | over))


def seen(on: Sequence[str | None], tier: int | None = 1) -> PoolFleet:
    pods = tuple(Pod(f"p-{i}", START_S, START_S, index=i, node=at) for i, at in enumerate(on))
    return PoolFleet(len(pods), pods, shape=SHAPE, pinned_tier=tier)


def fleet(prefill: Sequence[str | None] = ("n0", "n0"), decode: Sequence[str | None] = ("n1", "n1"),
          tier: int | None = 1) -> Fleet:  # fmt: skip
    return Fleet(START_S, {"prefill": seen(prefill, tier), "decode": seen(decode, tier)})


def service(most: int = 6, **over: Any) -> Service:
    pools = tuple(
        builders.pool(role, max_replicas=most, kv_bytes_per_token=131_072.0) for role in Role
    )
    return builders.service(**({"pools": pools} | over))


def found(
    asked: Service | None = None,
    there: Inventory | None = None,
    ran: Fleet | None = None,
    network: Network = NETWORK,
    **over: Any,
) -> list[Finding]:
    here = site(asked or service(), ran or fleet(), there or inventory(), network, **over)
    return list(network_findings(here))


def not_ok(*args: Any, **over: Any) -> list[Finding]:
    return [finding for finding in found(*args, **over) if finding.level is not Level.OK]


def test_a_service_in_its_place_is_told_where_it_is_and_what_fits():
    assert [finding.line for finding in found()] == [
        "HyperNodes: 3 domains, tiers 1, 2, no fault",
        "pool prefill: domain: must stay in leaf0 (tier 1)",
        "pool prefill: room: 6 replicas fit, maxReplicas is 6",
        "pool decode: domain: must stay in leaf0 (tier 1)",
        "pool decode: room: 6 replicas fit, maxReplicas is 6",
        "network: all pods are in leaf0 (tier 1); the KV cache of 1000 tokens moves in 10.2 ms",
    ]
    assert not_ok() == []


TWO_PARENTS = HyperNode("other", 2, exactly("leaf0", hypernodes=True))

RED: dict[str, tuple[list[Finding], Rule, Level, str, str, str]] = {
    "unreadable resource": (
        not_ok(there=inventory(unseen=("queues can't be listed",))),
        Rule.INVENTORY, Level.WARNING, "cluster", "queues can't be listed", "grant it"),
    "less room than maxReplicas": (
        not_ok(service(7))[:1],
        Rule.ROOM, Level.WARNING, "pool prefill: room",
        "6 replicas fit, fewer than maxReplicas 7: leaf0 has room for 4 more pods",
        "set maxReplicas of the pool to 6"),
    "less room than the plan": (
        not_ok(service(9), wanted={"prefill": 8})[:1],
        Rule.ROOM, Level.WARNING, "pool prefill: room",
        "6 replicas fit, fewer than the plan of now, 8", "free or add nodes"),
    "less room than the fallback": (
        not_ok(service(9, fallback=Fallback(60.0, {"prefill": 7, "decode": 2})))[:1],
        Rule.ROOM, Level.WARNING, "pool prefill: room",
        "6 replicas fit, fewer than the fallback, 7", "free or add nodes"),
    "shape that is not known": (
        not_ok(ran=Fleet(START_S, {"prefill": replace(seen(("n0",)), shape=None),
                                   "decode": seen(("n1",))}))[:1],
        Rule.ROOM, Level.WARNING, "pool prefill: room", "is not known", "pod template"),
    "pods outside the service's domain": (
        not_ok(service(topology=Topology(1)), ran=fleet(("n0", "n0", "n2"), tier=None)),
        Rule.DOMAIN, Level.WARNING, "pool prefill: network",
        "1 of 3 pods are outside leaf0, in leaf1 (p-2)", "hard networkTopology"),
    "networks of two types": (
        not_ok(there=inventory(nodes=(nodes()[0], replace(nodes()[1], labels={TYPE: "ethernet"}),
                                      *nodes()[2:]))),
        Rule.TRANSFER, Level.WARNING, "network",
        "prefill and decode sit in different network types (ethernet and ib)",
        "node affinity in both pod templates"),
}  # fmt: skip


@pytest.mark.parametrize(("told", "rule", "level", "where", "what", "mend"), RED.values(), ids=RED)
def test_a_fault_is_the_only_thing_told(
    told: list[Finding], rule: Rule, level: Level, where: str, what: str, mend: str
):
    (one,) = told
    assert (one.rule, one.level, one.where) == (rule, level, where)
    assert what in one.what
    assert mend in one.mend


def test_a_broken_tree_is_an_error_for_a_job_with_a_domain_and_a_warning_for_others():
    broken = inventory(hypernodes=(LEAF0, LEAF1, SPINE, TWO_PARENTS))
    pinned = [f for f in not_ok(there=broken) if f.rule is Rule.TREE]
    free = [f for f in not_ok(there=broken, ran=fleet(tier=None)) if f.rule is Rule.TREE]
    assert [finding.level for finding in pinned] == [Level.ERROR]
    assert [finding.level for finding in free] == [Level.WARNING]
    assert "Volcano places no pod of any Job with a networkTopology" in pinned[0].what
    assert "take leaf0 out of the members" in pinned[0].mend
    barred = [f for f in not_ok(there=broken) if f.rule is Rule.DOMAIN]
    assert [(f.level, f.where) for f in barred] == [
        (Level.ERROR, f"pool {role}: domain") for role in Role]  # fmt: skip


def test_a_fault_that_breaks_nothing_is_a_warning():
    leaf = replace(LEAF1, members=exactly("n2", "n3", "gone"))
    (one,) = not_ok(there=inventory(hypernodes=(LEAF0, leaf, SPINE)))
    assert (one.rule, one.level) == (Rule.TREE, Level.WARNING)


def test_a_tier_above_all_hypernodes_bars_nothing_and_one_below_bars():
    low = not_ok(ran=fleet(tier=0))
    assert {finding.rule for finding in low} == {Rule.DOMAIN, Rule.ROOM}
    assert any("no pod can be added" in finding.what for finding in low)


def test_less_room_than_the_floor_is_an_error():
    pools = tuple(builders.pool(role, min_replicas=7, max_replicas=8) for role in Role)
    told = not_ok(service(pools=pools))
    assert {(finding.level, finding.rule) for finding in told} == {(Level.ERROR, Rule.ROOM)}
    assert "fewer than minReplicas 7" in told[0].what


def tier_findings(**over: Any) -> list[Finding]:
    given: dict[str, Any] = {"ran": fleet(tier=2)} | over
    return [f for f in found(**given) if "highestTierAllowed" in f.where]


def test_a_tier_above_the_home_domain_is_priced_and_the_tier_that_keeps_pods_home_named():
    prefill, decode = tier_findings()
    assert (prefill.rule, prefill.level) == (Rule.HOME_TIER, Level.WARNING)
    assert prefill.where == "Job pd-prefill spec.networkTopology.highestTierAllowed"
    # 2 run and 4 more fit in leaf0: 2 → 3 stays (2 + 3 <= 6), 3 → 4 goes.
    assert (
        "is 2, above tier 1 of leaf0, where its pods are and 6 fit: beyond 3 pods" in prefill.what
    )
    # 131,072 B × 1000 at 2.5 GB/s instead of 25 GB/s.
    assert "47.2 ms more for the KV cache of 1000 tokens" in prefill.what
    assert "highestTierAllowed: 1, if 6 pods are enough" in prefill.mend
    assert decode.rule is Rule.HOME_TIER


def test_the_price_follows_the_prompts_that_were_seen():
    (one, _) = tier_findings(prompt_tokens=2000.0)
    assert "94.4 ms more for the KV cache of 2000 tokens" in one.what


def test_a_tier_that_costs_nothing_is_no_fault():
    flat = Network((Link(1, "ib", 25e9, 0.0), Link(2, "ib", 25e9, 2e-6)), TYPE)
    assert [finding.level for finding in tier_findings(network=flat)] == [Level.OK, Level.OK]


def test_without_links_the_price_is_not_known_and_that_is_said():
    (one, _) = tier_findings(network=Network())
    assert one.level is Level.WARNING
    assert "not known without PD_PLANNER_NETWORK__LINKS" in one.what


@pytest.mark.parametrize(
    "over",
    [{"ran": fleet(tier=1)}, {"asked": service(3)}, {"ran": fleet(tier=None)}],
    ids=["the domain's own tier", "never beyond half of it", "not pinned"],
)
def test_a_tier_that_keeps_pods_home_is_not_told(over: dict[str, Any]):
    assert tier_findings(**over) == []


def test_elastic_capacity_is_not_bounded():
    elastic = service(99, topology=Topology(is_elastic=True))
    rooms = [finding for finding in found(elastic) if finding.where.endswith("room")]
    assert [finding.level for finding in rooms] == [Level.OK, Level.OK]
    assert "capacity: Elastic" in rooms[0].what


def test_pods_that_wait_for_nodes_of_an_autoscaler_are_told():
    full = inventory(nodes=nodes((4.0, 4.0, 4.0, 4.0)))
    elastic = service(99, topology=Topology(is_elastic=True, node_startup_s=300.0))
    told = not_ok(elastic, full, fleet(("n0", None)))
    assert [(f.rule, f.where) for f in told] == [(Rule.ROOM, "pool prefill: network")]


def placements(told: list[Finding]) -> list[Finding]:
    return [finding for finding in told if finding.where == "placement"]


def labelled(inside: str, outside: str) -> tuple[Node, ...]:
    """Return the nodes; those of leaf0 carry the label rack=`inside`."""
    return tuple(
        replace(node, labels={**node.labels, "rack": inside if i < 2 else outside})
        for i, node in enumerate(nodes())
    )


def test_a_service_without_pods_is_told_the_domain_that_holds_all_of_it_and_the_manifests():
    there = inventory(nodes=labelled("a", "b"))
    (one,) = placements(found(service(4), there, fleet((), (), tier=None)))
    assert one.level is Level.OK
    assert one.what.startswith(
        "no pod has a node yet; leaf0 (tier 1) holds prefill 4, decode 4 and leaves 0 GPUs; the KV "
        "cache of 1000 tokens moves in 10.2 ms; next leaf1 (tier 1), 10.2 ms; to put it there: "
    )
    fragments = one.what.partition("to put it there: ")[2]
    assert 'spec.networkTopology: {"mode": "hard", "highestTierAllowed": 1}' in fragments
    rule = '{"key": "rack", "operator": "In", "values": ["a"]}'
    assert rule in fragments


def test_a_domain_that_no_label_tells_apart_is_a_warning():
    (one,) = placements(found(service(4), inventory(nodes=nodes()), fleet((), (), tier=None)))
    assert (one.level, one.rule) == (Level.WARNING, Rule.PLACEMENT)
    assert "no label singles out the 2 nodes of leaf0" in one.mend


def test_a_plan_that_fits_nowhere_says_what_is_missing_where():
    asked = service(9, topology=Topology(1))
    (one,) = placements(found(asked, inventory(nodes=nodes()), fleet((), (), tier=None)))
    assert (one.level, one.rule) == (Level.WARNING, Rule.PLACEMENT)
    assert one.what.startswith("no network domain holds prefill 9, decode 9: leaf0 has room for")
    assert "lower maxReplicas" in one.mend


def test_the_plan_of_now_counts_where_there_is_one():
    there = inventory(nodes=labelled("a", "b"))
    told = found(service(9), there, fleet((), (), tier=None), wanted={"prefill": 1, "decode": 2})
    (one,) = placements(told)
    assert "leaf0 (tier 1) holds prefill 1, decode 2 and leaves 5 GPUs" in one.what


def test_a_service_that_does_not_exist_yet_is_placed_by_the_gpus_of_its_spec():
    there = inventory(nodes=labelled("a", "b"))
    (one,) = absent_findings(service(4), {}, there, NETWORK)
    assert "leaf0 (tier 1) holds prefill 4, decode 4" in one.what
    assert list(absent_findings(service(4), {}, inventory(hypernodes=()), NETWORK)) == []


def of_type(label: str, here: str, there: str) -> Inventory:
    """Return the nodes; a label names the GPUs of leaf0 and of leaf1."""
    return inventory(nodes=tuple(
        replace(node, labels={label: here if i < 2 else there, "rack": f"r{i // 2}"})
        for i, node in enumerate(nodes())
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("there", "domain"),
    [
        (of_type("gpu-type", "a100", "h200"), "leaf1"),
        (of_type("nvidia.com/gpu.product", "NVIDIA-A100-SXM4", "NVIDIA-H200"), "leaf1"),
        (of_type("name", "a100", "h200"), "leaf0"),
    ],
    ids=["by name", "by product", "not by a label about other things"],
)
def test_a_service_that_does_not_exist_yet_goes_where_gpus_of_its_type_are(
    there: Inventory, domain: str
):
    (one,) = absent_findings(service(4), {}, there, NETWORK)
    assert f"{domain} (tier 1) holds" in one.what


def test_without_links_a_choice_says_that_paths_count_alike():
    (one,) = absent_findings(service(4), {}, inventory(nodes=labelled("a", "b")), Network())
    assert "(every path alike without PD_PLANNER_NETWORK__LINKS)" in one.what


def test_a_service_that_runs_is_not_placed_anew():
    assert placements(found()) == []


def test_a_plan_that_only_the_whole_cluster_holds_needs_no_manifest():
    leaf = replace(LEAF0, members=exactly("n0"))
    there = inventory(nodes=nodes(), hypernodes=(leaf,))
    (one,) = placements(found(service(8), there, fleet((), (), tier=None)))
    assert "holds prefill 8, decode 8" in one.what
    assert "needs no placement" in one.line
    assert "networkTopology" not in one.line
