"""Every kind of scale target: where its replicas are and which pods are its own."""

import re

import pytest

from planner.adapters.targets import (
    KINDS,
    ScaleKind,
    kind_of,
    pod_index,
    pod_labels,
    pod_pattern,
)
from planner.errors import SpecError
from planner.model import Target

VOLCANO = Target("batch.volcano.sh/v1alpha1", "Job", "llm", "prefill")
DEPLOYMENT = Target("apps/v1", "Deployment", "llm")
STATEFUL = Target("apps/v1", "StatefulSet", "llm")
LWS = Target("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", "llm")
MODEL_SERVING = Target("workload.serving.volcano.sh/v1alpha1", "ModelServing", "llm", "prefill")
RBG = Target("workloads.x-k8s.io/v1alpha2", "RoleBasedGroup", "llm", "prefill")
DYNAMO_MAP = Target("nvidia.com/v1alpha1", "DynamoGraphDeployment", "llm", "VllmPrefill")
DYNAMO_LIST = Target("nvidia.com/v1beta1", "DynamoGraphDeployment", "llm", "prefill")
KSERVE = Target("serving.kserve.io/v1alpha2", "LLMInferenceService", "llm")
KSERVE_PREFILL = Target("serving.kserve.io/v1alpha2", "LLMInferenceService", "llm", "prefill")


@pytest.mark.parametrize(
    ("target", "pointer"),
    [
        pytest.param(VOLCANO, "/spec/tasks/{index}/replicas", id="volcano"),
        pytest.param(DEPLOYMENT, "/spec/replicas", id="deployment"),
        pytest.param(MODEL_SERVING, "/spec/template/roles/{index}/replicas", id="kthena"),
        pytest.param(DYNAMO_MAP, "/spec/services/{task}/replicas", id="dynamo v1alpha1"),
        pytest.param(DYNAMO_LIST, "/spec/components/{index}/replicas", id="dynamo v1beta1"),
        pytest.param(KSERVE, "/spec/replicas", id="kserve decode"),
        pytest.param(KSERVE_PREFILL, "/spec/prefill/replicas", id="kserve prefill"),
    ],
)
def test_replicas_are_found(target: Target, pointer: str) -> None:
    assert kind_of(target).replicas == pointer


@pytest.mark.parametrize(
    ("target", "own", "foreign"),
    [
        pytest.param(
            VOLCANO,
            ["llm-prefill-0", "llm-prefill-12"],
            ["llm-decode-0", "my-llm-prefill-0", "llm-prefill-0-x", "llm-prefill-big-0"],
            id="volcano",
        ),
        pytest.param(
            DEPLOYMENT,
            ["llm-6c5d9f-x2x9k"],
            ["llm-prefill-6c5d9f-x2x9k", "llm-0", "llm-6c5d9f"],
            id="deployment",
        ),
        pytest.param(STATEFUL, ["llm-0", "llm-10"], ["llm-x", "llm-0-0", "llm"], id="statefulset"),
        pytest.param(LWS, ["llm-0", "llm-0-1"], ["llm-0-1-2", "llm-a"], id="lws"),
        pytest.param(
            MODEL_SERVING, ["llm-0-prefill-1-0"], ["llm-0-decode-1-0", "llm-prefill-0"], id="kthena"
        ),
        pytest.param(
            RBG,
            ["llm-prefill-0", "llm-prefill-0-1", "llm-prefill-6c5d-x2x9k"],
            ["llm-decode-0", "llm-prefill"],
            id="rbg",
        ),
        pytest.param(
            DYNAMO_MAP,
            ["llm-vllmprefill-6c5d-x2x9k", "llm-0-vllmprefill-x2x9k"],
            ["llm-vllmdecode-6c5d-x2x9k"],
            id="dynamo",
        ),
        pytest.param(
            KSERVE,
            ["llm-kserve-6c5d-x2x9k", "llm-kserve-mn-0-1"],
            ["llm-kserve-prefill-6c5d-x2x9k", "llm-kserve-mn-prefill-0"],
            id="kserve decode",
        ),
        pytest.param(
            KSERVE_PREFILL,
            ["llm-kserve-prefill-6c5d-x2x9k", "llm-kserve-mn-prefill-0-1"],
            ["llm-kserve-6c5d-x2x9k", "llm-kserve-mn-0"],
            id="kserve prefill",
        ),
    ],
)
def test_pods_are_told_apart(target: Target, own: list[str], foreign: list[str]) -> None:
    pattern = re.compile(pod_pattern(target))
    assert [pod for pod in own if not pattern.fullmatch(pod)] == []
    assert [pod for pod in foreign if pattern.fullmatch(pod)] == []


