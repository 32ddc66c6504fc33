"""Constrain: bounds, ratio, budgets, memory; each cap with its reason."""

from dataclasses import replace

import pytest

from planner.decision.behavior import Recommendation, ScaleEvent
from planner.decision.constrain import MEMORY_S, ConstrainMemory, constrain, note_fleet
from planner.model import (
    Behavior,
    Limits,
    Plan,
    PolicyType,
    PoolPlan,
    Role,
    ScalingPolicy,
    ScalingRules,
    SelectPolicy,
)
from tests.builders import START_S, pool, service

FREE = Behavior(ScalingRules(), ScalingRules())


def asked(limits=Limits(), behavior=FREE, prefill=None, decode=None):  # noqa: B008
    return service(
        limits=limits,
        pools=(
            pool(Role.PREFILL, **({"behavior": behavior} | (prefill or {}))),
            pool(Role.DECODE, **({"behavior": behavior} | (decode or {}))),
        ),
    )


def plan(**pools) -> Plan:
    """`plan(prefill=3, decode=(3, 7))`: reach 3, keep up to 7."""
    sides = {name: n if isinstance(n, tuple) else (n, n) for name, n in pools.items()}
    return Plan({name: PoolPlan(up, up, keep) for name, (up, keep) in sides.items()}, {})


def decided(who, wanted, current, room=None, memory=ConstrainMemory(), now_s=START_S):  # noqa: B008
    memory = note_fleet(memory, current, now_s)
    memory, desired, reasons = constrain(who, memory, wanted, current, room or {}, now_s)
    return desired, reasons


def pair(desired):
    return desired["prefill"], desired["decode"]


ONES = {"prefill": 1, "decode": 1}


@pytest.mark.parametrize(
    ("who", "wanted", "current", "room", "expected", "codes"),
    [
        pytest.param(asked(), plan(prefill=3, decode=4), ONES, {}, (3, 4), [], id="as planned"),
        pytest.param(asked(prefill={"max_replicas": 2}), plan(prefill=3, decode=4), ONES, {},
                     (2, 4), ["TooManyReplicas"], id="ceiling"),
        pytest.param(asked(decode={"min_replicas": 6}), plan(prefill=3, decode=4), ONES, {},
                     (3, 6), ["TooFewReplicas"], id="floor"),
        pytest.param(asked(), plan(prefill=3, decode=9), ONES, {"decode": 5},
                     (3, 5), ["CapacityShortage"], id="room"),
        pytest.param(asked(), plan(prefill=3, decode=9), {"prefill": 1, "decode": 7},
                     {"decode": 5}, (3, 7), ["CapacityShortage"], id="what runs has room"),
        pytest.param(asked(decode={"min_replicas": 6}), plan(prefill=3, decode=6),
                     ONES, {"decode": 4}, (3, 4), ["CapacityShortage"], id="room below the floor"),
        pytest.param(asked(decode={"max_replicas": 6}), plan(prefill=3, decode=6),
                     {"prefill": 3, "decode": 9}, {}, (3, 6), [], id="more runs than may"),
        pytest.param(asked(decode={"max_replicas": 6}), plan(prefill=3, decode=(6, 9)),
                     {"prefill": 3, "decode": 9}, {}, (3, 6), ["TooManyReplicas"],
                     id="more runs than may, and would be kept"),
    ],
)  # fmt: skip
def test_bounds(who, wanted, current, room, expected, codes):
    desired, reasons = decided(who, wanted, current, room)
    reasons = [r for r in reasons if r.code != "KeptForForecast"]
    assert pair(desired) == expected
    assert [reason.code for reason in reasons] == codes
    for reason in reasons:
        assert reason.pool is not None
        assert set(reason.values) & {"wanted", "capped", "floor"}


@pytest.mark.parametrize(
    ("limits", "wanted", "current", "expected"),
    [
        pytest.param(Limits(ratio_max=2.0), plan(prefill=4, decode=2), ONES, (4, 2), id="within"),
        pytest.param(Limits(ratio_max=2.0), plan(prefill=9, decode=2), ONES, (4, 2),
                     id="too much prefill is not added"),
        pytest.param(Limits(ratio_max=2.0), plan(prefill=9, decode=2), {"prefill": 9, "decode": 2},
                     (9, 5), id="what runs is matched instead"),
        pytest.param(Limits(ratio_max=2.0), plan(prefill=10, decode=3), {"prefill": 8, "decode": 3},
                     (8, 4), id="matched to what is left after not adding"),
        pytest.param(Limits(ratio_min=0.5), plan(prefill=1, decode=9), ONES, (1, 2),
                     id="too much decode is not added"),
        pytest.param(Limits(ratio_min=0.5), plan(prefill=1, decode=9), {"prefill": 1, "decode": 9},
                     (5, 9), id="what decodes is matched"),
        pytest.param(Limits(ratio_min=0.0), plan(prefill=0, decode=9), ONES, (1, 9),
                     id="a bound of zero is none"),
    ],
)  # fmt: skip
def test_ratio(limits, wanted, current, expected):
    desired, reasons = decided(asked(limits), wanted, current)
    assert pair(desired) == expected
    planned = (max(wanted.pools["prefill"].up, 1), wanted.pools["decode"].up)
    if expected == planned:
        assert "RatioBound" not in [reason.code for reason in reasons]
    else:
        (reason,) = reasons
        assert reason.code == "RatioBound"
        assert reason.values["bound"] in {0.5, 2.0}
        assert (reason.values["prefill"], reason.values["decode"]) == expected


