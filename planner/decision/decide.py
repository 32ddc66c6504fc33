"""`decide`: the whole decision of one tick. A value in, a value out; time is an argument.

observe → correct → forecast → size → constrain, each a pure step with its own memory. Everything
a decision depends on is in `State` and `Inputs`, so that replaying the same inputs from the same
state reaches the same decision: a restart replays history, a simulation replays a day.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from planner.decision.constrain import ConstrainMemory, constrain, note_fleet, start_over
from planner.decision.contention import ContentionMemory, note_targets
from planner.decision.correct import CorrectMemory, correct
from planner.decision.drain import patch
from planner.decision.forecast import ForecastMemory, age, forecast, learn
from planner.decision.lead import lead_times_s
from planner.decision.looks import LookMemory, arm, look
from planner.decision.observe import observe
from planner.decision.rise import Rise, rises
from planner.decision.size import size
from planner.decision.stuck import StuckCap, StuckMemory, note_stuck
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
    contention: ContentionMemory = field(default_factory=ContentionMemory)
    stuck: StuckMemory = field(default_factory=StuckMemory)
    looks: LookMemory = field(default_factory=LookMemory)
    blind_since_s: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """The fleet as one tick finds it: replicas by pool name, what fits, and what was noticed.

    `stuck` caps pools whose last order found no nodes; `room` is that, and what else fits beside
    what is ordered.
    """

    fleet: Fleet
    current: Mapping[str, int]
    lead_s: Mapping[str, float]
    room: Mapping[str, int]
    stuck: Mapping[str, StuckCap]
    notes: tuple[Reason, ...]


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
        reason = Reason(inputs.fleet.code, f"{inputs.fleet}; holding")
        state = _blind(service, state, now_s)
        return state, Decision(now_s, {}, (reason,), Hold(reason, state.blind_since_s))
    state, standing, contest = _stand(service, state, inputs.fleet, now_s)
    if isinstance(inputs.sample, MetricsError):
        seen: Observation | Hold = Hold(Reason("MetricsUnavailable", f"{inputs.sample}; holding"))
    else:
        seen = observe(service, state.sample, inputs.sample, inputs.fleet, now_s)
    if isinstance(seen, Hold):
        state = _blind(service, state, now_s)
        if seen.reason.code == "WarmingUp" and isinstance(inputs.sample, Sample):
            state = replace(state, sample=inputs.sample)
        return state, _hold(service, state, seen.reason, standing, now_s)
    assert isinstance(inputs.sample, Sample)
    corrected, factors = correct(service, state.correct, seen)
    learnt = learn(service, state.forecast, seen)
    state = replace(
        state, sample=inputs.sample, correct=corrected, forecast=learnt, blind_since_s=None
    )
    state, decision = _decide(service, state, seen, factors, standing, now_s)
    if contest is not None:
        decision = replace(
            decision, hold=contest, patch=None, reasons=(contest.reason, *decision.reasons)
        )
    return state, decision


def rise(
    service: Service, state: State, inputs: Inputs, now_s: float
) -> tuple[State, Decision | None]:
    """Return the next state and, where a queue grows, what to order before the next tick.

    Nothing is released, and what can't be read orders nothing: the next tick decides.

    Parameters
    ----------
    service
        What is asked.
    state
        Memory of the ticks, and of the earlier checks.
    inputs
        What the pods show at this moment.
    now_s
        Time of the check [s, Unix].
    """
    if isinstance(inputs.sample, MetricsError) or isinstance(inputs.fleet, ClusterError):
        return state, None
    state = replace(state, looks=look(service, state.looks, inputs.sample, now_s))
    risen = rises(service, state.looks, inputs.fleet)
    if not risen:
        return state, None
    noted, standing, contest = _stand(service, state, inputs.fleet, now_s)
    if contest is not None or standing.stuck:
        return state, None
    current = standing.current
    wanted = {name: risen[name].replicas if name in risen else n for name, n in current.items()}
    plan = Plan({name: PoolPlan(n, n, n) for name, n in wanted.items()}, {})
    _, desired, capped = constrain(service, noted.constrain, plan, current, standing.room, now_s)
    if not all(n >= current[name] for name, n in desired.items()) or desired == current:
        return state, None
    # Nothing is remembered: the next tick sees the rise by the fleet, as one after a restart does.
    written, _ = _written(service, standing, desired, now_s)
    return state, Decision(
        at_s=now_s,
        pools=_pool_decisions(service, standing, wanted, desired),
        reasons=(
            *_rise_reasons(service, risen, current, desired),
            *_with_bounds(capped, standing, now_s),
        ),
        patch=written,
    )


def _rise_reasons(
    service: Service,
    risen: Mapping[str, Rise],
    current: Mapping[str, int],
    desired: Mapping[str, int],
) -> tuple[Reason, ...]:
    """Say which queue grows and what is ordered for it."""
    return tuple(
        Reason(
            "QueueGrowing",
            f"pool {name}: {_why_more(service.pool(name), seen)}; "
            f"{current[name]} → {desired[name]} replicas before the next tick",
            name,
            {"waiting": seen.waiting, "ready": seen.ready, "rate_rps": seen.rate_rps},
        )
        for name, seen in risen.items()
    )


def _why_more(pool: Pool, seen: Rise) -> str:
    """Return what asks for more replicas, in words."""
    if pool.role is Role.DECODE and seen.rate_rps > 0.0:
        return f"prefill will hand {seen.rate_rps:.1f} requests/s to {seen.ready} ready replicas"
    if pool.role is Role.DECODE:
        return f"{seen.inside:.0f} sequences are too many for {seen.ready} ready replicas"
    return f"{seen.waiting:.0f} requests wait at {seen.ready} ready replicas"


def _stand(
    service: Service, state: State, fleet: Fleet, now_s: float
) -> tuple[State, Standing, Hold | None]:
    """Return how the fleet stands, what is remembered of it, and a hold if it is contended."""
    current = {p.name: fleet.pools[p.name].replicas // p.pods_per_replica for p in service.pools}
    contention, renewed, seen, contest = note_targets(service, state.contention, fleet, now_s)
    stuck, caps, waiting = note_stuck(service, state.stuck, fleet, now_s)
    constrained = note_fleet(start_over(state.constrain, renewed), current, now_s)
    state = replace(state, contention=contention, stuck=stuck, constrain=constrained)
    # What is ordered already is taken back by number, where it is stuck, and for no other shortage:
    # a target removes its highest numbers, and those may run while a lower one waits.
    room = {name: max(fits, current[name]) for name, fits in fleet.room_replicas.items()}
    for name, cap in caps.items():
        room[name] = min(cap.replicas, room.get(name, cap.replicas))
    notes = (*seen, *waiting, *fleet.notes)
    lead_s = lead_times_s(service, fleet.pools)
    return state, Standing(fleet, current, lead_s, room, caps, notes), contest


def _decide(
    service: Service,
    state: State,
    seen: Observation,
    factors: Factors,
    standing: Standing,
    now_s: float,
) -> tuple[State, Decision]:
    """Forecast, size and constrain after a good observation."""
    current, room = standing.current, standing.room
    load = forecast(service, state.forecast, standing.lead_s, now_s)
    if load is not None:
        transfer = standing.fleet.transfer or service.transfer
        sized = replace(service, transfer=transfer)
        plan = size(sized, load, factors, room)
        state = replace(state, looks=arm(sized, state.looks, load, factors))
    else:
        plan = _first_plan(service, current, is_asked=seen.arrivals_rps > 0.0)
    memory, desired, capped = constrain(service, state.constrain, plan, current, room, now_s)
    # Pods that found no node serve nobody: no window and no policy keeps them.
    desired = {
        name: min(wanted, standing.stuck[name].replicas) if name in standing.stuck else wanted
        for name, wanted in desired.items()
    }
    written, leaving = _written(service, standing, desired, now_s)
    because = (*_fallback_reasons(load), *plan.reasons, *capped)
    recommended = {p.name: plan.pools[p.name].up for p in service.pools}
    decision = Decision(
        at_s=now_s,
        pools=_pool_decisions(service, standing, recommended, desired),
        reasons=(*_with_bounds(because, standing, now_s), *standing.notes, *leaving),
        observation=seen,
        factors=factors,
        load=load,
        plan=plan,
        patch=written,
    )
    return replace(state, constrain=memory), decision


def _written(
    service: Service, standing: Standing, desired: Mapping[str, int], now_s: float
) -> tuple[Patch | None, tuple[Reason, ...]]:
    """Return what is written now and who leaves: nothing and nobody unless acting."""
    if service.mode is not Mode.ACT:
        return None, ()
    return patch(service, standing.fleet.pools, desired, now_s)


def _with_bounds(reasons: Sequence[Reason], standing: Standing, now_s: float) -> tuple[Reason, ...]:
    """Return the reasons; what does not fit says where and what bounds it."""
    told: list[Reason] = []
    for reason in reasons:
        why = _bound(standing, reason.pool or "", now_s)
        if reason.code == "CapacityShortage" and why:
            told.append(replace(reason, message=f"{reason.message}; {why}"))
        else:
            told.append(reason)
    return tuple(told)


def _bound(standing: Standing, pool: str, now_s: float) -> str:
    """Say what bounds a pool: an order that found no nodes, or else its room."""
    room, cap = standing.fleet.rooms.get(pool), standing.stuck.get(pool)
    if cap is not None and (room is None or cap.replicas < room.replicas):
        return (
            "an order beyond that found no nodes, the next is given in "
            f"{cap.until_s - now_s:.0f} s, or as soon as more fit"
        )
    return "" if room is None else room.why


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
    service: Service, state: State, reason: Reason, standing: Standing, now_s: float
) -> Decision:
    """Return the decision to keep what runs; blind for long, to rise to the fallback.

    Pods that were to leave stay, and their marks are taken off.
    """
    current = standing.current
    desired, reasons = dict(current), [reason]
    fallback = service.fallback
    blind_s = 0.0 if state.blind_since_s is None else now_s - state.blind_since_s
    if fallback is not None and blind_s >= fallback.after_s:
        for pool in service.pools:
            wanted = min(fallback.replicas.get(pool.name, 0), pool.max_replicas)
            fits = standing.room.get(pool.name, wanted)
            desired[pool.name] = max(current[pool.name], min(wanted, fits))
        message = f"no usable metrics for {blind_s:.0f} s: rising to the fallback, never lowering"
        reasons.append(Reason("Fallback", message, values={"blind_s": blind_s}))
    written, _ = _written(service, standing, desired, now_s)
    return Decision(
        at_s=now_s,
        pools=_pool_decisions(service, standing, current, desired),
        reasons=(*reasons, *standing.notes),
        hold=Hold(reason, state.blind_since_s),
        patch=written,
    )


def _pool_decisions(
    service: Service,
    standing: Standing,
    recommended: Mapping[str, int],
    desired: Mapping[str, int],
) -> dict[str, PoolDecision]:
    """Return each pool's part of the decision."""
    decisions: dict[str, PoolDecision] = {}
    for pool in service.pools:
        name = pool.name
        decisions[name] = PoolDecision(
            recommended[name],
            desired[name],
            standing.current[name],
            standing.fleet.pools[name].ready(pool.pods_per_replica),
            standing.lead_s[name],
            standing.fleet.domains.get(name),
        )
    return decisions
