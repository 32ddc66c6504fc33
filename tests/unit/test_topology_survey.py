"""The survey: rooms, domains, and what is told, on the scenario's seven switches."""

from dataclasses import replace

import pytest

from planner.inventory import HyperNode, Link, Member, Network, Queue, Quota, Taint
from planner.model import Fleet, PoolFleet, Role, Target
from planner.topology.notes import stays_home
from planner.topology.tree import build_tree
from tests.builders import START_S, pool
from tests.unit.topology_cluster import (
    GIGABIT,
    GPU,
    H100,
    NETWORK,
    RTX4090,
    asked,
    inventory,
    node,
    pair,
    pods,
    shape,
    surveyed,
    switches,
)

IB0, IB1 = H100[:6], H100[6:]
EVERY_H100 = [place for place in H100 for _ in range(8)]


def rooms(found):
    return {name: room.replicas for name, room in found.rooms.items()}


def codes(found):
    return [note.code for note in found.notes]


def note(found, code):
    (one,) = [n for n in found.notes if n.code == code]
    return one


def changed(there, place, **over):
    nodes = tuple(replace(n, **over) if n.name == f"node-{place}" else n for n in there.nodes)
    return replace(there, nodes=nodes)


def two_parents():
    extra = HyperNode("extra", 2, (Member(is_hypernode=True, exact="ib-switch0"),))
    return build_tree((*switches(), extra), [node(i) for i in range(256)])


@pytest.mark.parametrize(
    ("tier", "pinned", "prefill", "domain", "room"),
    [
        pytest.param(None, None, pods([0]), None, 96, id="anywhere"),
        pytest.param(2, None, pods([0]), "ib-switch4", 96, id="the service's tier"),
        pytest.param(1, None, pods([0]), "ib-switch0", 48, id="a leaf"),
        pytest.param(None, 1, pods([0]), "ib-switch0", 48, id="pinned to its leaf"),
        pytest.param(None, 2, pods([0]), "ib-switch4", 96, id="pinned to its aggregation"),
        pytest.param(2, 1, pods([0]), "ib-switch0", 48, id="both: the lower"),
        pytest.param(1, 2, pods([0]), "ib-switch0", 48, id="both, the other way round"),
        pytest.param(2, 1, pods([0], leaving=[64]), None, 1, id="leaving pods still pin"),
        pytest.param(2, None, (), None, 96, id="none placed: the widest that fits"),
        pytest.param(None, 1, (), None, 48, id="none placed and pinned: the best leaf"),
        pytest.param(None, 9, pods([0]), None, 96, id="pinned to everything"),
        pytest.param(0, None, pods([0]), None, 1, id="no such tier"),
        pytest.param(None, 0, (), None, 0, id="no such tier, pinned"),
    ],
)
def test_domain_and_room(tier, pinned, prefill, domain, room):
    found = surveyed(pair(prefill=prefill, pinned_tier=pinned), asked(tier))
    assert found.domains["prefill"] == domain
    assert found.domains["prefill"] == domain
    assert rooms(found)["prefill"] == room


def test_a_pool_that_is_not_placed_stays_with_the_one_that_is():
    found = surveyed(pair(prefill=pods([0])), asked(1))
    assert found.domains == {"prefill": "ib-switch0", "decode": "ib-switch0"}
    assert rooms(found) == {"prefill": 48, "decode": 48}


def test_a_job_pinned_outside_the_service_domain_gets_nothing_more():
    fleet = pair(prefill=pods([64]), decode=pods([2, 3, 6]), pinned_tier=1)
    found = surveyed(fleet, asked(1))
    assert rooms(found) == {"prefill": 1, "decode": 48}
    assert found.rooms["prefill"].why == (
        "its Job is pinned to ib-switch1, which is outside ib-switch0"
    )


def test_pools_that_are_tasks_of_one_job_share_its_domain():
    job = Target("batch.volcano.sh/v1alpha1", "Job", "pd")
    who = asked()
    who = replace(who, pools=tuple(replace(p, target=replace(job, task=p.name))
                                   for p in who.pools))  # fmt: skip
    found = surveyed(pair(prefill=pods([0]), decode=pods([66]), pinned_tier=2), who)
    assert found.domains == {"prefill": "ib-switch4", "decode": "ib-switch4"}
    spread = surveyed(pair(prefill=pods([0]), decode=pods([66]), pinned_tier=1), who)
    assert rooms(spread) == {"prefill": 1, "decode": 1}
    assert "Volcano places no more of them" in spread.rooms["decode"].why


@pytest.mark.parametrize(
    ("prefill", "room", "why"),
    [
        pytest.param(
            pods(EVERY_H100[:-1]),
            96,
            "ib-switch4 has room for 1 more pods on 12 of 128 nodes, which have 1 GPUs free",
            id="the last free GPU",
        ),
        pytest.param(
            pods(EVERY_H100),
            96,
            "ib-switch4 has room for 0 more pods on 12 of 128 nodes, which have 0 GPUs free",
            id="full",
        ),
        pytest.param(pods(EVERY_H100, waiting=3), 96, None, id="waiting pods find nothing"),
        pytest.param(pods(EVERY_H100[:-1], waiting=3), 96, None, id="one of three finds a node"),
        pytest.param(pods(EVERY_H100[:-1], leaving=[85]), 95, None, id="leaving pods hold it"),
    ],
)
def test_the_last_gpus(prefill, room, why):
    found = surveyed(pair(prefill=prefill), asked(2))
    assert found.rooms["prefill"].replicas == room
    if why:
        assert found.rooms["prefill"].why == why


