"""What `check` says of a Job, and what the real webhooks, controllers and scheduler then do."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from planner.adapters.kubernetes.api import KubernetesAccess, KubernetesApi
from planner.adapters.kubernetes.check import (
    read_autoscalers,
    read_scheduler_config,
    read_targets,
)
from planner.adapters.kubernetes.cluster import KubernetesCluster
from planner.adapters.kubernetes.rights import answers
from planner.check.finding import Finding, Level
from planner.check.network import network_findings, site
from planner.check.rights import SCHEDULER_CONFIG, right_findings, rights_of
from planner.check.rules import Rule
from planner.check.volcano import MAX_RETRY, volcano_findings
from planner.check.volcano_network import plugin_finding, topology_findings
from planner.errors import TargetError
from planner.inventory import Link, Network
from planner.model import Fleet, Mode, Pool, Role, Service, ServiceKey, Target
from tests import builders
from tests.cluster.control_plane import ControlPlane
from tests.cluster.rest import Manifest, Refused, core, jobs
from tests.cluster.scene import Scene
from tests.cluster.topologies import eight_nodes
from tests.cluster.waiting import always, wait_for
from tests.cluster.workloads import deployment, scale, task, volcano_job

ORIGINAL = Path(__file__).parents[1] / "data" / "scenario_original.yaml"
SCHEDULER_CONF = Path(__file__).parents[1] / "cluster" / "volcano-scheduler.conf"
STILL_S = 1.5  # seven cycles of the scheduler: what has not moved by then does not


@pytest.fixture
def at(control_plane: ControlPlane, namespace: str) -> Scene:
    control_plane.lay_out(eight_nodes())
    return Scene(control_plane.rest, namespace)


@pytest.fixture
def api(control_plane: ControlPlane) -> Iterator[KubernetesApi]:
    made = KubernetesApi(KubernetesAccess(control_plane.kubeconfig))
    yield made
    made.close()


def pool(task_name: str = "p", job: str = "pd", **over: Any) -> Pool:
    target = Target("batch.volcano.sh/v1alpha1", "Job", job, task_name)
    return builders.pool(Role.PREFILL, **({"target": target, "max_replicas": 8} | over))


def service(at: Scene, *pools: Pool, **over: Any) -> Service:
    key = ServiceKey(at.namespace, "llm")
    return builders.service(key=key, pools=pools or (pool(),), **over)


def findings(at: Scene, api: KubernetesApi, asked: Service) -> list[Finding]:
    """Return what is not ok about the first pool's Job, as the API server gives it."""
    job = read_targets(api, asked)[asked.pools[0].name]
    assert isinstance(job, dict)
    told = [*volcano_findings(asked, job, None), *topology_findings(job, [])]
    return [finding for finding in told if finding.level is not Level.OK]


def rules(told: list[Finding]) -> dict[Rule | None, Level]:
    return {finding.rule: finding.level for finding in told}


def fine(*tasks: Manifest, **spec: Any) -> Manifest:
    return volcano_job("pd", *(tasks or (task("p", 4),)), **({"maxRetry": MAX_RETRY} | spec))


def test_a_job_that_is_called_fine_scales_up_and_down_without_a_restart(at: Scene, api):
    name = at.created_and_ready(fine(task("p", 2), tier=1))
    assert findings(at, api, service(at)) == []
    before = at.uids(name)
    at.patch(name, scale((0, 4)))
    at.wait_ready(name, 4)
    at.patch(name, scale((0, 1)))
    at.wait_ready(name, 1)
    assert at.uids(name) == {"pd-p-0": before["pd-p-0"]}
    assert "version" not in at.job(name)["status"]  # it counts restarts of the Job


def test_what_the_webhook_writes_is_found_and_the_mend_as_printed_lets_it_shrink(at: Scene, api):
    name = at.created_and_ready(volcano_job("pd", task("p", 4, floor=None)))
    asked = service(at)
    told = findings(at, api, asked)
    assert rules(told) == {
        Rule.MIN_AVAILABLE_TASK: Level.WARNING,
        Rule.MAX_RETRY: Level.WARNING,
    }
    assert "'minAvailable' must be <= 'replicas'" in at.refusal(name, scale((0, 3))).message
    at.patch(name, patch_in(told[0].mend))
    assert set(rules(findings(at, api, asked))) == {Rule.MAX_RETRY}
    at.patch(name, scale((0, 3)))
    at.wait_ready(name, 3)


def patch_in(mend: str) -> list[Manifest]:
    """Return the JSON Patch of a command that `check` prints."""
    patch: list[Manifest] = json.loads(mend.partition("-p '")[2].rstrip("'"))
    return patch


def test_a_job_minimum_above_the_sum_is_refused_until_mended(at: Scene, api):
    name = at.created_and_ready(fine(minAvailable=4))
    (one,) = findings(at, api, service(at))
    assert one.rule is Rule.MIN_AVAILABLE_JOB
    refusal = at.refusal(name, scale((0, 3)))
    assert "job 'minAvailable' must not be greater than total replicas" in refusal.message
    at.patch(name, [*patch_in(one.mend), *scale((0, 3))])
    at.wait_ready(name, 3)


