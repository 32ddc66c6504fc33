"""From intervals to the load to come: what is smoothed, what is not, over which windows."""

import math
from dataclasses import replace

import pytest

from planner.decision.forecast import DISPERSION_INTERVALS, ForecastMemory, age, forecast, learn
from planner.model import Histogram, Role, Sizing
from tests.builders import ISL, LENGTHS, OSL, START_S, histogram, observation, service

LEADS = {"prefill": 60.0, "decode": 60.0}


def interval(rps=10.0, isl=ISL, osl=OSL, **over):
    return observation(
        **{
            "arrivals_rps": rps,
            "finished": 60.0 * rps,
            "prompts": histogram(isl, 60.0 * rps, LENGTHS),
            "outputs": histogram(osl, 60.0 * rps, LENGTHS),
        }
        | over
    )


def remembered(intervals, who=None):
    memory = ForecastMemory()
    for one in intervals:
        memory = learn(who or service(), memory, one)
    return memory


def ahead(intervals, leads=None, who=None):
    return forecast(who or service(), remembered(intervals, who), leads or LEADS, START_S)


def test_nothing_is_forecast_before_the_first_request():
    assert forecast(service(), ForecastMemory(), LEADS, START_S) is None
    silent = interval(0.0, prompts=None, outputs=None)
    assert ahead([silent] * 3) is None
    assert ahead([interval(5.0, outputs=None)] * 3) is None


def test_load_is_arrivals_times_mean_length():
    load = ahead([interval(10.0)] * 8)
    assert load.tokens[Role.PREFILL].seen_tps == pytest.approx(10.0 * ISL)
    assert load.tokens[Role.DECODE].seen_tps == pytest.approx(10.0 * OSL)
    assert load.tokens[Role.PREFILL].mean_tps == pytest.approx(10.0 * ISL, rel=0.01)
    assert not load.tokens[Role.PREFILL].fallback


def test_only_computed_tokens_are_prefill_work():
    load = ahead([interval(10.0, uncached_ratio=0.25)] * 60)
    assert load.tokens[Role.PREFILL].seen_tps == pytest.approx(2.5 * ISL)
    assert load.tokens[Role.DECODE].seen_tps == pytest.approx(10.0 * OSL)
    assert load.uncached_ratio == pytest.approx(0.25, abs=1e-3)


def test_few_finished_requests_lean_on_the_mix_known_so_far():
    """Two outputs of 4,000 tokens among smoothed ones of 200 are no 20-fold load."""
    memory = remembered([interval(10.0)] * 8)
    odd = interval(10.0, prompts=histogram(4000.0, 2.0, LENGTHS))
    seen = learn(service(), memory, odd).seen_tps[Role.PREFILL]
    assert seen == pytest.approx(10.0 * (2 * 4000.0 + 20 * ISL) / 22)


def test_silence_keeps_the_lengths_and_is_no_load():
    load = ahead([*[interval(10.0)] * 8, interval(0.0, prompts=None, outputs=None)])
    assert load.tokens[Role.PREFILL].seen_tps == 0.0
    assert load.lengths.isl_mean_tokens == pytest.approx(ISL)


def test_the_mix_forgets_in_five_minutes():
    short, long = interval(10.0, isl=500.0), interval(10.0, isl=1500.0)
    mean = ahead([*[short] * 30, *[long] * 5]).lengths.isl_mean_tokens
    assert mean == pytest.approx(500.0 + 1000.0 * (1.0 - math.exp(-1.0)), rel=0.02)


def test_bounds_that_change_start_the_mix_anew():
    other = Histogram((3000.0, math.inf), (600.0, 600.0), 600.0 * 1500.0)
    load = ahead([*[interval(10.0)] * 8, interval(10.0, prompts=other)])
    assert load.lengths.isl_mean_tokens == pytest.approx(1500.0)


def expected_tps(tokens):
    return sum(tps * probability for tps, probability in tokens.up_points)


def highest_tps(tokens):
    return tokens.up_points[-1][0]


def test_the_whole_distribution_is_told_unless_a_quantile_is_sized_for():
    noisy = [interval(10.0 + 3.0 * (k % 2)) for k in range(60)]
    tokens = ahead(noisy).tokens[Role.DECODE]
    levels, chances = zip(*tokens.up_points, strict=True)
    assert list(levels) == sorted(levels)
    assert min(levels) < tokens.mean_tps < max(levels)
    assert sum(chances) == pytest.approx(1.0)
    assert expected_tps(tokens) == pytest.approx(11.5 * OSL, rel=0.05)
    one = ahead(noisy, who=service(sizing=Sizing.QUANTILE)).tokens[Role.DECODE]
    assert (one.up_points, tokens.keep_tps) == ((), None)
    assert (one.seen_tps, one.mean_tps) == (tokens.seen_tps, tokens.mean_tps)


