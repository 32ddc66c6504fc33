"""Orders that find no node: seen by Pending pods alone, taken back where nobody else is hit. Pure.

A target's phase and its pod group's conditions do not tell: Volcano keeps a Job Running beside
pods that wait for ever, and never clears a condition. Only the highest numbers can be taken back,
since those are what a target removes; a pod that waits below one that runs is told of and left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from planner.model import Fleet, Pod, Pool, PoolFleet, Reason, Service

# A scheduler needs seconds; a pod without a node for longer than this is stuck [s].
STUCK_AFTER_S = 60.0
# How long a pool is not ordered beyond what was found to run, first and at most [s].
FIRST_HOLD_S, LONGEST_HOLD_S = 300.0, 3600.0


@dataclass(frozen=True, slots=True)
class StuckCap:
    """What was found to run when an order got stuck.

    `room` is what seemed to fit then: more of it means that something has changed.
    """

    replicas: int
    until_s: float
    hold_s: float
    room: int | None


@dataclass(frozen=True, slots=True)
class StuckMemory:
    """Caps by pool name; one whose time has passed still tells how long the next one lasts."""

    caps: Mapping[str, StuckCap] = field(default_factory=dict)


def note_stuck(
    service: Service, memory: StuckMemory, fleet: Fleet, now_s: float
) -> tuple[StuckMemory, Mapping[str, StuckCap], tuple[Reason, ...]]:
    """Return what to remember, the caps that hold now by pool name, and what is stuck.

    Parameters
    ----------
    service
        Its pools; with an elastic capacity nodes get their time to come.
    memory
        As of the last tick.
    fleet
        The pods as they are.
    now_s
        Time of the decision [s, Unix].
    """
    caps: dict[str, StuckCap] = {}
    reasons: list[Reason] = []
    patience_s = STUCK_AFTER_S + service.topology.node_startup_s * service.topology.is_elastic
    for pool in service.pools:
        room = fleet.rooms.get(pool.name)
        fits = None if room is None else room.replicas
        found = fleet.pools[pool.name]
        before = _valid(memory.caps.get(pool.name), pool, found, fits)
        waiting = _waiting(found, now_s - patience_s)
        if before is not None:
            caps[pool.name] = before
        if not waiting:
            continue
        level = _level(pool, found, waiting)
        reasons.append(_stuck(pool, found, waiting, level, now_s))
        if level * pool.pods_per_replica < found.replicas:
            hold_s = FIRST_HOLD_S if before is None else min(2.0 * before.hold_s, LONGEST_HOLD_S)
            caps[pool.name] = StuckCap(level, now_s + hold_s, hold_s, fits)
    held = {name: cap for name, cap in caps.items() if cap.until_s > now_s}
    return StuckMemory(caps), held, tuple(reasons)


def _valid(cap: StuckCap | None, pool: Pool, fleet: PoolFleet, fits: int | None) -> StuckCap | None:
    """Return the cap unless more fits than when it was made, or more has come to run."""
    if cap is None or (fits is not None and cap.room is not None and fits > cap.room):
        return None
    placed = [p for p in fleet.pods if p.node is not None and not p.terminating]
    highest = max((len(placed), *(p.index + 1 for p in placed if p.index is not None)))
    return None if highest > cap.replicas * pool.pods_per_replica else cap


def _waiting(fleet: PoolFleet, before_s: float) -> tuple[Pod, ...]:
    """Return the pods created before `before_s` [s, Unix] that have no node, where nodes are known.

    A pod that is being removed waits for nothing.
    """
    if fleet.shape is None:
        return ()
    return tuple(
        p for p in fleet.pods if p.node is None and not p.terminating and p.created_s <= before_s
    )


def _level(pool: Pool, fleet: PoolFleet, waiting: Sequence[Pod]) -> int:
    """Return the replicas at which the stuck pods that can be taken back are gone."""
    here = [p for p in fleet.pods if not p.terminating]
    if any(p.index is None for p in here):  # such a target removes pods without a node first
        level = fleet.replicas - len(waiting)
    else:
        stuck = {p.index for p in waiting}
        by_index = {p.index: p for p in here}
        level, lowest = fleet.replicas, fleet.replicas
        while level > 0 and (pod := by_index.get(level - 1)) is not None and pod.node is None:
            level -= 1
            lowest = level if level in stuck else lowest
        level = lowest
    return -(-level // pool.pods_per_replica)


def _stuck(
    pool: Pool, fleet: PoolFleet, waiting: Sequence[Pod], level: int, now_s: float
) -> Reason:
    """Say who waits, why, and what is done about it."""
    oldest = min(waiting, key=lambda p: (p.created_s, p.name))
    told = next((p for p in waiting if p.unschedulable), oldest)
    why = f" ({told.name}: {told.unschedulable})" if told.unschedulable else ""
    taken = fleet.replicas - level * pool.pods_per_replica
    done = (
        f"{taken} taken back"
        if taken > 0
        else "left, since lowering the replicas would remove a pod that runs"
    )
    age_s = now_s - oldest.created_s
    message = (
        f"pool {pool.name}: {len(waiting)} pods have found no node for {age_s:.0f} s{why}: {done}"
    )
    values = {
        "waiting_pods": float(len(waiting)),
        "taken_back": float(max(taken, 0)),
        "shortage_gpus": float(len(waiting) * pool.gpus_per_replica // pool.pods_per_replica),
    }
    return Reason("ScaleUpStuck", message, pool.name, values)
