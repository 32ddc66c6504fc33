"""The failure policy as timelines: one tick a minute, what was read, what is decided."""

import re
from dataclasses import replace

import pytest

from planner.decision.decide import Inputs, State, decide
from planner.decision.forecast import forecaster
from planner.decision.stuck import StuckCap, StuckMemory
from planner.errors import ClusterError, MetricsError
from planner.model import (
    Fallback,
    Fleet,
    Limits,
    Mode,
    Pod,
    PoolFleet,
    Role,
    Sample,
    Signal,
    Sla,
    Statistic,
)
from predictors import PredictorError
from tests.builders import (
    ISL,
    START_S,
    Drive,
    fleet,
    pod_sample,
    pool,
    sample,
    service,
    with_pool,
)

ACTING = service(mode=Mode.ACT)
DOWN = MetricsError("Prometheus is unreachable")


def with_window(window_s):
    """Return a service that holds every release for so long [s]."""
    down = replace(ACTING.pools[0].behavior.scale_down, stabilization_window_s=window_s)
    behavior = replace(ACTING.pools[0].behavior, scale_down=down)
    return replace(ACTING, pools=tuple(replace(p, behavior=behavior) for p in ACTING.pools))


def codes(decision):
    return [reason.code for reason in decision.reasons]


def desired(decision):
    return {name: p.desired for name, p in decision.pools.items()}


def reason(decision, code):
    (found,) = [r for r in decision.reasons if r.code == code]
    return found


def warm(asked=ACTING, rps=60.0, ticks=6, **over) -> Drive:
    drive = Drive(asked, **over)
    drive.run(ticks, rps)
    return drive


# ── no or stale traffic metric: hold, replicas unchanged, reason and age ────────────────────────


def test_no_metrics_hold_what_runs():
    drive = warm()
    before = dict(drive.replicas)
    decision = drive.tick(0.0, read=DOWN)
    assert decision.hold.reason.code == "MetricsUnavailable"
    assert "Prometheus is unreachable; holding" in decision.hold.reason.message
    assert decision.patch is None
    assert desired(decision) == before


def test_stale_metrics_hold_with_their_age():
    drive = warm()
    last = drive.serve(60.0)
    drive.tick(60.0, read=last)
    decision = drive.tick(60.0, read=last)
    assert decision.hold.reason.code == "MetricsStale"
    assert decision.hold.reason.values == {"age_s": 125.0}
    assert decision.patch is None


def test_a_hold_says_since_when():
    drive = warm()
    first = drive.tick(60.0, read=DOWN)
    later = drive.tick(60.0, read=DOWN)
    assert first.hold.since_s == later.hold.since_s == first.at_s
    assert drive.tick(60.0).hold is None
    again = drive.tick(60.0, read=DOWN)
    assert again.hold.since_s == again.at_s


def test_not_a_number_holds():
    def sick(read):
        one, *others = read.pools["prefill"]
        return with_pool(
            read, "prefill", [replace(one, gauges={Signal.WAITING: float("nan")}), *others]
        )

    decision = warm().tick(60.0, spoil=sick)
    assert codes(decision) == ["MetricsNotFinite"]


@pytest.mark.parametrize(("running", "floor"), [(2, 1), (0, 0)], ids=["keeps", "wakes up"])
def test_requests_that_never_finished_keep_what_runs_and_wake_what_does_not(running, floor):
    """The first requests of a service queue up: arrivals are known, lengths are not."""
    pools = tuple(replace(p, min_replicas=floor) for p in ACTING.pools)
    asked, state, decision = replace(ACTING, pools=pools), State(), None
    for tick in range(3):
        at_s = START_S + 60.0 * tick
        waiting = {
            "prefill": (pod_sample("p", at_s, 0.0, waiting=50.0 * tick),),
            "decode": (pod_sample("d", at_s, 0.0, Role.DECODE),),
        }
        now = Fleet(at_s, {p.name: PoolFleet(running) for p in pools})
        state, decision = decide(asked, state, Inputs(Sample(at_s, waiting), now), at_s)
    assert [p.desired for p in decision.pools.values()] == [max(running, 1)] * 2
    assert "none has finished yet" in decision.reasons[0].message
    assert decision.observation is not None


