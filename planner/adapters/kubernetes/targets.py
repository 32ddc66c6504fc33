"""Reading scale targets: one list a kind and namespace, fresh at every tick. Network I/O.

What can't be scaled is a `TargetError` of the pools concerned, in one line with the mend; what
can't be listed is the error of all pools of that kind there; everything else goes on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from planner.adapters.kubernetes.api import FIELD_MANAGER, KubernetesApi
from planner.adapters.kubernetes.faults import AUTOSCALERS, Resource
from planner.adapters.kubernetes.objects import pod_shape
from planner.adapters.kubernetes.patches import Reading, look_up, reading, writer_of
from planner.adapters.kubernetes.values import Json
from planner.adapters.targets import kind_of
from planner.errors import ClusterError, InputError, TargetError
from planner.inventory import PodShape
from planner.model import Target

# Where a name is looked for that its own kind does not have.
_NAMESAKES: Final = {
    "apps/v1 Deployment": Resource("apps", "v1", "deployments"),
    "apps/v1 StatefulSet": Resource("apps", "v1", "statefulsets"),
    "batch/v1 Job": Resource("batch", "v1", "jobs"),
    "batch.volcano.sh/v1alpha1 Job": Resource("batch.volcano.sh", "v1alpha1", "jobs"),
    "leaderworkerset.x-k8s.io/v1 LeaderWorkerSet": Resource(
        "leaderworkerset.x-k8s.io", "v1", "leaderworkersets"
    ),
}
_SHOWN_NAMES: Final = 10

Place = tuple[str, Target]
"""A target and its namespace."""


@dataclass(frozen=True, slots=True)
class SeenTarget:
    """A target as it was read.

    Attributes
    ----------
    reading
        Its count, and what a write of it rests on.
    shape
        What one of its pods asks of a node, None where the kind shows no template.
    tier, tier_name
        Highest tier that the scheduler keeps it under, by number or by name; None: anywhere.
    changed_by
        Who else wrote the count last.
    """

    reading: Reading
    shape: PodShape | None = None
    tier: int | None = None
    tier_name: str | None = None
    changed_by: str | None = None


def resource_of(target: Target) -> Resource:
    """Return where the API keeps objects of a target's kind."""
    group, _, version = target.api_version.rpartition("/")
    return Resource(group, version, kind_of(target).plural)


def seen_target(target: Target, raw: Json) -> SeenTarget:
    """Return a target out of its object; a `TargetError` where it can't be scaled as it is."""
    row, found = kind_of(target), reading(target, raw)
    template = look_up(raw, found.resolve(row.template)) if row.template else None
    network = (look_up(raw, row.topology) if row.topology else None) or {}
    # Without a tier, and in soft mode, Volcano enforces nothing.
    is_hard = network.get("mode", "hard") == "hard"
    writer = writer_of(target, found, raw)
    return SeenTarget(
        reading=found,
        shape=pod_shape(template, look_up(raw, "/spec/queue")) if template else None,
        tier=network.get("highestTierAllowed") if is_hard else None,
        tier_name=network.get("highestTierName") if is_hard else None,
        changed_by=None if writer == FIELD_MANAGER else writer,
    )


class TargetReader:
    """Reads the targets of many pools with few requests."""

    def __init__(self, api: KubernetesApi) -> None:
        self._api = api

    def read(self, places: Iterable[Place]) -> Mapping[Place, SeenTarget | ClusterError]:
        """Return each target as it is now; never raises."""
        found: dict[Place, SeenTarget | ClusterError] = {}
        by_list: dict[tuple[Resource, str], list[Target]] = {}
        for namespace, target in dict.fromkeys(places):
            try:
                by_list.setdefault((resource_of(target), namespace), []).append(target)
            except InputError as error:
                found[namespace, target] = TargetError(str(error))
        for (resource, namespace), targets in by_list.items():
            for target, seen in self._listed(resource, namespace, targets).items():
                found[namespace, target] = seen
        return {**found, **self._contended(found)}

    def again(self, namespace: str, target: Target) -> Reading:
        """Return the count of one target, read by itself."""
        return reading(target, self._api.get(resource_of(target), namespace, target.name))

    def _listed(
        self, resource: Resource, namespace: str, targets: Iterable[Target]
    ) -> dict[Target, SeenTarget | ClusterError]:
        try:
            objects = {o["metadata"]["name"]: o for o in self._api.items(resource, namespace)}
        except ClusterError as error:
            return dict.fromkeys(targets, error)
        return {target: self._one(target, namespace, objects) for target in targets}

    def _one(
        self, target: Target, namespace: str, objects: Mapping[str, Json]
    ) -> SeenTarget | ClusterError:
        if target.name not in objects:
            return self._missing(target, namespace, objects)
        try:
            return seen_target(target, objects[target.name])
        except TargetError as error:
            return error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"{target.kind} {namespace}/{target.name}"
            return TargetError(f"{what} is not as its API describes it: {error!r}")

    def _missing(self, target: Target, namespace: str, objects: Mapping[str, Json]) -> TargetError:
        message = f"there is no {target.kind} {namespace}/{target.name}"
        namesakes = [kind for kind in _NAMESAKES if self._exists(kind, namespace, target)]
        if namesakes:
            message += f"; of that name there is {' and '.join(namesakes)}: correct scaleTargetRef"
        elif objects:
            names = sorted(objects)[:_SHOWN_NAMES]
            message += f"; {resource_of(target).plural} there: {', '.join(names)}"
        else:
            message += f"; the namespace has no {resource_of(target).plural}"
        return TargetError(message, "TargetNotFound")

    def _exists(self, kind: str, namespace: str, target: Target) -> bool:
        if _NAMESAKES[kind] == resource_of(target):
            return False
        try:
            self._api.get(_NAMESAKES[kind], namespace, target.name)
        except ClusterError:
            return False
        return True

    def _contended(
        self, found: Mapping[Place, SeenTarget | ClusterError]
    ) -> dict[Place, TargetError]:
        """Return the targets that a HorizontalPodAutoscaler scales as well."""
        scalable = [
            place
            for place, seen in found.items()
            if isinstance(seen, SeenTarget) and kind_of(place[1]).has_scale
        ]
        owners = {
            (namespace, ref.get("kind"), ref.get("name")): name
            for namespace in {namespace for namespace, _ in scalable}
            for name, ref in self._autoscaled(namespace)
        }
        return {
            (namespace, target): TargetError(
                f"{target.kind} {namespace}/{target.name} is also scaled by the "
                f"HorizontalPodAutoscaler {owner}; delete that, or this PDAutoscaler",
                "TargetContended",
            )
            for namespace, target in scalable
            if (owner := owners.get((namespace, target.kind, target.name))) is not None
        }

    def _autoscaled(self, namespace: str) -> list[tuple[str, Json]]:
        try:
            found = self._api.items(AUTOSCALERS, namespace)
        except ClusterError:
            return []  # not ours to read: `check` says so, a tick goes on
        return [(one["metadata"]["name"], one["spec"]["scaleTargetRef"]) for one in found]
