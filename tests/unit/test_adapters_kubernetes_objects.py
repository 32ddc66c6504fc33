"""Objects as the API server gives them, and what is kept of them."""

from typing import Any

import pytest

from planner.adapters.kubernetes.objects import (
    SeenPod,
    hyper_node,
    node,
    pod_shape,
    queue,
    quota,
    seen_pod,
)
from planner.inventory import (
    HyperNode,
    Member,
    Node,
    Operator,
    Quota,
    Requirement,
    Taint,
    Toleration,
)

GPU = "nvidia.com/gpu"
LABELS = frozenset({"volcano.sh/job-name"})
CREATED = "2026-11-22T18:00:00Z"
CREATED_S = 1795370400.0


def raw_pod(*conditions: dict[str, str], phase: str = "Running", **meta: object) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "pd-prefill-0",
            "namespace": "serving",
            "uid": "u1",
            "creationTimestamp": CREATED,
            "labels": {"volcano.sh/job-name": "pd", "noise": "x"},
            **meta,
        },
        "spec": {
            "nodeName": "node3",
            "containers": [{"resources": {"requests": {GPU: "2"}}}],
        },
        "status": {"phase": phase, "conditions": list(conditions)},
    }


def ready(at: str, status: str = "True") -> dict[str, str]:
    return {"type": "Ready", "status": status, "lastTransitionTime": at}


def seen(raw: dict[str, Any], before: SeenPod | None = None) -> SeenPod:
    return seen_pod(raw, before, LABELS)


def test_a_ready_pod() -> None:
    found = seen(raw_pod(ready("2026-11-22T18:01:30Z")))
    assert (found.pod.created_s, found.pod.ready_s) == (CREATED_S, CREATED_S + 90.0)
    assert (found.pod.node, found.pod.terminating) == ("node3", False)
    assert found.labels == {"volcano.sh/job-name": "pd"}
    assert found.requests == {GPU: 2.0, "pods": 1.0}


def test_a_pod_has_its_address_as_soon_as_the_kubelet_says() -> None:
    raw = raw_pod(ready("2026-11-22T18:01:30Z"))
    assert seen(raw).pod.ip is None
    raw["status"]["podIP"] = "10.0.0.7"
    assert seen(raw).pod.ip == "10.0.0.7"


def test_readiness_that_flaps_keeps_the_first_time() -> None:
    first = seen(raw_pod(ready("2026-11-22T18:01:30Z")))
    lost = seen(raw_pod(ready("2026-11-22T19:00:00Z", "False")), first)
    again = seen(raw_pod(ready("2026-11-22T19:00:05Z")), lost)
    assert lost.pod.ready_s is None
    assert again.pod.ready_s == CREATED_S + 90.0


def test_another_pod_of_the_same_name_starts_anew() -> None:
    first = seen(raw_pod(ready("2026-11-22T18:01:30Z")))
    other = seen(raw_pod(ready("2026-11-22T19:00:05Z"), uid="u2"), first)
    assert other.pod.ready_s == CREATED_S + 3605.0


def test_a_pod_that_is_leaving() -> None:
    marks = {"pd-planner.io/drain-until": "2026-11-22T18:10:00Z"}
    raw = raw_pod(deletionTimestamp="2026-11-22T18:05:00Z", annotations=marks)
    found = seen(raw)
    assert found.pod.terminating
    assert found.pod.drain_until_s == CREATED_S + 600.0


def test_a_mark_that_is_no_time_is_none_of_ours() -> None:
    raw = raw_pod(annotations={"pd-planner.io/drain-until": "soon"})
    assert seen(raw).pod.drain_until_s is None


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        pytest.param({"status": "False", "message": "0/2 nodes"}, "0/2 nodes", id="message"),
        pytest.param({"status": "False", "reason": "Gated"}, "Gated", id="reason alone"),
        pytest.param({"status": "True"}, None, id="found"),
    ],
)
def test_a_pod_that_finds_no_node_says_why(condition: dict[str, str], said: str | None) -> None:
    assert seen(raw_pod({"type": "PodScheduled", **condition})).pod.unschedulable == said


@pytest.mark.parametrize(
    ("phase", "over"),
    [("Succeeded", True), ("Failed", True), ("Pending", False), ("Unknown", False)],
)
def test_an_ended_pod_takes_nothing(phase: str, over: bool) -> None:
    assert seen(raw_pod(phase=phase)).is_over is over


def test_a_node() -> None:
    raw = {
        "metadata": {"name": "node0", "labels": {"gpu-type": "h100"}},
        "spec": {"unschedulable": True, "taints": [{"key": "gpu", "effect": "NoSchedule"}]},
        "status": {
            "allocatable": {GPU: "8", "memory": "2Ti"},
            "conditions": [{"type": "Ready", "status": "Unknown"}],
        },
    }
    assert node(raw) == Node(
        "node0",
        {"gpu-type": "h100"},
        (Taint("gpu", "NoSchedule"),),
        is_schedulable=False,
        is_ready=False,
        allocatable={GPU: 8.0, "memory": 2.0**41},
    )