def test_after_a_gap_the_whole_gap_is_one_interval():
    drive = warm()
    for _ in range(3):
        drive.tick(60.0, read=DOWN)
    decision = drive.tick(60.0)
    assert decision.observation.span_s == 240.0
    assert decision.observation.arrivals_rps == pytest.approx(60.0)


# ── latency metric missing: the last factors, decayed towards 1 ─────────────────────────────────


def test_without_a_latency_the_factors_fade():
    drive = warm()
    drive.run(15, 60.0, prefill_s=0.045)
    learnt = drive.decisions[-1].factors.of("prefill").level
    assert learnt > 1.1

    def without_latency(read):
        pods = read.pools["prefill"]
        kept = [{k: h for k, h in p.histograms.items() if k is not Signal.PREFILL_TIME}
                for p in pods]  # fmt: skip
        return with_pool(
            read, "prefill", [replace(p, histograms=h) for p, h in zip(pods, kept, strict=True)]
        )

    decisions = [drive.tick(60.0, spoil=without_latency) for _ in range(90)]
    assert all(decision.hold is None for decision in decisions)
    levels = [decision.factors.of("prefill").level for decision in decisions]
    assert learnt > levels[0] > levels[30] > levels[-1] > 1.0
    assert levels[-1] - 1.0 < 0.3 * (learnt - 1.0)


# ── zero traffic, observed: the floors ──────────────────────────────────────────────────────────


@pytest.mark.parametrize("floor", [0, 2], ids=["to zero", "to the floor"])
def test_silence_that_was_seen_goes_to_the_floors(floor):
    pools = (pool(min_replicas=floor), pool(Role.DECODE, min_replicas=floor))
    drive = Drive(service(mode=Mode.ACT, pools=pools), prefill=4, decode=4)
    drive.run(4, 20.0)
    decision = drive.run(150, 0.0)
    assert drive.replicas == {"prefill": floor, "decode": floor}
    assert decision.patch is None


def test_a_service_without_any_request_yet_is_sized_for_zero():
    drive = Drive(ACTING, prefill=3, decode=3)
    decision = drive.run(12, 0.0)
    assert decision.load is None
    assert desired(decision) == {"prefill": 1, "decode": 1}


# ── predictor fails or is absurd: last value, margin, reason ────────────────────────────────────


class Broken:
    name = "Broken"

    def __init__(self, ahead):
        self.ahead = ahead

    def start(self):
        return 0

    def update(self, state, _value, _weight=1.0):
        if self.ahead is None:
            raise PredictorError("singular matrix")
        return state + 1

    def predict(self, _state, steps):
        return forecaster("LastValue").start().ahead[:steps] + self.ahead


@pytest.mark.parametrize(
    "ahead", [None, float("nan"), 1e12, -5.0], ids=["fails", "nan", "absurd", "negative"]
)
def test_a_broken_predictor_is_the_last_value_with_margin(ahead, monkeypatch):
    broken = type(forecaster("LastValue"))(Broken(ahead))
    monkeypatch.setattr("planner.decision.forecast.forecaster", lambda _: broken)
    decision = warm().decisions[-1]
    assert "ForecastFallback" in codes(decision)
    tokens = decision.load.tokens[Role.PREFILL]
    assert tokens.mean_tps == tokens.seen_tps == pytest.approx(60.0 * ISL)
    assert tokens.up_tps > tokens.mean_tps


# ── load outside the profile: clamp, reason ─────────────────────────────────────────────────────


def test_load_outside_the_profile_is_clamped_with_a_reason():
    profiled = pool()
    surface = replace(profiled.prefill, knots_tokens=profiled.prefill.knots_tokens * 2000.0)
    drive = warm(service(mode=Mode.ACT, pools=(pool(prefill=surface), pool(Role.DECODE))))
    found = reason(drive.decisions[-1], "OutsideProfile")
    assert found.pool == "prefill"
    assert found.values == {"tokens": pytest.approx(ISL)}
    assert "outside the profile (200000 to" in found.message


def test_context_outside_the_profile_is_clamped_with_a_reason():
    profiled = pool(Role.DECODE)
    surface = replace(profiled.decode, contexts_tokens=profiled.decode.contexts_tokens * 10.0)
    pools = (pool(), replace(profiled, decode=surface))
    found = reason(warm(service(pools=pools)).decisions[-1], "OutsideProfile")
    assert found.pool == "decode"
    assert "mean context" in found.message