def test_timeline_of_a_domain_that_fills_and_empties():
    def seen(prefill, there=None):
        return rooms(surveyed(pair(prefill=prefill), asked(2), there))["prefill"]

    there = inventory()
    assert seen(pods(EVERY_H100)) == 96
    # A neighbour's pods leave node-85: seen at the next call.
    busy = changed(there, 85, requested={GPU: 8.0})
    assert seen(pods(IB0), busy) == 88
    assert seen(pods(IB0), there) == 96
    assert seen(pods(IB0), changed(there, 85, is_schedulable=False)) == 88
    # A cordoned or lost node keeps the pods that it has.
    assert seen(pods(EVERY_H100), changed(there, 85, is_schedulable=False)) == 96
    assert seen(pods(IB0), changed(there, 0, taints=(Taint("broken", "NoSchedule"),))) == 89
    assert seen(pods(IB0), replace(there, nodes=there.nodes[1:])) == 89


@pytest.mark.parametrize(
    ("over", "room", "why"),
    [
        pytest.param({"queues": (Queue("q", capability={GPU: 10.0}, allocated={GPU: 7.0}),)}, 5,
                     "queue q leaves room for 3 more pods", id="queue"),
        pytest.param({"queues": (Queue("q", is_open=False),)}, 2, "queue q is closed", id="closed"),
        # The pod that waits is in the quota already, and may still start.
        pytest.param({"quotas": {"inference": (Quota("team", {"pods": 9.0}, {"pods": 8.0}),)}}, 4,
                     "quota team leaves room for 1 more pods", id="quota"),
        pytest.param({"quotas": {"other": (Quota("team", {"pods": 0.0}, {}),)}}, 96, None,
                     id="another namespace's quota"),
    ],
)  # fmt: skip
def test_queues_and_quotas(over, room, why):
    of = {"prefill": replace(shape(gpu_type="h100"), queue="q")}
    found = surveyed(pair(prefill=pods([0, 1], waiting=1), shapes=of), asked(2), inventory(**over))
    assert found.rooms["prefill"].replicas == room
    if why:
        assert found.rooms["prefill"].why == why


def test_replicas_of_several_pods():
    who = asked(2)
    pools = (replace(who.pools[0], pods_per_replica=5), who.pools[1])
    found = surveyed(pair(prefill=pods([0] * 5)), replace(who, pools=pools))
    assert rooms(found)["prefill"] == 19  # 96 GPUs, the last one left over


def test_pods_that_cannot_be_listed_take_room_first():
    fleet = pair(prefill=(), decode=pods([2]))
    for replicas, room in ((3, 96), (100, 100)):
        unlisted = PoolFleet(replicas, (), shape=shape(gpu_type="h100"))
        found = surveyed(replace(fleet, pools={**fleet.pools, "prefill": unlisted}))
        assert rooms(found)["prefill"] == room


def test_a_pool_whose_shape_is_not_known_is_not_capped():
    fleet = Fleet(START_S, {"prefill": PoolFleet(1, pods([0])), "decode": PoolFleet(1, pods([2]))})
    found = surveyed(fleet, asked(2))
    assert found.rooms == {}
    assert found.domains["prefill"] == "ib-switch4"


def test_elastic_capacity_is_not_capped_but_told_of():
    who = asked(2, is_elastic=True, node_startup_s=300.0)
    assert surveyed(pair(prefill=pods(EVERY_H100)), who).rooms == {}
    found = surveyed(pair(prefill=pods(EVERY_H100[:-1], waiting=3)), who)
    assert found.rooms == {}
    said = note(found, "WaitingForNodes")
    assert said.values["short_pods"] == 2.0
    assert "2 of 3 waiting pods fit nowhere now" in said.message
    assert "about 300 s" in said.message


@pytest.mark.parametrize("is_elastic", [False, True])
def test_a_broken_tree_stops_scale_up_of_topology_pools_only(is_elastic):
    fleet = pair(prefill=pods([0, 1], waiting=1), decode=pods([2]))
    pinned = replace(fleet.pools["prefill"], pinned_tier=1)
    fleet = replace(fleet, pools={**fleet.pools, "prefill": pinned})
    found = surveyed(fleet, asked(is_elastic=is_elastic), tree=two_parents())
    assert rooms(found) == {"prefill": 2} | ({} if is_elastic else {"decode": 96})
    said = note(found, "TopologyUnreadable")
    assert "ib-switch0 is a member of both extra and ib-switch4" in said.message
    assert "no scale-up of prefill;" in said.message
    assert "take ib-switch0 out of the members of one of them" in said.message


