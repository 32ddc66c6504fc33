"""Step 5, constrain: from what is needed to what is asked for. Pure.

HPA's `behavior` first, then what may never be broken, in this order of right: room and ceilings,
floors, GPU and cost budgets, the prefill-to-decode ratio. Every cap leaves a Reason.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from planner.decision.behavior import Outcome, Recommendation, ScaleEvent, apply_behavior
from planner.decision.limits import keep_budgets, keep_ratio
from planner.model import Behavior, Plan, Pool, Reason, Service

# Longest stabilisation window and policy period that HPA knows [s].
MEMORY_S = 3600.0


@dataclass(frozen=True, slots=True)
class ConstrainMemory:
    """Recent recommendations and changes by pool name, and the replicas last seen."""

    recommendations: Mapping[str, tuple[Recommendation, ...]] = field(default_factory=dict)
    events: Mapping[str, tuple[ScaleEvent, ...]] = field(default_factory=dict)
    replicas: Mapping[str, int] = field(default_factory=dict)
    at_s: float | None = None


def note_fleet(
    memory: ConstrainMemory, current: Mapping[str, int], now_s: float
) -> ConstrainMemory:
    """Return the memory with the changes that happened since the last tick.

    What really changed is noted, not what was ordered: a refused patch is no event, somebody
    else's change is one. A rise beyond what the last tick recommended came between two ticks; from
    here on it counts as recommended, so that the window holds it. That can be told from the fleet
    alone, and so after a restart too.
    """
    recommendations = dict(memory.recommendations)
    events: dict[str, tuple[ScaleEvent, ...]] = {}
    for name, replicas in current.items():
        kept = tuple(e for e in memory.events.get(name, ()) if e.at_s > now_s - MEMORY_S)
        before = memory.replicas.get(name, replicas)
        if replicas != before:
            since_s = now_s if memory.at_s is None else memory.at_s
            kept = (*kept, ScaleEvent(since_s, replicas - before))
        past = recommendations.get(name, ())
        if replicas > before and past and replicas > past[-1].keep:
            recommendations[name] = (*past, Recommendation(now_s, replicas, replicas))
        events[name] = kept
    return ConstrainMemory(recommendations, events, dict(current), now_s)


def start_over(memory: ConstrainMemory, pools: Iterable[str]) -> ConstrainMemory:
    """Return the memory without the past of some pools, as after a start without history."""
    gone = set(pools)
    return ConstrainMemory(
        {name: past for name, past in memory.recommendations.items() if name not in gone},
        {name: past for name, past in memory.events.items() if name not in gone},
        {name: replicas for name, replicas in memory.replicas.items() if name not in gone},
        memory.at_s,
    )


def constrain(
    service: Service,
    memory: ConstrainMemory,
    plan: Plan,
    current: Mapping[str, int],
    room: Mapping[str, int],
    now_s: float,
) -> tuple[ConstrainMemory, Mapping[str, int], tuple[Reason, ...]]:
    """Return what to remember, the desired replicas by pool name, and the reasons for each cap.

    Parameters
    ----------
    service
        Behaviour, floors, ceilings, limits.
    memory
        As `note_fleet` left it this tick.
    plan
        What the load needs.
    current
        Replicas asked of each target now.
    room
        Replicas by pool name that the cluster can hold; absent: any number.
    now_s
        Time of the decision [s, Unix].
    """
    memory = _remember(service, memory, plan, current, now_s)
    desired: dict[str, int] = {}
    unheld: dict[str, int] = {}
    reasons: list[Reason] = []
    for pool in service.pools:
        outcome = _behave(pool, memory, current, pool.behavior, now_s)
        reasons += outcome.reasons
        desired[pool.name] = _within_bounds(pool, outcome.replicas, current, room, reasons)
        unheld[pool.name] = _behave(pool, memory, current, _windowless(pool), now_s).replicas
    reasons += keep_budgets(service, desired, (unheld, current), plan)
    reasons += keep_ratio(service, desired, current, room)
    return memory, desired, tuple(reasons)


def _behave(
    pool: Pool,
    memory: ConstrainMemory,
    current: Mapping[str, int],
    behavior: Behavior,
    now_s: float,
) -> Outcome:
    """Return what `behavior` makes of this tick's recommendation."""
    recommendations = memory.recommendations[pool.name]
    events = memory.events.get(pool.name, ())
    return apply_behavior(pool.name, current[pool.name], recommendations, events, behavior, now_s)


def _windowless(pool: Pool) -> Behavior:
    """Return a pool's behaviour without its window downwards."""
    down = replace(pool.behavior.scale_down, stabilization_window_s=0.0)
    return replace(pool.behavior, scale_down=down)


def _remember(
    service: Service,
    memory: ConstrainMemory,
    plan: Plan,
    current: Mapping[str, int],
    now_s: float,
) -> ConstrainMemory:
    """Return the memory with this tick's recommendation.

    Where nothing was recommended for as long as the window downwards (a start without history, an
    outage), what runs is kept until the window has been seen, as HPA starts with what runs, and for
    two intervals at least: one alone is no forecast.
    """
    recommendations: dict[str, tuple[Recommendation, ...]] = {}
    for pool in service.pools:
        past = memory.recommendations.get(pool.name, ())
        past = tuple(r for r in past if r.at_s > now_s - MEMORY_S)
        up, keep = plan.pools[pool.name].up, plan.pools[pool.name].keep
        # Two intervals at least: a shorter window would otherwise be a gap at every tick.
        window_s = pool.behavior.scale_down.stabilization_window_s
        gap_s = max(window_s, 2.0 * service.interval_s)
        unbroken = _unbroken(past, gap_s, now_s)
        if not unbroken:
            past = (*past, Recommendation(now_s, up, max(keep, current[pool.name])))
        elif window_s <= now_s - unbroken[0].at_s < gap_s:
            past = (*past, Recommendation(now_s, up, max(keep, unbroken[0].keep)))
        recommendations[pool.name] = (*past, Recommendation(now_s, up, keep))
    return ConstrainMemory(recommendations, memory.events, memory.replicas, memory.at_s)


def _unbroken(
    past: tuple[Recommendation, ...], gap_s: float, now_s: float
) -> tuple[Recommendation, ...]:
    """Return the recommendations since the last gap of `gap_s` [s], oldest first."""
    first = len(past)
    while first and past[first - 1].at_s > now_s - gap_s:
        first, now_s = first - 1, past[first - 1].at_s
    return past[first:]


def _within_bounds(
    pool: Pool,
    replicas: int,
    current: Mapping[str, int],
    room: Mapping[str, int],
    reasons: list[Reason],
) -> int:
    """Return replicas within floor, ceiling and room; what runs already is never out of room.

    Room rules over the floor: a replica that can't start serves nobody.
    """
    ceiling, code = pool.max_replicas, "TooManyReplicas"
    fits = max(room.get(pool.name, ceiling), min(current[pool.name], ceiling))
    if fits < ceiling:
        ceiling, code = fits, "CapacityShortage"
    wanted = max(replicas, pool.min_replicas)
    if wanted > ceiling:
        message = f"pool {pool.name} is capped at {ceiling} of {wanted} replicas"
        reasons.append(Reason(code, message, pool.name, {"wanted": wanted, "capped": ceiling}))
    elif replicas < pool.min_replicas:
        message = f"pool {pool.name} is kept at its floor of {pool.min_replicas}"
        values = {"wanted": replicas, "floor": pool.min_replicas}
        reasons.append(Reason("TooFewReplicas", message, pool.name, values))
    return min(wanted, ceiling)