# ── SLA unreachable: best reachable latency, what breaks it, best effort ────────────────────────


@pytest.mark.parametrize(
    ("sla", "broken_by", "best", "below_s"),
    [
        pytest.param(Sla(0.02, 0.03), "prefill", "best_ttft_s", 0.2, id="TTFT"),
        pytest.param(Sla(0.5, 0.001), "decode", "best_itl_s", 0.02, id="ITL"),
    ],
)
def test_an_unreachable_sla_is_answered_with_what_can_be_had(sla, broken_by, best, below_s):
    drive = warm(service(mode=Mode.ACT, sla=sla), rps=40.0)
    decision = drive.decisions[-1]
    found = reason(decision, "SLAUnreachable")
    assert found.pool == broken_by
    target_s = sla.ttft_s if broken_by == "prefill" else sla.itl_s
    assert target_s < found.values[best] == getattr(decision.plan, best) < below_s
    assert f"{target_s * 1e3:.0f}" in found.message
    assert re.search(rf"{found.values[best] * 1e3:.0f} ms|{found.values[best] * 1e3:.1f} ms",
                     found.message)  # fmt: skip
    assert not decision.plan.reachable
    # Best effort: not the floors, and not everything.
    assert all(1 <= n < 64 for n in desired(decision).values())
    assert sum(desired(decision).values()) > 2
    assert drive.tick(40.0).patch is None


def test_the_classic_formula_says_so_too():
    sla = Sla(0.5, 0.001, statistic=Statistic.MEAN)
    decision = warm(service(mode=Mode.ACT, sla=sla), rps=5.0).decisions[-1]
    assert not decision.plan.reachable


