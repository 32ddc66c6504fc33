"""Whole timelines with random traffic, holes and faults."""

import math
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import ClusterError, MetricsError
from planner.model import Fallback, Limits, Mode, PodSample, Role, Signal, Sizing
from tests.builders import Drive, pool, service, with_pool

ACTING = service(
    mode=Mode.ACT,
    pools=(pool(max_replicas=12), pool(Role.DECODE, max_replicas=12)),
    limits=Limits(gpus={"h200": 14}),
    fallback=Fallback(240.0, {"prefill": 5, "decode": 5}),
)
RPS = st.lists(st.sampled_from([0.0, 2.0, 20.0, 80.0, 300.0]), min_size=3, max_size=14)


def nan_gauge(read):
    one, *others = read.pools["decode"]
    return with_pool(read, "decode", [replace(one, gauges={Signal.RUNNING: math.nan}), *others])


def infinite_counter(read):
    one, *others = read.pools["prefill"]
    spoilt = replace(one, counters={Signal.COMPUTED_TOKENS: math.inf})
    return with_pool(read, "prefill", [spoilt, *others])


def no_pods(read):
    return with_pool(read, "prefill", [])


def frozen(read):
    """Every pod's last scrape is ten minutes old."""
    for name, pods in read.pools.items():
        read = with_pool(read, name, [replace(p, at_s=p.at_s - 600.0) for p in pods])
    return read


FAULTS = st.sampled_from([
    {"read": MetricsError("connection refused")},
    {"cluster": ClusterError("timed out")},
    {"spoil": nan_gauge},
    {"spoil": infinite_counter},
    {"spoil": no_pods},
    {"spoil": frozen},
])


def cost(replicas):
    return sum(replicas.values())


@given(RPS, st.data())
def test_missing_data_never_scales_down(loads, data):
    drive = Drive(ACTING, prefill=3, decode=2)
    for rps in loads:
        before = dict(drive.replicas)
        fault = data.draw(st.none() | FAULTS)
        decision = drive.tick(rps, **(fault or {}))
        if fault is not None:
            assert decision.hold is not None
            assert decision.hold.reason.message
            assert all(drive.replicas[name] >= before[name] for name in before)


@given(RPS, st.data())
def test_holes_in_some_pods_metrics_never_break_a_tick(loads, data):
    drive = Drive(ACTING, prefill=4, decode=4)
    for rps in loads:
        seen = data.draw(st.integers(2, 4))

        def some(read, seen=seen):
            return with_pool(read, "decode", read.pools["decode"][:seen])

        decision = drive.tick(rps, spoil=some)
        if decision.observation is not None:
            assert all(math.isfinite(x) for x in numbers(decision.observation))


def numbers(value):

    if isinstance(value, float):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from numbers(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from numbers(item)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            if name != "upper_bounds":  # these end at +Inf by right
                yield from numbers(getattr(value, name))


ODD = st.sampled_from([math.nan, math.inf, -math.inf, -1.0]) | st.floats(0.0, 5e4)


@given(st.lists(ODD, min_size=5, max_size=5), st.sampled_from(["prefill", "decode"]))
def test_nothing_that_is_not_finite_leaves_observe(odd, name):
    drive = Drive(ACTING)

    def strange(read):
        (one,) = read.pools[name]
        spoilt = PodSample(
            one.pod,
            one.at_s,
            counters={**one.counters, Signal.COMPUTED_TOKENS: odd[0]},
            histograms={
                signal: replace(h, sum=odd[1], cumulative=(*h.cumulative[:-1], odd[2]))
                for signal, h in one.histograms.items()
            },
            gauges={Signal.RUNNING: odd[3], Signal.WAITING: odd[4]},
        )
        return with_pool(read, name, [spoilt])

    drive.run(2, 5.0)
    decision = drive.tick(5.0, spoil=strange)
    if decision.observation is None:
        assert decision.hold is not None
        return
    assert all(math.isfinite(x) for x in numbers(decision.observation))


@given(RPS)
def test_limits_hold_at_every_tick(loads):
    drive = Drive(ACTING)
    for rps in loads:
        decision = drive.tick(rps)
        desired = {name: p.desired for name, p in decision.pools.items()}
        assert cost(desired) <= 14
        assert all(1 <= n <= 12 for n in desired.values())


@given(RPS)
def test_same_input_same_decision(loads):
    one, other = Drive(ACTING), Drive(ACTING)
    for rps in loads:
        assert one.tick(rps) == other.tick(rps)


@given(st.floats(1.0, 100.0))
@settings(max_examples=15)
def test_a_converged_fleet_is_left_alone(rps):
    # The reserve for what was never seen shrinks for some 30 intervals, and never grows again.
    drive = Drive(ACTING)
    drive.run(40, rps)
    assert all(drive.tick(rps).patch is None for _ in range(3))


@given(RPS)
def test_every_difference_from_what_was_needed_has_a_reason(loads):
    drive = Drive(ACTING, prefill=6, decode=6)
    for rps in loads:
        decision = drive.tick(rps)
        if decision.plan is None:
            assert decision.hold is not None
            continue
        for name, plan in decision.plan.pools.items():
            done = decision.pools[name]
            free = min(max(done.current, plan.wanted), max(plan.keep, plan.wanted))
            if done.desired != free:
                assert any(r.pool == name and r.values for r in decision.reasons), (name, plan)


@given(st.sampled_from(Sizing), RPS, st.floats(1.0, 600.0))
def test_what_is_kept_is_never_less_than_what_is_reached(sizing, loads, startup_s):
    pools = tuple(replace(p, startup_s=startup_s) for p in ACTING.pools)
    drive = Drive(replace(ACTING, pools=pools, sizing=sizing))
    for rps in loads:
        decision = drive.tick(rps)
        if decision.load is not None and sizing is Sizing.QUANTILE:
            assert all(t.keep_tps >= t.up_tps >= 0.0 for t in decision.load.tokens.values())
        if decision.plan is not None:
            assert all(p.keep >= p.up for p in decision.plan.pools.values())


@given(st.floats(1.0, 120.0), st.floats(0.0, 600.0))
@settings(max_examples=15)
def test_a_longer_lead_never_costs_less_at_a_steady_load(rps, longer_s):
    """On a moving load it may: a longer window has other residuals, and fewer of them."""

    def plan_after(startup_s):
        pools = tuple(replace(p, startup_s=startup_s) for p in ACTING.pools)
        drive = Drive(replace(ACTING, pools=pools, limits=Limits()), follow=False, decode=2)
        return sum(p.wanted for p in drive.run(12, rps).plan.pools.values())

    assert plan_after(60.0) <= plan_after(60.0 + longer_s)