def test_a_template_is_what_its_pods_ask_for() -> None:
    terms = [
        {
            "matchExpressions": [{"key": "gpu", "operator": "In", "values": ["h100", "h200"]}],
            "matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["node9"]}],
        },
        {"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["64"]}]},
    ]
    affinity = {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
    }
    shape = pod_shape({
        "metadata": {"annotations": {"scheduling.volcano.sh/queue-name": "batch"}},
        "spec": {
            "containers": [{"resources": {"limits": {GPU: "4"}}}],
            "nodeSelector": {"zone": "a"},
            "affinity": {"nodeAffinity": affinity},
            "tolerations": [{"operator": "Exists"}, {"key": "gpu", "value": "yes"}],
        },
    })
    assert shape.requests == {GPU: 4.0, "pods": 1.0}
    assert shape.selector == {"zone": "a"}
    assert shape.any_of == (
        (
            Requirement("gpu", Operator.IN, ("h100", "h200")),
            Requirement("kubernetes.io/hostname", Operator.NOT_IN, ("node9",)),
        ),
        (Requirement("cores", Operator.GT, ("64",)),),
    )
    assert shape.tolerations == (Toleration(None, "Exists"), Toleration("gpu", "Equal", "yes"))
    assert (shape.queue, shape.one_per_node) == ("batch", False)


def test_the_queue_of_the_object_wins() -> None:
    template = {"metadata": {"annotations": {"scheduling.volcano.sh/queue-name": "batch"}}}
    assert pod_shape(template, "serving").queue == "serving"


def apart(selector: dict[str, Any], key: str = "kubernetes.io/hostname") -> dict[str, Any]:
    term = {"topologyKey": key, "labelSelector": selector}
    anti = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    return {"affinity": {"podAntiAffinity": anti}}


def expression(operator: str, *values: str) -> dict[str, Any]:
    one = {"key": "app", "operator": operator, "values": list(values)}
    return {"matchExpressions": [one]}


@pytest.mark.parametrize(
    ("spec", "is_alone"),
    [
        pytest.param(apart({"matchLabels": {"app": "pd"}}), True, id="itself"),
        pytest.param(apart({"matchLabels": {"app": "other"}}), False, id="others"),
        pytest.param(apart({"matchLabels": {"app": "pd"}}, "zone"), False, id="another domain"),
        pytest.param(apart(expression("In", "pd", "x")), True, id="in"),
        pytest.param(apart(expression("NotIn", "pd")), False, id="not in"),
        pytest.param(apart(expression("Exists")), True, id="exists"),
        pytest.param(apart(expression("DoesNotExist")), False, id="does not exist"),
        pytest.param({"containers": [{"ports": [{"hostPort": 80}]}]}, True, id="host port"),
        pytest.param(
            {"hostNetwork": True, "containers": [{"ports": [{"containerPort": 80}]}]},
            True,
            id="host network",
        ),
        pytest.param({"containers": [{"ports": [{"containerPort": 80}]}]}, False, id="own port"),
    ],
)
def test_pods_that_keep_each_other_away(spec: dict[str, Any], is_alone: bool) -> None:
    template = {"metadata": {"labels": {"app": "pd"}}, "spec": spec}
    assert pod_shape(template).one_per_node is is_alone


def test_a_hypernode() -> None:
    members = [
        {"type": "HyperNode", "selector": {"exactMatch": {"name": "ib-switch0"}}},
        {"type": "Node", "selector": {"regexMatch": {"pattern": "^node[0-3]$"}}},
        {"type": "Node", "selector": {"labelMatch": {"matchLabels": {"switch": "s1"}}}},
        {"type": "Node", "selector": {"labelMatch": {}}},
    ]
    raw = {
        "metadata": {"name": "ib-switch4"},
        "spec": {"tier": 2, "tierName": "spine", "members": members},
    }
    assert hyper_node(raw) == HyperNode(
        "ib-switch4",
        2,
        (
            Member(is_hypernode=True, exact="ib-switch0"),
            Member(is_hypernode=False, pattern="^node[0-3]$"),
            Member(is_hypernode=False, labels=(Requirement("switch", Operator.IN, ("s1",)),)),
            Member(is_hypernode=False, labels=()),
        ),
        "spine",
    )


@pytest.mark.parametrize(
    ("state", "is_open"), [("Open", True), ("Closed", False), ("Closing", False), (None, True)]
)
def test_a_queue(state: str | None, is_open: bool) -> None:
    raw = {
        "metadata": {"name": "serving"},
        "spec": {"capability": {GPU: "16"}},
        "status": {"allocated": {GPU: "4", "pods": "4"}} | ({"state": state} if state else {}),
    }
    found = queue(raw)
    assert (found.is_open, found.capability, found.allocated) == (
        is_open,
        {GPU: 16.0},
        {GPU: 4.0, "pods": 4.0},
    )


def test_a_quota_names_resources_as_pods_do() -> None:
    hard = {
        "requests.nvidia.com/gpu": "16",
        "requests.cpu": "100",
        "limits.cpu": "200",
        "pods": "50",
        "count/jobs.batch.volcano.sh": "3",
    }
    raw = {
        "metadata": {"name": "gpus"},
        "status": {"hard": hard, "used": {"requests.nvidia.com/gpu": "4"}},
    }
    expected = {GPU: 16.0, "cpu": 100.0, "pods": 50.0}
    assert quota(raw) == Quota("gpus", expected, {GPU: 4.0})


@pytest.mark.parametrize(
    ("spec", "counts"),
    [
        pytest.param({"scopes": ["NotTerminating"]}, True, id="serving pods"),
        pytest.param({"scopes": ["BestEffort"]}, False, id="best effort"),
        pytest.param({"scopeSelector": {"matchExpressions": []}}, False, id="some classes"),
    ],
)
def test_a_quota_for_other_pods_is_left_out(spec: dict[str, Any], counts: bool) -> None:
    assert (quota({"metadata": {"name": "q"}, "spec": spec}) is not None) is counts
