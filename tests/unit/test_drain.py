"""Pods that are to go are marked, given their time, and removed by one write a batch."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.decision.drain import patch
from planner.model import Patch, Pod, PoolFleet
from tests.builders import START_S, pool, service

DRAIN_S = 30.0
DECODE = replace(pool("decode"), drain_s=DRAIN_S, max_replicas=32)
SERVICE = service(pools=(pool("prefill"), DECODE))


def pod(index, *, ready=True, until_s=None, terminating=False, numbered=True):
    created_s = START_S - 1000.0 + index
    return Pod(
        f"decode-{index}",
        created_s,
        created_s + 5.0 if ready else None,
        terminating=terminating,
        index=index if numbered else None,
        drain_until_s=until_s,
    )


def written(pods, desired, *, replicas=None, who=SERVICE, now_s=START_S):
    fleets = {"prefill": PoolFleet(1), "decode": PoolFleet(replicas or len(pods), tuple(pods))}
    return patch(who, fleets, {"prefill": 1, "decode": desired}, now_s)[0]


def marks(*indices, until_s=START_S + DRAIN_S):
    return {f"decode-{index}": until_s for index in indices}


DUE, LATER = START_S - 1.0, START_S + 10.0


@pytest.mark.parametrize(
    ("pods", "desired", "expected"),
    [
        pytest.param([pod(i) for i in range(4)], 4, None, id="nothing to do"),
        pytest.param([pod(i) for i in range(4)], 6, Patch({"decode": 6}), id="growing is written"),
        pytest.param([pod(i) for i in range(4)], 2, Patch(drain=marks(3, 2)),
                     id="the highest are marked first"),
        pytest.param([pod(0), pod(1), pod(2, until_s=LATER), pod(3, until_s=LATER)], 2, None,
                     id="the batch is given its time"),
        pytest.param([pod(0), pod(1), pod(2, until_s=DUE), pod(3, until_s=DUE)], 2,
                     Patch({"decode": 2}), id="then it is removed by one write"),
        pytest.param([pod(0), pod(1), pod(2, until_s=LATER), pod(3, until_s=LATER)], 1, None,
                     id="one batch at a time"),
        pytest.param([pod(0), pod(1), pod(2), pod(3, until_s=DUE)], 2,
                     Patch({"decode": 3}, marks(2)), id="the next batch follows the one written"),
        pytest.param([pod(0), pod(1), pod(2, until_s=LATER), pod(3, until_s=LATER)], 4,
                     Patch(keep=("decode-2", "decode-3")), id="a stop cancels"),
        pytest.param([pod(0), pod(1), pod(2, until_s=LATER), pod(3, until_s=DUE)], 5,
                     Patch({"decode": 5}, keep=("decode-2", "decode-3")), id="a rise cancels"),
        pytest.param([pod(0), pod(1), pod(2, until_s=DUE), pod(3, until_s=DUE)], 3,
                     Patch({"decode": 3}, keep=("decode-2",)), id="half of it is wanted again"),
        pytest.param([pod(0), pod(1), pod(2, ready=False), pod(3, ready=False)], 2,
                     Patch({"decode": 2}), id="who does not serve needs no time"),
        pytest.param([pod(0), pod(1), pod(2), pod(3, ready=False)], 2,
                     Patch({"decode": 3}, marks(2)), id="some serve"),
        pytest.param([pod(0), pod(1), pod(2, ready=False), pod(3)], 2, Patch(drain=marks(3)),
                     id="nobody below one who drains leaves before it"),
        pytest.param([pod(0), pod(1), pod(2), pod(3, terminating=True)], 3,
                     Patch({"decode": 3}), id="who leaves already is not marked"),
        pytest.param([pod(i, numbered=False) for i in range(4)], 3, Patch(drain=marks(3)),
                     id="without numbers the youngest"),
        pytest.param([pod(0, numbered=False, until_s=DUE), *(pod(i, numbered=False)
                      for i in (1, 2, 3))], 3, Patch({"decode": 3}), id="marked ones stay chosen"),
        pytest.param([pod(0, numbered=False, ready=False),
                      *(pod(i, numbered=False) for i in (1, 2, 3))], 3, Patch({"decode": 3}),
                     id="without numbers who does not serve goes first"),
    ],
)  # fmt: skip
def test_a_step(pods, desired, expected):
    found = written(pods, desired)
    assert (found or None) == (expected or None)


def test_without_a_drain_time_replicas_are_lowered_at_once():
    eager = replace(SERVICE, pools=(SERVICE.pools[0], replace(DECODE, drain_s=0.0)))
    assert written([pod(i) for i in range(4)], 2, who=eager) == Patch({"decode": 2})


def test_a_replica_of_several_pods_leaves_whole():
    pair = replace(DECODE, pods_per_replica=2)
    who = replace(SERVICE, pools=(SERVICE.pools[0], pair))
    pods = [pod(0), pod(1), pod(2, until_s=LATER), pod(3, until_s=DUE)]
    assert written(pods, 1, who=who) is None
    assert written(pods, 1, who=who, now_s=LATER) == Patch({"decode": 2})


def test_pods_that_cannot_be_listed_are_removed_by_count():
    assert written([], 2, replicas=4) == Patch({"decode": 2})


def test_who_leaves_is_told():
    fleets = {"prefill": PoolFleet(1), "decode": PoolFleet(9, tuple(pod(i) for i in range(9)))}
    _, reasons = patch(SERVICE, fleets, {"prefill": 1, "decode": 2}, START_S)
    assert [r.code for r in reasons] == ["Draining"]
    assert "decode-8, decode-7, decode-6, decode-5 and 3 more" in reasons[0].message


pods_strategy = st.lists(
    st.tuples(st.booleans(), st.sampled_from([None, DUE, LATER]), st.booleans()), max_size=12
)


@given(states=pods_strategy, desired=st.integers(0, 14), numbered=st.booleans())
def test_a_serving_pod_never_leaves_before_its_time(states, desired, numbered):
    pods = [
        pod(i, ready=ready, until_s=until_s, terminating=gone and numbered, numbered=numbered)
        for i, (ready, until_s, gone) in enumerate(states)
    ]
    found = written(pods, desired) or Patch()
    level = found.replicas.get("decode", len(pods))
    assert min(desired, len(pods)) <= level <= max(desired, len(pods))
    assert not set(found.drain) & set(found.keep)
    if numbered:
        removed = pods[level:]
        assert all(
            p.ready_s is None or p.terminating or (p.drain_until_s or LATER) <= START_S
            for p in removed
        )


@given(states=pods_strategy, desired=st.integers(0, 14))
def test_a_scale_down_always_ends(states, desired):
    pods = [pod(i, ready=ready, until_s=until_s) for i, (ready, until_s, _) in enumerate(states)]
    now_s = START_S
    for _ in range(4):
        found = written(pods, desired, now_s=now_s) or Patch()
        pods = pods[: found.replicas.get("decode", len(pods))]
        pods = [replace(p, drain_until_s=found.drain.get(p.name, p.drain_until_s)) for p in pods]
        now_s += 60.0
        if len(pods) <= desired:
            break
    assert len(pods) <= desired
