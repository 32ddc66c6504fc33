"""Whose pod a pod is."""

import pytest

from planner.adapters.kubernetes.objects import SeenPod
from planner.adapters.kubernetes.ownership import costs_deletion, pods_by_target
from planner.model import Pod, Target

PREFILL = Target("batch.volcano.sh/v1alpha1", "Job", "pd", "prefill")
DECODE = Target("batch.volcano.sh/v1alpha1", "Job", "pd", "decode")
LONGER = Target("batch.volcano.sh/v1alpha1", "Job", "pd-prefill", "x")
DEPLOYMENT = Target("apps/v1", "Deployment", "llm")
UNKNOWN = Target("batch/v1", "Job", "llm")
ADAPTER = Target("nvidia.com/v1beta1", "DynamoGraphDeploymentScalingAdapter", "llm")


def pod(name: str, job: str | None = None, task: str | None = None) -> SeenPod:
    labels = {"volcano.sh/job-name": job, "volcano.sh/task-spec": task} if job and task else {}
    return SeenPod("u", "serving", Pod(name, 0.0), labels, {})


def test_volcano_pods_go_by_their_labels_in_the_order_of_removal() -> None:
    pods = [
        pod("pd-prefill-10", "pd", "prefill"),
        pod("pd-prefill-2", "pd", "prefill"),
        pod("pd-decode-0", "pd", "decode"),
        pod("pd-prefill-x-0", "pd-prefill", "x"),
        pod("pd-prefill-3"),  # somebody's by hand
    ]
    found = pods_by_target(pods, [PREFILL, DECODE, LONGER])
    assert [(p.name, p.index) for p in found[PREFILL]] == [
        ("pd-prefill-2", 2),
        ("pd-prefill-10", 10),
    ]
    assert [p.name for p in found[DECODE]] == ["pd-decode-0"]
    assert [p.name for p in found[LONGER]] == ["pd-prefill-x-0"]


def test_pods_of_a_deployment_go_by_their_names_and_have_no_order() -> None:
    found = pods_by_target([pod("llm-6c5d9f-x2x9k"), pod("llm-0"), pod("other-1-2")], [DEPLOYMENT])
    assert [(p.name, p.index) for p in found[DEPLOYMENT]] == [("llm-6c5d9f-x2x9k", None)]


@pytest.mark.parametrize("target", [ADAPTER, UNKNOWN], ids=["told by nothing", "not known"])
def test_a_kind_whose_pods_can_not_be_told_has_none(target: Target) -> None:
    assert pods_by_target([pod("llm-0")], [target]) == {target: ()}


@pytest.mark.parametrize(
    ("target", "name", "costs"),
    [
        (DEPLOYMENT, "llm-6c5d9f-x2x9k", True),
        (DEPLOYMENT, "llm-0", False),
        (PREFILL, "pd-prefill-0", False),
    ],
)
def test_only_a_deployment_removes_by_cost(target: Target, name: str, costs: bool) -> None:
    assert costs_deletion(target, name) is costs
