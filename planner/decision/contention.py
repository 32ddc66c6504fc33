"""Who else writes the replicas, and whether the target is still the same object. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from planner.model import Fleet, Hold, Pool, Reason, Service

# So many orders undone by one writer within the memory are a contest, not a correction.
MOST_REVERTS, MEMORY_S = 3, 3600.0


@dataclass(frozen=True, slots=True)
class ContentionMemory:
    """Pods last ordered by pool name, who undid an order and when, and the targets' identities."""

    ordered: Mapping[str, int] = field(default_factory=dict)
    reverts: tuple[tuple[float, str], ...] = ()
    uids: Mapping[str, str] = field(default_factory=dict)


def claims(services: Iterable[Service]) -> list[list[tuple[Service, Pool]]]:
    """Return the pools of all services, those with one scale target together.

    Versions of an API group name the same objects, so they are not compared.
    """
    found: dict[tuple[str, str, str, str, str | None], list[tuple[Service, Pool]]] = {}
    for service in services:
        for pool in service.pools:
            target, group = pool.target, pool.target.api_version.rpartition("/")[0]
            place = (service.key.namespace, group, target.kind, target.name, target.task)
            found.setdefault(place, []).append((service, pool))
    return list(found.values())


def note_order(memory: ContentionMemory, replicas: Mapping[str, int]) -> ContentionMemory:
    """Return the memory after an order was written."""
    return replace(memory, ordered={**memory.ordered, **replicas})


def note_targets(
    service: Service, memory: ContentionMemory, fleet: Fleet, now_s: float
) -> tuple[ContentionMemory, frozenset[str], tuple[Reason, ...], Hold | None]:
    """Return what to remember, pools whose target is a new object, what was seen, and a hold.

    Parameters
    ----------
    service
        Its pools.
    memory
        As of the last tick.
    fleet
        The pools as they are.
    now_s
        Time of the decision [s, Unix].
    """
    reverts = [(at_s, who) for at_s, who in memory.reverts if at_s > now_s - MEMORY_S]
    renewed: set[str] = set()
    reasons: list[Reason] = []
    for pool in service.pools:
        found = fleet.pools[pool.name]
        if found.uid is not None and memory.uids.get(pool.name, found.uid) != found.uid:
            renewed.add(pool.name)
            reasons.append(_replaced(pool.name, pool.target.name))
            continue
        ordered = memory.ordered.get(pool.name)
        if ordered is None or found.replicas == ordered or found.changed_by is None:
            continue
        reverts.append((now_s, found.changed_by))
        message = (
            f"pool {pool.name}: {found.changed_by} set {found.replicas} pods, "
            f"{ordered} had been ordered; going on from there"
        )
        values = {"ordered": float(ordered), "found": float(found.replicas)}
        reasons.append(Reason("ChangedByOther", message, pool.name, values))
    uids = {name: found.uid for name, found in fleet.pools.items() if found.uid is not None}
    # What was found is where the next decision starts: a change is told once.
    ordered_still = {
        name: pods for name, pods in memory.ordered.items() if fleet.pools[name].replicas == pods
    }
    kept = ContentionMemory(ordered_still, tuple(reverts), {**memory.uids, **uids})
    return kept, frozenset(renewed), tuple(reasons), _contest(reverts)


def _replaced(pool: str, target: str) -> Reason:
    """Say that a pool starts over."""
    message = (
        f"pool {pool}: {target} is a new object of the same name: its load history is kept, "
        "scale-down waits until the stabilisation window was seen"
    )
    return Reason("TargetReplaced", message, pool)


def _contest(reverts: list[tuple[float, str]]) -> Hold | None:
    """Return a hold while one writer keeps undoing what is ordered."""
    writers = [who for _, who in reverts]
    for who in sorted(set(writers)):
        if writers.count(who) >= MOST_REVERTS:
            message = (
                f"{who} undid {writers.count(who)} orders within the hour: not writing; let it "
                "leave the replicas alone (GitOps: ignore the field), or set mode: Recommend"
            )
            return Hold(Reason("TargetContended", message, values={"reverts": writers.count(who)}))
    return None
