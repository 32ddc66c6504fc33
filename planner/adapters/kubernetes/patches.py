"""A scale target's counts as they were read, and the JSON Patch that changes them. Pure.

One object is one write, however many of its counts change. The lock is a ``replace`` of the
resource version, whose failure is a clear 409; entries of lists are tested by their names.
Minimum counts follow the replicas down where a webhook would refuse the write otherwise, and never
up: raising a Volcano Job's ``minAvailable`` makes its new pods all or nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from planner.adapters.kubernetes.values import Json
from planner.adapters.targets import ScaleKind, kind_of
from planner.errors import TargetError
from planner.model import Target

# A Job in one of these does not act on its replicas, and what mends it.
_PASSING_PHASES = frozenset({"Restarting", "Aborting", "Terminating", "Completing"})
_OVER_PHASES = frozenset({"Aborted", "Terminated", "Completed", "Failed"})
_SHOWN_NAMES = 10


@dataclass(frozen=True, slots=True)
class Entry:
    """One named count of a list: replicas, and the least that its object asks for, if it does."""

    name: str
    replicas: int
    minimum: int | None


@dataclass(frozen=True, slots=True)
class Reading:
    """One target's count as its object held it.

    Attributes
    ----------
    target
        Whose count.
    uid, version
        Which object, and the resource version at which it was read.
    index
        Place of the target's entry, None where the counts are no list.
    replicas
        The count.
    entries
        All entries of the list, in its order; empty where there is none.
    minimum
        The least that the object asks for over all entries, if it does.
    """

    target: Target
    uid: str
    version: str
    index: int | None
    replicas: int
    entries: tuple[Entry, ...] = ()
    minimum: int | None = None

    def resolve(self, pointer: str) -> str:
        """Return a pointer of the target's row for this very object."""
        return _with_task(pointer.replace("{index}", str(self.index)), self.target)

    def is_as(self, decided: "Reading") -> bool:
        """Return whether a decision made on `decided` may still be written."""
        return (self.uid, self.replicas, [e.name for e in self.entries]) == (
            decided.uid,
            decided.replicas,
            [e.name for e in decided.entries],
        )


def reading(target: Target, raw: Json) -> Reading:
    """Return a target's count.

    Raises
    ------
    TargetError
        If the object can't be scaled as it is: it is going or has ended, holds no entry of that
        name, or fixes the count.
    """
    row, meta = kind_of(target), raw["metadata"]
    what = f"{target.kind} {meta['namespace']}/{target.name}"
    _check_alive(what, row, raw)
    entries = _entries(row, raw)
    index = _index(what, row, target, raw, entries)
    found = Reading(
        target=target,
        uid=meta["uid"],
        version=meta["resourceVersion"],
        index=index,
        replicas=row.absent,
        entries=entries,
        minimum=_whole_minimum(row, raw),
    )
    if row.partitions and look_up(raw, found.resolve(row.partitions)):
        raise TargetError(
            f"{what}: task {target.task} has a partitionPolicy, which fixes its replicas for good; "
            "create the Job without it, with networkTopology of the Job instead"
        )
    count = look_up(raw, found.resolve(row.replicas))
    return found if count is None else replace(found, replicas=int(count))


def operations(wanted: Sequence[tuple[Reading, int]]) -> list[Json]:
    """Return the JSON Patch that gives one object's targets their counts.

    Parameters
    ----------
    wanted
        Readings of the same object at the same version, each with its new count.
    """
    first = wanted[0][0]
    patch: list[Json] = [
        {"op": "replace", "path": "/metadata/resourceVersion", "value": first.version}
    ]
    for found, _ in wanted:
        if found.index is not None:
            place = kind_of(found.target).replicas.partition("/{index}")[0]
            name = {"op": "test", "path": f"{place}/{found.index}/name", "value": found.target.task}
            patch.append(name)
    patch += [
        {"op": "add", "path": found.resolve(kind_of(found.target).replicas), "value": count}
        for found, count in wanted
    ]
    return patch + _lowered_minima(wanted)


def _lowered_minima(wanted: Sequence[tuple[Reading, int]]) -> list[Json]:
    first = wanted[0][0]
    counts = {found.index: count for found, count in wanted}
    after = [
        Entry(
            entry.name,
            counts.get(index, entry.replicas),
            None if entry.minimum is None else min(entry.minimum, counts.get(index, entry.minimum)),
        )
        for index, entry in enumerate(first.entries)
    ]
    patch: list[Json] = []
    for found, _ in wanted:
        least = after[found.index].minimum if found.index is not None and after else None
        if found.index is not None and least != first.entries[found.index].minimum:
            pointer = next(p for p in kind_of(found.target).minima if "{index}" in p)
            patch.append({"op": "add", "path": found.resolve(pointer), "value": least})
    whole = _lowered_whole(first, after)
    if whole != first.minimum:
        pointer = next(p for p in kind_of(first.target).minima if "{index}" not in p)
        patch.append({"op": "add", "path": pointer, "value": whole})
    return patch


