"""`decide`: the whole decision of one tick. A value in, a value out; time is an argument.

observe → correct → forecast → size → constrain, each a pure step with its own memory. Everything
a decision depends on is in `State` and `Inputs`, so that replaying the same inputs from the same
state reaches the same decision: a restart replays history, a simulation replays a day.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from planner.decision.constrain import ConstrainMemory, constrain, note_fleet
from planner.decision.correct import CorrectMemory, correct
from planner.decision.forecast import ForecastMemory, age, forecast, learn
from planner.decision.lead import lead_times_s
from planner.decision.observe import observe
from planner.decision.size import size
from planner.errors import ClusterError, MetricsError
from planner.model import (
    Decision,
    Factors,
    Fleet,
    Hold,
    Load,
    Mode,
    Observation,
    Patch,
    Plan,
    Pool,
    PoolDecision,
    PoolPlan,
    Reason,
    Role,
    Sample,
    Service,
)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What was read for one tick; a read that failed is its error."""

    sample: Sample | MetricsError
    fleet: Fleet | ClusterError


@dataclass(frozen=True, slots=True)
class State:
    """What one service's decisions remember from tick to tick."""

    sample: Sample | None = None
    correct: CorrectMemory = field(default_factory=CorrectMemory)
    forecast: ForecastMemory = field(default_factory=ForecastMemory)
    constrain: ConstrainMemory = field(default_factory=ConstrainMemory)
    blind_since_s: float | None = None


