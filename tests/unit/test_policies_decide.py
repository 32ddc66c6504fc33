"""Each peer's policy on views whose answer one can work out by hand."""

import math
from dataclasses import replace

import pytest

from planner.model import Role
from planner.simulation.policies.base import Capacity, Hindsight, RoleView, View
from planner.simulation.policies.fixed import peak_fleet
from planner.simulation.policies.hpa import hpa_on_concurrency, hpa_on_tokens
from planner.simulation.policies.interpolating import (
    Interpolating,
    LinearTrend,
    LineState,
    corrections,
)
from planner.simulation.policies.kpa import Kpa
from planner.simulation.policies.proportional import Proportional, fixed_ratio
from planner.simulation.policies.saturation import Saturation
from planner.simulation.policies.velocity import TokenVelocity
from predictors.last_value import LastValue

P, D = Role.PREFILL, Role.DECODE

# 10,000 prompt tokens/s; 20 sequences at 20 ms are 1,000 output tokens/s.
CAPACITY = Capacity(
    ttft_s=1.0,
    itl_s=0.02,
    prefill_s=lambda isl: isl / 10_000.0,
    decode_itl_s=lambda n, _: 0.01 + 0.0005 * n,
    decode_best=lambda itl_s, _: (1000.0 * itl_s / 0.02, 20.0 * itl_s / 0.02),
)
HINDSIGHT = Hindsight(1000.0, 100.0, {P: 50_000.0, D: 4_000.0})


def pool(ordered=10, **over):
    values = {"ready": ordered, "running": 0.0, "waiting": 0.0, "kv_ratio": 0.0, "work_tps": 0.0}
    return RoleView(ordered=ordered, **{**values, **over})


def view(at_s=15.0, prefill=None, decode=None, **over):
    values = {
        "span_s": 15.0,
        "requests": 150.0,
        "isl_tokens": 1000.0,
        "osl_tokens": 100.0,
        "ttft_s": 0.1,
        "itl_s": 0.02,
    }
    roles = {P: prefill or pool(), D: decode or pool()}
    return View(at_s=at_s, roles=roles, **{**values, **over})


def last(policy, *views):
    """Return what is wanted after a timeline."""
    state = policy.start()
    for seen in views:
        state, wanted = policy.decide(seen, state)
    return dict(wanted)


@pytest.mark.parametrize(
    ("running", "wanted"),
    [
        pytest.param(10.9, 10, id="within-the-tolerance"),
        pytest.param(11.1, 12, id="above-it"),
        pytest.param(40.0, 20, id="twice-at-most"),
        pytest.param(9.1, 10, id="within-the-tolerance-below"),
        pytest.param(4.0, 4, id="below-at-once-without-a-past"),
    ],
)
def test_hpa_follows_the_requests_in_flight(running, wanted):
    seen = view(prefill=pool(running=running), decode=pool(running=20.0 * running))
    assert last(hpa_on_concurrency(CAPACITY, 1.0), seen) == {P: wanted, D: wanted}


def test_hpa_adds_four_where_doubling_is_less():
    assert last(hpa_on_concurrency(CAPACITY, 1.0), view(prefill=pool(2, running=30.0)))[P] == 6


def test_hpa_releases_down_to_the_highest_of_five_minutes():
    policy = hpa_on_concurrency(CAPACITY, 1.0)
    timeline = [view(at_s=15.0, prefill=pool(10, running=8.0))]
    timeline += [view(at_s=15.0 + s, prefill=pool(10, running=2.0)) for s in (15.0, 285.0)]
    assert last(policy, *timeline)[P] == 8
    assert last(policy, *timeline, view(at_s=320.0, prefill=pool(8, running=2.0)))[P] == 2


def test_headroom_multiplies_what_hpa_wants():
    seen = view(prefill=pool(running=10.0))
    assert last(hpa_on_concurrency(CAPACITY, 1.5), seen)[P] == 15


def test_hpa_on_tokens_averages_a_minute_of_throughput():
    policy = hpa_on_tokens(CAPACITY, 1.0)
    timeline = [
        view(at_s=s, prefill=pool(10, work_tps=w)) for s, w in ((15.0, 200e3), (30.0, 120e3))
    ]
    assert last(policy, *timeline)[P] == 16
    later = [view(at_s=s, prefill=pool(16, work_tps=240e3)) for s in (90.0, 105.0)]
    assert last(policy, *timeline, *later)[P] == 24


def test_kpa_follows_the_mean_of_its_stable_window():
    timeline = [view(at_s=15.0 * k, prefill=pool(running=8.0)) for k in range(1, 9)]
    assert last(Kpa(CAPACITY, 1.25), *timeline)[P] == 10


def test_kpa_panics_at_twice_the_ready_and_releases_nothing_for_a_minute():
    policy = Kpa(CAPACITY, 1.0)
    burst = view(at_s=15.0, prefill=pool(10, running=25.0))
    quiet = [view(at_s=15.0 * k, prefill=pool(10, running=1.0)) for k in range(2, 6)]
    assert last(policy, burst)[P] == 25
    assert last(policy, burst, *quiet)[P] == 25
    after = [view(at_s=90.0, prefill=pool(25, running=1.0))]
    assert last(policy, burst, *quiet, *after)[P] == 12  # half of those ready, and no fewer


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        pytest.param(pool(4, kv_ratio=0.75), 5, id="kv-spare-below-a-tenth"),
        pytest.param(pool(4, waiting=9.0), 5, id="queue-spare-below-three"),
        pytest.param(pool(4, kv_ratio=0.65), 4, id="spare-but-not-on-one-fewer"),
        pytest.param(pool(4, kv_ratio=0.30), 3, id="one-fewer-would-do"),
        pytest.param(pool(4, ready=3, kv_ratio=0.79), 4, id="waits-for-what-starts"),
        pytest.param(pool(1), 1, id="never-the-last"),
    ],
)
def test_saturation_moves_one_replica_at_a_time(seen, wanted):
    assert last(Saturation(), view(decode=seen))[D] == wanted


