"""Scale targets as data: where each kind keeps its replicas and how it names its pods. Pure.

A new platform is a new row. The pointers are JSON Pointers (RFC 6901); ``{index}`` stands for the
position of the list entry whose ``name`` is the target's task, ``{task}`` for the task itself.
"""

import re
from dataclasses import dataclass

from planner.errors import SpecError
from planner.model import Target

ANY_TASK = "*"
_HASHES = "[a-z0-9]+-[a-z0-9]+"  # ReplicaSet hash and pod suffix, neither holds a dash
_LAST_NUMBER = r"-(\d+)$"
_GROUP = r"\d+(-\d+)?"  # group, then worker; the leader carries the group alone


@dataclass(frozen=True, slots=True)
class ScaleKind:
    """How one kind of object is scaled.

    Attributes
    ----------
    group, versions, kind
        API group, versions this row holds for (empty: all), and kind.
    plural
        Name of the kind in the paths of the API.
    replicas
        JSON Pointer of the count to write.
    pods
        Regular expression of the pods' names; None where the name does not tell the role, so that
        the pool needs a selector of its own.
    task
        None where the object has one count, `ANY_TASK` where the target's task picks an entry, or
        the one task that this row serves.
    minima
        Pointers of minimum counts that a webhook refuses to see above the replicas; lowered with
        them in the same write.
    has_scale
        Whether the ``/scale`` subresource sets this very count.
    absent
        The count where the object holds none.
    template
        Pointer of the pod template.
    ordinal
        Regular expression whose first group, found in a pod's name, is its place in the order of
        removal (the highest goes first); None where the name does not say.
    labels
        Labels that tell the pods from all others, where the platform sets such.
    topology
        Pointer of Volcano's ``networkTopology``.
    partitions
        Pointer of what fixes the count for good when it is there.
    phase
        Pointer of the phase that says whether the object still acts on its count.
    has_deletion_cost
        Whether pods are removed in the order of ``controller.kubernetes.io/pod-deletion-cost``.
    """

    group: str
    kind: str
    plural: str
    replicas: str
    pods: str | None
    versions: tuple[str, ...] = ()
    task: str | None = None
    minima: tuple[str, ...] = ()
    has_scale: bool = False
    absent: int = 1
    template: str | None = None
    ordinal: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    topology: str | None = None
    partitions: str | None = None
    phase: str | None = None
    has_deletion_cost: bool = False

    def serves(self, target: Target) -> bool:
        """Return whether the row describes the object, its task included."""
        return self.names(target) and (
            target.task is not None if self.task == ANY_TASK else target.task == self.task
        )

    def names(self, target: Target) -> bool:
        """Return whether the row is for the object's group, version and kind."""
        group, _, version = target.api_version.rpartition("/")
        return (self.group, self.kind) == (group, target.kind) and (
            not self.versions or version in self.versions
        )


