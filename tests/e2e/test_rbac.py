"""The shipped account on the real API server: what it needs works, and nothing else does.

Every verb is tried on every resource in three places. RBAC speaks before anything looks at the
object, so that a probe needs none: 403 is a refusal, and any other answer is not.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from planner.check.rights import CLUSTER_WIDE, NAMESPACED, SHARED_NODES, rights_of
from planner.model import Mode, Pool, Role, Service, ServiceKey, Sla, Target
from tests.cluster.control_plane import ControlPlane
from tests.cluster.rest import NAMESPACES, Refused, Rest, core, jobs
from tests.cluster.topologies import eight_nodes
from tests.cluster.waiting import wait_for
from tests.cluster.workloads import pods_of, task, volcano_job

MANIFESTS = Path(__file__).parents[2] / "manifests"
NAMED, MANY = "some-name?dryRun=All", "?dryRun=All"
WATCH = "?watch=true&timeoutSeconds=1"
# Verb: HTTP method, and what stands behind the path of the collection.
VERBS = {
    "get": ("GET", f"/{NAMED}"),
    "list": ("GET", ""),
    "watch": ("GET", WATCH),
    "create": ("POST", MANY),
    "update": ("PUT", f"/{NAMED}"),
    "patch": ("PATCH", f"/{NAMED}"),
    "delete": ("DELETE", f"/{NAMED}"),
    "deletecollection": ("DELETE", MANY),
}
# Group and version, resource, and the verbs that the planner has in a namespace that it serves.
IN_SERVED = [
    ("batch.volcano.sh/v1alpha1", "jobs", "get list patch"),
    ("v1", "pods", "list watch patch"),
    ("v1", "events", "create patch"),
    ("v1", "configmaps", "get"),
    ("v1", "resourcequotas", "list watch"),
    ("autoscaling/v2", "horizontalpodautoscalers", "list"),
    ("v1", "secrets", ""),
    ("v1", "serviceaccounts", ""),
    ("v1", "services", ""),
    ("v1", "persistentvolumeclaims", ""),
    ("apps/v1", "deployments", ""),
    ("apps/v1", "statefulsets", ""),
    ("batch/v1", "jobs", ""),
    ("batch.volcano.sh/v1alpha1", "cronjobs", ""),
    ("bus.volcano.sh/v1alpha1", "commands", ""),
    ("scheduling.volcano.sh/v1beta1", "podgroups", ""),
    ("rbac.authorization.k8s.io/v1", "roles", ""),
    ("rbac.authorization.k8s.io/v1", "rolebindings", ""),
    ("coordination.k8s.io/v1", "leases", ""),
    ("policy/v1", "poddisruptionbudgets", ""),
    ("networking.k8s.io/v1", "networkpolicies", ""),
    ("pd-planner.io/v1alpha1", "pdautoscalers", ""),
]
CLUSTER_SCOPED = [
    ("v1", "nodes", "list watch"),
    ("topology.volcano.sh/v1alpha1", "hypernodes", "list watch"),
    ("scheduling.volcano.sh/v1beta1", "queues", "list watch"),
    ("v1", "namespaces", ""),
    ("v1", "persistentvolumes", ""),
    ("rbac.authorization.k8s.io/v1", "clusterroles", ""),
    ("rbac.authorization.k8s.io/v1", "clusterrolebindings", ""),
    ("apiextensions.k8s.io/v1", "customresourcedefinitions", ""),
    ("admissionregistration.k8s.io/v1", "validatingwebhookconfigurations", ""),
    ("certificates.k8s.io/v1", "certificatesigningrequests", ""),
]
# Method and path below the namespace, or from the root: ways around the rules above.
SIDE_DOORS = [
    ("POST", "pods/some-pod/exec?command=id"),
    ("GET", "pods/some-pod/exec?command=id"),
    ("POST", "pods/some-pod/attach"),
    ("POST", "pods/some-pod/portforward"),
    ("GET", "pods/some-pod/proxy/"),
    ("GET", "pods/some-pod/log"),
    ("POST", "pods/some-pod/eviction"),
    ("POST", "pods/some-pod/binding"),
    ("PATCH", "pods/some-pod/status"),
    ("PATCH", "pods/some-pod/ephemeralcontainers"),
    ("POST", "serviceaccounts/default/token"),
    ("PATCH", "/api/v1/nodes/node0/status"),
    ("GET", "/api/v1/nodes/node0/proxy/metrics"),
    ("GET", "/metrics"),
    ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews"),
    ("POST", "/apis/authentication.k8s.io/v1/tokenreviews"),
]

Apply = Callable[[Path], None]


@pytest.fixture(scope="module")
def apply(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apply]:
    # Applies a folder of manifests; what was applied is deleted after the module.
    cache, done = tmp_path_factory.mktemp("kubectl"), []

    def run(*arguments: str) -> None:
        ran = subprocess.run(
            [control_plane.site.binaries / "kubectl", f"--cache-dir={cache}", *arguments],
            env={"KUBECONFIG": str(control_plane.kubeconfig), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr

    def apply_folder(folder: Path) -> None:
        run("apply", "--server-side", "-k", str(folder))
        done.append(folder)

    yield apply_folder
    for folder in reversed(done):
        run("delete", "--ignore-not-found", "--wait=false", "-k", str(folder))


@pytest.fixture(scope="module")
def places(
    control_plane: ControlPlane, apply: Apply, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    # A namespace that the planner serves, as an overlay grants it, and one that it does not.
    served, other = control_plane.add_namespace(), control_plane.add_namespace()
    apply(MANIFESTS / "base")
    folder = tmp_path_factory.mktemp("served")
    (folder / "kustomization.yaml").write_text(
        f"namespace: {served}\n"
        f"resources: [{os.path.relpath(MANIFESTS / 'served-namespace', folder)}]\n",
        encoding="utf-8",
    )
    apply(folder)
    yield served, other
    for namespace in (served, other):
        control_plane.remove_namespace(namespace)


@pytest.fixture(scope="module")
def planner(control_plane: ControlPlane, places: tuple[str, str]) -> Iterator[Rest]:
    # A client with a token of the shipped ServiceAccount.
    path = core("pd-planner", "serviceaccounts", "pd-planner/token")
    answer = control_plane.rest.create(path, {"spec": {}})
    with control_plane.client(answer["status"]["token"]) as client:
        list_jobs = jobs(places[0])
        wait_for("the Role is in force", lambda: is_allowed(client, "GET", list_jobs))
        yield client


def is_allowed(client: Rest, method: str, path: str) -> bool:
    body = {} if method in {"POST", "PUT", "PATCH"} else None
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    answer = client._session.request(
        method,
        client.url + path,
        json=body,
        headers={"Content-Type": kind},
        timeout=20,
    )
    return answer.status_code != 403


def collection(group_version: str, resource: str, namespace: str | None) -> str:
    root = "/api/v1" if group_version == "v1" else f"/apis/{group_version}"
    return (
        f"{root}/{resource}" if namespace is None else f"{root}/namespaces/{namespace}/{resource}"
    )


def allowed_verbs(client: Rest, group_version: str, resource: str, namespace: str | None) -> str:
    path = collection(group_version, resource, namespace)
    tried = VERBS if namespace or (group_version, resource) in SCOPES else ACROSS
    return " ".join(
        verb for verb in tried if is_allowed(client, VERBS[verb][0], path + VERBS[verb][1])
    )


SCOPES = {(group_version, resource) for group_version, resource, _ in CLUSTER_SCOPED}
ACROSS = ("list", "watch")  # what can be asked of all namespaces at once


def resource_id(row: object) -> str | None:
    return str(row) if isinstance(row, str) and row else "none"


@pytest.mark.parametrize(("group_version", "resource", "verbs"), IN_SERVED, ids=resource_id)
def test_in_a_namespace_that_it_serves_it_may_do_this_alone(
    planner, places, group_version, resource, verbs
):
    assert allowed_verbs(planner, group_version, resource, places[0]) == verbs


@pytest.mark.parametrize(("group_version", "resource", "_verbs"), IN_SERVED, ids=resource_id)
def test_elsewhere_it_may_do_nothing(planner, places, group_version, resource, _verbs):
    assert not allowed_verbs(planner, group_version, resource, places[1])
    assert not allowed_verbs(planner, group_version, resource, "pd-planner")
    assert not allowed_verbs(planner, group_version, resource, "kube-system")
    assert not allowed_verbs(planner, group_version, resource, None)


@pytest.mark.parametrize(("group_version", "resource", "verbs"), CLUSTER_SCOPED, ids=resource_id)
def test_of_the_cluster_it_may_read_this_alone(planner, group_version, resource, verbs):
    assert allowed_verbs(planner, group_version, resource, None) == verbs


@pytest.mark.parametrize(("method", "path"), SIDE_DOORS, ids=resource_id)
def test_the_side_doors_are_closed(planner, places, method, path):
    whole = path if path.startswith("/") else core(places[0], path)
    assert not is_allowed(planner, method, whole)


def test_no_other_account_of_its_namespace_may_do_it(control_plane, planner, places):
    token = control_plane.account("pd-planner", "another")
    with control_plane.client(token) as other:
        assert not is_allowed(other, "GET", jobs(places[0]))
        assert not is_allowed(other, "GET", "/api/v1/nodes")


def test_the_tables_above_hold_every_right_that_check_asks_for(places):
    acting = Service(
        ServiceKey(places[0], "llm"),
        Sla(ttft_s=1.0, itl_s=0.1),
        (Pool("decode", Role.DECODE, Target("batch.volcano.sh/v1alpha1", "Job", "llm", "d")),),
        mode=Mode.ACT,
    )
    asked = {
        (right.verb, right.group, right.resource, right.namespace)
        for right in rights_of([acting], shared_nodes=False)
    }
    listed = {
        (verb, group_version.rpartition("/")[0], resource, namespace)
        for rows, namespace in ((IN_SERVED, places[0]), (CLUSTER_SCOPED, None))
        for group_version, resource, verbs in rows
        for verb in verbs.split()
    }
    assert listed == asked
    assert len(asked) == sum(len(need.verbs) for need in (*NAMESPACED, *CLUSTER_WIDE)) + 3


def test_every_call_that_the_planner_makes_works(control_plane, planner, places):
    served = places[0]
    control_plane.lay_out(eight_nodes())
    rest = control_plane.rest
    rest.create(core(served, "configmaps"), {"metadata": {"name": "p"}, "data": {"a": "b"}})
    rest.create(jobs(served), volcano_job("llm", task("decode", 2)))
    pod = wait_for("a pod is there", lambda: next(iter(pods_of(rest, served, "llm")), None))
    assert planner.get(core(served, "configmaps", "p"))["data"] == {"a": "b"}
    found = planner.get(jobs(served, "llm"))
    lock = {
        "op": "replace",
        "path": "/metadata/resourceVersion",
        "value": found["metadata"]["resourceVersion"],
    }
    more = {"op": "replace", "path": "/spec/tasks/0/replicas", "value": 3}
    assert wait_for("the Job is scaled", lambda: patched(planner, jobs(served, "llm"), lock, more))
    mark = {"metadata": {"annotations": {"pd-planner.io/drain-until": "soon"}}}
    assert planner.patch(core(served, "pods", pod), mark)["metadata"]["annotations"]
    assert planner.items(core(served, "pods"))
    assert planner.items("/api/v1/nodes")
    assert planner.items("/apis/topology.volcano.sh/v1alpha1/hypernodes")
    assert planner.items("/apis/scheduling.volcano.sh/v1beta1/queues")
    event = planner.create(core(served, "events"), an_event(found))["metadata"]["name"]
    assert planner.patch(core(served, "events", event), {"count": 2})["count"] == 2


def patched(client: Rest, path: str, lock: dict[str, object], change: dict[str, object]) -> bool:
    # The controllers write the status meanwhile: read again, as the planner does.
    try:
        client.patch(path, [lock, change])
    except Refused as refused:
        if refused.status != 409:
            raise
        lock["value"] = client.get(path)["metadata"]["resourceVersion"]
        return False
    return True


def an_event(job: dict[str, object]) -> dict[str, object]:
    meta = job["metadata"]
    assert isinstance(meta, dict)
    involved = {
        "apiVersion": "batch.volcano.sh/v1alpha1",
        "kind": "Job",
        **{key: meta[key] for key in ("name", "namespace", "uid")},
    }
    return {
        "metadata": {"generateName": "llm."},
        "involvedObject": involved,
        "reason": "SuccessfulRescale",
        "message": "New size: 3",
        "type": "Normal",
    }


def test_it_may_ask_what_it_may_do(planner, places):
    # `pd-planner check` asks this way; every account may.
    asked = {"namespace": places[0], "verb": "patch", "group": "batch.volcano.sh"}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    for resource, answer in (("jobs", True), ("cronjobs", False)):
        review = {"spec": {"resourceAttributes": {**asked, "resource": resource}}}
        assert planner.create(path, review)["status"]["allowed"] is answer


def test_a_token_that_is_none_is_told_so(control_plane):
    with control_plane.client("not-a-token") as nobody, pytest.raises(Refused) as refused:
        nobody.get("/api/v1/nodes")
    assert refused.value.status == 401


def test_where_nodes_are_shared_an_overlay_adds_reading_of_pods(control_plane, planner, apply):
    namespace = control_plane.add_namespace()
    try:
        assert not allowed_verbs(planner, "v1", "pods", namespace)
        apply(MANIFESTS / "overlays" / "shared-nodes")
        wait_for("pods may be read", lambda: is_allowed(planner, "GET", "/api/v1/pods"))
        expected = " ".join(SHARED_NODES.verbs)
        assert allowed_verbs(planner, "v1", "pods", None) == expected
        assert allowed_verbs(planner, "v1", "pods", namespace) == expected
        control_plane.rest.delete(f"{CLUSTER_ROLE_BINDINGS}/pd-planner-shared-nodes")
        wait_for("and no more", lambda: not is_allowed(planner, "GET", "/api/v1/pods"))
    finally:
        control_plane.rest.delete(f"{NAMESPACES}/{namespace}")


CLUSTER_ROLE_BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
