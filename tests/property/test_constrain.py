"""What no input may make `constrain` do."""

from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from planner.decision.behavior import Recommendation, ScaleEvent
from planner.decision.constrain import ConstrainMemory, constrain, note_fleet
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
    Service,
)
from tests.builders import START_S, pool, service


@dataclass(frozen=True)
class Case:
    service: Service
    memory: ConstrainMemory
    plan: Plan
    current: dict[str, int]
    room: dict[str, int]

    def decide(self):
        memory = note_fleet(self.memory, self.current, START_S)
        return constrain(self.service, memory, self.plan, self.current, self.room, START_S)


POLICIES = st.lists(
    st.builds(
        ScalingPolicy, st.sampled_from(PolicyType), st.integers(1, 100), st.sampled_from([60.0])
    ),
    max_size=2,
).map(tuple)
RULES = st.builds(
    ScalingRules,
    st.sampled_from([0.0, 120.0, 300.0]),
    st.sampled_from(SelectPolicy),
    POLICIES,
    st.sampled_from([0.0, 0.1]),
)
NAMES = ("prefill", "decode", "decode-spot")


@st.composite
def cases(draw, *, behavior=None, ratios=True):
    names = NAMES[: draw(st.integers(2, 3))]
    floors = {name: draw(st.integers(0, 2)) for name in names}
    gpus = {name: draw(st.integers(1, 3)) for name in names}
    pools = tuple(
        pool(
            Role.PREFILL if name == "prefill" else Role.DECODE,
            name=name,
            min_replicas=floors[name],
            max_replicas=floors[name] + draw(st.integers(1, 12)),
            gpus_per_replica=gpus[name],
            gpu_hour_price=draw(st.sampled_from([None, 0.5, 3.0])),
            behavior=behavior or draw(st.builds(Behavior, RULES, RULES)),
        )
        for name in names
    )
    footprint = sum(floors[name] * gpus[name] for name in names)
    price = sum(p.min_replicas * p.price_per_replica for p in pools)
    limits = Limits(
        gpus=draw(st.just({}) | st.fixed_dictionaries(
            {"h200": st.integers(footprint, footprint + 30)})),
        cost_per_hour=draw(st.none() | st.floats(price, price + 30.0)),
        ratio_min=draw(st.sampled_from([None, 0.25, 1.0])) if ratios else None,
        ratio_max=draw(st.sampled_from([None, 1.0, 4.0])) if ratios else None,
    )  # fmt: skip
    ups = {name: draw(st.integers(0, 15)) for name in names}
    plans = {name: PoolPlan(up, up, up + draw(st.integers(0, 4))) for name, up in ups.items()}
    history = st.lists(st.integers(0, 15), max_size=5)
    memory = ConstrainMemory(
        recommendations={
            name: tuple(
                Recommendation(START_S - 60.0 * (len(past) - i), n, n) for i, n in enumerate(past)
            )
            for name in names
            for past in [draw(history)]
        },
        events={name: (ScaleEvent(START_S - 60.0, draw(st.integers(-5, 5))),) for name in names},
    )
    return Case(
        service(pools=pools, limits=limits),
        memory,
        Plan(plans, {}),
        {name: draw(st.integers(0, 15)) for name in names},
        draw(st.dictionaries(st.sampled_from(names), st.integers(0, 15))),
    )


@given(cases())
def test_never_above_ceiling_room_or_budget_and_never_below_the_floor(case):
    _, desired, _ = case.decide()
    for p in case.service.pools:
        fits = max(case.room.get(p.name, p.max_replicas), case.current[p.name])
        assert desired[p.name] <= min(p.max_replicas, fits)
        assert desired[p.name] >= min(p.min_replicas, fits)
    limits = case.service.limits
    for gpu_type, ceiling in limits.gpus.items():
        assert gpu_type == "h200"
        used = sum(desired[p.name] * p.gpus_per_replica for p in case.service.pools)
        assert used <= ceiling
    if limits.cost_per_hour is not None:
        cost = sum(desired[p.name] * p.price_per_replica for p in case.service.pools)
        assert cost <= limits.cost_per_hour + 1e-6


@given(cases())
def test_every_change_to_the_plan_leaves_a_reason_with_numbers(case):
    _, desired, reasons = case.decide()
    for p in case.service.pools:
        plan = case.plan.pools[p.name]
        if desired[p.name] == min(max(case.current[p.name], plan.up), plan.keep):
            continue
        about = [r for r in reasons if r.pool == p.name or r.code == "RatioBound"]
        assert about, f"{p.name} is {desired[p.name]}, the plan is {plan}"
        assert all(r.values and r.message for r in about)


@given(cases(behavior=Behavior(ScalingRules(), ScalingRules())))
def test_constraining_again_changes_nothing(case):
    memory, desired, _ = case.decide()
    planned = {name: PoolPlan(n, n, n) for name, n in desired.items()}
    later_s = START_S + 60.0
    memory = note_fleet(memory, desired, later_s)
    _, again, _ = constrain(case.service, memory, Plan(planned, {}), desired, case.room, later_s)
    assert again == desired


@given(cases())
def test_same_input_same_outcome(case):
    assert case.decide() == case.decide()


@given(cases(ratios=False), st.sampled_from(NAMES[:2]))
def test_a_rise_in_one_pool_never_lowers_it(case, name):
    """More wanted, all else equal and no budget, is never less desired."""
    free = replace(case, service=replace(case.service, limits=Limits()))
    more = free.plan.pools[name]
    raised = replace(
        free,
        plan=Plan(
            {**free.plan.pools, name: PoolPlan(more.wanted + 3, more.up + 3, more.keep + 3)}, {}
        ),
    )
    assert raised.decide()[1][name] >= free.decide()[1][name]