def test_a_job_minimum_below_the_sum_really_runs_prefill_without_decode(at: Scene, api):
    # 32 GPUs: 31 are taken, one is left for a gang of two.
    at.created_and_ready(volcano_job("full", task("p", 31)))
    name = at.create(fine(task("p", 1), task("d", 1), minAvailable=1))
    asked = service(at, pool(), replace(pool("d"), name="decode"))
    (one,) = findings(at, api, asked)
    assert (one.rule, one.level) == (Rule.MIN_AVAILABLE_JOB, Level.WARNING)
    assert "prefill without decode too" in one.what
    wait_for("half a service runs", lambda: at.phase(name) == "Running")
    always("and no more of it", lambda: len(at.ready(name)) <= 1, for_s=STILL_S)


def test_a_task_in_partitions_is_called_unscalable_and_is(at: Scene, api):
    policy = {"totalPartitions": 2, "partitionSize": 2, "minPartitions": 2}
    name = at.create(fine(task("p", 4, floor=4, partitionPolicy=policy), tier=2))
    told = rules(findings(at, api, service(at)))
    assert told[Rule.PARTITION_POLICY] is Level.ERROR
    assert at.refusal(name, scale((0, 6))).status == 400


@pytest.mark.parametrize(
    ("policy", "retries"),
    [
        pytest.param({"event": "PodEvicted", "action": "RestartJob"}, True, id="the Job restarts"),
        pytest.param({"event": "*", "action": "RestartJob"}, True, id="on every event"),
        pytest.param({"events": ["PodFailed", "PodEvicted"], "action": "RestartPod"}, True,
                     id="one of maxRetry a pod"),
        pytest.param({"event": "PodFailed", "action": "RestartJob"}, False, id="other event"),
    ],
)  # fmt: skip
def test_policies_that_are_called_dangerous_fire_on_a_scale_down_and_others_do_not(
    at: Scene, api, policy: Manifest, retries: bool
):
    name = at.created_and_ready(fine(policies=[policy]))
    told = rules(findings(at, api, service(at)))
    assert told == ({Rule.EVICTION_POLICY: Level.ERROR} if retries else {})
    kept = at.uids(name)["pd-p-0"]
    at.patch(name, scale((0, 2)))

    def spent() -> int:
        return int(at.job(name)["status"].get("retryCount", 0))

    if retries:
        wait_for("it has fired", spent)
    else:
        at.wait_ready(name, 2)
        always("it does not fire", lambda: spent() == 0, for_s=STILL_S)
        assert at.uids(name)["pd-p-0"] == kept


def test_a_job_that_has_ended_is_not_scaled(at: Scene, api):
    ending = [{"event": "PodEvicted", "action": "TerminateJob"}]
    name = at.created_and_ready(fine(policies=ending))
    at.patch(name, scale((0, 2)))
    wait_for("it ends", lambda: at.phase(name) == "Terminated")
    told = rules(findings(at, api, service(at)))
    assert told[Rule.JOB_PHASE] is Level.ERROR
    at.patch(name, scale((0, 3)))  # accepted, and nothing comes of it
    always("no pod is made", lambda: not at.pods(name), for_s=STILL_S)


def test_hard_topology_without_a_tier_is_told_and_really_not_enforced(at: Scene, api):
    name = at.created_and_ready(fine(task("p", 12), networkTopology={"mode": "hard"}))
    told = rules(findings(at, api, service(at, pool(max_replicas=12))))
    assert told == {Rule.TOPOLOGY_TIER: Level.WARNING}
    assert len(at.leaves(name)) > 1  # a leaf holds 8


def test_the_scenario_as_first_asked_for_is_stored_and_explained(at: Scene, api):
    for manifest in yaml.safe_load_all(ORIGINAL.read_text(encoding="utf-8")):
        manifest["metadata"]["namespace"] = at.namespace
        at.rest.create(jobs(at.namespace), manifest)
    for role in Role:
        asked = service(at, pool(f"{role}-worker", f"pd-{role}-service", max_replicas=12))
        assert [(f.rule, f.level) for f in findings(at, api, asked)] == [
            (Rule.MIN_AVAILABLE_TASK, Level.WARNING),
            (Rule.MAX_RETRY, Level.WARNING),
            (Rule.RESTART_POLICY, Level.WARNING),
            (Rule.TOPOLOGY_SOFT, Level.WARNING),
        ]
        name = f"pd-{role}-service"
        (minimum, *_) = findings(at, api, asked)
        assert "'minAvailable' must be <= 'replicas'" in at.refusal(name, scale((0, 11))).message
        at.patch(name, [*patch_in(minimum.mend), *scale((0, 11))])


def seen(control_plane: ControlPlane, asked: Service) -> tuple[Fleet, Any]:
    cluster = KubernetesCluster(KubernetesAccess(control_plane.kubeconfig), [asked])
    try:
        cluster.start()
        fleet = cluster.fleets([asked], 0.0)[asked.key]
        assert isinstance(fleet, Fleet)
        return fleet, cluster.inventory(0.0)
    finally:
        cluster.close()