def test_ratio_is_not_kept_beyond_what_fits():
    who = asked(Limits(ratio_max=2.0), decode={"max_replicas": 3})
    desired, reasons = decided(who, plan(prefill=9, decode=2), {"prefill": 9, "decode": 2})
    assert pair(desired) == (9, 3)
    assert [reason.code for reason in reasons] == ["RatioBound"]
    desired, _ = decided(who, plan(prefill=9, decode=2), {"prefill": 9, "decode": 2}, {"decode": 2})
    assert pair(desired) == (9, 2)


@pytest.mark.parametrize(
    ("limits", "wanted", "current", "expected"),
    [
        pytest.param(Limits(gpus={"h200": 12}), plan(prefill=4, decode=4), ONES, (4, 4), id="fits"),
        pytest.param(Limits(gpus={"h200": 10}), plan(prefill=4, decode=4), ONES, (3, 4),
                     id="additions are cut, the best staffed first"),
        pytest.param(Limits(gpus={"h200": 10}), plan(prefill=(2, 4), decode=4),
                     {"prefill": 4, "decode": 4}, (3, 4), id="then what the plan can spare"),
        pytest.param(Limits(gpus={"h200": 3}), plan(prefill=4, decode=4),
                     {"prefill": 4, "decode": 4}, (1, 1), id="then down to the floors"),
        pytest.param(Limits(gpus={"other": 1}), plan(prefill=4, decode=4), ONES, (4, 4),
                     id="another type"),
        pytest.param(Limits(cost_per_hour=10.0), plan(prefill=4, decode=4), ONES, (3, 4),
                     id="cost"),
    ],
)  # fmt: skip
def test_budgets(limits, wanted, current, expected):
    who = asked(limits, prefill={"gpus_per_replica": 2})
    desired, reasons = decided(who, wanted, current)
    assert pair(desired) == expected
    cut = [name for name, replicas in zip(ONES, expected, strict=True) if replicas < 4]
    reasons = [r for r in reasons if r.code != "KeptForForecast"]
    assert [(r.code, r.pool) for r in reasons] == [("LimitedByBudget", name) for name in cut]
    for reason in reasons:
        assert reason.values["capped"] == desired[reason.pool]
        assert reason.values["wanted"] > reason.values["capped"]


def test_what_a_ratio_adds_fills_the_budget_at_once():
    # 3 GPUs a prefill replica, one a decode replica, three on spot: 16 of 17 GPUs before the ratio.
    spot = pool(Role.DECODE, name="spot", gpus_per_replica=3, min_replicas=0, max_replicas=2)
    who = asked(
        Limits(gpus={"h200": 17}, ratio_max=1.0),
        prefill={"gpus_per_replica": 3},
        decode={"max_replicas": 2},
    )
    who = replace(who, pools=(*who.pools, spot))
    current = {"prefill": 4, "decode": 1, "spot": 0}
    needed = Plan({n: PoolPlan(c, c, c) for n, c in zip(current, (4, 0, 2), strict=True)}, {})
    desired, reasons = decided(who, needed, current)
    assert dict(desired) == {"prefill": 4, "decode": 2, "spot": 1}
    assert [r.code for r in reasons] == ["TooFewReplicas", "LimitedByBudget", "RatioBound"]


def test_free_replicas_are_no_cost():
    who = asked(Limits(cost_per_hour=1.0), prefill={"gpu_hour_price": 0.0})
    assert pair(decided(who, plan(prefill=9, decode=4), ONES)[0]) == (9, 1)


# ── memory ───────────────────────────────────────────────────────────────────────────────────────


def test_changes_are_noted_when_they_are_seen_whoever_made_them():
    memory = ConstrainMemory()
    for now_s, replicas in ((0.0, 3), (60.0, 3), (120.0, 8), (180.0, 5)):
        memory = note_fleet(memory, {"prefill": replicas}, START_S + now_s)
    assert memory.events["prefill"] == (
        ScaleEvent(START_S + 60.0, 5),
        ScaleEvent(START_S + 120.0, -3),
    )


def test_a_change_after_a_gap_is_noted_at_the_last_time_before_it():
    memory = ConstrainMemory(replicas={"prefill": 3})
    noted = note_fleet(memory, {"prefill": 4}, START_S)
    assert noted.events["prefill"] == (ScaleEvent(START_S, 1),)


