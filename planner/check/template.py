"""What a scale target's pod template says about its pods: any kind. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from planner.check.finding import Finding, error, ok, warning
from planner.check.rules import Rule
from planner.model import Pool
from planner.spec.quantities import format_duration

Object = Mapping[str, Any]
"""An object as the API server gives it."""

GRACE_S: Final = 30
"""Kubernetes' terminationGracePeriodSeconds where a template has none [s]."""


def gpus_of(pod_spec: Object) -> int | None:
    """Return the GPUs that one pod asks for, None if it claims devices another way (DRA).

    Any device plugin's resource counts whose name says gpu, such as ``nvidia.com/gpu`` or
    ``volcano.sh/vgpu-number``, and MIG slices.
    """
    if pod_spec.get("resourceClaims"):
        return None
    return sum(_container_gpus(container) for container in pod_spec.get("containers", ()))


def template_findings(
    pool: Pool, pod_spec: Object, where: str, gpus_per_pod: float
) -> Iterator[Finding]:
    """Yield what a pod template says against its pool.

    Parameters
    ----------
    pool
        Whose pods these are.
    pod_spec
        The template's spec.
    where
        The template's spec in words: the object and its path.
    gpus_per_pod
        GPUs that the pool expects of one such pod.

    Yields
    ------
    Finding
        About GPUs and the time that a pod is given to end.
    """
    yield from _gpus(pool, gpus_of(pod_spec), where, gpus_per_pod)
    grace_s = pod_spec.get("terminationGracePeriodSeconds", GRACE_S)
    if grace_s < pool.drain_s:
        yield warning(
            f"{where}.terminationGracePeriodSeconds",
            f"is {grace_s}, shorter than the {format_duration(pool.drain_s)} in which pool "
            f"{pool.name} drains: requests that outlast the mark are cut off",
            f"write terminationGracePeriodSeconds: {round(pool.drain_s)}",
            Rule.GRACE_PERIOD,
        )


def range_findings(pool: Pool, pods: int, where: str) -> Iterator[Finding]:
    """Yield whether the pods that are asked for now lie within the pool's floor and ceiling.

    Yields
    ------
    Finding
        At most one.
    """
    per = pool.pods_per_replica
    low, high = pool.min_replicas * per, pool.max_replicas * per
    if low <= pods <= high and pods % per == 0:
        return
    if low <= pods <= high:
        what = f"is {pods}, no whole number of replicas of {per} pods"
    else:
        side = "below the floor" if pods < low else "above the ceiling"
        what = f"is {pods}, {side} of pool {pool.name} ({low} to {high} pods)"
    bound = min(max(pods, low), high) // per * per
    yield warning(
        where,
        f"{what}: the first decision of mode Act changes it",
        f"set minReplicas and maxReplicas of the pool around {pods // per}, or scale the target "
        f"to {bound} first",
        Rule.REPLICAS_RANGE,
    )


def scalable(where: str, pool: Pool, pods: int) -> Finding:
    """Return that nothing keeps a target from being scaled."""
    per = pool.pods_per_replica
    low, high = pool.min_replicas * per, pool.max_replicas * per
    return ok(where, f"{pods} pods, can be scaled from {low} to {high}")


def _gpus(pool: Pool, gpus: int | None, where: str, expected: float) -> Iterator[Finding]:
    path = f"{where}.containers[*].resources"
    said = f"pool {pool.name} counts {expected:g} a pod (gpusPerReplica {pool.gpus_per_replica})"
    if gpus == 0 and expected > 0:
        yield error(
            path,
            f"no container asks for a GPU, and {said}: the scheduler would put pods on nodes "
            "without one",
            f"write limits: {{nvidia.com/gpu: {expected:g}}}",
            Rule.GPU_REQUEST,
        )
    elif gpus is not None and gpus != expected:
        replica = gpus * pool.gpus_per_replica / expected if expected else gpus
        yield warning(
            path,
            f"a pod asks for {gpus} GPUs, and {said}: budgets and prices count the latter",
            f"set gpusPerReplica of the pool to {replica:g}, or mend the template",
            Rule.GPU_REQUEST,
        )


def _container_gpus(container: Object) -> int:
    resources = container.get("resources") or {}
    # Extended resources can't be overcommitted: limits alone stand for requests too.
    amounts = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return sum(int(amount) for name, amount in amounts.items() if _is_gpu(name))


def _is_gpu(resource: str) -> bool:
    domain, _, name = resource.partition("/")
    memory = name.endswith(("memory", "cores", "mem"))
    return bool(name) and not memory and ("gpu" in name or name.startswith("mig-")) and bool(domain)
