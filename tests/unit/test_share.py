"""Services that share nodes: what all of them ask for at once is cut to what fits together."""

from dataclasses import replace

import pytest

from planner.decision.share import share
from planner.errors import ClusterError
from planner.inventory import Inventory, Node, PodShape
from planner.model import (
    Decision,
    Fleet,
    Mode,
    Patch,
    Pod,
    PoolDecision,
    PoolFleet,
    Role,
    ServiceKey,
    Topology,
)
from planner.topology.capacity import Stock
from planner.topology.tree import build_tree
from tests.builders import START_S, pool, service

GPU = "nvidia.com/gpu"
SHAPE = PodShape({GPU: 1.0})


def asked(name, **over):
    pools = (pool(Role.PREFILL), pool(Role.DECODE))
    given = {"key": ServiceKey("inference", name), "mode": Mode.ACT, "pools": pools} | over
    return service(**given)


def fleet(running=2, shape=SHAPE):
    pods = tuple(
        Pod(f"p-{i}", START_S - 900.0, START_S - 800.0, index=i, node="n0") for i in range(running)
    )
    pools = {name: PoolFleet(running, pods, shape=shape) for name in ("prefill", "decode")}
    return Fleet(START_S, pools)


def decision(desired, *, current=2, patch=True):
    pools = {
        "prefill": PoolDecision(current, current, current, current, 60.0),
        "decode": PoolDecision(desired, desired, current, current, 60.0),
    }
    written = Patch({"decode": desired}) if patch and desired != current else None
    return Decision(START_S, pools, patch=written)


def ground(free):
    nodes = (Node("n0", allocatable={GPU: 100.0}, requested={GPU: 100.0 - free}),)
    inventory = Inventory(START_S, nodes)
    return Stock(inventory), build_tree((), nodes)


def shared(services, decisions, free, fleets=None):
    fleets = fleets or {s.key: fleet() for s in services}
    return share(services, fleets, decisions, *ground(free))


def desired(found, who):
    return found[who.key].pools["decode"].desired


def test_two_services_never_both_take_the_last_gpu():
    one, other = asked("a"), asked("b")
    found = shared([one, other], {one.key: decision(3), other.key: decision(3)}, free=1)
    assert sorted((desired(found, one), desired(found, other))) == [2, 3]
    loser = one if desired(found, one) == 2 else other
    assert found[loser.key].patch is None
    (reason,) = found[loser.key].reasons
    assert (reason.code, reason.pool) == ("SharedCapacity", "decode")


def test_what_fits_together_is_left_as_it_is():
    one, other = asked("a"), asked("b")
    decisions = {one.key: decision(4), other.key: decision(3)}
    assert shared([one, other], decisions, free=3) == decisions


def test_part_of_a_growth_is_written_as_pods():
    pools = (pool(Role.PREFILL), pool(Role.DECODE, pods_per_replica=2))
    one, other = asked("a", pools=pools), asked("b")
    wide = Decision(
        START_S,
        {
            "prefill": PoolDecision(2, 2, 2, 2, 60.0),
            "decode": PoolDecision(4, 4, 1, 1, 60.0),
        },
        patch=Patch({"decode": 8}),
    )
    found = shared([one, other], {one.key: wide, other.key: decision(3)}, free=5)
    assert (desired(found, one), found[one.key].patch) == (3, Patch({"decode": 6}))
    assert desired(found, other) == 3


def test_advice_takes_nothing_from_who_acts():
    adviser, actor = asked("a", mode=Mode.RECOMMEND), asked("b")
    decisions = {adviser.key: decision(9, patch=False), actor.key: decision(4)}
    assert shared([adviser, actor], decisions, free=2) == decisions


def test_elastic_pools_may_wait_for_nodes():
    elastic, plain = asked("a", topology=Topology(is_elastic=True)), asked("b")
    found = shared([elastic, plain], {elastic.key: decision(5), plain.key: decision(5)}, free=1)
    assert desired(found, elastic) == 5
    assert desired(found, plain) < 5


def test_a_shrinking_service_and_one_that_cannot_be_read_are_left_alone():
    one, other, gone = asked("a"), asked("b"), asked("c")
    decisions = {one.key: decision(1), other.key: decision(3), gone.key: Decision(START_S, {})}
    fleets = {one.key: fleet(), other.key: fleet(), gone.key: ClusterError("no answer")}
    assert shared([one, other, gone], decisions, 1, fleets) == decisions


def test_ordered_pods_that_wait_for_nodes_come_first():
    early, late = asked("a"), asked("b")
    waiting = fleet()
    pods = (*waiting.pools["decode"].pods, Pod("p-2", START_S - 20.0, index=2))
    pending = replace(waiting, pools=waiting.pools | {
        "decode": PoolFleet(3, pods, shape=SHAPE)})  # fmt: skip
    fleets = {early.key: pending, late.key: fleet()}
    decisions = {early.key: decision(3, current=3), late.key: decision(3)}
    found = shared([early, late], decisions, 1, fleets)
    assert (desired(found, early), desired(found, late)) == (3, 2)


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_services_does_not_matter(order):
    services = [asked(name) for name in "abcd"]
    decisions = {s.key: decision(3 + i) for i, s in enumerate(services)}
    found = shared(services[::order], decisions, free=4)
    assert [desired(found, s) for s in services] == [
        desired(shared(services, decisions, free=4), s) for s in services
    ]
    assert sum(desired(found, s) - 2 for s in services) == 4
