"""What to know before Deployments, StatefulSets and LeaderWorkerSets are scaled. Pure."""

from collections.abc import Iterator, Sequence

from planner.check.finding import Finding, Level, error, warning
from planner.check.rules import Rule
from planner.check.template import (
    Object,
    gpus_of,
    range_findings,
    scalable,
    template_findings,
)
from planner.model import Pool, Target


def workload_findings(pool: Pool, workload: Object) -> Iterator[Finding]:
    """Yield everything about a target with one count of replicas and a pod template.

    Yields
    ------
    Finding
        One that is ok if the target can be scaled, and whatever is not.
    """
    where = f"{pool.target.kind} {pool.target.name}"
    spec = workload.get("spec") or {}
    replicas = spec.get("replicas", 1)
    found = [*_kind(pool, where, spec), *range_findings(pool, replicas, f"{where} spec.replicas")]
    found += _templates(pool, where, spec)
    yield from found
    if all(finding.level is not Level.ERROR for finding in found):
        yield scalable(where, pool, replicas)


def autoscaler_findings(pool: Pool, autoscalers: Sequence[Object]) -> Iterator[Finding]:
    """Yield an error for each HorizontalPodAutoscaler that scales a pool's target too.

    Yields
    ------
    Finding
        One for each of them.
    """
    for autoscaler in autoscalers:
        reference = autoscaler["spec"]["scaleTargetRef"]
        if _is_same(pool.target, reference):
            name = autoscaler["metadata"]["name"]
            namespace = autoscaler["metadata"].get("namespace", "default")
            yield error(
                f"pool {pool.name}: scaleTargetRef",
                f"HorizontalPodAutoscaler {name} scales {pool.target.kind} {pool.target.name} "
                "too: each would undo what the other does",
                f"kubectl -n {namespace} delete hpa {name}, or let it read the planner's gauges "
                "with mode: Recommend",
                Rule.AUTOSCALER,
            )


def _is_same(target: Target, reference: Object) -> bool:
    group = reference.get("apiVersion", "").rpartition("/")[0]
    return (target.api_version.rpartition("/")[0], target.kind, target.name) == (
        group,
        reference.get("kind"),
        reference.get("name"),
    )


def _kind(pool: Pool, where: str, spec: Object) -> Iterator[Finding]:
    if pool.target.kind == "Deployment" and spec.get("paused"):
        yield warning(
            f"{where} spec.paused",
            "is true: it is scaled, but a new image or a mended template reaches no pod",
            f"kubectl rollout resume deployment/{pool.target.name}",
            Rule.PAUSED,
        )
    ordered = spec.get("podManagementPolicy", "OrderedReady") == "OrderedReady"
    if pool.target.kind == "StatefulSet" and ordered:
        yield warning(
            f"{where} spec.podManagementPolicy",
            f"is OrderedReady: pods start one after the other, {pool.startup_s:g} s each, and one "
            "that never gets ready stops the rest",
            "create the StatefulSet anew with podManagementPolicy: Parallel",
            Rule.ORDERED_START,
        )


def _templates(pool: Pool, where: str, spec: Object) -> Iterator[Finding]:
    if pool.target.kind == "LeaderWorkerSet":
        yield from _group(pool, where, spec.get("leaderWorkerTemplate") or {})
    elif "template" in spec:
        expected = pool.gpus_per_replica / pool.pods_per_replica
        pod_spec = spec["template"].get("spec") or {}
        yield from template_findings(pool, pod_spec, f"{where} spec.template.spec", expected)


def _group(pool: Pool, where: str, group: Object) -> Iterator[Finding]:
    """Yield the findings about a group of pods that is one replica: a leader and its workers.

    Yields
    ------
    Finding
        As for one template whose pods share the replica's GPUs.
    """
    worker = (group.get("workerTemplate") or {}).get("spec") or {}
    leader = (group.get("leaderTemplate") or {}).get("spec") or worker
    others = group.get("size", 1) - 1
    # Only a leader without accelerators differs in practice; its workers hold the replica's.
    share = (gpus_of(leader) or 0) + others * (gpus_of(worker) or 0)
    path = f"{where} spec.leaderWorkerTemplate.workerTemplate.spec"
    if share != pool.gpus_per_replica:
        expected = pool.gpus_per_replica / (others + 1)
        yield from template_findings(pool, worker, path, expected)
    else:
        yield from template_findings(pool, worker, path, gpus_of(worker) or 0)
