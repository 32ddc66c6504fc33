"""`check` of Deployments, StatefulSets and LeaderWorkerSets, and of other autoscalers."""

from typing import Any

import pytest

from planner.check.finding import Finding, Level
from planner.check.rules import Rule
from planner.check.workloads import autoscaler_findings, workload_findings
from planner.model import Pool, Target
from tests import builders

Object = dict[str, Any]


def pool(kind: str = "Deployment", version: str = "apps/v1", **over: Any) -> Pool:
    given = {"target": Target(version, kind, "llm"), "max_replicas": 8, "drain_s": 30.0}
    return builders.pool(**(given | over))


def template(gpus: int = 1, **over: Any) -> Object:
    limits = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    return {"spec": {"containers": [{"name": "vllm", "resources": {"limits": limits}}]} | over}


def workload(**spec: Any) -> Object:
    return {"spec": {"replicas": 4, "template": template()} | spec}


def group(leader: Object | None = None, workers: int = 4, size: int = 2) -> Object:
    made: Object = {"size": size, "workerTemplate": template(workers)}
    return {"replicas": 4, "leaderWorkerTemplate": made | (
        {} if leader is None else {"leaderTemplate": leader})}  # fmt: skip


def found(a_pool: Pool, an_object: Object) -> list[Finding]:
    return list(workload_findings(a_pool, an_object))


PARALLEL = {"podManagementPolicy": "Parallel"}
LWS = {"kind": "LeaderWorkerSet", "version": "leaderworkerset.x-k8s.io/v1"}

GREEN: dict[str, tuple[Pool, Object]] = {
    "Deployment": (pool(), workload()),
    "StatefulSet that starts at once": (pool("StatefulSet"), workload(**PARALLEL)),
    "group that shares a replica's GPUs": (
        pool(**LWS, gpus_per_replica=8), {"spec": group(workers=4, size=2)}),
    "group whose leader has none": (
        pool(**LWS, gpus_per_replica=8), {"spec": group(template(0), workers=8, size=2)}),
    "template in another object": (pool(), {"spec": {"replicas": 4}}),
    "one replica by default": (pool(), {"spec": {"template": template()}}),
}  # fmt: skip


@pytest.mark.parametrize(("a_pool", "an_object"), GREEN.values(), ids=GREEN)
def test_what_can_be_scaled_is_said_to(a_pool: Pool, an_object: Object):
    (one,) = found(a_pool, an_object)
    assert one.level is Level.OK
    assert "can be scaled from 1 to 8" in one.what


RED: dict[str, tuple[Pool, Object, Rule, Level, str, str]] = {
    "paused": (
        pool(), workload(paused=True), Rule.PAUSED, Level.WARNING,
        "Deployment llm spec.paused", "kubectl rollout resume deployment/llm"),
    "one after the other": (
        pool("StatefulSet", startup_s=90.0), workload(), Rule.ORDERED_START, Level.WARNING,
        "StatefulSet llm spec.podManagementPolicy", "podManagementPolicy: Parallel"),
    "above the ceiling": (
        pool(), workload(replicas=9), Rule.REPLICAS_RANGE, Level.WARNING,
        "Deployment llm spec.replicas", "scale the target to 8 first"),
    "no GPU": (
        pool(), workload(template=template(0)), Rule.GPU_REQUEST, Level.ERROR,
        "Deployment llm spec.template.spec.containers[*].resources", "nvidia.com/gpu: 1"),
    "short grace": (
        pool(drain_s=60.0), workload(), Rule.GRACE_PERIOD, Level.WARNING,
        "Deployment llm spec.template.spec.terminationGracePeriodSeconds",
        "terminationGracePeriodSeconds: 60"),
    "group of fewer GPUs": (
        pool(**LWS, gpus_per_replica=8), {"spec": group(workers=2, size=2)}, Rule.GPU_REQUEST,
        Level.WARNING,
        ("LeaderWorkerSet llm spec.leaderWorkerTemplate.workerTemplate.spec"
        ".containers[*].resources"), "set gpusPerReplica of the pool to 4"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("a_pool", "an_object", "rule", "level", "where", "mend"), RED.values(), ids=RED
)
def test_a_broken_rule_is_the_only_thing_found(
    a_pool: Pool, an_object: Object, rule: Rule, level: Level, where: str, mend: str
):
    (one,) = [finding for finding in found(a_pool, an_object) if finding.level is not Level.OK]
    assert (one.rule, one.level, one.where) == (rule, level, where)
    assert mend in one.mend


def test_pods_that_start_in_order_say_how_long_each_takes():
    (one, _) = found(pool("StatefulSet", startup_s=90.0), workload())
    assert "one after the other, 90 s each" in one.what


def autoscaler(**reference: str) -> Object:
    to = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "llm"} | reference
    return {
        "metadata": {"name": "cpu", "namespace": "inference"},
        "spec": {"scaleTargetRef": to},
    }


def test_an_autoscaler_on_the_same_target_is_an_error():
    (one,) = autoscaler_findings(pool(), [autoscaler(name="web"), autoscaler()])
    assert (one.level, one.rule) == (Level.ERROR, Rule.AUTOSCALER)
    assert one.what.startswith("HorizontalPodAutoscaler cpu scales Deployment llm too")
    assert "kubectl -n inference delete hpa cpu" in one.mend


@pytest.mark.parametrize(
    "reference",
    [{"name": "web"}, {"kind": "StatefulSet"}, {"apiVersion": "example.com/v1"}],
    ids=["other name", "other kind", "other group"],
)
def test_an_autoscaler_of_something_else_is_none_of_our_business(reference: dict[str, str]):
    assert list(autoscaler_findings(pool(), [autoscaler(**reference)])) == []
