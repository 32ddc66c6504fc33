"""`behavior` against HPA's semantics: a table of cases, and HPA's own words on random histories."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.decision.behavior import (
    Outcome,
    Recommendation,
    ScaleEvent,
    apply_behavior,
)
from planner.model import Behavior, PolicyType, ScalingPolicy, ScalingRules, SelectPolicy

NOW_S = 10_000.0
PODS, PERCENT = PolicyType.PODS, PolicyType.PERCENT
MAX, MIN, DISABLED = SelectPolicy.MAX, SelectPolicy.MIN, SelectPolicy.DISABLED
FREE = ScalingRules()


def rules(*policies, select=MAX, window_s=0.0, tolerance=0.0):
    made = tuple(ScalingPolicy(kind, value, period_s) for kind, value, period_s in policies)
    return ScalingRules(window_s, select, made, tolerance)


def outcome(current, wanted, behavior, *, events=(), past=()) -> Outcome:
    """`past` and `events` are (seconds ago, value); `wanted` is a number or (up, keep)."""
    up, keep = wanted if isinstance(wanted, tuple) else (wanted, wanted)
    history = [Recommendation(NOW_S - ago_s, value, value) for ago_s, value in past]
    return apply_behavior(
        "decode",
        current,
        [*history, Recommendation(NOW_S, up, keep)],
        [ScaleEvent(NOW_S - ago_s, change) for ago_s, change in events],
        behavior,
        NOW_S,
    )


def case(name, current, wanted, expected, *, up=FREE, down=FREE, events=(), past=()):
    behavior = Behavior(up, down)
    return pytest.param(current, wanted, expected, behavior, events, past, id=name)


UP_4_OR_100 = rules((PODS, 4, 15.0), (PERCENT, 100, 15.0))
DEFAULT = Behavior()


@pytest.mark.parametrize(
    ("current", "wanted", "expected", "behavior", "events", "past"),
    [
        # no rules
        case("free up", 3, 90, 90),
        case("free down", 90, 3, 3),
        case("free to zero", 90, 0, 0),
        case("from zero", 0, 5, 5),
        case("steady", 7, 7, 7),
        # defaults: up at once, down after a minute
        case("default up is not limited", 3, 90, 90, up=DEFAULT.scale_up, down=DEFAULT.scale_down),
        case("default down waits", 9, 3, 9, up=DEFAULT.scale_up, down=DEFAULT.scale_down,
             past=[(59, 9)]),
        case("default down is due", 9, 3, 3, up=DEFAULT.scale_up, down=DEFAULT.scale_down,
             past=[(60, 9), (59, 3)]),
        case("default down passes over 5 %", 20, 19, 20, up=DEFAULT.scale_up,
             down=DEFAULT.scale_down, past=[(400, 9)]),
        case("default up passes over nothing", 10, 11, 11, up=DEFAULT.scale_up,
             down=DEFAULT.scale_down),
        # Pods
        case("pods up", 10, 30, 14, up=rules((PODS, 4, 60.0))),
        case("pods down", 10, 1, 6, down=rules((PODS, 4, 60.0))),
        case("pods enough", 10, 12, 12, up=rules((PODS, 4, 60.0))),
        case("pods down below zero", 3, 0, 0, down=rules((PODS, 9, 60.0))),
        # Percent: up is rounded up, down is cut off
        case("percent up", 10, 30, 15, up=rules((PERCENT, 50, 60.0))),
        case("percent up rounds up", 5, 30, 8, up=rules((PERCENT, 50, 60.0))),
        case("percent up never stalls", 1, 30, 2, up=rules((PERCENT, 10, 60.0))),
        case("percent up from zero stalls", 0, 30, 0, up=rules((PERCENT, 100, 60.0))),
        case("percent down", 10, 1, 5, down=rules((PERCENT, 50, 60.0))),
        case("percent down cuts off", 5, 1, 2, down=rules((PERCENT, 50, 60.0))),
        case("percent down all", 5, 0, 0, down=rules((PERCENT, 100, 15.0))),
        case("percent down of one", 1, 0, 0, down=rules((PERCENT, 10, 60.0))),
        case("percent is no victim of binary fractions", 10, 30, 11, up=rules((PERCENT, 10, 60.0))),
        # selectPolicy
        case("HPA's default up: pods rule when small", 3, 90, 7, up=UP_4_OR_100),
        case("HPA's default up: percent rules when large", 30, 90, 60, up=UP_4_OR_100),
        case("min up: tightest", 30, 90, 34,
             up=rules((PODS, 4, 15.0), (PERCENT, 100, 15.0), select=MIN)),
        case("max down: loosest", 30, 1, 15,
             down=rules((PODS, 4, 60.0), (PERCENT, 50, 60.0))),
        case("min down: tightest", 30, 1, 26,
             down=rules((PODS, 4, 60.0), (PERCENT, 50, 60.0), select=MIN)),
        case("disabled up", 10, 30, 10, up=rules((PODS, 4, 60.0), select=DISABLED)),
        case("disabled up without policies", 10, 30, 10, up=rules(select=DISABLED)),
        case("disabled up still goes down", 10, 3, 3, up=rules(select=DISABLED)),
        case("disabled down", 10, 3, 10, down=rules(select=DISABLED)),
        case("disabled down still goes up", 10, 30, 30, down=rules(select=DISABLED)),
        # periods: counted from the replicas at their start
        case("pods used up", 14, 30, 14, up=rules((PODS, 4, 60.0)), events=[(59, 4)]),
        case("pods free again", 14, 30, 18, up=rules((PODS, 4, 60.0)), events=[(60, 4)]),
        case("pods half used", 12, 30, 14, up=rules((PODS, 4, 60.0)), events=[(30, 2)]),
        case("pods of two events", 13, 30, 14, up=rules((PODS, 4, 60.0)),
             events=[(50, 2), (20, 1)]),
        case("percent of the period's start", 15, 90, 15, up=rules((PERCENT, 50, 60.0)),
             events=[(30, 5)]),
        case("down used up", 6, 1, 6, down=rules((PODS, 4, 60.0)), events=[(30, -4)]),
        case("percent down of the period's start", 5, 0, 5, down=rules((PERCENT, 50, 60.0)),
             events=[(30, -5)]),
        case("a fall gives room to rise", 6, 30, 14, up=rules((PODS, 4, 60.0)),
             events=[(30, -4)]),
        case("a rise gives room to fall", 14, 1, 6, down=rules((PODS, 4, 60.0)),
             events=[(30, 4)]),
        case("more than allowed is not taken back", 30, 40, 30, up=rules((PODS, 4, 60.0)),
             events=[(30, 20)]),
        case("less than allowed is not brought back", 10, 5, 10, down=rules((PODS, 4, 60.0)),
             events=[(30, -20)]),
        case("each policy has its own period", 14, 30, 20,
             up=rules((PODS, 4, 60.0), (PODS, 10, 600.0)), events=[(120, 4)]),
        # stabilisation: up takes the least, down the most of its window
        case("up window: least", 3, 9, 5, up=rules(window_s=120.0), past=[(60, 5)]),
        case("up window: below current", 3, 9, 3, up=rules(window_s=120.0), past=[(60, 2)]),
        case("up window: over", 3, 9, 9, up=rules(window_s=120.0), past=[(120, 2), (60, 9)]),
        case("down window: most", 9, 2, 6, down=rules(window_s=120.0), past=[(60, 6)]),
        case("down window: above current", 9, 2, 9, down=rules(window_s=120.0), past=[(60, 12)]),
        case("down window: over", 9, 2, 2, down=rules(window_s=120.0), past=[(120, 12)]),
        case("windows of both directions", 5, 2, 5, up=rules(window_s=600.0),
             down=rules(window_s=300.0), past=[(400, 1), (200, 9)]),
        case("down window does not hold a rise back", 5, 9, 9, down=rules(window_s=300.0),
             past=[(60, 2)]),
        case("up window does not hold a fall back", 5, 2, 2, up=rules(window_s=300.0),
             past=[(60, 9)]),
        # tolerance: both ends included
        case("tolerance up within", 10, 11, 10, up=rules(tolerance=0.1)),
        case("tolerance up beyond", 10, 12, 12, up=rules(tolerance=0.1)),
        case("tolerance down within", 10, 9, 10, down=rules(tolerance=0.1)),
        case("tolerance down beyond", 9, 8, 8, down=rules(tolerance=0.1)),
        case("tolerance of the other direction", 10, 9, 9, up=rules(tolerance=0.5)),
        case("tolerance from zero", 0, 1, 1, up=rules(tolerance=1.0)),
        case("tolerance to zero", 1, 0, 0, down=rules(tolerance=0.99)),
        case("tolerance is judged on what the window left", 20, 10, 20,
             down=rules(window_s=300.0, tolerance=0.1), past=[(60, 19)]),
        # together
        case("window, then policies", 10, 2, 8, down=rules((PODS, 2, 60.0), window_s=120.0),
             past=[(60, 5)]),
        # two sides
        case("between up and keep nothing moves", 5, (3, 7), 5),
        case("up is reached", 2, (3, 7), 3),
        case("keep is not released", 9, (3, 7), 7),
        case("keep counts in the down window, up in the up window", 9, (1, 4), 6,
             up=rules(window_s=300.0), down=rules(window_s=300.0), past=[(60, 6)]),
    ],
)  # fmt: skip
def test_behavior_is_hpas(current, wanted, expected, behavior, events, past):
    found = outcome(current, wanted, behavior, events=events, past=past)
    assert found.replicas == expected
    up, keep = wanted if isinstance(wanted, tuple) else (wanted, wanted)
    codes = [reason.code for reason in found.reasons]
    direct = min(max(current, up), keep)
    assert ("KeptForForecast" in codes) == (direct > up)
    if expected != direct:
        assert codes != ["KeptForForecast"] * (direct > up), "what was held back says why"
    else:
        assert codes == ["KeptForForecast"] * (direct > up)


@pytest.mark.parametrize(
    ("current", "wanted", "behavior", "past", "code", "values"),
    [
        pytest.param(9, 3, DEFAULT, [(30, 9)], "ScaleDownStabilized",
                     {"recommended": 3, "held": 9, "window_s": 60.0}, id="down window"),
        pytest.param(3, 9, Behavior(rules(window_s=120.0), FREE), [(60, 4)], "ScaleUpStabilized",
                     {"recommended": 9, "held": 4, "window_s": 120.0}, id="up window"),
        pytest.param(20, 19, DEFAULT, [], "WithinTolerance", {"recommended": 19, "held": 20},
                     id="tolerance"),
        pytest.param(10, 30, Behavior(rules((PODS, 4, 60.0)), FREE), [], "ScaleUpLimit",
                     {"recommended": 30, "limited": 14}, id="up policy"),
        pytest.param(10, 1, Behavior(FREE, rules((PODS, 4, 60.0))), [], "ScaleDownLimit",
                     {"recommended": 1, "limited": 6}, id="down policy"),
    ],
)  # fmt: skip
def test_what_is_held_back_says_why_with_numbers(current, wanted, behavior, past, code, values):
    (reason,) = outcome(current, wanted, behavior, past=past).reasons
    assert (reason.code, reason.pool, reason.values) == (code, "decode", values)
    numbers = [f"{number:.0f}" for number in values.values()]
    assert all(number in reason.message for number in numbers)


def in_hpas_words(current, wanted, behavior, events, past):
    """HPA v2 with one number a recommendation: stabilise between the windows, then rate-limit."""

    def started(policy):
        return current - sum(change for ago_s, change in events if ago_s < policy.period_s)

    ups = [value for ago_s, value in past if ago_s < behavior.scale_up.stabilization_window_s]
    downs = [value for ago_s, value in past if ago_s < behavior.scale_down.stabilization_window_s]
    stable = current
    stable = max(stable, min([wanted, *ups]))
    stable = min(stable, max([wanted, *downs]))
    if stable == current:
        return stable
    rising = stable > current
    direction = behavior.scale_up if rising else behavior.scale_down
    if direction.select_policy is DISABLED:
        return current
    limits = []
    for policy in direction.policies:
        by = policy.value if policy.type is PODS else started(policy) * policy.value / 100
        if rising:
            limits.append(math.ceil(round(started(policy) + by, 6)))
        else:
            limits.append(math.trunc(round(started(policy) - by, 6)))
    if not limits:
        return stable
    if rising:
        limit = min(limits) if direction.select_policy is MIN else max(limits)
        return min(stable, max(limit, current))
    limit = max(limits) if direction.select_policy is MIN else min(limits)
    return max(stable, min(limit, current))


ANY_RULES = st.builds(
    rules,
    st.tuples(st.sampled_from([PODS, PERCENT]), st.integers(1, 120), st.sampled_from([15, 60, 90])),
    st.tuples(st.sampled_from([PODS, PERCENT]), st.integers(1, 120), st.sampled_from([15, 60, 90])),
    select=st.sampled_from(SelectPolicy),
    window_s=st.sampled_from([0.0, 45.0, 300.0]),
) | st.builds(rules, window_s=st.sampled_from([0.0, 45.0, 300.0]))


@given(
    current=st.integers(0, 60),
    wanted=st.integers(0, 60),
    behavior=st.builds(Behavior, ANY_RULES, ANY_RULES),
    events=st.lists(st.tuples(st.integers(1, 120), st.integers(-9, 9)), max_size=4),
    past=st.lists(st.tuples(st.integers(1, 400), st.integers(0, 60)), max_size=6),
)
def test_any_history_ends_as_hpa_would(current, wanted, behavior, events, past):
    found = outcome(current, wanted, behavior, events=events, past=past).replicas
    assert found == in_hpas_words(current, wanted, behavior, events, past)