def test_a_lower_scale_acts_earlier():
    assert last(Saturation(0.5), view(decode=pool(4, kv_ratio=0.40)))[D] == 5


def test_prefill_follows_decode_at_a_fixed_ratio():
    # A request costs prefill 0.1 s and decode 0.1 s of a replica: one to one.
    ratio = fixed_ratio(CAPACITY, HINDSIGHT)
    assert ratio == pytest.approx(1.0)
    policy = Proportional(CAPACITY, 0.5, 2.0)
    seen = view(decode=pool(10, work_tps=6000.0), prefill=pool(3))
    assert last(policy, seen) == {P: 6, D: 12}
    assert last(policy, view(decode=pool(10, work_tps=5200.0), prefill=pool(3))) == {P: 3, D: 10}


def test_token_velocity_sizes_both_stages_for_the_last_scrape():
    # 10 requests/s: 10,000 prompt tokens/s fill one replica, 1,000 output tokens/s another.
    assert last(TokenVelocity(CAPACITY, 1.0), view()) == {P: 1, D: 1}
    assert last(TokenVelocity(CAPACITY, 3.0), view()) == {P: 3, D: 3}


def test_token_velocity_holds_a_minute():
    policy = TokenVelocity(CAPACITY, 1.0)
    timeline = [view(at_s=15.0, requests=600.0), view(at_s=30.0), view(at_s=74.0)]
    assert last(policy, *timeline)[P] == 4
    assert last(policy, *timeline, view(at_s=90.0))[P] == 1


def test_the_peak_fleet_carries_the_busiest_minute():
    assert last(peak_fleet(CAPACITY, HINDSIGHT, 1.0), view()) == {P: 5, D: 4}
    assert last(peak_fleet(CAPACITY, HINDSIGHT, 1.3), view()) == {P: 7, D: 6}


def test_correction_is_observed_over_interpolated_latency():
    # 10 requests/s of 0.1 + 0.02 × 100 s on 10 replicas are 2.1 sequences each: 11.05 ms.
    prefill, decode = corrections(CAPACITY, view(ttft_s=0.2))
    assert prefill == pytest.approx(2.0)
    concurrency = 10.0 * (0.2 + 2.0) / 10
    assert decode == pytest.approx(0.02 / (0.01 + 0.0005 * concurrency))
    assert corrections(CAPACITY, view(ttft_s=None)) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("ttft_s", "prefill"),
    [
        pytest.param(0.1, 4, id="as-profiled"),
        pytest.param(0.9, 4, id="waiting-never-adds-prefill"),
        pytest.param(0.05, 2, id="faster-than-profiled"),
    ],
)
def test_interpolating_divides_the_forecast_by_throughput(ttft_s, prefill):
    policy = Interpolating(CAPACITY, LastValue(), 1.0, 15.0)
    assert last(policy, view(requests=600.0, ttft_s=ttft_s))[P] == prefill


def test_interpolating_tightens_the_itl_by_its_correction():
    seen = view(requests=600.0)
    _, factor = corrections(CAPACITY, seen)
    best_tps = 1000.0 / factor
    assert last(Interpolating(CAPACITY, LastValue()), seen)[D] == math.ceil(4000.0 / best_tps)


def test_linear_trend_follows_a_ramp_and_ages_over_a_gap():
    filter_ = LinearTrend()
    state = filter_.start()
    for value in range(0, 600, 10):
        state = filter_.update(state, float(value))
    assert filter_.predict(state, 2) == pytest.approx([600.0, 610.0], rel=0.01)
    assert filter_.update(state, None).level == pytest.approx(600.0, rel=0.01)


def test_linear_trend_forecasts_nothing_below_zero():
    filter_ = LinearTrend()
    assert filter_.predict(LineState(level=1.0, slope=-5.0), 1) == [0.0]


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(hpa_on_concurrency(CAPACITY, 1.25), id="hpa-concurrency"),
        pytest.param(hpa_on_tokens(CAPACITY, 1.25), id="hpa-tokens"),
        pytest.param(Kpa(CAPACITY), id="kpa"),
        pytest.param(Saturation(), id="saturation"),
        pytest.param(Proportional(CAPACITY, 1.0, 1.25), id="proportional"),
        pytest.param(TokenVelocity(CAPACITY), id="velocity"),
        pytest.param(Interpolating(CAPACITY, LinearTrend()), id="interpolating"),
    ],
)
def test_the_same_past_gives_the_same_answer(policy):
    timeline = [
        view(at_s=15.0 * k, prefill=pool(4, running=3.0 * k), decode=pool(4, running=20.0 * k))
        for k in range(1, 12)
    ]
    assert last(policy, *timeline) == last(policy, *[replace(seen) for seen in timeline])
