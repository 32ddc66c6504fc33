"""Ticks and requests as what is drawn: series, lanes, bins, and fewer points for one picture."""

import math
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import pytest

from planner.model import (
    Attainment,
    Decision,
    Factor,
    Factors,
    Hold,
    LengthMix,
    Load,
    Observation,
    Patch,
    Plan,
    Pool,
    PoolDecision,
    PoolObservation,
    PoolPlan,
    Reason,
    Role,
    Service,
    ServiceKey,
    Sla,
    Target,
    TokenLoad,
)
from planner.record import TickRecord
from planner.simulation.results import PlantResults
from planner.view.lanes import reason_lanes
from planner.view.outcome import attainment_windows, bin_width_s, latency_bins
from planner.view.series import series_of
from planner.view.sparkline import highest, sparkline
from planner.view.thinning import corners, thinned

NO_REPLICAS = MappingProxyType({})


@dataclass(frozen=True)
class Frame:
    """As the replay's, which brings the compiled plant."""

    at_s: float
    record: TickRecord
    tick_s: float = 0.004


def service(**over):
    pools = tuple(
        Pool(role.value, role, Target("batch/v1", "Job", role.value), max_replicas=9)
        for role in Role
    )
    key, sla = ServiceKey("inference", "llama"), Sla(ttft_s=0.5, itl_s=0.015)
    return Service(**({"key": key, "sla": sla, "pools": pools} | over))


def observation(at_s=60.0, ttft=1.0, **over):
    values = {
        "at_s": at_s, "span_s": 60.0, "arrivals_rps": 12.5, "finished": 750.0,
        "uncached_ratio": 0.8, "age_s": 7.5, "ttft_mean_s": 0.0727, "itl_mean_s": 0.0061,
        "ttft": Attainment(ttft, min(ttft + 0.005, 1.0), 750.0), "itl": Attainment(1.0, 1.0, 740.0),
        "pools": {r.value: PoolObservation(4, 0.04, 0.6, 3.0, changed=False) for r in Role},
    }  # fmt: skip
    return Observation(**(values | over))


def load(at_s=60.0, tps=1000.0):
    tokens = {role: TokenLoad(tps, 1.1 * tps, 1.3 * tps, 1.4 * tps) for role in Role}
    return Load(
        at_s,
        tokens,
        LengthMix((1000.0,), (1.0,), 200.0, 1.0),
        0.8,
        (1.0,),
        (1.0,),
        up_quantile=0.75,
    )


def tick(at_s=60.0, now=(2, 1), desired=(2, 1), reasons=(), ttft=1.0, **over):
    """Return the record of a tick with prefill and decode replicas as given."""
    pools = {
        role.value: PoolDecision(want, want, have, have, 90.0)
        for role, have, want in zip(Role, now, desired, strict=True)
    }
    changed = {name: p.desired for name, p in pools.items() if p.desired != p.current}
    values = {
        "at_s": at_s, "pools": pools, "reasons": tuple(reasons),
        "observation": observation(at_s, ttft), "load": load(at_s),
        "factors": Factors({"prefill": Factor(1.05), "decode": Factor(0.9, 0.2)}, ("decode",)),
        "plan": Plan({n: PoolPlan(p.desired + 1, p.desired, p.desired) for n, p in pools.items()},
                     {Role.PREFILL: 0.002, Role.DECODE: 0.0}),
        "patch": Patch(changed) if changed else None,
    }  # fmt: skip
    decision = Decision(**(values | over))
    return TickRecord(ServiceKey("inference", "llama"), decision, True if changed else None)


def held(at_s=60.0, code="MetricsStale", message="metrics are 90 s old; holding"):
    reason = Reason(code, message, values={"age_s": 90.0})
    nothing = dict.fromkeys(("observation", "load", "factors", "plan"))
    return tick(at_s, reasons=(reason,), hold=Hold(reason, at_s - 60.0), **nothing)


def capped(at_s, pool="prefill", code="TooManyReplicas"):
    return tick(at_s, reasons=(Reason(code, f"pool {pool} is capped", pool, {"wanted": 12}),))


def frames(*records):
    return [Frame(record.decision.at_s, record) for record in records]


def plant_results(arrival_s=(), ttft_s=(), itl_s=(), status=(), orders=NO_REPLICAS, end_s=600.0):
    floats = [np.asarray(column, dtype=np.float64) for column in (arrival_s, ttft_s, itl_s)]
    return PlantResults(
        arrival_s=floats[0], prefilled_s=floats[0], finished_s=floats[0], ttft_s=floats[1],
        itl_s=floats[2], status=np.asarray(status, dtype=np.int32), end_s=end_s, lifetimes=(),
        orders=orders, gpus_per_replica={"prefill": 1, "decode": 1},
    )  # fmt: skip


def test_series_line_up_with_their_ticks():
    series = series_of(service(), [tick(60.0), tick(120.0, now=(2, 1), desired=(5, 1))])
    assert series.at_s == (60.0, 120.0)
    prefill = series.pools["prefill"]
    assert (prefill.wanted, prefill.desired, prefill.ready) == ((3.0, 6.0), (2.0, 5.0), (2.0, 2.0))
    assert series.roles[Role.PREFILL].up_tps == pytest.approx((1300.0, 1300.0))


