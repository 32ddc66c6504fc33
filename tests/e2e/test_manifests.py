"""The shipped manifests: they say what the code says, and the real API server takes them.

The CRDs of KEDA and of the Prometheus operator are not installed here: their objects are applied
against minimal ones that check nothing, and KEDA's keys are compared with what it documents.
"""

import importlib.util
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from planner.adapters.targets import KINDS
from planner.check.finding import Level
from planner.check.rights import CLUSTER_WIDE, NAMESPACED, SHARED_NODES, TARGET_VERBS, Need
from planner.check.volcano import volcano_findings
from planner.check.volcano_network import topology_findings
from planner.model import Service
from planner.spec.crd import crd_text
from planner.spec.service import load_services
from profiles.schema import read_profile
from tests.cluster.control_plane import ControlPlane
from tests.cluster.rest import NAMESPACES, Manifest, Refused, Rest, apps, core, jobs
from tests.cluster.topologies import GPU_TYPE, seven_switches
from tests.cluster.waiting import wait_for
from tests.cluster.workloads import is_ready, node_of, pods_of, scale

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
SCENARIO = MANIFESTS / "overlays" / "scenario"
PLANNER = SCENARIO / "planner"
PROFILES = PLANNER / "inference" / "profiles"
ORIGINAL = ROOT / "tests" / "data" / "scenario_original.yaml"
JOBS = {"prefill": "pd-prefill-service", "decode": "pd-decode-service"}
# Every folder that `kubectl apply -k` may be given as it is.
APPLIED = (
    "base",
    "overlays/scenario",
    "overlays/shared-nodes",
    "monitoring",
    "profiling",
    "autoscalers/hpa",
    "autoscalers/keda",
)

Kubectl = Callable[..., str]


def documents(*path: str) -> list[Manifest]:
    return list(yaml.safe_load_all(MANIFESTS.joinpath(*path).read_text(encoding="utf-8")))


def one(kind: str, *path: str) -> Manifest:
    (found,) = [document for document in documents(*path) if document["kind"] == kind]
    return found


def shipped_config_maps(namespace: str, name: str) -> dict[str, str]:
    assert namespace == "inference"
    return {"profile.json": (PROFILES / f"{name}.json").read_text(encoding="utf-8")}


@pytest.fixture(scope="module")
def service() -> Service:
    (loaded,) = load_services([PLANNER / "services.yaml"], config_maps=shipped_config_maps)
    return loaded.service