def test_the_classic_formula_is_followed_through():
    sla = Sla(0.5, 0.03, statistic=Statistic.MEAN)
    drive = warm(service(mode=Mode.ACT, sla=sla), rps=80.0, ticks=12)
    decision = drive.decisions[-1]
    prefill_tps = float(pool().prefill.throughput_tps(ISL))
    assert decision.plan.pools["prefill"].up == -(-80.0 * ISL // prefill_tps)
    assert decision.plan.reachable
    spare = pool(Role.DECODE, name="spare", min_replicas=2)
    drive = warm(service(mode=Mode.ACT, sla=sla, pools=(*ACTING.pools, spare)), ticks=3)
    assert desired(drive.decisions[-1])["spare"] == 2


# ── not enough GPUs: best goodput that fits, the shortage in the reason ─────────────────────────


def test_a_gpu_limit_leaves_the_best_split_and_says_what_lacks():
    drive = warm(service(mode=Mode.ACT, limits=Limits(gpus={"h200": 4})), rps=200.0)
    decision = drive.decisions[-1]
    assert sum(desired(decision).values()) <= 4
    limited = [r for r in decision.reasons if r.code == "LimitedByBudget"]
    assert [r.pool for r in limited] == ["prefill", "decode"]
    for found in limited:
        assert found.values["wanted"] > found.values["planned"]
        assert found.values["shortage_gpus"] == found.values["wanted"] - found.values["planned"]
        assert "will miss the SLA" in found.message


def test_a_pod_that_lost_its_room_is_no_reason_to_remove_one_that_runs():
    """A target removes its highest numbers: a lower one may be the one that waits for a node."""
    drive = warm(with_window(0.0), rps=200.0, ticks=40)
    before = dict(drive.replicas)
    assert before["prefill"] > 2
    drive.room = {"prefill": before["prefill"] - 1}
    drive.run(5, 200.0)
    assert drive.replicas["prefill"] == before["prefill"]


def test_room_is_not_exceeded_and_says_what_lacks():
    drive = Drive(ACTING)
    drive.room = {"prefill": 2}
    decision = drive.run(6, 150.0)
    assert desired(decision)["prefill"] == 2
    found = reason(decision, "CapacityShortage")
    assert (found.pool, found.values["planned"]) == ("prefill", 2)
    assert found.values["shortage_gpus"] == found.values["wanted"] - 2
    assert "only 2 fit" in found.message


def test_what_an_order_without_nodes_holds_back_says_until_when():
    """Not the room that is there: it would read as if there were enough."""
    drive = Drive(ACTING)
    drive.room = {"prefill": 20}
    drive.run(3, 10.0)
    ends_s = drive.now_s + 300.0
    held = StuckMemory({"prefill": StuckCap(1, ends_s, 300.0, 20)})
    drive.state = replace(drive.state, stuck=held)
    found = reason(drive.tick(150.0), "CapacityShortage")
    assert "only 1 fit" in found.message
    assert found.message.endswith(
        "an order beyond that found no nodes, the next is given in 240 s, or as soon as more fit"
    )


def test_a_ceiling_says_so():
    pools = (pool(max_replicas=2), pool(Role.DECODE))
    decision = warm(service(mode=Mode.ACT, pools=pools), rps=150.0).decisions[-1]
    assert "maxReplicas is 2" in reason(decision, "TooManyReplicas").message


def test_a_capped_pool_that_another_stands_in_for_loses_nothing():
    pools = (
        pool(),
        pool(Role.DECODE, name="cheap", gpu_hour_price=0.5, max_replicas=2),
        pool(Role.DECODE, name="dear", gpu_hour_price=3.0),
    )
    decision = warm(service(mode=Mode.ACT, pools=pools), rps=1200.0).decisions[-1]
    found = reason(decision, "TooManyReplicas")
    assert found.pool == "cheap"
    assert "will miss the SLA" not in found.message
    assert desired(decision)["dear"] > 1


# ── the cluster does not answer ─────────────────────────────────────────────────────────────────


def test_without_the_cluster_nothing_is_done():
    drive = warm()
    decision = drive.tick(60.0, cluster=ClusterError("the API server is unreachable"))
    assert decision.hold.reason.code == "ClusterUnavailable"
    assert (decision.pools, decision.patch) == ({}, None)
    assert drive.tick(60.0).hold is None


# ── metrics gone for long: rise to the fallback, never lower ────────────────────────────────────

FALLBACK = Fallback(180.0, {"prefill": 8, "decode": 2})


@pytest.mark.parametrize(
    ("running", "room", "expected"),
    [
        pytest.param({"prefill": 4, "decode": 1}, {}, {"prefill": 8, "decode": 2}, id="rises"),
        pytest.param({"prefill": 9, "decode": 5}, {}, {"prefill": 9, "decode": 5}, id="stays"),
        pytest.param({"prefill": 9, "decode": 1}, {}, {"prefill": 9, "decode": 2}, id="by pool"),
        pytest.param({"prefill": 4, "decode": 1}, {"prefill": 6}, {"prefill": 6, "decode": 2},
                     id="as far as it fits"),
        pytest.param({"prefill": 4, "decode": 1}, {"prefill": 3}, {"prefill": 4, "decode": 2},
                     id="what runs has room"),
    ],
)  # fmt: skip
def test_long_blindness_rises_to_the_fallback_and_never_lowers(running, room, expected):
    drive = Drive(service(mode=Mode.ACT, fallback=FALLBACK), **running)
    drive.room = room
    drive.tick(20.0, read=DOWN)
    for _ in range(2):
        assert drive.tick(20.0, read=DOWN).patch is None
    decision = drive.tick(20.0, read=DOWN)
    assert desired(decision) == expected
    assert reason(decision, "Fallback").values == {"blind_s": 180.0}
    assert "no usable metrics for 180 s" in reason(decision, "Fallback").message
    assert decision.hold is not None
    changed = {name: n for name, n in expected.items() if n != running[name]}
    assert (decision.patch.replicas if decision.patch else {}) == changed


def test_a_fallback_never_exceeds_the_ceiling():
    pools = (pool(max_replicas=5), pool(Role.DECODE))
    drive = Drive(service(mode=Mode.ACT, fallback=FALLBACK, pools=pools))
    for _ in range(5):
        decision = drive.tick(20.0, read=DOWN)
    assert desired(decision) == {"prefill": 5, "decode": 2}


def test_when_metrics_return_the_fallback_waits_for_the_window():
    drive = Drive(service(mode=Mode.ACT, fallback=FALLBACK))
    for _ in range(8):
        drive.tick(10.0, read=DOWN)
    assert drive.replicas == {"prefill": 8, "decode": 2}
    history = [desired(drive.tick(10.0))["prefill"] for _ in range(6)]
    assert history[:3] == [8] * 3
    assert history[3] < 8


# ── births, deaths, resets, gaps, others ────────────────────────────────────────────────────────


def test_a_start_without_history_waits_with_scale_down():
    drive = Drive(ACTING, prefill=6, decode=6)
    history = [desired(drive.tick(10.0))["prefill"] for _ in range(6)]
    # One interval to know a rate, then two that are waited for.
    assert history[:3] == [6] * 3
    assert history[3] < 6


def test_a_counter_reset_is_no_load_and_no_silence():
    drive = warm(rps=60.0)
    drive.finished = dict.fromkeys(drive.finished, 0.0)
    decision = drive.tick(60.0)
    assert decision.observation.arrivals_rps == pytest.approx(60.0)


def test_pods_born_and_dying_inside_an_interval_count():
    drive = Drive(ACTING, follow=False, prefill=2, decode=2)
    drive.run(2, 60.0)
    drive.replicas["prefill"] = 3
    born = drive.tick(60.0)
    assert born.observation.arrivals_rps == pytest.approx(60.0)

    def one_dies(read):
        *alive, dying = read.pools["prefill"]
        return with_pool(read, "prefill", [*alive, replace(dying, at_s=dying.at_s - 40.0)])

    dies = drive.tick(60.0, spoil=one_dies)
    assert dies.observation.arrivals_rps == pytest.approx(60.0, rel=0.02)
    assert dies.observation.pools["prefill"].pods == 2
    assert dies.factors.frozen == ("prefill",)


def test_a_pod_back_from_a_scrape_gap_does_not_bring_its_whole_life():
    drive = Drive(ACTING, follow=False, prefill=3, decode=1)
    drive.run(30, 60.0)
    lost = drive.tick(
        60.0, spoil=lambda read: with_pool(read, "prefill", read.pools["prefill"][:2])
    )
    assert lost.observation.arrivals_rps == pytest.approx(40.0)
    back = drive.tick(60.0)
    assert back.observation.arrivals_rps == pytest.approx(40.0)
    assert drive.tick(60.0).observation.arrivals_rps == pytest.approx(60.0)


def test_a_decision_starts_from_what_is_there_whoever_put_it_there():
    drive = warm(rps=60.0)
    drive.replicas["prefill"] = 9
    decision = drive.tick(60.0)
    assert decision.pools["prefill"].current == 9
    assert decision.patch is None or decision.patch.replicas.get("prefill", 9) <= 9
    assert drive.state.constrain.events["prefill"][-1].change == 9 - 3
    drive.replicas["prefill"] = 1
    lifted = drive.tick(60.0)
    assert lifted.patch.replicas["prefill"] == 3


def test_one_burst_does_not_scale_down_while_the_window_runs():
    drive = warm(with_window(120.0), rps=60.0)
    history = [desired(drive.tick(5.0))["prefill"] for _ in range(8)]
    assert history[:2] == [3, 2]  # all of the burst, then what the window still holds of it
    assert history[-1] == 1


# ── modes and counts ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", [Mode.OFF, Mode.RECOMMEND])
def test_only_acting_patches(mode):
    drive = warm(service(mode=mode), rps=60.0)
    decision = drive.decisions[-1]
    assert desired(decision)["prefill"] == 3
    assert decision.patch is None


def test_a_patch_counts_in_pods_of_the_target():
    pools = (pool(pods_per_replica=2), pool(Role.DECODE))
    state = State()
    for tick, finished in enumerate((0.0, 3600.0)):
        at_s = START_S + 60.0 * tick
        asked = service(mode=Mode.ACT, pools=pools)
        inputs = Inputs(sample(at_s, finished), fleet(at_s, prefill=2))
        state, decision = decide(asked, state, inputs, at_s)
    assert decision.pools["prefill"].current == 1
    assert decision.patch.replicas["prefill"] == 2 * decision.pools["prefill"].desired


def test_ready_pods_and_lead_are_told():
    fleets = replace(fleet(START_S), pools={
        "prefill": PoolFleet(2, (Pod("a", 0.0, 90.0), Pod("b", 0.0))),
        "decode": PoolFleet(1),
    })  # fmt: skip
    _, decision = decide(ACTING, State(), Inputs(sample(), fleets), START_S)
    told = decision.pools["prefill"]
    assert (told.current, told.ready) == (2, 1)
    assert told.lead_s > 60.0
