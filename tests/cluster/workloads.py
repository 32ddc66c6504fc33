"""Manifests of what runs: Volcano Jobs by task, Deployments; and how to read their pods."""

from collections.abc import Mapping

from tests.cluster.rest import Manifest, Rest, core
from tests.cluster.topologies import GPU

READY_AFTER = "pod-ready.stage.kwok.x-k8s.io/delay"  # "20s": the cold start; "24h" is never
GONE_AFTER = "pod-delete.stage.kwok.x-k8s.io/delay"  # "10s": the drain
JOB_NAME = "volcano.sh/job-name"
TASK = "volcano.sh/task-spec"


def pod_template(
    gpus: int = 1,
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    node_selector: Mapping[str, str] | None = None,
) -> Manifest:
    """Return a template of pods with GPUs, for Volcano's scheduler."""
    room = {"cpu": "1", "memory": "1Gi", GPU: str(gpus)}
    container = {"name": "vllm", "image": "vllm", "resources": {"requests": room, "limits": room}}
    return {
        "metadata": {"annotations": dict(annotations or {}), "labels": dict(labels or {})},
        "spec": {
            "schedulerName": "volcano",
            "terminationGracePeriodSeconds": 30,
            "nodeSelector": dict(node_selector or {}),
            "containers": [container],
        },
    }


def task(
    name: str,
    replicas: int,
    *,
    floor: int | None = 1,
    template: Manifest | None = None,
    **more: object,
) -> Manifest:
    """Return one task of a Volcano Job; without a floor the webhook makes it the replicas."""
    written: Manifest = {"name": name, "replicas": replicas, "template": template or pod_template()}
    return written | ({} if floor is None else {"minAvailable": floor}) | more


def volcano_job(
    name: str,
    *tasks: Manifest,
    tier: int | None = None,
    mode: str = "hard",
    **more: object,
) -> Manifest:
    """Return a Volcano Job, with a network domain if `tier` is given; `more` goes into its spec."""
    floors = [one.get("minAvailable", one["replicas"]) for one in tasks]
    domain = {} if tier is None else {"networkTopology": {"mode": mode, "highestTierAllowed": tier}}
    return {
        "apiVersion": "batch.volcano.sh/v1alpha1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "schedulerName": "volcano",
            "queue": "default",
            "minAvailable": sum(floors),
            "tasks": list(tasks),
            **domain,
            **more,
        },
    }


def deployment(name: str, replicas: int, template: Manifest | None = None) -> Manifest:
    """Return a Deployment whose pods carry the label app=`name`."""
    labels = {"app": name}
    template = template or pod_template()
    labelled = template | {"metadata": template["metadata"] | {"labels": labels}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": labelled,
        },
    }


def stateful_set(name: str, replicas: int, template: Manifest | None = None) -> Manifest:
    """Return a StatefulSet that starts all its pods at once; they carry the label app=`name`."""
    made = deployment(name, replicas, template)
    parallel = {"serviceName": name, "podManagementPolicy": "Parallel"}
    return made | {"kind": "StatefulSet", "spec": made["spec"] | parallel}


def scale(*tasks: tuple[int, int]) -> list[Manifest]:
    """Return the JSON Patch that sets replicas by task index: `scale((0, 4), (1, 7))`."""
    return [
        {"op": "replace", "path": f"/spec/tasks/{index}/replicas", "value": replicas}
        for index, replicas in tasks
    ]


def pods_of(rest: Rest, namespace: str, job: str) -> dict[str, Manifest]:
    """Return the pods of a Volcano Job by name."""
    found = rest.items(core(namespace, "pods"), labelSelector=f"{JOB_NAME}={job}")
    return {pod["metadata"]["name"]: pod for pod in found}


def is_ready(pod: Manifest) -> bool:
    """Tell whether it serves: Ready and not being deleted."""
    return "deletionTimestamp" not in pod["metadata"] and has_condition(pod, "Ready", "True")


def is_unschedulable(pod: Manifest) -> bool:
    return has_condition(pod, "PodScheduled", "False")


def has_condition(manifest: Manifest, kind: str, status: str) -> bool:
    """Tell whether a pod, node or PodGroup has a condition with this status."""
    conditions = manifest.get("status", {}).get("conditions") or ()
    return any(one["type"] == kind and one["status"] == status for one in conditions)


def node_of(pod: Manifest) -> str:
    """Return the node a pod is bound to, empty while it is not."""
    return str(pod["spec"].get("nodeName", ""))