def test_nothing_older_than_the_longest_window_is_remembered():
    memory = ConstrainMemory()
    who = asked()
    for tick in range(90):
        now_s = START_S + 60.0 * tick
        current = {"prefill": 1 + tick % 2, "decode": 1}
        memory = note_fleet(memory, current, now_s)
        memory, _, _ = constrain(who, memory, plan(prefill=1, decode=1), current, {}, now_s)
    oldest_s = START_S + 60.0 * 89 - MEMORY_S
    assert all(event.at_s > oldest_s for event in memory.events["prefill"])
    assert all(r.at_s > oldest_s for r in memory.recommendations["prefill"])


WAITS = Behavior(ScalingRules(), ScalingRules(stabilization_window_s=300.0))


@pytest.mark.parametrize(
    ("seen_ago_s", "expected"),
    [
        pytest.param([], 9, id="nothing remembered"),
        pytest.param([300.0], 9, id="a gap as long as the window"),
        pytest.param([240.0], 2, id="a shorter gap"),
    ],
)
def test_scale_down_waits_until_the_window_was_seen(seen_ago_s, expected):
    past = tuple(Recommendation(START_S - ago_s, 2, 2) for ago_s in seen_ago_s)
    memory = ConstrainMemory({"prefill": past, "decode": past})
    current = {"prefill": 9, "decode": 9}
    who = asked(behavior=WAITS)
    desired, reasons = decided(who, plan(prefill=2, decode=2), current, memory=memory)
    assert pair(desired) == (expected, expected)
    assert [r.code for r in reasons] == (["ScaleDownStabilized"] * 2 if expected == 9 else [])


def test_scale_up_does_not_wait_for_the_window_to_be_seen():
    waits_up = Behavior(ScalingRules(stabilization_window_s=300.0), ScalingRules())
    assert pair(decided(asked(behavior=waits_up), plan(prefill=9, decode=9), ONES)[0]) == (9, 9)


@pytest.mark.parametrize("window_s", [0.0, 30.0, 60.0])
def test_a_window_shorter_than_the_interval_does_not_hold_for_ever(window_s):
    who = asked(behavior=Behavior(ScalingRules(), ScalingRules(window_s)))
    memory, current = ConstrainMemory(), {"prefill": 9, "decode": 9}
    history = []
    for tick in range(3):
        now_s = START_S + 60.0 * tick
        memory = note_fleet(memory, current, now_s)
        memory, desired, _ = constrain(who, memory, plan(prefill=2, decode=2), current, {}, now_s)
        history.append(pair(desired))
    # A start without history waits for two intervals, unless it is not to wait at all.
    waits = [(2, 2)] * 2 if window_s == 0.0 else [(9, 9)] * 2
    assert history == [*waits, (2, 2)]


def test_a_policy_sees_the_changes_of_its_period():
    slow = Behavior(ScalingRules(policies=(ScalingPolicy(PolicyType.PODS, 2, 120.0),)))
    who, memory, current = asked(behavior=slow), ConstrainMemory(), dict(ONES)
    history = []
    for tick in range(5):
        now_s = START_S + 60.0 * tick
        memory = note_fleet(memory, current, now_s)
        memory, desired, _ = constrain(who, memory, plan(prefill=9, decode=1), current, {}, now_s)
        current = dict(desired)
        history.append(desired["prefill"])
    assert history == [3, 3, 5, 5, 7]


def test_a_plan_is_not_changed_by_constraining_it():
    wanted = plan(prefill=9, decode=9)
    before = replace(wanted)
    decided(asked(Limits(gpus={"h200": 4})), wanted, ONES)
    assert wanted == before


@pytest.mark.parametrize(
    ("gpus", "expected"), [(100, (22, 6)), (28, (22, 6)), (27, (22, 5)), (25, (21, 4))]
)
def test_under_a_binding_budget_a_window_gives_way_before_another_pools_need(gpus, expected):
    """Decode holds 6 for its window though 4 would do; prefill has 19 and needs 22."""
    who = asked(Limits(gpus={"h200": gpus}), behavior=WAITS)
    who = replace(who, pools=tuple(replace(p, gpu_type="h200") for p in who.pools))
    seen = ConstrainMemory({"decode": (Recommendation(START_S - 60.0, 6, 6),)})
    desired, reasons = decided(
        who, plan(prefill=22, decode=(3, 4)), {"prefill": 19, "decode": 6}, memory=seen
    )
    assert pair(desired) == expected
    assert ("LimitedByBudget" in [r.code for r in reasons]) == (gpus < 28)


def test_a_window_that_may_not_release_at_all_holds_under_a_budget():
    still = ScalingRules(select_policy=SelectPolicy.DISABLED)
    who = asked(Limits(gpus={"h200": 25}), decode={"behavior": Behavior(scale_down=still)})
    who = replace(who, pools=tuple(replace(p, gpu_type="h200") for p in who.pools))
    desired, _ = decided(who, plan(prefill=22, decode=4), {"prefill": 19, "decode": 6})
    assert pair(desired) == (19, 6)