def decide(service: Service, state: State, inputs: Inputs, now_s: float) -> tuple[State, Decision]:
    """Return the next state and what to do now.

    Parameters
    ----------
    service
        What is asked.
    state
        Memory of the earlier ticks; `State()` at the start.
    inputs
        What was read for this tick.
    now_s
        Time of the decision [s, Unix].
    """
    if isinstance(inputs.fleet, ClusterError):
        reason = Reason("ClusterUnavailable", f"{inputs.fleet}; holding")
        state = _blind(service, state, now_s)
        return state, Decision(now_s, {}, (reason,), Hold(reason, state.blind_since_s))
    fleet = inputs.fleet
    current = {p.name: fleet.pools[p.name].replicas // p.pods_per_replica for p in service.pools}
    state = replace(state, constrain=note_fleet(state.constrain, current, now_s))
    if isinstance(inputs.sample, MetricsError):
        seen: Observation | Hold = Hold(Reason("MetricsUnavailable", f"{inputs.sample}; holding"))
    else:
        seen = observe(service, state.sample, inputs.sample, fleet, now_s)
    if isinstance(seen, Hold):
        state = _blind(service, state, now_s)
        if seen.reason.code == "WarmingUp" and isinstance(inputs.sample, Sample):
            state = replace(state, sample=inputs.sample)
        return state, _hold(service, state, seen.reason, fleet, current, now_s)
    assert isinstance(inputs.sample, Sample)
    corrected, factors = correct(service, state.correct, seen)
    learnt = learn(service, state.forecast, seen)
    state = State(inputs.sample, corrected, learnt, state.constrain)
    return _decide(service, state, seen, factors, fleet, current, now_s)


def _decide(
    service: Service,
    state: State,
    seen: Observation,
    factors: Factors,
    fleet: Fleet,
    current: Mapping[str, int],
    now_s: float,
) -> tuple[State, Decision]:
    """Forecast, size and constrain after a good observation."""
    lead_s = lead_times_s(service, fleet.pools)
    load = forecast(service, state.forecast, lead_s, now_s)
    if load is not None:
        plan = size(service, load, factors, fleet.room_replicas)
    else:
        plan = _first_plan(service, current, is_asked=seen.arrivals_rps > 0.0)
    memory, desired, capped = constrain(
        service, state.constrain, plan, current, fleet.room_replicas, now_s
    )
    pools = {
        p.name: _pool_decision(p, fleet, current, lead_s, plan.pools[p.name].up, desired[p.name])
        for p in service.pools
    }
    fallback = _fallback_reasons(load)
    decision = Decision(
        at_s=now_s,
        pools=pools,
        reasons=(*fallback, *plan.reasons, *capped),
        observation=seen,
        factors=factors,
        load=load,
        plan=plan,
        patch=_patch(service, desired, current),
    )
    return replace(state, constrain=memory), decision


def _first_plan(service: Service, current: Mapping[str, int], *, is_asked: bool) -> Plan:
    """Return the plan before any request has finished: the floors, or what runs if any came.

    Every role needs somebody to take the first request, and what already runs is kept until
    lengths are known.
    """
    pools: dict[str, PoolPlan] = {}
    for role in Role:
        for index, pool in enumerate(service.pools_of(role)):
            up = max(pool.min_replicas, 1 if is_asked and index == 0 else 0)
            keep = max(up, current[pool.name]) if is_asked else up
            pools[pool.name] = PoolPlan(up, up, keep)
    message = "requests arrive but none has finished yet: keeping what runs"
    return Plan(pools, {}, reasons=(Reason("WarmingUp", message),) if is_asked else ())


def _fallback_reasons(load: Load | None) -> tuple[Reason, ...]:
    """Say so when a predictor was replaced by the last value."""
    if load is None or not any(tokens.fallback for tokens in load.tokens.values()):
        return ()
    message = "the predictor failed or was absurd: the last value and its margin stand in"
    return (Reason("ForecastFallback", message),)


def _blind(service: Service, state: State, now_s: float) -> State:
    """Return the state after an interval that could not be observed."""
    since_s = now_s if state.blind_since_s is None else state.blind_since_s
    return replace(state, forecast=age(service, state.forecast), blind_since_s=since_s)


def _hold(
    service: Service,
    state: State,
    reason: Reason,
    fleet: Fleet,
    current: Mapping[str, int],
    now_s: float,
) -> Decision:
    """Return the decision to keep what runs; blind for long, to rise to the fallback."""
    lead_s = lead_times_s(service, fleet.pools)
    desired, reasons = dict(current), [reason]
    fallback = service.fallback
    blind_s = 0.0 if state.blind_since_s is None else now_s - state.blind_since_s
    if fallback is not None and blind_s >= fallback.after_s:
        for pool in service.pools:
            wanted = min(fallback.replicas.get(pool.name, 0), pool.max_replicas)
            fits = fleet.room_replicas.get(pool.name, wanted)
            desired[pool.name] = max(current[pool.name], min(wanted, fits))
        message = f"no usable metrics for {blind_s:.0f} s: rising to the fallback, never lowering"
        reasons.append(Reason("Fallback", message, values={"blind_s": blind_s}))
    pools = {
        p.name: _pool_decision(p, fleet, current, lead_s, current[p.name], desired[p.name])
        for p in service.pools
    }
    return Decision(
        at_s=now_s,
        pools=pools,
        reasons=tuple(reasons),
        hold=Hold(reason, state.blind_since_s),
        patch=_patch(service, desired, current),
    )


def _pool_decision(
    pool: Pool,
    fleet: Fleet,
    current: Mapping[str, int],
    lead_s: Mapping[str, float],
    recommended: int,
    desired: int,
) -> PoolDecision:
    """Return one pool's part of the decision."""
    ready = fleet.pools[pool.name].ready(pool.pods_per_replica)
    return PoolDecision(recommended, desired, current[pool.name], ready, lead_s[pool.name])


def _patch(
    service: Service, desired: Mapping[str, int], current: Mapping[str, int]
) -> Patch | None:
    """Return what to write, in the targets' own count of pods; None unless acting on a change."""
    if service.mode is not Mode.ACT:
        return None
    changes = {
        p.name: desired[p.name] * p.pods_per_replica
        for p in service.pools
        if desired[p.name] != current[p.name]
    }
    return Patch(changes) if changes else None
