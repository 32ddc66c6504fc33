"""Objects of the Kubernetes API as the values that the planner keeps of them. Pure.

Only what is read later is kept: a pod is some ten kilobytes of JSON and a few hundred bytes here.
What a rule of the API excludes is not checked again; an object that breaks one raises ValueError,
KeyError or TypeError, and the caller leaves it out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from planner.adapters.kubernetes.values import Json, amounts, pod_requests, quantity, unix_s
from planner.inventory import (
    Amounts,
    HyperNode,
    Member,
    Node,
    Operator,
    PodShape,
    Queue,
    Quota,
    Requirement,
    Taint,
    Toleration,
)
from planner.model import Pod

DRAIN_ANNOTATION = "pd-planner.io/drain-until"
QUEUE_ANNOTATION = "scheduling.volcano.sh/queue-name"
_HOSTNAME = "kubernetes.io/hostname"
_OVER = frozenset({"Succeeded", "Failed"})
# Quotas of these scopes count every pod that serves; any other scope is for some pods only.
_SERVING_SCOPES = frozenset({"NotTerminating", "NotBestEffort"})


@dataclass(frozen=True, slots=True)
class SeenPod:
    """What is kept of a pod: who it is, what it asks for, and when it was Ready first.

    `labels` holds those that tell pools apart and no others; `is_over` says that it has ended and
    takes nothing any more.
    """

    uid: str
    namespace: str
    pod: Pod
    labels: Mapping[str, str]
    requests: Amounts
    first_ready_s: float | None = None
    is_over: bool = False


def node(raw: Json) -> Node:
    """Return a Node; what its pods request is not in it."""
    spec, status = raw.get("spec") or {}, raw.get("status") or {}
    ready = _condition(status, "Ready")
    return Node(
        name=raw["metadata"]["name"],
        labels=raw["metadata"].get("labels") or {},
        taints=tuple(
            Taint(taint["key"], taint["effect"], taint.get("value") or "")
            for taint in spec.get("taints") or ()
        ),
        is_schedulable=not spec.get("unschedulable"),
        is_ready=ready.get("status") == "True",
        allocatable=amounts(status.get("allocatable")),
    )


def seen_pod(raw: Json, before: SeenPod | None, kept_labels: frozenset[str]) -> SeenPod:
    """Return what is kept of a Pod.

    Parameters
    ----------
    raw
        The object.
    before
        What was kept of the same pod earlier: readiness flaps, and its condition then tells only
        the last time.
    kept_labels
        Labels to keep.
    """
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    ready = _condition(status, "Ready")
    is_ready = ready.get("status") == "True"
    first_ready_s = before.first_ready_s if before and before.uid == meta["uid"] else None
    if is_ready and first_ready_s is None:
        first_ready_s = unix_s(ready.get("lastTransitionTime"))
    created_s = unix_s(meta["creationTimestamp"]) or 0.0
    labels = meta.get("labels") or {}
    pod = Pod(
        name=meta["name"],
        created_s=created_s,
        ready_s=first_ready_s if is_ready else None,
        terminating="deletionTimestamp" in meta,
        node=spec.get("nodeName"),
        unschedulable=_unschedulable(status),
        drain_until_s=_drain_until_s(meta),
        ip=status.get("podIP") or None,
    )
    return SeenPod(
        uid=meta["uid"],
        namespace=meta["namespace"],
        pod=pod,
        labels={name: labels[name] for name in kept_labels if name in labels},
        requests=pod_requests(spec),
        first_ready_s=first_ready_s,
        is_over=status.get("phase") in _OVER,
    )


def pod_shape(template: Json, queue: str | None = None) -> PodShape:
    """Return what a pod of a template asks of a node.

    Parameters
    ----------
    template
        The pod template.
    queue
        Queue that the object names; else the template's annotation is taken.
    """
    meta, spec = template.get("metadata") or {}, template.get("spec") or {}
    affinity = spec.get("affinity") or {}
    required = (affinity.get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    return PodShape(
        requests=pod_requests(spec),
        selector=spec.get("nodeSelector") or {},
        any_of=tuple(_term(term) for term in required.get("nodeSelectorTerms") or ()),
        tolerations=tuple(
            Toleration(
                one.get("key"),
                one.get("operator") or "Equal",
                one.get("value") or "",
                one.get("effect") or None,
            )
            for one in spec.get("tolerations") or ()
        ),
        queue=queue or (meta.get("annotations") or {}).get(QUEUE_ANNOTATION),
        one_per_node=_keeps_apart(affinity, meta.get("labels") or {}) or _holds_a_port(spec),
    )


def hyper_node(raw: Json) -> HyperNode:
    """Return a HyperNode; a label selector without demands selects nothing, as in Volcano."""
    spec = raw["spec"]
    return HyperNode(
        name=raw["metadata"]["name"],
        tier=int(spec["tier"]),
        members=tuple(_member(member) for member in spec.get("members") or ()),
        tier_name=spec.get("tierName") or None,
    )


def queue(raw: Json) -> Queue:
    """Return a Volcano Queue."""
    spec, status = raw.get("spec") or {}, raw.get("status") or {}
    return Queue(
        name=raw["metadata"]["name"],
        is_open=status.get("state") in {None, "", "Open"},
        capability=amounts(spec.get("capability")),
        allocated=amounts(status.get("allocated")),
    )


def quota(raw: Json) -> Quota | None:
    """Return a ResourceQuota, None for one that counts only pods of another sort."""
    spec, status = raw.get("spec") or {}, raw.get("status") or {}
    if spec.get("scopeSelector") or set(spec.get("scopes") or ()) - _SERVING_SCOPES:
        return None
    return Quota(
        name=raw["metadata"]["name"],
        hard=_quota_amounts(status.get("hard") or spec.get("hard") or {}),
        used=_quota_amounts(status.get("used") or {}),
    )


def requirements(selector: Mapping[str, Any]) -> tuple[Requirement, ...]:
    """Return a label selector (``matchLabels``, ``matchExpressions``) as demands."""
    exact = (selector.get("matchLabels") or {}).items()
    return (
        *(Requirement(key, Operator.IN, (value,)) for key, value in exact),
        *(_requirement(one) for one in selector.get("matchExpressions") or ()),
    )


def _requirement(raw: Mapping[str, Any]) -> Requirement:
    return Requirement(raw["key"], Operator(raw["operator"]), tuple(raw.get("values") or ()))


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    conditions = status.get("conditions") or ()
    return next((one for one in conditions if one.get("type") == kind), {})


def _unschedulable(status: Mapping[str, Any]) -> str | None:
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") != "False":
        return None
    return scheduled.get("message") or scheduled.get("reason") or "no node was found"


def _drain_until_s(meta: Mapping[str, Any]) -> float | None:
    try:
        return unix_s((meta.get("annotations") or {}).get(DRAIN_ANNOTATION))
    except ValueError:
        return None  # somebody else's text: no mark of ours


def _term(term: Mapping[str, Any]) -> tuple[Requirement, ...]:
    # The only field that can be matched is the node's name, which kubelets set as a label too.
    fields = (
        Requirement(_HOSTNAME, Operator(one["operator"]), tuple(one.get("values") or ()))
        for one in term.get("matchFields") or ()
    )
    return (*requirements(term), *fields)


def _keeps_apart(affinity: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    apart = (affinity.get("podAntiAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or ()
    return any(
        term.get("topologyKey") == _HOSTNAME
        and all(_holds(one, labels) for one in requirements(term.get("labelSelector") or {}))
        for term in apart
    )


def _holds(demand: Requirement, labels: Mapping[str, str]) -> bool:
    """Return whether labels meet a demand of a label selector, which compares no numbers."""
    has = demand.key in labels
    match demand.operator:
        case Operator.IN:
            return labels.get(demand.key) in demand.values
        case Operator.NOT_IN:
            return labels.get(demand.key) not in demand.values
        case Operator.EXISTS:
            return has
        case _:
            return not has


def _holds_a_port(spec: Mapping[str, Any]) -> bool:
    ports = [p for c in spec.get("containers") or () for p in c.get("ports") or ()]
    return any(p.get("hostPort") or spec.get("hostNetwork") for p in ports)


def _member(raw: Mapping[str, Any]) -> Member:
    selector = raw.get("selector") or {}
    by_labels = selector.get("labelMatch")
    return Member(
        is_hypernode=raw.get("type") == "HyperNode",
        exact=(selector.get("exactMatch") or {}).get("name"),
        pattern=(selector.get("regexMatch") or {}).get("pattern"),
        labels=None if by_labels is None else requirements(by_labels),
    )


def _quota_amounts(quantities: Mapping[str, Any]) -> Amounts:
    """Return a quota's amounts under the names that a pod's requests have; limits are none."""
    names = {name: name.removeprefix("requests.").removeprefix("count/") for name in quantities}
    return {
        plain: quantity(str(quantities[name]))
        for name, plain in names.items()
        if not name.startswith("limits.") and (plain == "pods" or "count/" not in name)
    }
