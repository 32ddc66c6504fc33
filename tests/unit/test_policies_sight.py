"""What peers see of the plant, and how they are driven through it."""

import pytest

from planner.model import Role
from planner.simulation.config import PlantConfig, PlantPool
from planner.simulation.drive import Bounds, drive, scraped
from planner.simulation.plant import Plant
from planner.simulation.policies.fixed import Fixed
from planner.simulation.policies.sight import see
from planner.simulation.surface import DecodeTruth, PrefillTruth
from planner.simulation.traces import make_trace

P, D = Role.PREFILL, Role.DECODE
BOUNDS = {P: Bounds("prefill", 1, 5), D: Bounds("decode", 1, 5)}
POOLS = {P: 0, D: 1}


def plant(arrivals, prefill_s=0.1, itl_s=0.01, **over):
    config = PlantConfig(
        (
            PlantPool("prefill", P, PrefillTruth.constant(prefill_s), initial_replicas=2),
            PlantPool("decode", D, DecodeTruth.constant(itl_s), initial_replicas=2),
        ),
        service_cv=0.0,
        transfer_latency_s=0.0,
        **over,
    )
    return Plant(config, make_trace("t", arrivals, 100, 11))


def seen(of, before, last=None):
    return see(before, of.snapshot(), POOLS, {P: 2, D: 2}, last, of.now_s)


def test_an_interval_is_seen_as_its_counters_show_it():
    of = plant([float(i) for i in range(60)])
    before = of.snapshot()
    of.advance(30.5)
    found = seen(of, before)
    assert found.requests == pytest.approx(31)
    assert (found.isl_tokens, found.osl_tokens) == (100.0, 11.0)
    assert found.ttft_s == pytest.approx(0.1)
    assert found.itl_s == pytest.approx(0.01)
    assert found.roles[P].work_tps == pytest.approx(31 * 100.0 / 30.5)
    assert found.roles[D].ready == 2
    assert found.context_tokens == 105.5


def test_prompts_that_wait_have_arrived():
    of = plant([0.0, *[31.0 + 0.1 * i for i in range(9)]], prefill_s=5.0)
    start = of.snapshot()
    of.advance(30.0)
    first, before = seen(of, start), of.snapshot()
    of.advance(33.0)
    found = seen(of, before, first)
    assert found.requests == pytest.approx(9)
    assert (found.roles[P].running, found.roles[P].waiting) == (2, 7)
    assert found.ttft_s is None
    assert found.isl_tokens == first.isl_tokens


def test_nothing_is_seen_before_a_request_has_finished():
    of = plant([0.0], prefill_s=100.0)
    before = of.snapshot()
    of.advance(30.0)
    assert seen(of, before) is None


def test_kv_use_is_that_of_the_ready_replicas():
    of = plant([0.0, 31.0, 31.0, 31.0, 31.0], itl_s=1.0)
    before = of.snapshot()
    of.advance(34.0)
    # Four prompts of 100 tokens and what they have been given since.
    share = seen(of, before).roles[D].kv_ratio
    assert 4 * 100 <= share * 2e6 <= 4 * 104
    assert seen(of, before).roles[P].kv_ratio == 0.0


def test_pods_that_went_away_take_their_last_counts_with_them():
    of = plant([float(i) for i in range(60)])
    of.advance(20.5)
    before = of.snapshot()
    of.order("prefill", 1)
    of.advance(40.5)
    found = seen(of, before)
    assert found.roles[P].ready == 1
    assert found.requests == pytest.approx(20)


def test_a_scrape_lies_before_the_decision():
    of = plant([float(i) for i in range(60)])
    assert scraped(of, 30.0).at_s == 22.5
    assert of.now_s == 30.0
    assert scraped(of, 37.5).at_s == 37.5


def test_orders_stay_within_the_limits_of_the_pool():
    of = plant([float(i) for i in range(120)])
    policy = Fixed({P: 0, D: 9})
    ticks = drive(policy, of, 120.0, BOUNDS, lambda: lambda: 0.5)
    assert of.replicas("prefill") == 1
    assert of.replicas("decode") == 5
    assert ticks == [0.5] * (120 // 60)