def test_a_broken_tree_stops_a_service_with_a_tier():
    found = surveyed(pair(prefill=pods([0]), decode=pods([2])), asked(2), tree=two_parents())
    assert rooms(found) == {"prefill": 1, "decode": 1}
    assert codes(found) == ["TopologyUnreadable"]


def test_a_broken_tree_means_nothing_to_others():
    found = surveyed(pair(prefill=pods([0]), decode=pods([2])), tree=two_parents())
    assert rooms(found) == {"prefill": 96, "decode": 96}
    assert found.notes == ()


def test_pods_outside_the_domain_are_told():
    found = surveyed(pair(prefill=pods([0, 1, 64]), decode=pods([2, 3])), asked(1))
    assert found.domains["prefill"] == "ib-switch0"
    said = note(found, "OutsideDomain")
    assert said.pool == "prefill"
    assert said.message == ("pool prefill: 1 of 3 pods are outside ib-switch0, in ib-switch1 (p-2)")
    assert rooms(found)["prefill"] == 3 + 48 - 2


def test_everything_in_place_is_told_nothing_of():
    found = surveyed(pair(prefill=pods(IB0), decode=pods(RTX4090[:6]), pinned_tier=2), asked(2))
    assert found.notes == ()
    assert found.transfer is not None
    assert found.transfer.bandwidth_bytes_per_s == pytest.approx(200 * GIGABIT)


def test_mixed_networks_are_priced():
    of = {"decode": shape()}
    found = surveyed(pair(prefill=pods([0]), decode=pods([128]), shapes=of))
    said = note(found, "MixedNetwork")
    # 320 kB a token, 1,000 tokens: 12.8 ms at 200 Gbit/s, 25.6 at 100.
    assert said.values["cost_ms"] == pytest.approx(12.8, abs=0.02)
    assert said.message == (
        "prefill and decode sit in different network types (ethernet and ib): 12.8 ms more for "
        "the KV cache of 1000 tokens than together (100 instead of 200 Gbit/s)"
    )
    assert found.transfer.bandwidth_bytes_per_s == pytest.approx(100 * GIGABIT)


def test_without_links_the_price_is_not_known():
    found = surveyed(pair(prefill=pods([0]), decode=pods([128])), network=Network())
    assert found.transfer is None
    said = note(found, "MixedNetwork")
    assert "not known without network links" in said.message
    assert "cost_ms" not in said.values


SLOW_CORE = Network((*(link for link in NETWORK.links if link.tier != 2),
                     Link(2, "ib", 50 * GIGABIT, 5e-6)))  # fmt: skip


@pytest.mark.parametrize(
    ("running", "tier", "network", "told"),
    [
        pytest.param(23, 2, SLOW_CORE, False, id="less than half full"),
        pytest.param(24, 2, SLOW_CORE, True, id="the next one leaves"),
        pytest.param(24, 1, SLOW_CORE, False, id="pinned to its own tier"),
        pytest.param(24, 2, NETWORK, False, id="as fast there"),
        pytest.param(24, None, SLOW_CORE, False, id="not pinned"),
    ],
)
def test_pods_that_will_leave_home_are_told_with_the_price(running, tier, network, told):
    sitting = pods([place for place in IB0 for _ in range(4)][:running])
    fleet = pair(prefill=sitting, decode=pods([2]), pinned_tier=tier)
    # As on the switch of the measurement: 48 H100s and nothing else.
    there = inventory(nodes=tuple(node(i) for i in range(256) if i not in RTX4090 or i == 2))
    there = changed(there, 2, allocatable={GPU: 1.0})
    found = surveyed(fleet, asked(), there, network=network)
    assert ("LocalityLoss" in codes(found)) is told
    if told:
        said = note(found, "LocalityLoss")
        assert said.values == pytest.approx({"pods": 24.0, "cells": 48.0, "cost_ms": 38.4}, abs=0.1)
        assert "highestTierAllowed: 1 keeps them home" in said.message


def test_nothing_leaves_home_where_there_is_no_room_elsewhere():
    there = inventory(nodes=tuple(node(i) for i in H100 if i < 64))
    found = surveyed(pair(prefill=pods(IB0 * 4), pinned_tier=2), asked(), there, network=SLOW_CORE)
    assert found.notes == ()


@pytest.mark.parametrize(
    ("old", "new", "home"),
    [(2, 4, True), (3, 4, True), (3, 5, True), (4, 5, False), (4, 6, False), (4, 8, False)],
)
def test_locality_as_measured_on_eight_cells(old, new, home):
    assert stays_home(old, new, 8) is home


def test_a_pool_of_each_kind_of_gpu_in_one_role():
    who = asked(2)
    spot = pool(Role.DECODE, name="decode-h100", kv_bytes_per_token=320_000.0)
    who = replace(who, pools=(*who.pools, spot))
    fleet = pair(prefill=pods([0]), decode=pods([2]))
    extra = PoolFleet(1, pods([64]), shape=shape(gpu_type="h100"))
    found = surveyed(replace(fleet, pools={**fleet.pools, "decode-h100": extra}), who)
    # Prefill and the second decode pool share nodes: each room is the pool's own maximum.
    assert rooms(found) == {"prefill": 95, "decode": 96, "decode-h100": 95}
