"""The joint choice against brute force over small cases."""

from itertools import product

import numpy as np
import pytest

from planner.model import Limits, Role
from planner.sizing.joint import (
    Frontier,
    choose,
    every_staffing,
    frontier,
    staffing,
)
from tests.builders import pool

PREFILL = (pool(Role.PREFILL, gpu_type="a", gpu_hour_price=3.0),)
DECODE = (
    pool(Role.DECODE, name="d-a", gpu_type="a", gpu_hour_price=3.0),
    pool(Role.DECODE, name="d-b", gpu_type="b", gpu_hour_price=2.0),
)
WORTH = {"prefill": 1.0, "d-a": 1.0, "d-b": 0.6}


def shares_of(offered):
    """A failing share that falls from 1 to 0 around `offered` replicas."""
    return lambda c: 1.0 / (1.0 + np.exp(4.0 * (c - offered)))


def front(pools, offered, ceiling=8, ways=staffing, *, keep_all=False) -> Frontier:
    options = ways(pools, WORTH, {p.name: ceiling for p in pools})
    return frontier(pools, options, shares_of(offered), 1e-4, keep_all=keep_all)


def test_floors_come_first_then_the_best_capacity_for_its_price():
    pools = (
        pool(Role.DECODE, name="dear", gpu_hour_price=9.0, min_replicas=1),
        pool(Role.DECODE, name="cheap", gpu_hour_price=2.0, min_replicas=2),
    )
    worth = {"dear": 1.0, "cheap": 0.5}
    options = staffing(pools, worth, {"dear": 2, "cheap": 4})
    assert [o.replicas for o in options] == [(1, 2), (1, 3), (1, 4), (2, 4)]
    assert options.equivalents.tolist() == [2.0, 2.5, 3.0, 4.0]


def test_a_ceiling_below_the_floor_leaves_the_floor():
    assert [o.replicas for o in staffing((pool(min_replicas=3),), WORTH, {"prefill": 1})] == [(3,)]


def test_every_way_is_there_once_the_floors_first():
    options = every_staffing(DECODE, WORTH, {"d-a": 3, "d-b": 2})
    assert {o.replicas for o in options} == set(product([1, 2, 3], [1, 2]))
    assert options[0].replicas == (1, 1)
    even = every_staffing(DECODE, {"d-a": 1.0, "d-b": 1.0}, {"d-a": 3, "d-b": 3})
    # Of equal capacity the cheaper way comes first.
    assert [o.replicas for o in even if o.equivalent == 4.0] == [(1, 3), (2, 2), (3, 1)]
    assert np.all(np.diff(options.equivalents) >= 0.0)


def test_too_many_ways_are_the_chain():
    ceilings = {"d-a": 1000, "d-b": 1000}
    assert [*every_staffing(DECODE, WORTH, ceilings)] == [*staffing(DECODE, WORTH, ceilings)]


def test_a_frontier_ends_where_more_does_not_matter():
    short, whole = front(PREFILL, 3.0, 64), front(PREFILL, 3.0, 64, keep_all=True)
    assert short.failure_shares[-1] <= 1e-4 < short.failure_shares[-2]
    assert len(whole.options) == 64
    assert whole.failure_shares[len(short.options) :] == pytest.approx(short.failure_shares[-1])
    assert whole.costs.tolist() == [3.0 * (n + 1) for n in range(64)]


def test_a_frontier_that_never_suffices_is_whole():
    assert len(front(PREFILL, 1000.0).options) == 8


