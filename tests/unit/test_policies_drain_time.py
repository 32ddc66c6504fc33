"""The drain-time policy on views whose answer one can work out by hand."""

import doctest

import pytest

from planner.model import Role
from planner.simulation.policies import drain_time
from planner.simulation.policies.base import Capacity, RoleView, View
from planner.simulation.policies.drain_time import DrainTime

P, D = Role.PREFILL, Role.DECODE

# 10,000 prompt tokens/s; 20 sequences at 20 ms are 1,000 output tokens/s.
CAPACITY = Capacity(
    ttft_s=0.5,
    itl_s=0.02,
    prefill_s=lambda isl: isl / 10_000.0,
    decode_itl_s=lambda n, _: 0.01 + 0.0005 * n,
    decode_best=lambda itl_s, _: (1000.0 * itl_s / 0.02, 20.0 * itl_s / 0.02),
)


def view(at_s=15.0, rps=10.0, prefill=0.0, decode=0.0):
    """Return 1,000 prompt and 100 output tokens a request, so many of them waiting."""
    roles = {role: RoleView(1, 1, 0.0, n, 0.0, 0.0) for role, n in ((P, prefill), (D, decode))}
    return View(at_s, 15.0, 15.0 * rps, 1000.0, 100.0, 0.1, 0.02, roles)


def last(policy, *views):
    state = policy.start()
    for seen in views:
        state, wanted = policy.decide(seen, state)
    return dict(wanted)


def test_the_example_holds():
    assert doctest.testmod(drain_time).failed == 0


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        # 10 requests/s are 10,000 prompt and 1,000 output tokens/s: one replica each.
        pytest.param(view(), {P: 1, D: 1}, id="nobody-waits"),
        # 5 prompts are 5,000 tokens, which one more replica computes in the half second.
        pytest.param(view(prefill=5.0), {P: 2, D: 1}, id="prompts-wait"),
        # 6 sequences are 600 tokens: 1.2 replicas more.
        pytest.param(view(decode=6.0), {P: 1, D: 3}, id="sequences-wait"),
        pytest.param(view(rps=0.0), {P: 0, D: 0}, id="nothing-comes"),
        pytest.param(view(rps=0.0, prefill=20.0), {P: 4, D: 0}, id="a-queue-alone"),
    ],
)
def test_replicas_drain_the_queue_within_the_slo(seen, wanted):
    assert last(DrainTime(CAPACITY), seen) == wanted


def test_headroom_asks_for_less_pressure():
    assert last(DrainTime(CAPACITY, 3.0), view(prefill=5.0)) == {P: 6, D: 3}


def test_a_release_waits_a_minute():
    timeline = [view(at_s=15.0, prefill=5.0), view(at_s=30.0), view(at_s=74.0)]
    assert last(DrainTime(CAPACITY), *timeline)[P] == 2
    assert last(DrainTime(CAPACITY), *timeline, view(at_s=90.0))[P] == 1
