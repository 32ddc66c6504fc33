"""From desired replicas to what is written now: pods that are to go are drained first. Pure.

Who is removed is known beforehand, so the victims are marked with a deadline, routers send them
nothing new until then, and only then are the replicas lowered. The marks on the pods are the only
memory: a restart finds them, resumes the batch or clears it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.model import Patch, Pod, Pool, PoolFleet, Reason, Service


@dataclass(frozen=True, slots=True)
class Step:
    """What is written for one pool: pods to ask for (None: as it is), marks to set and to clear."""

    pods: int | None = None
    drain: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()


def patch(
    service: Service,
    fleets: Mapping[str, PoolFleet],
    desired: Mapping[str, int],
    now_s: float,
) -> tuple[Patch | None, tuple[Reason, ...]]:
    """Return what to write now, None if nothing, and who leaves when.

    Parameters
    ----------
    service
        Its pools, with their drain times.
    fleets
        The pools as they are.
    desired
        Replicas by pool name.
    now_s
        Time of the decision [s, Unix].
    """
    replicas: dict[str, int] = {}
    drain: dict[str, float] = {}
    keep: list[str] = []
    reasons: list[Reason] = []
    for pool in service.pools:
        step = _step(pool, fleets[pool.name], desired[pool.name], now_s)
        if step.pods is not None:
            replicas[pool.name] = step.pods
        drain |= dict.fromkeys(step.drain, now_s + pool.drain_s)
        keep += step.keep
        if step.drain:
            reasons.append(_draining(pool, step.drain))
    written = Patch(replicas, drain, tuple(keep))
    return written or None, tuple(reasons)


def _step(pool: Pool, fleet: PoolFleet, desired: int, now_s: float) -> Step:
    """Return what is written for one pool."""
    wanted = desired * pool.pods_per_replica
    current = fleet.replicas // pool.pods_per_replica
    marked = tuple(p.name for p in fleet.pods if p.drain_until_s is not None and not p.terminating)
    if desired >= current:
        return Step(wanted if desired > current else None, keep=marked)
    victims = _victims(fleet, wanted)
    level = _drained_level(pool, fleet, victims, wanted, now_s)
    leaving = {p.name for p in victims}
    return Step(
        pods=level if level < fleet.replicas else None,
        drain=_next_batch(victims, now_s) if level > wanted else (),
        keep=tuple(name for name in marked if name not in leaving),
    )


def _victims(fleet: PoolFleet, wanted: int) -> tuple[Pod, ...]:
    """Return the pods that leave at `wanted` pods, in the order in which they do.

    Notes
    -----
    Targets with numbered pods remove the highest numbers whatever their state. The others remove
    pods that do not serve before those that do, and among these the marked ones, which carry a
    lower deletion cost.
    """
    here = [p for p in fleet.pods if not p.terminating]
    if all(p.index is not None for p in here):
        leaving = [p for p in here if p.index is not None and p.index >= wanted]
        return tuple(sorted(leaving, key=lambda p: -(p.index or 0)))
    order = sorted(here, key=lambda p: (_serves(p), p.drain_until_s is None, -p.created_s, p.name))
    return tuple(order[: max(len(here) - wanted, 0)])


def _drained_level(
    pool: Pool, fleet: PoolFleet, victims: Sequence[Pod], wanted: int, now_s: float
) -> int:
    """Return the pods to ask for now: those that serve and are not drained yet stay."""
    if pool.drain_s <= 0.0:
        return wanted
    level = wanted
    for position, pod in enumerate(victims):
        if _serves(pod) and (pod.drain_until_s is None or pod.drain_until_s > now_s):
            # By number, nobody below the highest who stays can leave before it.
            stays = pod.index + 1 if pod.index is not None else wanted + len(victims) - position
            level = max(level, stays)
            break
    step = pool.pods_per_replica
    return min(-(-level // step) * step, fleet.replicas)


def _next_batch(victims: Sequence[Pod], now_s: float) -> tuple[str, ...]:
    """Return the pods to mark now: all at once, and none while a batch is under way."""
    if any(p.drain_until_s is not None and p.drain_until_s > now_s for p in victims):
        return ()
    return tuple(p.name for p in victims if _serves(p) and p.drain_until_s is None)


def _serves(pod: Pod) -> bool:
    return pod.ready_s is not None and not pod.terminating


def _draining(pool: Pool, names: Sequence[str]) -> Reason:
    """Say who leaves."""
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    message = (
        f"pool {pool.name}: {shown} marked as leaving, the replicas follow in {pool.drain_s:.0f} s"
    )
    values = {"pods": float(len(names)), "drain_s": pool.drain_s}
    return Reason("Draining", message, pool.name, values)
