"""What it pays to serve in time: ordering at one price, keeping at another."""

from dataclasses import replace
from itertools import pairwise

import pytest

from planner.decision.price import MOST_BUDGETS
from planner.decision.size import size
from planner.model import Factors, Role
from tests.builders import ISL, OSL, load, service, token_load

USUAL_RPS, SURGE_RPS = 60.0, 160.0
ROLES = [Role.PREFILL, Role.DECODE]


def maybe(chance, usual_rps=USUAL_RPS, surge_rps=SURGE_RPS):
    """Return a load that surges with a chance, else stays."""
    tokens = {}
    for role, length in ((Role.PREFILL, ISL), (Role.DECODE, OSL)):
        points = ((usual_rps * length, 1.0 - chance), (surge_rps * length, chance))
        tokens[role] = replace(token_load(usual_rps * length), up_points=points)
    return load(usual_rps, tokens=tokens)


def planned(chance, caution=1.0):
    return size(service(caution=caution), maybe(chance), Factors(), {}).pools


@pytest.mark.parametrize("role", ROLES)
def test_a_surge_too_unlikely_to_order_for_is_enough_to_keep_what_is_there(role):
    plan, calm = (
        size(service(), maybe(chance, 400.0, 520.0), Factors(), {}).pools[role]
        for chance in (0.015, 1e-6)
    )
    assert plan.up == calm.up
    assert plan.keep > plan.up


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("chance", [1e-6, 0.5])
def test_what_is_sure_is_kept_as_it_is_ordered(role, chance):
    plan = planned(chance)[role]
    assert plan.keep == plan.up


@pytest.mark.parametrize("role", ROLES)
def test_more_caution_orders_and_keeps_no_less(role):
    plans = [planned(0.03, caution)[role] for caution in (0.05, 0.2, 1.0, 5.0, 25.0)]
    for one, more in pairwise(plans):
        assert one.up <= more.up
        assert one.keep <= more.keep
    assert plans[0].up < plans[-1].up


def test_only_a_caution_below_one_fails_more_than_four_budgets_on_purpose():
    careless, usual = (
        sum(size(service(caution=c), maybe(0.05), Factors(), {}).failure_shares.values())
        for c in (0.05, 1.0)
    )
    assert usual <= MOST_BUDGETS * 0.01 < careless


@pytest.mark.parametrize("role", ROLES)
def test_where_silence_is_expected_nothing_is_kept(role):
    tokens = {r: replace(token_load(0.0), up_points=((0.0, 0.9), (20.0 * ISL, 0.1))) for r in ROLES}
    plan = size(service(), load(1.0, tokens=tokens), Factors(), {}).pools[role]
    assert plan.keep == plan.up
