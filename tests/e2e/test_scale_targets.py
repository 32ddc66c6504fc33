"""Every kind of scale target on the real API server, with its real controllers where there are any.

LeaderWorkerSet and RoleBasedGroup have minimal CRDs of our own and nobody who acts on them.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from planner.adapters.clock import SystemClock
from planner.adapters.kubernetes.api import KubernetesAccess, KubernetesApi
from planner.adapters.kubernetes.cluster import KubernetesCluster
from planner.adapters.kubernetes.events import KubernetesEvents
from planner.adapters.kubernetes.patches import operations, reading
from planner.adapters.kubernetes.targets import resource_of
from planner.errors import ClusterError, ConflictError, RefusedError, TargetError
from planner.inventory import Inventory
from planner.model import (
    Decision,
    Fleet,
    Patch,
    Pod,
    Pool,
    PoolFleet,
    Role,
    Service,
    ServiceKey,
    Sla,
    Target,
)
from planner.record import TickRecord
from tests.cluster.certificates import write_kubeconfig
from tests.cluster.control_plane import ControlPlane
from tests.cluster.rest import Manifest, Refused, Rest, apps, core, jobs
from tests.cluster.topologies import GPU, eight_nodes
from tests.cluster.waiting import patience, wait_for
from tests.cluster.workloads import (
    GONE_AFTER,
    READY_AFTER,
    deployment,
    pod_template,
    stateful_set,
    task,
    volcano_job,
)

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CLOCK = SystemClock(threading.Event())


def job(name: str, task_name: str) -> Target:
    return Target("batch.volcano.sh/v1alpha1", "Job", name, task_name)


def two_pools(namespace: str, prefill: Target, decode: Target) -> Service:
    pools = (Pool("prefill", Role.PREFILL, prefill), Pool("decode", Role.DECODE, decode))
    return Service(ServiceKey(namespace, "llama"), Sla(0.5, 0.03), pools)


class Stage:
    """One service on a cluster, and what a loop would do with it."""

    def __init__(self, plane: ControlPlane, service: Service) -> None:
        self.plane, self.service = plane, service
        self.cluster = KubernetesCluster(KubernetesAccess(plane.kubeconfig), [service])
        self.cluster.start()

    def look(self) -> Fleet | ClusterError:
        return self.cluster.fleets([self.service], CLOCK.now_s())[self.service.key]

    def pool(self, name: str = "prefill") -> PoolFleet:
        fleet = self.look()
        assert isinstance(fleet, Fleet), fleet
        return fleet.pools[name]

    def pods(self, name: str = "prefill") -> dict[str, Pod]:
        return {pod.name: pod for pod in self.pool(name).pods}

    def apply(self, patch: Patch) -> None:
        self.cluster.apply(self.service, patch, CLOCK.now_s())

    def scale(self, **replicas: int) -> None:
        self.look()
        self.apply(Patch(replicas))

    def wait_ready(self, timeout_s: float = 20.0, **replicas: int) -> None:
        def settled() -> bool:
            fleet = self.look()
            return isinstance(fleet, Fleet) and all(
                fleet.pools[name].ready() == count == len(fleet.pools[name].pods)
                for name, count in replicas.items()
            )

        wait_for(f"{replicas} are Ready", settled, timeout_s)


Staged = Callable[[Service], Stage]


@pytest.fixture
def stage(control_plane: ControlPlane) -> Iterator[Staged]:
    control_plane.lay_out(eight_nodes())
    opened: list[Stage] = []

    def begin(service: Service) -> Stage:
        opened.append(Stage(control_plane, service))
        return opened[-1]

    yield begin
    for one in opened:
        one.cluster.close()


def create_two_jobs(plane: ControlPlane, namespace: str) -> Service:
    for name in ("prefill", "decode"):
        plane.rest.create(jobs(namespace), volcano_job(name, task(name, 2), tier=1))
    return two_pools(namespace, job("prefill", "prefill"), job("decode", "decode"))


def create_one_job(plane: ControlPlane, namespace: str, **more: Any) -> Service:
    tasks = [task("prefill", 2, **more), task("decode", 3, **more)]
    plane.rest.create(jobs(namespace), volcano_job("pd", *tasks))
    return two_pools(namespace, job("pd", "prefill"), job("pd", "decode"))


# ── every kind ───────────────────────────────────────────────────────────────────────────────────


def test_two_jobs_up_and_down(control_plane: ControlPlane, namespace: str, stage: Staged) -> None:
    at = stage(create_two_jobs(control_plane, namespace))
    at.wait_ready(prefill=2, decode=2)
    before = {pod.created_s for pod in at.pool().pods}
    at.scale(prefill=4, decode=1)
    at.wait_ready(prefill=4, decode=1)
    assert [pod.index for pod in at.pool().pods] == [0, 1, 2, 3]
    assert before <= {pod.created_s for pod in at.pool().pods}  # no pod was started anew
    assert at.pool().changed_by is None
    assert at.pool().uid != at.pool("decode").uid


def test_two_tasks_of_a_job_are_one_write(
    control_plane: ControlPlane, namespace: str, stage: Staged
) -> None:
    at = stage(create_one_job(control_plane, namespace, floor=None))  # floors default to replicas
    at.wait_ready(prefill=2, decode=3)
    generation = control_plane.rest.get(jobs(namespace, "pd"))["metadata"]["generation"]
    at.scale(prefill=3, decode=1)
    at.wait_ready(prefill=3, decode=1)
    written = control_plane.rest.get(jobs(namespace, "pd"))
    assert written["metadata"]["generation"] == generation + 1
    assert [t["minAvailable"] for t in written["spec"]["tasks"]] == [2, 1]
    assert written["spec"]["minAvailable"] == 3
    assert written["status"]["state"]["phase"] == "Running"


def test_all_the_way_to_zero_and_back(
    control_plane: ControlPlane, namespace: str, stage: Staged
) -> None:
    at = stage(create_two_jobs(control_plane, namespace))
    at.wait_ready(prefill=2)
    at.scale(prefill=0)
    wait_for("no pod is left", lambda: at.pool().pods == ())
    at.scale(prefill=1)
    at.wait_ready(prefill=1)


@pytest.mark.parametrize("make", [deployment, stateful_set], ids=["Deployment", "StatefulSet"])
def test_workloads_of_kubernetes(
    control_plane: ControlPlane, namespace: str, stage: Staged, make: Callable[..., Manifest]
) -> None:
    kind = make("x", 1)["kind"]
    for name in ("prefill", "decode"):
        control_plane.rest.create(apps(namespace, f"{kind.lower()}s"), make(name, 2))
    targets = [Target("apps/v1", kind, name) for name in ("prefill", "decode")]
    at = stage(two_pools(namespace, *targets))
    at.wait_ready(prefill=2, decode=2)
    at.scale(prefill=3, decode=1)
    at.wait_ready(prefill=3, decode=1)
    orders = [pod.index for pod in at.pool().pods]
    assert orders == ([0, 1, 2] if kind == "StatefulSet" else [None] * 3)
    shape = at.pool().shape
    assert shape is not None
    assert shape.requests[GPU] == 1.0


def crd(group: str, version: str, kind: str, spec: Manifest) -> Manifest:
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": spec}}}
    served = {
        "name": version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
    }
    names = {"kind": kind, "plural": plural, "singular": kind.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "names": names, "scope": "Namespaced", "versions": [served]},
    }


NUMBER = {"type": "integer"}
ROLE = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "replicas": NUMBER},
}
ROLES = {
    "type": "array",
    "items": ROLE,
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["name"],
}
LWS = crd("leaderworkerset.x-k8s.io", "v1", "LeaderWorkerSet", {"replicas": NUMBER})
RBG = crd("workloads.x-k8s.io", "v1alpha2", "RoleBasedGroup", {"roles": ROLES})


@pytest.fixture(scope="module")
def platforms(control_plane: ControlPlane) -> Iterator[None]:
    rest = control_plane.rest
    for one in (LWS, RBG):
        rest.create(CRDS, one)
        group, version = one["spec"]["group"], one["spec"]["versions"][0]["name"]
        path = f"/apis/{group}/{version}/{one['spec']['names']['plural']}"
        wait_for(f"{path} is served", lambda path=path: is_served(rest, path))
    yield
    for one in (LWS, RBG):
        rest.delete(f"{CRDS}/{one['metadata']['name']}")


def is_served(rest: Rest, path: str) -> bool:
    try:
        rest.get(path)
    except Refused:  # 404 at first, then 429 while its storage is made
        return False
    return True


def custom(api_version: str, kind: str, name: str, spec: Manifest) -> Manifest:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec}


@pytest.mark.usefixtures("platforms")
def test_leader_worker_sets(control_plane: ControlPlane, namespace: str, stage: Staged) -> None:
    version = "leaderworkerset.x-k8s.io/v1"
    path = f"/apis/{version}/namespaces/{namespace}/leaderworkersets"
    targets = [Target(version, "LeaderWorkerSet", name) for name in ("prefill", "decode")]
    for target in targets:
        control_plane.rest.create(path, custom(version, target.kind, target.name, {"replicas": 2}))
    labels = {"leaderworkerset.sigs.k8s.io/name": "prefill"}
    for name in ("prefill-1", "prefill-1-1"):
        pod = pod_template(labels=labels)
        pod["metadata"]["name"] = name
        control_plane.rest.create(core(namespace, "pods"), pod)
    at = stage(two_pools(namespace, *targets))
    wait_for("both pods are seen", lambda: len(at.pods()) == 2)
    assert {name: pod.index for name, pod in at.pods().items()} == {
        "prefill-1": 1,
        "prefill-1-1": 1,
    }
    at.scale(prefill=5, decode=0)
    assert (at.pool().replicas, at.pool("decode").replicas) == (5, 0)


@pytest.mark.usefixtures("platforms")
def test_roles_in_a_keyed_list(control_plane: ControlPlane, namespace: str, stage: Staged) -> None:
    version = "workloads.x-k8s.io/v1alpha2"
    path = f"/apis/{version}/namespaces/{namespace}/rolebasedgroups"
    # The count of the first is left out: it is one.
    roles = [{"name": "decode"}, {"name": "router", "replicas": 1}, {"name": "prefill"}]
    roles[2] |= {"replicas": 2}
    control_plane.rest.create(path, custom(version, "RoleBasedGroup", "rbg", {"roles": roles}))
    targets = [Target(version, "RoleBasedGroup", "rbg", name) for name in ("prefill", "decode")]
    at = stage(two_pools(namespace, *targets))
    assert (at.pool().replicas, at.pool("decode").replicas) == (2, 1)
    assert at.pool().changed_by == "tests"
    at.scale(prefill=4, decode=3)
    written = control_plane.rest.get(f"{path}/rbg")["spec"]["roles"]
    assert [role["replicas"] for role in written] == [3, 1, 4]
    assert (at.pool().changed_by, at.pool("decode").changed_by) == (None, None)


# ── what a target can't do ───────────────────────────────────────────────────────────────────────


def test_targets_that_are_not_there_say_what_is(
    control_plane: ControlPlane, namespace: str, stage: Staged
) -> None:
    create_one_job(control_plane, namespace)
    control_plane.rest.create(apps(namespace, "deployments"), deployment("web", 0))
    wrong = {
        "there is no Job": (job("dp", "prefill"), "jobs there: pd"),
        "a Deployment": (job("web", "prefill"), "of that name there is apps/v1 Deployment"),
        "a misspelt task": (job("pd", "prefil"), "has no task prefil; it has prefill, decode"),
        "a kind that is not served": (
            Target("workload.serving.volcano.sh/v1alpha1", "ModelServing", "x", "prefill"),
            "does not serve modelservings of workload.serving.volcano.sh/v1alpha1: install it",
        ),
    }
    for target, said in wrong.values():
        found = stage(two_pools(namespace, target, job("pd", "decode"))).look()
        assert isinstance(found, TargetError)
        assert said in str(found)


def test_a_job_that_has_ended_and_one_that_is_partitioned(
    control_plane: ControlPlane, namespace: str, stage: Staged
) -> None:
    partitions = {"totalPartitions": 2, "partitionSize": 1}
    parts = volcano_job("parts", task("prefill", 2, floor=0, partitionPolicy=partitions))
    control_plane.rest.create(jobs(namespace), parts)
    found = stage(two_pools(namespace, *[job("parts", "prefill")] * 2)).look()
    assert "partitionPolicy, which fixes its replicas" in str(found)

    at = stage(create_one_job(control_plane, namespace))
    at.wait_ready(prefill=2)
    command = {
        "apiVersion": "bus.volcano.sh/v1alpha1",
        "kind": "Command",
        "metadata": {"generateName": "abort-"},
        "action": "AbortJob",
        "target": {
            "apiVersion": "batch.volcano.sh/v1alpha1",
            "kind": "Job",
            "name": "pd",
            "uid": at.pool().uid,
            "controller": True,
        },
    }
    control_plane.rest.create(
        f"/apis/bus.volcano.sh/v1alpha1/namespaces/{namespace}/commands", command
    )
    wait_for("the Job is aborted", lambda: "is Aborted and starts no pods" in str(at.look()))


def test_a_second_autoscaler_is_seen(
    control_plane: ControlPlane, namespace: str, stage: Staged
) -> None:
    control_plane.rest.create(apps(namespace, "deployments"), deployment("web", 1))
    scaler = {
        "metadata": {"name": "web-hpa"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "maxReplicas": 3,
        },
    }
    path = f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers"
    control_plane.rest.create(path, scaler)
    found = stage(two_pools(namespace, *[Target("apps/v1", "Deployment", "web")] * 2)).look()
    assert isinstance(found, TargetError)
    assert found.code == "TargetContended"
    assert "also scaled by the HorizontalPodAutoscaler web-hpa" in str(found)


# ── writes that meet others ──────────────────────────────────────────────────────────────────────


def test_a_status_that_moved_on_is_no_conflict(
    control_plane: ControlPlane, namespace: str, stage: Staged
) -> None:
    at = stage(create_one_job(control_plane, namespace))
    at.look()
    note = {"metadata": {"annotations": {"somebody": "was here"}}}
    control_plane.rest.patch(jobs(namespace, "pd"), note)
    at.apply(Patch({"prefill": 3}))
    assert at.pool().replicas == 3


def test_a_count_that_somebody_else_changed_is_a_conflict(
    control_plane: ControlPlane, namespace: str, stage: Staged
) -> None:
    at = stage(create_one_job(control_plane, namespace))
    at.look()
    other = [{"op": "replace", "path": "/spec/tasks/0/replicas", "value": 5}]
    control_plane.rest.patch(jobs(namespace, "pd"), other)
    with pytest.raises(ConflictError, match=r"was at 2 of prefill, decode .* is at 5 of"):
        at.apply(Patch({"prefill": 3}))
    assert (at.pool().replicas, at.pool().changed_by) == (5, "tests")


def test_a_new_job_of_the_same_name_is_another_target(
    control_plane: ControlPlane, namespace: str, stage: Staged
) -> None:
    service = create_one_job(control_plane, namespace)
    at = stage(service)
    old = at.pool().uid
    control_plane.rest.delete(jobs(namespace, "pd"))
    wait_for("it is gone", lambda: not control_plane.rest.exists(jobs(namespace, "pd")))
    create_one_job(control_plane, namespace)
    with pytest.raises(ConflictError):
        at.apply(Patch({"prefill": 3}))
    assert (at.pool().replicas, at.pool().uid != old) == (2, True)


def test_the_words_of_a_webhook_reach_the_caller(
    control_plane: ControlPlane, namespace: str
) -> None:
    create_one_job(control_plane, namespace, floor=2)
    api = KubernetesApi(KubernetesAccess(control_plane.kubeconfig))
    target = job("pd", "prefill")
    found = reading(target, api.get(resource_of(target), namespace, "pd"))
    # As if the Job had no floors, and without the lock: it is the webhook that is asked here.
    blind = replace(found, entries=tuple(replace(e, minimum=None) for e in found.entries))
    patch = operations([(replace(blind, minimum=None), 1)])[1:]
    with pytest.raises(RefusedError) as refused:
        api.json_patch(resource_of(target), namespace, "pd", patch)
    api.close()
    assert "'minAvailable' must be <= 'replicas' in task: prefill" in str(refused.value)
    assert f"patch jobs.batch.volcano.sh pd in namespace {namespace}" in str(refused.value)


# ── pods ─────────────────────────────────────────────────────────────────────────────────────────


def test_start_up_is_measured_from_creation_to_ready(
    control_plane: ControlPlane, namespace: str, stage: Staged
) -> None:
    slow = pod_template(annotations={READY_AFTER: "3s"})
    at = stage(create_one_job(control_plane, namespace, template=slow))
    at.wait_ready(prefill=2)
    for pod in at.pool().pods:
        assert pod.ready_s is not None
        assert 2.0 <= pod.ready_s - pod.created_s <= 10.0
        assert pod.node is not None


def test_a_pod_that_leaves_keeps_its_name_and_is_not_ready(
    control_plane: ControlPlane, namespace: str, stage: Staged
) -> None:
    slow = pod_template(annotations={GONE_AFTER: "8s"})
    at = stage(create_one_job(control_plane, namespace, template=slow))
    at.wait_ready(prefill=2)
    at.scale(prefill=1)
    wait_for("the last one leaves", lambda: at.pods()["pd-prefill-1"].terminating)
    at.scale(prefill=2)
    assert (at.pool().replicas, at.pool().ready()) == (2, 1)
    at.wait_ready(prefill=2)


def test_a_pod_that_finds_no_node_says_why_in_the_schedulers_words(
    control_plane: ControlPlane, namespace: str, stage: Staged
) -> None:
    control_plane.rest.create(jobs(namespace), volcano_job("prefill", task("prefill", 8), tier=1))
    at = stage(two_pools(namespace, *[job("prefill", "prefill")] * 2))
    at.wait_ready(prefill=8)
    assert at.pool().pinned_tier == 1
    shape = at.pool().shape
    assert shape is not None
    assert (shape.requests[GPU], shape.queue) == (1.0, "default")
    at.scale(prefill=9)
    wait_for("the ninth waits", lambda: at.pods().get("prefill-prefill-8"))
    said = wait_for("it says why", lambda: at.pods()["prefill-prefill-8"].unschedulable)
    assert "Insufficient nvidia.com/gpu" in said
    assert at.pods()["prefill-prefill-8"].node is None


def test_marks_are_set_and_taken_off(
    control_plane: ControlPlane, namespace: str, stage: Staged
) -> None:
    control_plane.rest.create(apps(namespace, "deployments"), deployment("web", 3))
    at = stage(two_pools(namespace, *[Target("apps/v1", "Deployment", "web")] * 2))
    at.wait_ready(prefill=3)
    leaving, staying, _ = at.pods()
    until_s = CLOCK.now_s() + 60.0
    at.apply(Patch(drain={leaving: until_s, staying: until_s, "web-0-gone": until_s}))
    wait_for("the mark is seen", lambda: at.pods()[leaving].drain_until_s)
    assert 0.0 <= (at.pods()[leaving].drain_until_s or 0.0) - until_s <= 1.0
    at.apply(Patch(keep=(staying,)))
    wait_for("it is taken off", lambda: at.pods()[staying].drain_until_s is None)
    noted = control_plane.rest.get(core(namespace, "pods", staying))["metadata"]
    assert "annotations" not in noted or not any("drain" in n or "cost" in n for n in noted)
    at.scale(prefill=2)
    wait_for("the marked one goes", lambda: leaving not in at.pods())
    assert staying in at.pods()


def test_readiness_that_flaps_is_no_new_start(
    control_plane: ControlPlane, namespace: str, stage: Staged
) -> None:
    # A pod without a kubelet: its conditions are ours to write.
    pod = pod_template(labels={"volcano.sh/job-name": "pd", "volcano.sh/task-spec": "prefill"})
    pod["metadata"]["name"] = "pd-prefill-9"
    pod["spec"] |= {"schedulerName": "nobody"}
    control_plane.rest.create(core(namespace, "pods"), pod)
    at = stage(create_one_job(control_plane, namespace))

    def set_ready(status: str, at_text: str) -> None:
        one = {"type": "Ready", "status": status, "lastTransitionTime": at_text}
        path = core(namespace, "pods", "pd-prefill-9/status")
        control_plane.rest.patch(path, {"status": {"conditions": [one]}})

    set_ready("True", "2030-01-01T00:00:00Z")
    first_s = wait_for("it is Ready", lambda: at.pods()["pd-prefill-9"].ready_s)
    set_ready("False", "2030-01-01T00:10:00Z")
    wait_for("it is not", lambda: at.pods()["pd-prefill-9"].ready_s is None)
    set_ready("True", "2030-01-01T00:20:00Z")
    assert wait_for("it is again", lambda: at.pods()["pd-prefill-9"].ready_s) == first_s


# ── the cluster around them ──────────────────────────────────────────────────────────────────────


def test_the_inventory_counts_what_runs(
    control_plane: ControlPlane, namespace: str, stage: Staged
) -> None:
    at = stage(create_one_job(control_plane, namespace))
    at.wait_ready(prefill=2, decode=3)

    def requested() -> float:
        found = at.cluster.inventory(CLOCK.now_s())
        assert isinstance(found, Inventory), found
        return sum(node.requested.get(GPU, 0.0) for node in found.nodes)

    wait_for("five GPUs are asked for", lambda: requested() == 5.0)
    found = at.cluster.inventory(CLOCK.now_s())
    assert isinstance(found, Inventory)
    assert [node.allocatable[GPU] for node in found.nodes] == [4.0] * 8
    assert {one.name: one.tier for one in found.hypernodes}["ib-switch4"] == 2
    assert "default" in {queue.name for queue in found.queues}
    assert found.unseen == ()


def events_of(plane: ControlPlane, namespace: str, uid: str | None) -> list[Manifest]:
    return plane.rest.items(core(namespace, "events"), fieldSelector=f"involvedObject.uid={uid}")


def test_events_are_told_on_the_job_once_a_change(
    control_plane: ControlPlane, namespace: str, stage: Staged
) -> None:
    at = stage(create_one_job(control_plane, namespace))
    uid = at.pool().uid
    listener = KubernetesEvents(at.cluster.api, [at.service], at.cluster.uid_of)
    decision = Decision(CLOCK.now_s(), {}, patch=Patch({"prefill": 3}))
    for error in (None, "denied", "denied"):
        listener.record(TickRecord(at.service.key, decision, error is None, error))
    listener.close()

    def ours() -> list[tuple[str, str, str]]:
        found = events_of(control_plane, namespace, uid)
        return sorted(
            (one["type"], one["reason"], one["message"])
            for one in found
            if one["reportingComponent"] == "pd-planner"
        )

    told = wait_for("both are there", lambda: ours() if len(ours()) >= 2 else None)
    assert told == [
        ("Normal", "SuccessfulRescale", "prefill: New size: 3"),
        ("Warning", "FailedRescale", "prefill: denied"),
    ]


def allow(plane: ControlPlane, namespace: str, rules: Sequence[tuple[str, str, list[str]]]) -> None:
    """Let the account `scaler` of a namespace do these things there, and nothing else."""
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    written = [
        {"apiGroups": [group], "resources": [plural], "verbs": verbs}
        for group, plural, verbs in rules
    ]
    plane.rest.create(f"{rbac}/roles", {"metadata": {"name": "scaler"}, "rules": written})
    subject = {"kind": "ServiceAccount", "name": "scaler", "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "scaler"}
    plane.rest.create(
        f"{rbac}/rolebindings",
        {"metadata": {"name": "scaler"}, "roleRef": role, "subjects": [subject]},
    )


def wait_until_it_may_list_pods(plane: ControlPlane, token: str, namespace: str) -> None:
    """Wait until the API server knows of a binding; the planner asks again after a minute only."""

    def may() -> bool:
        with contextlib.suppress(Refused), plane.client(token) as rest:
            rest.items(core(namespace, "pods"))
            return True
        return False

    wait_for("the account may list pods", may)


def test_an_account_of_one_namespace_sees_that_and_says_what_it_may_not(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    control_plane.lay_out(eight_nodes())
    service = create_one_job(control_plane, namespace)
    token = control_plane.account(namespace, "scaler")
    allow(
        control_plane,
        namespace,
        [("batch.volcano.sh", "jobs", ["get", "list"]), ("", "pods", ["list", "watch"])],
    )
    wait_until_it_may_list_pods(control_plane, token, namespace)
    config = tmp_path / "kubeconfig"
    write_kubeconfig(config, control_plane.url, control_plane.ca, token, namespace)
    cluster = KubernetesCluster(KubernetesAccess(config), [service])
    cluster.start()

    def look() -> Fleet | ClusterError:
        return cluster.fleets([service], CLOCK.now_s())[service.key]

    def are_ready() -> bool:
        fleet = look()
        return isinstance(fleet, Fleet) and fleet.pools["decode"].ready() == 3

    wait_for("its pods are seen", are_ready)
    assert cluster.inventory(CLOCK.now_s()) is None  # no nodes, no bounds
    with pytest.raises(ClusterError, match=r"may not patch jobs.*verbs: \[patch\]") as refused:
        cluster.apply(service, Patch({"prefill": 3}), CLOCK.now_s())
    assert "let a Role grant" in str(refused.value)
    cluster.close()


# ── outages ──────────────────────────────────────────────────────────────────────────────────────


def test_the_watch_survives_an_api_server_that_was_killed(
    own_control_plane: ControlPlane, own_namespace: str
) -> None:
    own_control_plane.lay_out(eight_nodes())
    at = Stage(own_control_plane, create_one_job(own_control_plane, own_namespace))
    at.wait_ready(prefill=2, decode=3)
    own_control_plane.kill("kube-apiserver")
    down = at.look()
    assert isinstance(down, ClusterError)
    assert "is unreachable" in str(down)
    with pytest.raises(ClusterError):
        at.apply(Patch({"prefill": 3}))
    own_control_plane.start("kube-apiserver")
    wait_for("it is read again", lambda: isinstance(at.look(), Fleet), 60.0)
    at.scale(prefill=3)
    at.wait_ready(60.0, prefill=3)
    at.cluster.close()


def test_an_api_server_that_hangs_costs_a_bounded_time(
    own_control_plane: ControlPlane, own_namespace: str
) -> None:
    own_control_plane.lay_out(eight_nodes())
    service = create_one_job(own_control_plane, own_namespace)
    access = KubernetesAccess(own_control_plane.kubeconfig, timeout_s=1.0)
    cluster = KubernetesCluster(access, [service])
    cluster.start()
    own_control_plane.freeze("kube-apiserver")
    try:
        began_s = CLOCK.now_s()
        found = cluster.fleets([service], began_s)[service.key]
        assert isinstance(found, ClusterError)
        assert "gave no answer within 1 s" in str(found)
        cluster.close()
        # Each of five watches that still waits for its headers is given two seconds to end.
        assert CLOCK.now_s() - began_s < 15.0 * patience()
    finally:
        own_control_plane.go_on("kube-apiserver")