def brute_force(prefill: Frontier, decode: Frontier, budget: float, limits: Limits):
    """Walk every pair: cheapest within the budget, else the highest goodput."""
    legal = []
    for i, p in enumerate(prefill.options):
        for j, d in enumerate(decode.options):
            gpus = {"a": p.replicas[0] + d.replicas[0], "b": d.replicas[1]}
            cost = prefill.costs[i] + decode.costs[j]
            ratio = sum(p.replicas) / sum(d.replicas)
            if (
                all(gpus[kind] <= most for kind, most in limits.gpus.items())
                and cost <= (limits.cost_per_hour or 1e9)
                and (limits.ratio_min or 0.0) <= ratio <= (limits.ratio_max or 1e9)
            ):
                failing = prefill.failure_shares[i], decode.failure_shares[j]
                legal.append((cost, sum(failing), (1 - failing[0]) * (1 - failing[1])))
    good = [cost for cost, failing, _ in legal if failing <= budget]
    return (min(good), None) if good else (None, max(goodput for *_, goodput in legal))


LIMITS = [
    pytest.param(Limits(), id="no limits"),
    pytest.param(Limits(gpus={"a": 6}), id="shared GPUs"),
    pytest.param(Limits(gpus={"a": 4}), id="few shared GPUs"),
    pytest.param(Limits(gpus={"a": 3, "b": 5}), id="both kinds"),
    pytest.param(Limits(cost_per_hour=22.0), id="cost"),
    pytest.param(Limits(cost_per_hour=12.0), id="little cost"),
    pytest.param(Limits(ratio_min=1.0), id="ratio from below"),
    pytest.param(Limits(ratio_max=0.4), id="ratio from above"),
    pytest.param(Limits(gpus={"a": 5}, cost_per_hour=20.0, ratio_max=1.0), id="all"),
]


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("offered", [(1.5, 2.0), (3.0, 4.0), (4.5, 2.5), (7.0, 9.0)], ids=str)
def test_no_legal_split_is_better(limits, offered):
    """Two decode pools, one of which shares its GPUs with prefill."""
    prefill = front(PREFILL, offered[0], keep_all=True)
    decode = front(DECODE, offered[1], ways=every_staffing, keep_all=True)
    choice = choose(prefill, decode, 0.05, limits)
    cheapest, goodput = brute_force(prefill, decode, 0.05, limits)
    assert choice.within_budget == (cheapest is not None)
    if cheapest is not None:
        cost = 3.0 * choice.prefill.replicas[0] + np.dot(choice.decode.replicas, [3.0, 2.0])
        assert cost == pytest.approx(cheapest)
        assert choice.prefill_failures + choice.decode_failures <= 0.05
    else:
        found = (1 - choice.prefill_failures) * (1 - choice.decode_failures)
        assert found == pytest.approx(goodput, abs=1e-8)


@pytest.mark.parametrize("offered", [(1.5, 2.0), (4.5, 2.5)], ids=str)
def test_the_chain_is_the_cheapest_up_to_one_replica_without_limits(offered):
    prefill = front(PREFILL, offered[0])
    chain = choose(prefill, front(DECODE, offered[1]), 0.05, None)
    every = choose(prefill, front(DECODE, offered[1], ways=every_staffing, keep_all=True), 0.05,
                   None)  # fmt: skip

    def cost(choice):
        return 3.0 * choice.prefill.replicas[0] + np.dot(choice.decode.replicas, [3.0, 2.0])

    assert cost(every) <= cost(chain) <= cost(every) + 3.0


def test_limits_that_not_even_the_floors_keep_leave_the_floors():
    choice = choose(front(PREFILL, 3.0), front(DECODE, 3.0), 0.05, Limits(gpus={"a": 1}))
    assert (choice.prefill.replicas, choice.decode.replicas) == ((1,), (1, 1))
    assert not choice.within_budget


def test_equal_cost_goes_to_the_fewest_failures():
    def three_ways(pools, failing):
        return Frontier(pools, staffing(pools, WORTH, {p.name: 3 for p in pools}), failing)

    prefill = three_ways(PREFILL, np.array([0.2, 0.05, 0.01]))
    decode = three_ways(DECODE[:1], np.array([0.2, 0.1, 0.01]))
    choice = choose(prefill, decode, 0.35, None)
    assert (choice.prefill.replicas, choice.decode.replicas) == ((2,), (1,))
