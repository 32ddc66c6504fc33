"""Orders that find no node are told of, and taken back where nobody who runs is hit."""

from dataclasses import replace

import pytest

from planner.decision.stuck import FIRST_HOLD_S, StuckMemory, note_stuck
from planner.inventory import PodShape
from planner.model import Fleet, Pod, PoolFleet, Room, Topology
from tests.builders import START_S, service

SERVICE = service()
WHY = "In hyperNode ib-switch0: 0/2 nodes are unavailable: 2 Insufficient nvidia.com/gpu."


def pod(index, *, node=None, age_s=90.0, terminating=False, numbered=True):
    return Pod(
        f"decode-{index}",
        START_S - age_s,
        START_S - 1.0 if node else None,
        terminating=terminating,
        index=index if numbered else None,
        node=node,
        unschedulable=None if node else WHY,
    )


def fleet(pods, *, room=None, shape=PodShape({"nvidia.com/gpu": 1.0})):  # noqa: B008
    rooms = {} if room is None else {"decode": Room(room)}
    pools = {"prefill": PoolFleet(1), "decode": PoolFleet(len(pods), tuple(pods), shape=shape)}
    return Fleet(START_S, pools, rooms)


RUN = [pod(i, node="n0") for i in range(3)]


def levels(caps):
    return {name: cap.replicas for name, cap in caps.items()}


@pytest.mark.parametrize(
    ("pods", "cap"),
    [
        pytest.param(RUN, None, id="all run"),
        pytest.param([*RUN, pod(3), pod(4)], 3, id="the highest wait"),
        pytest.param([*RUN, pod(3, age_s=10.0)], None, id="not for long"),
        pytest.param([*RUN, pod(3), pod(4, age_s=10.0)], 3, id="a younger one above goes with it"),
        pytest.param([*RUN, pod(3, age_s=10.0), pod(4)], 4, id="a younger one below stays"),
        pytest.param([pod(0), *RUN[1:]], None, id="a low one is left alone"),
        pytest.param([*RUN, pod(3), pod(4, node="n1"), pod(5)], 5, id="down to the one that runs"),
        pytest.param([*RUN, pod(3, terminating=True)], None, id="who leaves waits for nothing"),
        pytest.param([pod(0, numbered=False), pod(1, node="n0", numbered=False)], 1,
                     id="without numbers those without a node go first"),
    ],
)  # fmt: skip
def test_what_is_taken_back(pods, cap):
    _, caps, reasons = note_stuck(SERVICE, StuckMemory(), fleet(pods), START_S)
    assert levels(caps).get("decode") == cap
    waits = any(p.node is None and not p.terminating and p.created_s < START_S - 60 for p in pods)
    assert [r.code for r in reasons] == (["ScaleUpStuck"] if waits else [])


def test_the_reason_holds_the_schedulers_words_and_the_shortage():
    _, _, (reason,) = note_stuck(SERVICE, StuckMemory(), fleet([*RUN, pod(3)]), START_S)
    assert WHY in reason.message
    assert "1 taken back" in reason.message
    assert reason.values == {"waiting_pods": 1.0, "taken_back": 1.0, "shortage_gpus": 1.0}


def test_pods_of_a_cluster_without_nodes_are_not_judged():
    found = fleet([*RUN, pod(3)], shape=None)
    assert note_stuck(SERVICE, StuckMemory(), found, START_S)[1:] == ({}, ())


def test_an_elastic_cluster_gets_its_time():
    patient = replace(SERVICE, topology=Topology(is_elastic=True, node_startup_s=300.0))
    assert not note_stuck(patient, StuckMemory(), fleet([*RUN, pod(3)]), START_S)[2]
    late = fleet([*RUN, pod(3, age_s=400.0)])
    assert levels(note_stuck(patient, StuckMemory(), late, START_S)[1]) == {"decode": 3}


def test_the_cap_lasts_and_doubles_while_it_happens_again():
    memory, caps, _ = note_stuck(SERVICE, StuckMemory(), fleet([*RUN, pod(3)], room=5), START_S)
    later_s = START_S + FIRST_HOLD_S - 1.0
    memory, caps, reasons = note_stuck(SERVICE, memory, fleet(RUN, room=5), later_s)
    assert (levels(caps), reasons) == ({"decode": 3}, ())
    memory, caps, _ = note_stuck(SERVICE, memory, fleet(RUN, room=5), later_s + 2.0)
    assert caps == {}
    again = fleet([*RUN, replace(pod(3), created_s=later_s)], room=5)
    again_s = later_s + 100.0
    memory, caps, _ = note_stuck(SERVICE, memory, again, again_s)
    assert memory.caps["decode"].until_s == again_s + 2.0 * FIRST_HOLD_S


def test_more_room_than_then_ends_the_cap():
    memory, caps, _ = note_stuck(SERVICE, StuckMemory(), fleet([*RUN, pod(3)], room=5), START_S)
    assert levels(caps) == {"decode": 3}
    assert note_stuck(SERVICE, memory, fleet(RUN, room=6), START_S + 60.0)[1] == {}


def test_pods_that_came_to_run_above_the_cap_end_it():
    memory, caps, _ = note_stuck(SERVICE, StuckMemory(), fleet([*RUN, pod(3)], room=5), START_S)
    assert caps["decode"].replicas == 3
    grown = fleet([*RUN, pod(3, node="n1")], room=5)
    assert note_stuck(SERVICE, memory, grown, START_S + 60.0)[1] == {}