def test_beside_a_distribution_the_load_that_nine_of_ten_stay_below_is_told():
    noisy = [interval(10.0 + 4.0 * (k % 3)) for k in range(40)]
    all_ = ahead(noisy)
    one = ahead(noisy, who=service(sizing=Sizing.QUANTILE, up_quantile=0.9))
    assert all_.up_quantile == one.up_quantile == 0.9
    assert all_.tokens[Role.DECODE].up_tps == one.tokens[Role.DECODE].up_tps


def test_windows_follow_the_lead():
    """On a rising load a longer lead sees further ahead, and keep never lies below up."""
    rising = [interval(10.0 + k) for k in range(30)]
    loads = [ahead(rising, {"prefill": s, "decode": s}) for s in (30.0, 60.0, 150.0, 300.0)]
    for told in (expected_tps, highest_tps, lambda tokens: tokens.mean_tps):
        ups = [told(load.tokens[Role.PREFILL]) for load in loads]
        assert ups == sorted(ups)
        assert ups[0] < ups[-1]
    one_quantile = service(sizing=Sizing.QUANTILE, up_quantile=0.75, keep_quantile=0.75)
    leads = {"prefill": 240.0, "decode": 240.0}
    falling = ahead([interval(60.0 - 2.0 * k) for k in range(25)], leads, one_quantile)
    tokens = falling.tokens[Role.PREFILL]
    assert tokens.keep_tps > tokens.up_tps


def test_the_slowest_pool_of_a_role_rules_its_lead():
    spare = replace(service().pools[1], name="spare")
    who = service(pools=(*service().pools, spare))
    rising = [
        replace(one, pools={**one.pools, "spare": one.pools["decode"]})
        for one in (interval(10.0 + k) for k in range(30))
    ]
    quick = ahead(rising, {**LEADS, "spare": 60.0}, who).tokens
    slow = ahead(rising, {**LEADS, "spare": 600.0}, who).tokens
    assert slow[Role.DECODE].up_tps > quick[Role.DECODE].up_tps
    assert slow[Role.PREFILL] == quick[Role.PREFILL]


def test_a_higher_quantile_is_more():
    noisy = [interval(10.0 + 4.0 * (k % 3)) for k in range(40)]
    loads = [
        ahead(noisy, who=service(sizing=Sizing.QUANTILE, up_quantile=q)).tokens[Role.DECODE]
        for q in (0.5, 0.75, 0.95)
    ]
    ups = [load.up_tps for load in loads]
    assert ups == sorted(ups)
    assert ups[0] < ups[-1]
    assert all(load.keep_tps >= load.up_tps for load in loads)


def test_an_interval_that_was_not_observed_ages_and_learns_nothing():
    memory = remembered([interval(10.0)] * 8)
    aged = age(service(), memory)
    assert aged.prompts is memory.prompts
    assert aged.seen_tps == memory.seen_tps
    assert aged.series[Role.PREFILL].observations == memory.series[Role.PREFILL].observations
    assert age(service(), ForecastMemory()) == ForecastMemory()


def test_the_queue_that_is_there_is_work_to_come():
    queued = interval(10.0)
    pools = {**queued.pools, "prefill": replace(queued.pools["prefill"], waiting=30.0)}
    assert ahead([replace(queued, pools=pools)]).backlog_tokens == pytest.approx(30.0 * ISL)


def test_handover_is_smoothed():
    seen = [interval(10.0, handover_s=handover_s) for handover_s in (0.1, 0.3, None)]
    assert ahead(seen[:1]).handover_s == 0.1
    keep = math.exp(-60.0 / 300.0)
    later = ahead(seen)
    assert later.handover_s == pytest.approx(0.3 - 0.2 * keep)


def test_bins_of_an_hour_are_remembered_and_empty_ones_are_not():
    binned = interval(10.0, arrival_bins=(15.0, (140.0, 160.0, 140.0, 160.0)))
    memory = remembered([binned] * (DISPERSION_INTERVALS + 5) + [interval(10.0)] * 3)
    assert memory.bins == (binned.arrival_bins,) * DISPERSION_INTERVALS


def test_a_smoothed_histogram_does_not_grow_without_end():
    huge = interval(10.0, prompts=histogram(ISL, 1e7, LENGTHS))
    memory = remembered([huge] * 20)
    assert memory.prompts.count <= 1e7
    assert memory.prompts.mean == pytest.approx(ISL)
