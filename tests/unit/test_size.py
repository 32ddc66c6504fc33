"""Size: the joint choice over several pools of one role."""

from dataclasses import replace

import pytest

from planner.decision.size import size
from planner.model import Factor, Factors, Limits, Role
from tests.builders import load, pool, service, token_load


def two_decode_pools(**limits):
    spot = pool(Role.DECODE, name="decode-spot", max_replicas=5, gpu_hour_price=0.5)
    pools = (pool(Role.PREFILL), pool(Role.DECODE), spot)
    return service(limits=Limits(**limits), pools=pools)


def test_without_a_binding_limit_rising_load_never_swaps_pools():
    """Each plan holds the one before: the cheap pool fills up, then the dear one grows."""
    plans = [
        size(two_decode_pools(), load(rps), Factors(), {}).pools for rps in (40.0, 80.0, 160.0)
    ]
    for name in plans[0]:
        ups = [plan[name].up for plan in plans]
        assert ups == sorted(ups)


@pytest.mark.parametrize("slower", ["decode", "decode-spot"])
def test_a_whim_of_the_correction_swaps_no_pools_under_a_binding_limit(slower):
    """Two like pools at one and the same limit: a factor of 1 % is no reason for restarts."""
    who = two_decode_pools(gpus={"gpu": 12})
    who = replace(who, pools=tuple(replace(p, gpu_type="gpu") for p in who.pools))
    busy = load(150.0, tokens={Role.PREFILL: token_load(5e4), Role.DECODE: token_load(2e5)})
    even = size(who, busy, Factors(), {}).pools
    uneven = size(who, busy, Factors({slower: Factor(1.01)}), {}).pools
    assert even["decode-spot"].up == 5
    assert even["decode"].up > 1
    assert {name: plan.up for name, plan in even.items()} == {
        name: plan.up for name, plan in uneven.items()
    }