KINDS: tuple[ScaleKind, ...] = (
    ScaleKind(
        "batch.volcano.sh",
        "Job",
        "jobs",
        "/spec/tasks/{index}/replicas",
        r"{name}-{task}-\d+",
        task=ANY_TASK,
        minima=("/spec/tasks/{index}/minAvailable", "/spec/minAvailable"),
        absent=0,  # the API's Go type leaves a zero out
        template="/spec/tasks/{index}/template",
        ordinal=_LAST_NUMBER,
        labels=(("volcano.sh/job-name", "{name}"), ("volcano.sh/task-spec", "{task}")),
        topology="/spec/networkTopology",
        partitions="/spec/tasks/{index}/partitionPolicy",
        phase="/status/state/phase",
    ),
    ScaleKind(
        "apps",
        "Deployment",
        "deployments",
        "/spec/replicas",
        "{name}-" + _HASHES,
        has_scale=True,
        template="/spec/template",
        has_deletion_cost=True,
    ),
    ScaleKind(
        "apps",
        "StatefulSet",
        "statefulsets",
        "/spec/replicas",
        r"{name}-\d+",
        has_scale=True,
        template="/spec/template",
        ordinal=_LAST_NUMBER,
    ),
    ScaleKind(
        "leaderworkerset.x-k8s.io",
        "LeaderWorkerSet",
        "leaderworkersets",
        "/spec/replicas",
        "{name}-" + _GROUP,
        has_scale=True,
        template="/spec/leaderWorkerTemplate/workerTemplate",
        ordinal=r"{name}-(\d+)(?:-\d+)?$",
        labels=(("leaderworkerset.sigs.k8s.io/name", "{name}"),),
    ),
    ScaleKind(
        "workload.serving.volcano.sh",
        "ModelServing",
        "modelservings",
        "/spec/template/roles/{index}/replicas",
        r"{name}-\d+-{task}-\d+-\d+",
        task=ANY_TASK,
        template="/spec/template/roles/{index}/entryTemplate",
    ),
    ScaleKind(
        "workloads.x-k8s.io",
        "RoleBasedGroup",
        "rolebasedgroups",
        "/spec/roles/{index}/replicas",
        "{name}-{task}-(" + _GROUP + "|" + _HASHES + ")",
        task=ANY_TASK,
    ),
    ScaleKind(
        "workloads.x-k8s.io",
        "RoleBasedGroupScalingAdapter",
        "rolebasedgroupscalingadapters",
        "/spec/replicas",
        None,
        has_scale=True,
    ),
    ScaleKind(
        "nvidia.com",
        "DynamoGraphDeployment",
        "dynamographdeployments",
        "/spec/services/{task}/replicas",
        r"{name}-(\d+-)?{task}-[a-z0-9]+(-[a-z0-9]+)?",
        versions=("v1alpha1",),
        task=ANY_TASK,
    ),
    ScaleKind(
        "nvidia.com",
        "DynamoGraphDeployment",
        "dynamographdeployments",
        "/spec/components/{index}/replicas",
        r"{name}-(\d+-)?{task}-[a-z0-9]+(-[a-z0-9]+)?",
        versions=("v1beta1",),
        task=ANY_TASK,
    ),
    ScaleKind(
        "nvidia.com",
        "DynamoGraphDeploymentScalingAdapter",
        "dynamographdeploymentscalingadapters",
        "/spec/replicas",
        None,
        has_scale=True,
    ),
    ScaleKind(
        "disaggregatedset.x-k8s.io",
        "DisaggregatedSet",
        "disaggregatedsets",
        "/spec/roles/{index}/spec/replicas",
        None,
        task=ANY_TASK,
    ),
    ScaleKind(
        "orchestration.aibrix.ai",
        "StormService",
        "stormservices",
        "/spec/template/spec/roles/{index}/replicas",
        None,
        task=ANY_TASK,
    ),
    ScaleKind(
        "serving.kserve.io",
        "LLMInferenceService",
        "llminferenceservices",
        "/spec/replicas",
        "{name}-kserve-(mn-" + _GROUP + "|" + _HASHES + ")",
    ),
    ScaleKind(
        "serving.kserve.io",
        "LLMInferenceService",
        "llminferenceservices",
        "/spec/prefill/replicas",
        "{name}-kserve-(mn-prefill-" + _GROUP + "|prefill-" + _HASHES + ")",
        task="prefill",
    ),
)


def kind_of(target: Target) -> ScaleKind:
    """Return the row that describes an object.

    Raises
    ------
    SpecError
        If no row does, or the object's kind wants a task that is missing or has none.
    """
    known = [row for row in KINDS if row.names(target)]
    for row in known:
        if row.serves(target):
            return row
    where = f"scaleTargetRef {target.api_version} {target.kind} {target.name}"
    if not known:
        kinds = ", ".join(sorted({f"{row.group}/{row.kind}" for row in KINDS}))
        raise SpecError(f"{where}: no such scale target; known are {kinds}")
    wanted = {row.task for row in known}
    if ANY_TASK in wanted:
        raise SpecError(f"{where}: names no task; add `task: NAME`, the entry that is scaled")
    legal = " or ".join(
        f"`task: {task}`" if task else "no task" for task in sorted(wanted, key=str)
    )
    raise SpecError(f"{where}: task is {target.task}, legal is {legal}")


def pod_pattern(target: Target) -> str:
    r"""Return the regular expression that the names of an object's pods match as a whole.

    Raises
    ------
    SpecError
        If the kind is unknown, or its pods' names do not tell which pool they belong to.

    Examples
    --------
    >>> pod_pattern(Target("batch.volcano.sh/v1alpha1", "Job", "llm", "prefill"))
    'llm-prefill-\\d+'
    """
    row = kind_of(target)
    if row.pods is None:
        raise SpecError(
            f"scaleTargetRef {target.kind} {target.name}: its pods' names do not tell the pool; "
            "set metrics.selector of the pool"
        )
    # Object names in a pod's name are lower case even where the key (Dynamo's services) is not.
    task = re.escape((target.task or "").lower())
    return row.pods.replace("{name}", re.escape(target.name)).replace("{task}", task)


def pod_index(target: Target, pod: str) -> int | None:
    """Return a pod's place in the order of removal, None where its name does not say.

    Examples
    --------
    >>> pod_index(Target("batch.volcano.sh/v1alpha1", "Job", "llm", "prefill"), "llm-prefill-7")
    7
    """
    ordinal = kind_of(target).ordinal
    found = ordinal and re.search(ordinal.replace("{name}", re.escape(target.name)), pod)
    return int(found.group(1)) if found else None


def tells_its_pods(target: Target) -> bool:
    """Return whether the pods of a target can be told from others, by label or by name."""
    row = kind_of(target)
    return bool(row.labels) or row.pods is not None


def pod_labels(target: Target) -> dict[str, str]:
    """Return the labels that all pods of the target carry and no others; empty: not known."""
    return {
        label: value.replace("{name}", target.name).replace("{task}", target.task or "")
        for label, value in kind_of(target).labels
    }
