"""The objects that `check` reads besides those that every tick reads: each once, whole."""

from collections.abc import Mapping
from typing import Any, Protocol

from planner.adapters.kubernetes.faults import AUTOSCALERS, CONFIG_MAPS, Resource
from planner.adapters.targets import kind_of
from planner.check.rights import SCHEDULER_CONFIG
from planner.errors import ClusterError
from planner.model import Service, Target

Json = dict[str, Any]


class Reader(Protocol):
    """The calls of the API client that are used here; a failure is a ClusterError."""

    def get(self, resource: Resource, namespace: str | None, name: str) -> Json:
        """Return one object."""
        ...

    def items(self, resource: Resource, namespace: str | None = None) -> list[Json]:
        """Return all objects of a list."""
        ...


def read_targets(api: Reader, service: Service) -> dict[str, Json | ClusterError]:
    """Return the scale target of each pool by its name, or why it can't be read."""
    found: dict[tuple[str, str, str], Json | ClusterError] = {}
    for pool in service.pools:
        place = _place(pool.target)
        if place not in found:  # two tasks of a Job are one object
            found[place] = _read(api, service.key.namespace, pool.target)
    return {pool.name: found[_place(pool.target)] for pool in service.pools}


def read_autoscalers(api: Reader, namespace: str) -> tuple[Json, ...] | ClusterError:
    """Return the HorizontalPodAutoscalers of a namespace, or why they can't be read."""
    try:
        return tuple(api.items(AUTOSCALERS, namespace))
    except ClusterError as error:
        return error


def read_scheduler_config(api: Reader) -> str | None:
    """Return the configuration from where Volcano installs it, None if it can't be read."""
    namespace, name = SCHEDULER_CONFIG
    try:
        texts: Mapping[str, str] = api.get(CONFIG_MAPS, namespace, name).get("data") or {}
    except ClusterError:
        return None
    return texts.get("volcano-scheduler.conf")


def _place(target: Target) -> tuple[str, str, str]:
    return target.api_version, target.kind, target.name


def _read(api: Reader, namespace: str, target: Target) -> Json | ClusterError:
    row = kind_of(target)
    group, _, version = target.api_version.rpartition("/")
    try:
        return api.get(Resource(group, version, row.plural), namespace, target.name)
    except ClusterError as error:
        return error