def test_a_name_is_taken_literally() -> None:
    target = Target("apps/v1", "StatefulSet", "llama-3.1-8b")
    assert re.fullmatch(pod_pattern(target), "llama-3.1-8b-0")
    assert not re.fullmatch(pod_pattern(target), "llama-3x1-8b-0")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        pytest.param(
            Target("batch/v1", "Job", "llm"), "batch/v1 Job llm: no such scale target", id="kind"
        ),
        pytest.param(
            Target("batch.volcano.sh/v1alpha1", "Job", "llm"), "names no task; add", id="no task"
        ),
        pytest.param(
            Target("apps/v1", "Deployment", "llm", "prefill"),
            "task is prefill, legal is no task",
            id="a task too many",
        ),
        pytest.param(
            Target("serving.kserve.io/v1alpha2", "LLMInferenceService", "llm", "x"),
            "task is x, legal is no task or `task: prefill`",
            id="another task",
        ),
        pytest.param(
            Target("nvidia.com/v2", "DynamoGraphDeployment", "llm", "x"),
            "no such scale target",
            id="version",
        ),
        pytest.param(
            Target("nvidia.com/v1beta1", "DynamoGraphDeploymentScalingAdapter", "llm"),
            "set metrics.selector of the pool",
            id="names that do not tell",
        ),
    ],
)
def test_what_can_not_be_scaled_is_refused(target: Target, message: str) -> None:
    with pytest.raises(SpecError) as refused:
        pod_pattern(target)
    assert message in str(refused.value)


@pytest.mark.parametrize("row", KINDS, ids=lambda row: f"{row.kind}-{row.task}")
def test_a_pointer_needs_a_task_exactly_where_one_is_given(row: ScaleKind) -> None:
    placeholders = "{index}" in row.replicas or "{task}" in row.replicas
    assert placeholders == (row.task == "*")


@pytest.mark.parametrize("row", KINDS, ids=lambda row: f"{row.kind}-{row.task}")
def test_every_kind_has_its_place_in_the_api(row: ScaleKind) -> None:
    assert row.plural.removesuffix("s") == row.kind.lower()


@pytest.mark.parametrize(
    ("target", "pod", "index"),
    [
        pytest.param(VOLCANO, "llm-prefill-12", 12, id="volcano"),
        pytest.param(STATEFUL, "llm-0", 0, id="statefulset"),
        pytest.param(LWS, "llm-3", 3, id="leader"),
        pytest.param(LWS, "llm-3-1", 3, id="worker of the same group"),
        pytest.param(DEPLOYMENT, "llm-6c5d9f-12345", None, id="deployment"),
        pytest.param(MODEL_SERVING, "llm-0-prefill-1-0", None, id="not told"),
    ],
)
def test_the_order_of_removal(target: Target, pod: str, index: int | None) -> None:
    assert pod_index(target, pod) == index


def test_the_labels_that_tell_pods_apart() -> None:
    assert pod_labels(VOLCANO) == {"volcano.sh/job-name": "llm", "volcano.sh/task-spec": "prefill"}
    assert pod_labels(LWS) == {"leaderworkerset.sigs.k8s.io/name": "llm"}
    assert pod_labels(DEPLOYMENT) == {}
