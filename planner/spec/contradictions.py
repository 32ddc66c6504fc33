"""What no field of a PDAutoscaler can check alone: fields that contradict each other. Pure.

Every check returns faults: where, relative to the value that was checked, and one line that says
what, the legal range and the mend.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from planner.spec.pools import PoolSpec, ProfileRef, ScaleTargetRef
    from planner.spec.resource import PDAutoscalerSpec, RatioSpec

GATEWAY_SOURCES = ("vllm-gateway",)
"""Sources that see requests which no pod has taken yet."""

FAULTS = "contradictions"
"""Type of the pydantic error that carries them."""


class Fault(NamedTuple):
    """One contradiction: a path below what was checked, and what is wrong there."""

    where: tuple[str | int, ...]
    message: str


class Floor(NamedTuple):
    """What the floor of one pool costs; `price` is that of a GPU for an hour, if known."""

    pool: str
    replicas: int
    gpus: int
    gpu_type: str
    price: float | None


def raise_faults(faults: Sequence[Fault]) -> None:
    """Hand the faults to pydantic, if there are any.

    Raises
    ------
    PydanticCustomError
        Carries the faults in its context.
    """
    if faults:
        text = "; ".join(fault.message for fault in faults)
        raise PydanticCustomError(FAULTS, "{text}", {"text": text, "faults": list(faults)})


def target_faults(target: ScaleTargetRef) -> list[Fault]:
    """Return the fault of a Volcano Job without a task."""
    if target.kind != "Job" or not target.api_version.startswith("batch.volcano.sh/"):
        return []
    if target.task:
        return []
    message = "a Volcano Job is scaled by task: name one of its spec.tasks"
    return [Fault(("task",), message)]


def reference_faults(profile: ProfileRef) -> list[Fault]:
    """Return the fault of a profile that is named twice, or not at all."""
    if (profile.config_map is None) == (profile.file is None):
        how = "neither" if profile.file is None else "both"
        return [Fault((), f"{how} of configMap and file are given: give exactly one")]
    return []


def pool_faults(pool: PoolSpec) -> list[Fault]:
    """Return the fault of a floor above the ceiling."""
    low, high = pool.min_replicas, pool.max_replicas
    if low <= high:
        return []
    message = f"{low} is above maxReplicas {high}: write 0 to {high}, or raise maxReplicas"
    return [Fault(("minReplicas",), message)]


def ratio_faults(ratio: RatioSpec) -> list[Fault]:
    """Return the fault of a lower bound above the upper one."""
    if ratio.min is None or ratio.max is None or ratio.min <= ratio.max:
        return []
    message = f"{ratio.min:g} is above max {ratio.max:g}: write above 0 to {ratio.max:g}"
    return [Fault(("min",), message)]


def pools_faults(pools: tuple[PoolSpec, ...]) -> tuple[PoolSpec, ...]:
    """Return the pools if every role has one and no two share a name or a target."""
    faults = [
        Fault((), f"no pool has the role {role}: add one; every service needs Prefill and Decode")
        for role in ("Prefill", "Decode")
        if all(pool.role != role for pool in pools)
    ]
    names: dict[str, int] = {}
    targets: dict[tuple[str | None, ...], int] = {}
    for index, pool in enumerate(pools):
        ref = pool.scale_target_ref
        first = names.setdefault(pool.name, index)
        if first != index:
            message = f"{pool.name!r} is the name of pools[{first}] too: choose another"
            faults.append(Fault((index, "name"), message))
        first = targets.setdefault((ref.api_version, ref.kind, ref.name, ref.task), index)
        if first != index:
            message = f"pools[{first}] scales the same target: give each pool its own"
            faults.append(Fault((index, "scaleTargetRef"), message))
    raise_faults(faults)
    return pools


def floor_faults(spec: PDAutoscalerSpec) -> list[Fault]:
    """Return the limits that the floors alone exceed; an unstated replica counts one GPU."""
    floors = [
        Floor(p.name, p.min_replicas, p.gpus_per_replica or 1, p.gpu_type, p.gpu_hour_price)
        for p in spec.pools
    ]
    return footprint_faults(floors, spec.limits.gpus, spec.limits.cost_per_hour)


def footprint_faults(
    floors: Sequence[Floor],
    gpus: Mapping[str, int],
    cost_per_hour: float | None,
    what: str = "floors",
    lower: str = "minReplicas",
) -> list[Fault]:
    """Return the budgets that are below what the floors need, or other replicas called `what`."""
    used, cost = footprint(floors)
    faults = [
        Fault(
            ("limits", "gpus", gpu_type),
            f"{limit} is below the {used[gpu_type]} GPUs that the {what} need "
            f"({_pools(f for f in floors if f.gpu_type == gpu_type)}): write at least "
            f"{used[gpu_type]}, or lower {lower}",
        )
        for gpu_type, limit in gpus.items()
        if limit < used[gpu_type]
    ]
    if cost_per_hour is not None and cost is not None and cost_per_hour < cost:
        message = (
            f"{cost_per_hour:g} is below the {cost:g} an hour that the {what} cost "
            f"({_pools(floors)}): write at least {cost:g}, or lower {lower}"
        )
        faults.append(Fault(("limits", "costPerHour"), message))
    return faults


def footprint(floors: Iterable[Floor]) -> tuple[defaultdict[str, int], float | None]:
    """Return GPUs by type and the cost for an hour of the floors; None if a price is missing."""
    used: defaultdict[str, int] = defaultdict(int)
    cost: float | None = 0.0
    for floor in floors:
        gpus = floor.replicas * floor.gpus
        used[floor.gpu_type] += gpus
        cost = None if cost is None or floor.price is None else cost + gpus * floor.price
    return used, cost


def zero_faults(spec: PDAutoscalerSpec) -> list[Fault]:
    """Return the roles that could be scaled to zero with nobody left to see a request arrive."""
    if spec.metrics.source in GATEWAY_SOURCES:
        return []
    return [
        Fault(
            ("pools",),
            f"every {role} pool has minReplicas 0, and the source {spec.metrics.source} sees "
            "requests at pods alone: write minReplicas 1, or use a gateway's source "
            f"({', '.join(GATEWAY_SOURCES)})",
        )
        for role in ("Prefill", "Decode")
        if all(pool.min_replicas == 0 for pool in spec.pools if pool.role == role)
    ]


def fallback_faults(spec: PDAutoscalerSpec) -> list[Fault]:
    """Return the fallbacks that no pool may rise to."""
    if spec.fallback is None:
        return []
    faults = []
    for role in ("Prefill", "Decode"):
        key = role.lower()
        wanted: int = getattr(spec.fallback, key)
        most = sum(pool.max_replicas for pool in spec.pools if pool.role == role)
        if wanted > most:
            message = (
                f"{wanted} is above the {most} replicas that the {role} pools may have: "
                f"write 0 to {most}, or raise maxReplicas"
            )
            faults.append(Fault(("fallback", key), message))
    return faults


def _pools(floors: Iterable[Floor]) -> str:
    return ", ".join(f"{f.pool}: {f.replicas} × {f.gpus}" for f in floors)