def test_beyond_the_pods_that_check_names_new_ones_leave_home(at: Scene, control_plane):
    links = (Link(1, None, 25e9, 0.0), Link(2, None, 2.5e9, 0.0))
    name = at.created_and_ready(fine(task("p", 3, floor=3), tier=2))
    (home,) = at.leaves(name)
    asked = service(at, pool(kv_bytes_per_token=131_072.0))
    here = site(asked, *seen(control_plane, asked), Network(links))
    (one,) = [f for f in network_findings(here) if f.rule is Rule.HOME_TIER]
    switch = home.replace("leaf", "switch")  # the HyperNodes are ib-switch0 and so on
    assert f"{switch}, where its pods are and 8 fit: beyond 4 pods" in one.what
    at.patch(name, scale((0, 4)))
    at.wait_ready(name, 4)
    assert at.leaves(name) == {home}
    at.patch(name, scale((0, 5)))
    at.wait_ready(name, 5)
    assert len(at.leaves(name)) == 2


def test_the_room_that_check_tells_is_what_fits(at: Scene, control_plane):
    name = at.created_and_ready(fine(task("p", 4), tier=1))
    asked = service(at, pool(max_replicas=10))
    here = site(asked, *seen(control_plane, asked), Network())
    (one,) = [f for f in network_findings(here) if f.rule is Rule.ROOM]
    assert one.what.startswith("8 replicas fit, fewer than maxReplicas 10")
    at.patch(name, scale((0, 10)))
    at.wait_stuck(name, ready=8, pending=2)


def limited(control_plane: ControlPlane, namespace: str, folder: Path) -> KubernetesApi:
    """Return a client for an account that may only list Jobs of the namespace."""
    token = control_plane.account(namespace, "reader")
    role = {
        "metadata": {"name": "reader"},
        "rules": [{"apiGroups": ["batch.volcano.sh"], "resources": ["jobs"],
                   "verbs": ["get", "list"]}],
    }  # fmt: skip
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    control_plane.rest.create(f"{rbac}/roles", role)
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    binding = {"metadata": {"name": "reader"}, "roleRef": reference, "subjects": [subject]}
    control_plane.rest.create(f"{rbac}/rolebindings", binding)
    config = yaml.safe_load(control_plane.kubeconfig.read_text(encoding="utf-8"))
    config["users"][0]["user"] = {"token": token}
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return KubernetesApi(KubernetesAccess(path))


def test_rights_are_as_the_api_server_will_have_them(at: Scene, api, control_plane, tmp_path):
    asked = service(at, mode=Mode.ACT)
    needs = rights_of([asked])
    assert all(answers(api, needs).values())  # the administrator may do everything
    reader = limited(control_plane, at.namespace, tmp_path)
    try:
        at.create(fine())
        allowed = answers(reader, needs)
        granted = {(right.verb, right.resource) for right, is_so in allowed.items() if is_so}
        assert granted == {("get", "jobs"), ("list", "jobs")}
        told = list(right_findings(needs, allowed))
        assert any(
            finding.what.startswith(
                f"may not patch jobs.batch.volcano.sh in namespace {at.namespace}"
            )
            for finding in told
        )
        # Its status changes all the time.
        seen, known = (read_targets(one, asked)["prefill"] for one in (reader, api))
        assert isinstance(seen, dict)
        assert isinstance(known, dict)
        assert (seen["metadata"]["uid"], seen["spec"]) == (known["metadata"]["uid"], known["spec"])
        assert not isinstance(read_autoscalers(reader, at.namespace), tuple)
        assert read_scheduler_config(reader) is None
    finally:
        reader.close()


def test_objects_that_check_reads_are_found_where_they_are(at: Scene, api, control_plane):
    namespace, name = SCHEDULER_CONFIG
    assert read_scheduler_config(api) is None
    config = {"volcano-scheduler.conf": SCHEDULER_CONF.read_text(encoding="utf-8")}
    at.rest.create(core(namespace, "configmaps"), {"metadata": {"name": name}, "data": config})
    try:
        text = read_scheduler_config(api)
        assert plugin_finding(text, "/".join(SCHEDULER_CONFIG)).level is Level.OK
    finally:
        at.rest.delete(core(namespace, "configmaps", name))
    assert read_autoscalers(api, at.namespace) == ()
    missing = read_targets(api, service(at))["prefill"]
    assert isinstance(missing, TargetError)


def test_a_paused_deployment_is_scaled_all_the_same(at: Scene):
    path = f"/apis/apps/v1/namespaces/{at.namespace}/deployments"
    at.rest.create(path, deployment("llm", 1))

    def pods() -> int:
        return len(at.rest.items(core(at.namespace, "pods"), labelSelector="app=llm"))

    wait_for("one pod", lambda: pods() == 1)
    at.rest.patch(f"{path}/llm", {"spec": {"paused": True}})
    at.rest.patch(f"{path}/llm", {"spec": {"replicas": 2}})
    wait_for("two pods", lambda: pods() == 2)


def test_a_queue_that_is_closed_or_missing_takes_no_job(at: Scene):
    with pytest.raises(Refused, match="unable to find job queue"):
        at.create(fine(queue="nope"))
