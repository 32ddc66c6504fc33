"""Writing to the cluster: counts of scale targets, marks on pods. Network I/O.

A write is made on what was decided on. Status updates move an object's version all the time, so a
stale version alone is read again and written; another count, another object or other tasks are a
`ConflictError`: the decision is out of date. Nothing is ever written twice.
"""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from planner.adapters.kubernetes.api import KubernetesApi
from planner.adapters.kubernetes.faults import PODS
from planner.adapters.kubernetes.objects import DRAIN_ANNOTATION
from planner.adapters.kubernetes.patches import Reading, operations
from planner.adapters.kubernetes.targets import TargetReader, resource_of
from planner.adapters.kubernetes.values import Json, rfc3339
from planner.errors import ClusterError, ConflictError, TargetError

_LOG = logging.getLogger(__name__)

Wanted = Sequence[tuple[Reading, int]]
"""The targets of one object with their new counts."""

_REREADS: Final = 3
# Before every cost that somebody may have set: pods of lower cost go first.
_COST_ANNOTATION: Final = "controller.kubernetes.io/pod-deletion-cost"
_FIRST_TO_GO: Final = "-2147483647"


class TargetWriter:
    """Writes patches object by object."""

    def __init__(self, api: KubernetesApi, reader: TargetReader) -> None:
        self._api = api
        self._reader = reader

    def scale(
        self, namespace: str, wanted: Iterable[tuple[Reading, int]], *, may_shrink: bool
    ) -> list[ClusterError]:
        """Write counts, growing objects first; return what went wrong.

        One object's refusal stops no other growth, but nothing shrinks after one: the capacity
        that was to come first has not come.
        """
        objects: dict[tuple[str, str], list[tuple[Reading, int]]] = {}
        for found, count in wanted:
            place = (str(resource_of(found.target)), found.target.name)
            objects.setdefault(place, []).append((found, count))
        growing = [one for one in objects.values() if _grows(one)]
        shrinking = [one for one in objects.values() if not _grows(one)]
        faults = each(partial(self._write, namespace, one) for one in growing)
        if faults or not may_shrink:
            return faults
        return each(partial(self._write, namespace, one) for one in shrinking)

    def mark(
        self, namespace: str, pod: str, uid: str | None, until_s: float | None, *, has_cost: bool
    ) -> None:
        """Mark a pod as leaving at a time [s, Unix], or take the mark off (None).

        A pod that has gone, or is another of the same name by now, needs neither.
        """
        annotations: Json = {DRAIN_ANNOTATION: None if until_s is None else rfc3339(until_s)}
        if has_cost:
            annotations[_COST_ANNOTATION] = None if until_s is None else _FIRST_TO_GO
        meta: Json = {"annotations": annotations} | ({"uid": uid} if uid else {})
        try:
            self._api.merge_patch(PODS, namespace, pod, {"metadata": meta})
        except (TargetError, ConflictError) as error:
            _LOG.debug("no mark needed: %s", error)

    def _write(self, namespace: str, wanted: Wanted) -> None:
        target = wanted[0][0].target
        for attempt in range(_REREADS + 1):
            try:
                self._api.json_patch(
                    resource_of(target), namespace, target.name, operations(wanted)
                )
            except ConflictError:
                if attempt == _REREADS:
                    raise
                wanted = self._again(namespace, wanted)
            else:
                return

    def _again(self, namespace: str, wanted: Wanted) -> Wanted:
        """Return the same counts on what is there now.

        Raises
        ------
        ConflictError
            If that is not what was decided on.
        """
        found = [(self._reader.again(namespace, old.target), count) for old, count in wanted]
        for (now, _), (old, _) in zip(found, wanted, strict=True):
            if not now.is_as(old):
                raise ConflictError(
                    f"{old.target.kind} {namespace}/{old.target.name} was {_seen(old)} when it was "
                    f"decided on and is {_seen(now)} now; decided anew at the next tick"
                )
        return found


def drained_at_s(until_s: float, decided_s: float, written_s: float) -> float:
    """Return a mark's deadline [s, Unix], put off by how much later it is written than decided.

    The first tick after a start is as of the last whole interval: its drain would be over before
    it began. Whole seconds, as marks are.
    """
    return until_s + max(math.floor(written_s - decided_s), 0)


def each(steps: Iterable[Callable[[], None]]) -> list[ClusterError]:
    """Do each step, whatever becomes of the others; return what went wrong."""
    faults: list[ClusterError] = []
    for step in steps:
        try:
            step()
        except ClusterError as error:
            faults.append(error)
    return faults


def _grows(wanted: Wanted) -> bool:
    return any(count > found.replicas for found, count in wanted)


def _seen(found: Reading) -> str:
    names = f" of {', '.join(e.name for e in found.entries)}" if found.entries else ""
    return f"at {found.replicas}{names} (uid {found.uid[:8]})"