def granted(role: Manifest) -> set[tuple[str, str, str]]:
    return {
        (verb, group, resource)
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def needed(*needs: Need) -> set[tuple[str, str, str]]:
    return {(verb, need.group, need.resource) for need in needs for verb in need.verbs}


def targets(*, volcano: bool) -> tuple[Need, ...]:
    verbs = (*TARGET_VERBS[0], *TARGET_VERBS[1])
    rows = [row for row in KINDS if (row.group == "batch.volcano.sh") is volcano]
    return tuple(Need(verbs, row.group, f"{row.kind.lower()}s") for row in rows)


# ── they say what the code says ──────────────────────────────────────────────────────────────────


def test_the_crd_is_the_one_that_the_command_prints():
    assert (MANIFESTS / "base" / "crd.yaml").read_text(encoding="utf-8") == crd_text(), (
        "write it anew: pd-planner schema crd > manifests/base/crd.yaml"
    )


@pytest.mark.parametrize(
    ("kind", "path", "needs"),
    [
        pytest.param("ClusterRole", ("base", "cluster_role.yaml"), CLUSTER_WIDE, id="cluster"),
        pytest.param(
            "Role",
            ("served-namespace", "role.yaml"),
            (*NAMESPACED, *targets(volcano=True)),
            id="served namespace",
        ),
        pytest.param(
            "Role", ("other-targets", "role.yaml"), targets(volcano=False), id="other targets"
        ),
        pytest.param(
            "ClusterRole",
            ("overlays", "shared-nodes", "pod_reader.yaml"),
            (SHARED_NODES,),
            id="shared nodes",
        ),
    ],
)
def test_a_role_grants_exactly_what_check_asks_for(kind, path, needs):
    assert granted(one(kind, *path)) == needed(*needs)


@pytest.mark.parametrize("name", ["llama-8b-h100", "llama-8b-rtx4090"])
def test_a_profile_is_what_its_estimate_computes_and_says_so(name):
    spec = importlib.util.spec_from_file_location("estimate", PROFILES / "estimate.py")
    assert spec is not None
    assert spec.loader is not None
    estimate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(estimate)
    shipped = read_profile(PROFILES / f"{name}.json")
    assert shipped == estimate.PROFILES[f"{name}.json"]()
    assert shipped.provenance.how == "estimated"
    assert "H200" in (shipped.provenance.command or "")


def test_the_hyper_nodes_are_those_of_the_simulated_scenario():
    ours = {h["metadata"]["name"]: h for h in documents("overlays/scenario/hyper_nodes.yaml")}
    assert ours == {h["metadata"]["name"]: h for h in seven_switches().hyper_nodes}


@pytest.mark.parametrize("pool", JOBS)
def test_check_finds_nothing_at_our_jobs(service, pool):
    job = one("Job", "overlays", "scenario", "jobs", f"{pool}.yaml")
    found = [*volcano_findings(service, job, None), *topology_findings(job, ())]
    assert [finding.line for finding in found if finding.level is not Level.OK] == []
    assert found, "the Job is no target of the shipped PDAutoscaler"


def test_check_finds_much_at_the_jobs_as_first_asked_for(service):
    for job in yaml.safe_load_all(ORIGINAL.read_text(encoding="utf-8")):
        found = [*volcano_findings(service, job, None), *topology_findings(job, ())]
        rules = {str(finding.rule) for finding in found if finding.level is not Level.OK}
        assert rules >= {"max-retry", "min-available-task", "restart-policy", "topology-soft"}


@pytest.mark.parametrize("pool", JOBS)
def test_pods_have_longer_to_end_than_they_are_drained(service, pool):
    job = one("Job", "overlays", "scenario", "jobs", f"{pool}.yaml")
    grace_s = job["spec"]["tasks"][0]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s >= service.pool(pool).drain_s > 0


def test_the_jobs_floors_are_those_of_the_pools(service):
    for pool, name in JOBS.items():
        job = one("Job", "overlays", "scenario", "jobs", f"{pool}.yaml")["spec"]
        assert service.pool(pool).target.name == name
        assert job["tasks"][0]["minAvailable"] == service.pool(pool).min_replicas
        assert job["minAvailable"] == sum(task["minAvailable"] for task in job["tasks"])


def test_prometheus_takes_the_scrape_configuration_of_the_walk_through(promtool_binary, tmp_path):
    text = (ROOT / "docs" / "walkthrough.md").read_text(encoding="utf-8")
    blocks = [part.partition("```")[0] for part in text.split("```yaml\n")[1:]]
    (written,) = [block for block in blocks if block.startswith("scrape_configs:")]
    config = tmp_path / "prometheus.yml"
    # Debian's build knows no discovery by Kubernetes; the rest is what can be misspelt.
    discovery = "kubernetes_sd_configs: [{role: pod}]"
    assert discovery in written
    written = written.replace(discovery, "static_configs: [{targets: [vllm:8000]}]")
    config.write_text(written, encoding="utf-8")
    checked = subprocess.run(
        [promtool_binary, "check", "config", config], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


# ── the real API server takes them ───────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def kubectl(own_control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    cache = tmp_path_factory.mktemp("kubectl")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [own_control_plane.site.binaries / "kubectl", f"--cache-dir={cache}", *arguments],
            env={"KUBECONFIG": str(own_control_plane.kubeconfig), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def applied(own_control_plane: ControlPlane, kubectl: Kubectl) -> Iterator[ControlPlane]:
    # Everything at once, on the scenario's nodes; the module's own control plane ends with it.
    own_control_plane.lay_out(seven_switches())
    rest = own_control_plane.rest
    for kind, (plural, group, version) in FOREIGN.items():
        rest.create(CRDS, minimal_crd(kind, plural, group, version))
        path = f"/apis/{group}/{version}/namespaces/default/{plural}"
        wait_for(f"{plural} are served", lambda path=path: is_served(rest, path))
    for folder in APPLIED:
        kubectl("apply", "--server-side", "-k", str(MANIFESTS / folder))
    yield own_control_plane
    for name in JOBS.values():
        rest.delete(jobs("inference", name))


CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
# Kinds of others that are not installed here, each with the plural and the group of its CRD.
FOREIGN = {
    "ScaledObject": ("scaledobjects", "keda.sh", "v1alpha1"),
    "PodMonitor": ("podmonitors", "monitoring.coreos.com", "v1"),
    "PrometheusRule": ("prometheusrules", "monitoring.coreos.com", "v1"),
}


def minimal_crd(kind: str, plural: str, group: str, version: str) -> Manifest:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served = {"name": version, "served": True, "storage": True}
    return {
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind},
            "versions": [served | {"schema": {"openAPIV3Schema": anything}}],
        },
    }


def is_served(rest: Rest, path: str) -> bool:
    # A new kind is not found at first, then answers 429 while its storage is set up.
    try:
        return rest.exists(path)
    except Refused as refused:
        if refused.status != 429:
            raise
        return False


# https://keda.sh/docs/latest/reference/scaledobject-spec/ and .../scalers/prometheus/
KEDA_SPEC = {
    "scaleTargetRef",
    "pollingInterval",
    "cooldownPeriod",
    "initialCooldownPeriod",
    "idleReplicaCount",
    "minReplicaCount",
    "maxReplicaCount",
    "fallback",
    "advanced",
    "triggers",
}
KEDA_PROMETHEUS = {
    "serverAddress",
    "query",
    "threshold",
    "activationThreshold",
    "namespace",
    "customHeaders",
    "ignoreNullValues",
    "queryParameters",
    "unsafeSsl",
    "timeout",
    "authModes",
}


def test_nothing_was_changed_by_the_admission_of_our_jobs(applied):
    # What the webhook adds to a Job that leaves something out is what makes it unscalable.
    for pool, name in JOBS.items():
        written = one("Job", "overlays", "scenario", "jobs", f"{pool}.yaml")["spec"]
        stored = applied.rest.get(jobs("inference", name))["spec"]
        for key in ("minAvailable", "maxRetry", "networkTopology", "queue", "schedulerName"):
            assert stored[key] == written[key], key
        (task,) = stored["tasks"]
        assert (task["replicas"], task["minAvailable"]) == (12, 2)
        assert "policies" not in stored
        assert "policies" not in task


def test_a_second_application_is_taken_and_changes_nothing(applied, kubectl):
    paths = [jobs("inference", name) for name in JOBS.values()]
    before = [applied.rest.get(path)["metadata"]["generation"] for path in paths]
    kubectl("apply", "--server-side", "-k", str(SCENARIO))
    assert [applied.rest.get(path)["metadata"]["generation"] for path in paths] == before


def test_the_pods_are_where_the_scenario_wants_them(applied):
    placed = {node["metadata"]["name"]: node["metadata"]["labels"] for node in nodes(applied)}
    for pool, gpu_type in (("prefill", "h100"), ("decode", "rtx4090")):
        ready = wait_for(f"12 of {pool}", lambda p=pool: all_ready(applied, JOBS[p], 12), 60.0)
        labels = [placed[node_of(pod)] for pod in ready]
        assert {label[GPU_TYPE] for label in labels} == {gpu_type}
        assert {label["topology.kubernetes.io/switch-type"] for label in labels} == {"ib"}


def test_the_planner_is_applied_again_without_touching_replicas(applied, kubectl):
    path = jobs("inference", JOBS["decode"])
    applied.rest.patch(path, scale((0, 7)))
    kubectl("apply", "--server-side", "-k", str(PLANNER))
    assert applied.rest.get(path)["spec"]["tasks"][0]["replicas"] == 7
    applied.rest.patch(path, scale((0, 12)))


@pytest.mark.parametrize("pool", JOBS)
def test_a_job_goes_down_to_its_floor_and_up_again(applied, pool):
    name = JOBS[pool]
    wait_for("12 Ready", lambda: all_ready(applied, name, 12), 60.0)
    for replicas in (2, 12):
        applied.rest.patch(jobs("inference", name), scale((0, replicas)))
        wait_for(f"{replicas} Ready", lambda n=replicas: all_ready(applied, name, n), 60.0)
    status = applied.rest.get(jobs("inference", name))["status"]
    assert status["state"]["phase"] == "Running"
    assert not status.get("retryCount")


def nodes(plane: ControlPlane) -> list[Manifest]:
    return plane.rest.items("/api/v1/nodes")


def all_ready(plane: ControlPlane, job: str, count: int) -> list[Manifest]:
    pods = list(pods_of(plane.rest, "inference", job).values())
    return pods if len(pods) == count and all(map(is_ready, pods)) else []


def test_the_crd_takes_the_shipped_pdautoscaler(applied):
    path = "/apis/pd-planner.io/v1alpha1/namespaces/inference/pdautoscalers"
    (autoscaler,) = documents("overlays", "scenario", "planner", "services.yaml")
    stored = applied.rest.create(path, autoscaler)
    assert stored["spec"]["pools"][0]["drain"] == "30s"
    with pytest.raises(Refused, match="Unsupported value"):
        applied.rest.patch(f"{path}/llama-8b", {"spec": {"mode": "act"}})


def test_the_planners_file_and_profiles_are_in_the_cluster(applied):
    deployment = applied.rest.get(apps("pd-planner", "deployments", "pd-planner"))
    (volume,) = (
        volume["configMap"]["name"]
        for volume in deployment["spec"]["template"]["spec"]["volumes"]
        if "configMap" in volume
    )
    stored = applied.rest.get(core("pd-planner", "configmaps", volume))["data"]
    (mount,) = (
        argument.removeprefix("--file=/etc/pd-planner/")
        for argument in deployment["spec"]["template"]["spec"]["containers"][0]["args"]
        if argument.startswith("--file=")
    )
    assert stored == {mount: (PLANNER / "services.yaml").read_text(encoding="utf-8")}
    for name in ("llama-8b-h100", "llama-8b-rtx4090"):
        found = applied.rest.get(core("inference", "configmaps", name))["data"]
        assert found == shipped_config_maps("inference", name)


def test_the_planners_pod_is_admitted_where_only_restricted_pods_are(applied):
    namespace = applied.rest.get(f"{NAMESPACES}/pd-planner")["metadata"]["labels"]
    assert namespace["pod-security.kubernetes.io/enforce"] == "restricted"
    deployment = applied.rest.get(apps("pd-planner", "deployments", "pd-planner"))
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    template = deployment["spec"]["template"]
    pod = {"metadata": {"name": "as-shipped"}, "spec": template["spec"]}
    applied.rest.create(core("pd-planner", "pods"), pod)
    careless = template["spec"]["containers"][0] | {"securityContext": {}}
    pod = {
        "metadata": {"name": "careless"},
        "spec": template["spec"] | {"containers": [careless]},
    }
    with pytest.raises(Refused, match="allowPrivilegeEscalation"):
        applied.rest.create(core("pd-planner", "pods"), pod)


def test_the_hpa_follows_the_desired_gauge_without_tolerance(applied):
    path = "/apis/autoscaling/v2/namespaces/inference/horizontalpodautoscalers/llama-8b-decode"
    spec = applied.rest.get(path)["spec"]
    assert spec["metrics"][0]["external"]["target"] == {"type": "AverageValue", "averageValue": "1"}
    for direction in ("scaleUp", "scaleDown"):
        assert spec["behavior"][direction]["tolerance"] == "0"
        assert spec["behavior"][direction]["stabilizationWindowSeconds"] == 0


def test_the_scaled_object_has_only_keys_that_keda_knows(applied):
    path = "/apis/keda.sh/v1alpha1/namespaces/inference/scaledobjects/llama-8b-decode"
    spec = applied.rest.get(path)["spec"]
    (trigger,) = spec["triggers"]
    assert spec.keys() <= KEDA_SPEC
    assert trigger["metadata"].keys() <= KEDA_PROMETHEUS
    assert (trigger["type"], trigger["metricType"]) == ("prometheus", "AverageValue")
    assert (trigger["metadata"]["threshold"], trigger["metadata"]["ignoreNullValues"]) == (
        "1",
        "false",
    )


def test_kustomize_restarts_the_planner_when_its_file_changes(applied, kubectl, tmp_path):
    names = set()
    for mode in ("Recommend", "Act"):
        folder = tmp_path / mode
        folder.mkdir()
        text = (PLANNER / "services.yaml").read_text(encoding="utf-8")
        (folder / "services.yaml").write_text(text.replace("mode: Recommend", f"mode: {mode}"))
        (folder / "kustomization.yaml").write_text(
            f"resources: [{os.path.relpath(MANIFESTS / 'base', folder)}]\n"
            "configMapGenerator:\n"
            "  - {name: pd-planner-services, namespace: pd-planner, files: [services.yaml]}\n"
        )
        built = yaml.safe_load_all(kubectl("kustomize", str(folder)))
        (deployment,) = (found for found in built if found["kind"] == "Deployment")
        names |= {
            volume["configMap"]["name"]
            for volume in deployment["spec"]["template"]["spec"]["volumes"]
            if "configMap" in volume
        }
    assert len(names) == 2, names