def test_a_forecast_is_drawn_when_its_order_serves():
    series = series_of(service(), [tick(60.0)])
    assert series.roles[Role.DECODE].serves_s == (150.0,)


def test_a_correction_is_shown_at_a_full_batch():
    series = series_of(service(), [tick()])
    assert series.pools["decode"].factor == pytest.approx((1.1,))


def test_a_hold_is_a_gap_and_not_zero():
    series = series_of(service(), [tick(60.0), held(120.0)])
    assert math.isnan(series.roles[Role.PREFILL].seen_tps[1])
    assert math.isnan(series.pools["prefill"].wanted[1])
    assert series.pools["prefill"].ready == (2.0, 2.0)


def test_a_lane_joins_ticks_that_follow_each_other():
    records = [capped(60.0), capped(120.0), tick(180.0), capped(240.0)]
    (lane,) = reason_lanes(records, 60.0)
    assert lane.spans == ((60.0, 180.0), (240.0, 300.0))
    assert (lane.label, lane.ticks) == ("TooManyReplicas · prefill", 3)


def test_lanes_put_holds_first_and_pools_apart():
    records = [capped(60.0), capped(120.0), capped(180.0, "decode"), held(240.0)]
    lanes = reason_lanes(records, 60.0)
    assert [(lane.code, lane.pool, lane.is_hold) for lane in lanes] == [
        ("MetricsStale", None, True),
        ("TooManyReplicas", "prefill", False),
        ("TooManyReplicas", "decode", False),
    ]


def test_latencies_are_binned_by_arrival_and_gaps_stay_gaps():
    arrival_s = np.array([1.0, 2.0, 3.0, 130.0, 131.0])
    latency_s = np.array([0.1, 0.2, 0.3, np.nan, 0.5])
    bins = latency_bins(arrival_s, latency_s, 60.0)
    assert bins.at_s.tolist() == [30.0, 90.0, 150.0]
    assert bins.p50_s[0] == pytest.approx(0.2)
    assert math.isnan(bins.p50_s[1])
    assert bins.p50_s[2] == pytest.approx(0.5)


def test_an_itl_of_one_token_is_no_latency():
    bins = latency_bins(np.array([1.0, 2.0]), np.array([0.0, 0.02]), 60.0)
    assert bins.p50_s.tolist() == [0.02]


def test_no_request_makes_no_bin():
    assert latency_bins(np.array([]), np.array([]), 60.0).at_s.size == 0


def test_windows_start_at_the_end_of_the_warm_up():
    results = plant_results(
        arrival_s=[10.0, 601.0, 602.0, 901.0],
        ttft_s=[9.0, 0.4, 0.6, 0.4],
        itl_s=[0.01] * 4,
        status=[1, 1, 1, 0],
    )
    windows = attainment_windows(results, 0.5, 0.015, 600.0)
    assert windows.at_s.tolist() == [150.0, 750.0, 1050.0]
    assert windows.both.tolist() == [0.0, 0.5, 0.0]
    assert windows.requests.tolist() == [1.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("duration_s", "width_s"), [(0.0, 60.0), (86_400.0, 60.0), (172_800.0, 120.0)]
)
def test_bins_stay_minutes_for_a_day(duration_s, width_s):
    assert bin_width_s(duration_s) == width_s


def test_thinning_keeps_the_spike_and_the_time_order():
    x, y = np.arange(10_000.0), np.zeros(10_000)
    y[4321], y[77] = 9.0, -3.0
    at, values = thinned(x, y, 500)
    assert at.size <= 500
    assert (values.max(), values.min()) == (9.0, -3.0)
    assert at[values.argmax()] == 4321.0
    assert (np.diff(at) > 0).all()


def test_thinning_keeps_a_gap():
    y = np.ones(4000)
    y[1000:3000] = np.nan
    _, values = thinned(np.arange(4000.0), y, 400)
    assert np.isnan(values).sum() == pytest.approx(100, abs=2)


def test_thinning_leaves_a_short_series_alone():
    x = np.arange(10.0)
    assert thinned(x, x, 10)[0] is x


def test_corners_draw_the_same_steps():
    y = np.array([1.0, 1.0, np.nan, np.nan, 4.0, 4.0])
    x, kept = corners(np.arange(6.0), y)
    assert x.tolist() == [0.0, 2.0, 4.0, 5.0]
    assert np.array_equal(kept, [1.0, np.nan, 4.0, 4.0], equal_nan=True)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([0.0, 7.0], "▁█"),
        ([1.0, math.nan, 7.0], "▂ █"),
        ([-5.0, 99.0], "▁█"),
        ([], ""),
    ],
    ids=["whole range", "gap", "outside is clamped", "nothing"],
)
def test_a_sparkline(values, line):
    assert sparkline(values, 60, 0.0, 7.0) == line


def test_a_sparkline_shows_the_latest():
    assert sparkline([7.0, 7.0, 0.0], 2, 0.0, 7.0) == "█▁"


def test_the_highest_of_nothing_is_one():
    assert highest([math.nan], []) == 1.0
    assert highest([0.0], [3.0, math.nan]) == 3.0


def test_a_pool_without_a_plan_is_a_gap():
    record = tick()
    record = replace(record, decision=replace(record.decision, plan=None, factors=None))
    series = series_of(service(), [record])
    assert math.isnan(series.pools["decode"].wanted[0])
    assert math.isnan(series.pools["decode"].factor[0])