def _lowered_whole(first: Reading, after: Sequence[Entry]) -> int | None:
    """Return the object's own minimum afterwards.

    Where it was the sum of its entries' it stays so: only then does Volcano hold each task to its
    own minimum. Else it is lowered only to what all replicas together still allow.
    """
    if first.minimum is None:
        return None
    if first.minimum == _sum_of_minima(first.entries):
        return _sum_of_minima(after)
    return min(first.minimum, sum(entry.replicas for entry in after))


def _sum_of_minima(entries: Sequence[Entry]) -> int | None:
    minima = [entry.minimum for entry in entries]
    return None if None in minima else sum(m for m in minima if m is not None)


def writer_of(target: Target, found: Reading, raw: Json) -> str | None:
    """Return the field manager that owns a target's count, the last one if several do.

    Owners are read from ``managedFields``; a list without keys is owned as a whole, and one
    without any owner says nothing (None).
    """
    path = kind_of(target).replicas.strip("/").split("/")
    owners = [
        (entry.get("time") or "", entry["manager"])
        for entry in raw["metadata"].get("managedFields") or ()
        if entry.get("subresource") in {None, "", "scale"}
        and _owns(entry.get("fieldsV1") or {}, path, found)
    ]
    return max(owners, default=("", None))[1]


def look_up(raw: Any, pointer: str) -> Any:
    """Return what a JSON Pointer names, None if nothing is there (RFC 6901).

    Examples
    --------
    >>> look_up({"spec": {"tasks": [{"replicas": 4}]}}, "/spec/tasks/0/replicas")
    4
    """
    for step in filter(None, pointer.split("/")):
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(raw, Mapping):
            raw = raw.get(name)
        elif isinstance(raw, Sequence) and name.isdigit() and int(name) < len(raw):
            raw = raw[int(name)]
        else:
            return None
    return raw


def _check_alive(what: str, row: ScaleKind, raw: Json) -> None:
    if raw["metadata"].get("deletionTimestamp"):
        raise TargetError(f"{what} is being deleted; wait until a new one is there")
    phase = look_up(raw, row.phase) if row.phase else None
    if phase in _PASSING_PHASES:
        raise TargetError(f"{what} is {phase} and does not act on its replicas; wait until it runs")
    if phase in _OVER_PHASES:
        raise TargetError(f"{what} is {phase} and starts no pods any more; create it anew")


def _entries(row: ScaleKind, raw: Json) -> tuple[Entry, ...]:
    place, listed, count = row.replicas.partition("/{index}")
    if not listed:
        return ()
    least = next((p.partition("/{index}")[2] for p in row.minima if "{index}" in p), None)
    return tuple(
        Entry(
            str(entry.get("name")),
            int(_or(look_up(entry, count), row.absent)),
            look_up(entry, least) if least else None,
        )
        for entry in look_up(raw, place) or ()
    )


def _index(
    what: str, row: ScaleKind, target: Target, raw: Json, entries: Sequence[Entry]
) -> int | None:
    """Return the place of the target's entry; a name that is not there is told with those that are.

    Raises
    ------
    TargetError
        If there is no such entry.
    """
    names = [entry.name for entry in entries]
    if "{index}" in row.replicas:
        if target.task in names:
            return names.index(target.task)
    elif target.task is None:
        return None
    else:
        parent = _with_task(row.replicas, target).rpartition("/")[0]
        if look_up(raw, parent) is not None:
            return None
        if "{task}" in row.replicas:
            names = sorted(look_up(raw, parent.rpartition("/")[0]) or ())
    shown = ", ".join(names[:_SHOWN_NAMES]) or "none"
    raise TargetError(f"{what} has no task {target.task}; it has {shown}", "TargetNotFound")


def _whole_minimum(row: ScaleKind, raw: Json) -> int | None:
    pointer = next((p for p in row.minima if "{index}" not in p), None)
    return look_up(raw, pointer) if pointer else None


def _owns(fields: Mapping[str, Any], path: Sequence[str], found: Reading) -> bool:
    for step in path:
        if step == "{index}":
            keys = [k for k in fields if k.startswith("k:")]
            named = (k for k in keys if json.loads(k[2:]).get("name") == found.target.task)
            key = next(named, None)
        else:
            key = f"f:{found.target.task if step == '{task}' else step}"
        if key is None or key not in fields:
            return False
        fields = fields[key]
        if not fields:  # owned as a whole: a leaf, or an atomic list
            return True
    return True


def _with_task(pointer: str, target: Target) -> str:
    return pointer.replace("{task}", (target.task or "").replace("~", "~0").replace("/", "~1"))


def _or(value: Any, default: int) -> Any:
    return default if value is None else value
