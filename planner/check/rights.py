"""Which permissions the planner needs, as data, and what it can't do without each. Pure.

One table for `check`, which asks the API server for each of them, and for the shipped Roles.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from planner.adapters.targets import kind_of
from planner.check.finding import Finding, error, ok, warning
from planner.check.rules import Rule
from planner.model import Mode, Service, Target

SCHEDULER_CONFIG = ("volcano-system", "volcano-scheduler-configmap")
"""Namespace and name of the ConfigMap from which Volcano's scheduler is configured by default."""


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One verb on one resource; no namespace: in the whole cluster, no name: on every object."""

    verb: str
    group: str
    resource: str
    namespace: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """Verbs on a resource that the planner uses.

    Attributes
    ----------
    verbs, group, resource
        As a rule of a Role names them.
    without
        What the planner can't do without them; None: it can't work at all.
    writes
        Whether only mode Act uses them.
    """

    verbs: tuple[str, ...]
    group: str
    resource: str
    without: str | None = None
    writes: bool = False


TARGET_VERBS = (("get", "list"), ("patch",))
"""What is done to scale targets: read by every mode, written by Act."""

NAMESPACED: tuple[Need, ...] = (
    Need(("list", "watch"), "", "pods"),
    Need(("patch",), "", "pods", "pods that are to go can't be marked before", writes=True),
    Need(("create", "patch"), "", "events", "what was done is not told on the scale targets"),
    Need(("get",), "", "configmaps", "profiles that are named by configMap can't be read"),
    Need(("list", "watch"), "", "resourcequotas", "quotas are not counted: pods may be refused"),
    Need(
        ("list",),
        "autoscaling",
        "horizontalpodautoscalers",
        "another autoscaler on the same target is not noticed",
    ),
)
"""What is needed in every namespace that holds a served model, besides its scale targets."""

CLUSTER_WIDE: tuple[Need, ...] = (
    Need(("list", "watch"), "", "nodes", "replicas are not capped by what still fits"),
    Need(
        ("list", "watch"),
        "topology.volcano.sh",
        "hypernodes",
        "network domains are not known: a pinned Job's room is that of the whole cluster",
    ),
    Need(("list", "watch"), "scheduling.volcano.sh", "queues", "limits of queues are not counted"),
)
"""What is needed of resources that have no namespace: read only."""

SHARED_NODES = Need(
    ("list", "watch"),
    "",
    "pods",
    "GPUs that pods of other namespaces use count as free",
)
"""Needed cluster-wide where the GPU nodes are shared with other namespaces."""

Needs = Mapping[Right, Need]


def rights_of(services: Iterable[Service], *, shared_nodes: bool = True) -> dict[Right, Need]:
    """Return every right that the services need in their modes, with what it is for.

    Parameters
    ----------
    services
        Whose namespaces, scale targets and modes count.
    shared_nodes
        Whether the GPU nodes hold pods of other namespaces too.
    """
    found: dict[Right, Need] = {}
    for service in services:
        found.update(_of_service(service))
    for need in (*CLUSTER_WIDE, *((SHARED_NODES,) if shared_nodes else ())):
        found.update({Right(verb, need.group, need.resource): need for verb in need.verbs})
    return found


def right_findings(needs: Needs, allowed: Mapping[Right, bool]) -> Iterator[Finding]:
    """Yield what the planner's account may not do, one finding a rule that is missing.

    Parameters
    ----------
    needs
        What `rights_of` returned.
    allowed
        The API server's answers; a right without an answer is left out.

    Yields
    ------
    Finding
        One for each resource and namespace with verbs that are refused, else one that is ok.
    """
    refused: defaultdict[tuple[Need, str | None], list[str]] = defaultdict(list)
    for right, need in needs.items():
        if not allowed.get(right, True):
            refused[need, right.namespace].append(right.verb)
    for (need, namespace), verbs in refused.items():
        yield _missing(need, namespace, verbs)
    if not refused:
        yield ok("permissions", f"all {len(allowed)} that are needed are granted")


def _of_service(service: Service) -> dict[Right, Need]:
    acts = service.mode is Mode.ACT
    needs = [*_target_needs(service), *NAMESPACED]
    return {
        Right(verb, need.group, need.resource, service.key.namespace): need
        for need in needs
        if acts or not need.writes
        for verb in need.verbs
    }


def _target_needs(service: Service) -> Iterator[Need]:
    read, write = TARGET_VERBS
    for group, plural in sorted({_resource(pool.target) for pool in service.pools}):
        yield Need(read, group, plural)
        yield Need(write, group, plural, writes=True)


def _resource(target: Target) -> tuple[str, str]:
    row = kind_of(target)
    return row.group, row.plural


def _missing(need: Need, namespace: str | None, verbs: list[str]) -> Finding:
    group = f".{need.group}" if need.group else ""
    place = "cluster-wide" if namespace is None else f"in namespace {namespace}"
    what = f"may not {', '.join(verbs)} {need.resource}{group} {place}"
    role = "the ClusterRole" if namespace is None else f"the Role in namespace {namespace}"
    mend = (
        f'add to {role}: {{apiGroups: ["{need.group}"], resources: [{need.resource}], '
        f"verbs: [{', '.join(verbs)}]}}"
    )
    if need.without is None:
        return error("permissions", f"{what}: the planner can't work", mend, Rule.RIGHT)
    return warning("permissions", f"{what}: {need.without}", mend, Rule.RIGHT)
