"""`check` of Volcano Jobs: every rule found where it is broken, and nowhere else."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from planner.check.finding import Finding, Level
from planner.check.rules import Rule
from planner.check.volcano import EFFECTS, MAX_RETRY, volcano_findings
from planner.check.volcano_network import PLUGIN, plugin_finding, topology_findings
from planner.inventory import Queue
from planner.model import Pool, Role, Service, Target
from tests import builders

Job = dict[str, Any]
ORIGINAL = Path(__file__).parents[1] / "data" / "scenario_original.yaml"
QUEUES = (Queue("default"), Queue("root"), Queue("night", is_open=False))


def pool(role: Role, job: str = "pd", **over: Any) -> Pool:
    target = Target("batch.volcano.sh/v1alpha1", "Job", job, f"{role}-worker")
    return builders.pool(role, **({"target": target, "max_replicas": 12, "drain_s": 30.0} | over))


def service(**over: Any) -> Service:
    return builders.service(pools=(pool(Role.PREFILL, **over), pool(Role.DECODE, **over)))


def task(name: str, **over: Any) -> Job:
    limits = {"nvidia.com/gpu": "1", "cpu": "8"}
    container = {"name": "vllm", "image": "vllm", "resources": {"limits": limits}}
    spec = {"containers": [container], "restartPolicy": "Always"}
    written = {"name": name, "replicas": 4, "minAvailable": 1, "template": {"spec": spec}}
    return written | over


def job(*tasks: Job, **spec: Any) -> Job:
    """Return a Job with a prefill and a decode task that `check` finds nothing wrong with."""
    own = list(tasks) or [task("prefill-worker"), task("decode-worker")]
    return {
        "apiVersion": "batch.volcano.sh/v1alpha1",
        "kind": "Job",
        "metadata": {"name": "pd", "namespace": "inference"},
        "spec": {
            "minAvailable": sum(t.get("minAvailable", t["replicas"]) for t in own),
            "maxRetry": MAX_RETRY,
            "queue": "default",
            "schedulerName": "volcano",
            "tasks": own,
        }
        | spec,
        "status": {"state": {"phase": "Running"}},
    }


def pod(**over: Any) -> Job:
    """Return the prefill task of a Job with another pod spec."""
    made = task("prefill-worker")
    made["template"]["spec"] |= over
    return made


def resources(**amounts: Any) -> list[Job]:
    return [{"name": "vllm", "resources": amounts}]


def found(a_job: Job, asked: Service | None = None) -> list[Finding]:
    return [
        *volcano_findings(asked or service(), a_job, QUEUES),
        *topology_findings(a_job, ["leaf"]),
    ]


def not_ok(a_job: Job, asked: Service | None = None) -> list[Finding]:
    return [finding for finding in found(a_job, asked) if finding.level is not Level.OK]


def test_nothing_is_found_on_a_job_that_scales():
    hard = job(networkTopology={"mode": "hard", "highestTierAllowed": 2})
    assert not_ok(hard) == []
    assert [finding.line for finding in found(hard)] == [
        "Job pd task prefill-worker: 4 pods, can be scaled from 1 to 12",
        "Job pd task decode-worker: 4 pods, can be scaled from 1 to 12",
    ]


def decode() -> Job:
    return task("decode-worker")


def evicting(event: str = "PodEvicted", action: str = "RestartJob") -> Job:
    return {"event": event, "action": action}


RED: dict[str, tuple[Job, Rule, Level, str, str, str]] = {
    "minAvailable left to the webhook": (
        job(task("prefill-worker", replicas=4, minAvailable=4), decode()),
        Rule.MIN_AVAILABLE_TASK,
        Level.WARNING,
        "spec.tasks[0].minAvailable",
        "is 4, the webhook's default of all replicas, above the pool's floor of 1",
        ('-p \'[{"op":"add","path":"/spec/tasks/0/minAvailable","value":1},'
        '{"op":"add","path":"/spec/minAvailable","value":2}]\''),
    ),
    "minAvailable above the floor": (
        job(task("prefill-worker", minAvailable=3), decode()),
        Rule.MIN_AVAILABLE_TASK,
        Level.WARNING,
        "spec.tasks[0].minAvailable",
        "is 3, above the pool's floor of 1: fewer pods are refused unless it falls with them",
        "kubectl -n inference patch jobs.batch.volcano.sh pd --type json",
    ),
    "gang without decode": (
        job(minAvailable=1),
        Rule.MIN_AVAILABLE_JOB,
        Level.WARNING,
        "spec.minAvailable",
        "is 1, and the tasks' minAvailable add up to 2: any 1 pods start the Job",
        '{"op":"add","path":"/spec/minAvailable","value":2}',
    ),
    "job minAvailable above the sum": (
        job(minAvailable=6),
        Rule.MIN_AVAILABLE_JOB,
        Level.WARNING,
        "spec.minAvailable",
        "is 6, and the tasks' minAvailable add up to 2: fewer than 6 pods are refused",
        '{"op":"add","path":"/spec/minAvailable","value":2}',
    ),
    "partitions": (
        job(task("prefill-worker", partitionPolicy={"totalPartitions": 2, "partitionSize": 2}),
            decode()),
        Rule.PARTITION_POLICY,
        Level.ERROR,
        "spec.tasks[0].partitionPolicy",
        "can't be scaled",
        "create the Job anew without it",
    ),
    "policy of the Job": (
        job(policies=[{"event": "PodFailed", "action": "RestartJob"}, evicting()]),
        Rule.EVICTION_POLICY,
        Level.ERROR,
        "spec.policies[1]",
        ("PodEvicted → RestartJob: every pod that a scale-down removes fires it, and it restarts "
        "every pod of the Job"),
        "without PodEvicted there",
    ),
    "policy for every event": (
        job(policies=[evicting("*", "TerminateJob")]),
        Rule.EVICTION_POLICY,
        Level.ERROR,
        "spec.policies[0]",
        "* → TerminateJob",
        "without * there",
    ),
    "policy of a task": (
        job(task("prefill-worker"), task("decode-worker", policies=[
            {"events": ["PodFailed", "PodEvicted"], "action": "RestartPod"}])),
        Rule.EVICTION_POLICY,
        Level.ERROR,
        "spec.tasks[1].policies[0]",
        "uses up one of maxRetry with each pod that leaves",
        "without PodEvicted there",
    ),
    "policy against waiting": (
        job(policies=[evicting("PodPending") | {"timeout": "5m0s"}]),
        Rule.PENDING_POLICY,
        Level.WARNING,
        "spec.policies[0]",
        "a new pod that waits for 5m0s for a GPU",
        "without PodPending",
    ),
    "few retries": (
        job(maxRetry=3),
        Rule.MAX_RETRY,
        Level.WARNING,
        "spec.maxRetry",
        "is 3: it counts restarts over the whole life of the Job",
        "maxRetry: 2147483647",
    ),
    "minSuccess": (
        job(minSuccess=1),
        Rule.MIN_SUCCESS,
        Level.WARNING,
        "spec.minSuccess",
        "complete the whole Job",
        "create the Job anew without it",
    ),
    "time to live": (
        job(ttlSecondsAfterFinished=60),
        Rule.TTL,
        Level.WARNING,
        "spec.ttlSecondsAfterFinished",
        "is deleted after 60 s",
        "create the Job anew without it",
    ),
    "pods that stay dead": (
        job(pod(restartPolicy="Never"), decode()),
        Rule.RESTART_POLICY,
        Level.WARNING,
        "spec.tasks[0].template.spec.restartPolicy",
        "is Never: a server that ends for whatever reason is not started again",
        "restartPolicy: Always",
    ),
    "pods that stay ended": (
        job(pod(restartPolicy="OnFailure"), decode()),
        Rule.RESTART_POLICY,
        Level.WARNING,
        "spec.tasks[0].template.spec.restartPolicy",
        "a server that ends with exit code 0 is not started again",
        "restartPolicy: Always",
    ),
    "task that waits for another": (
        job(task("prefill-worker"), task("decode-worker", dependsOn={"name": ["prefill-worker"]})),
        Rule.DEPENDS_ON,
        Level.WARNING,
        "spec.tasks[1].dependsOn",
        "only while every pod of prefill-worker runs",
        "create the Job anew without it",
    ),
    "queue that is missing": (
        job(queue="nope"),
        Rule.QUEUE,
        Level.ERROR,
        "spec.queue",
        "nope does not exist",
        "use one of: default, night, root",
    ),
    "queue that is closed": (
        job(queue="night"),
        Rule.QUEUE,
        Level.ERROR,
        "spec.queue",
        "night is closed",
        "vcctl queue operate -a open -n night",
    ),
    "another scheduler": (
        job(schedulerName="default-scheduler"),
        Rule.SCHEDULER_NAME,
        Level.WARNING,
        "spec.schedulerName",
        "is default-scheduler",
        "schedulerName: volcano",
    ),
    "misspelt task": (
        job(task("prefil-worker"), decode()),
        Rule.TARGET,
        Level.ERROR,
        "scaleTargetRef.task",
        "Job pd has no task prefill-worker",
        "write one of prefil-worker, decode-worker",
    ),
    "more pods than the ceiling": (
        job(task("prefill-worker", replicas=13), decode()),
        Rule.REPLICAS_RANGE,
        Level.WARNING,
        "spec.tasks[0].replicas",
        "is 13, above the ceiling of pool prefill (1 to 12 pods)",
        "scale the target to 12 first",
    ),
    "fewer pods than the floor": (
        job(task("prefill-worker", replicas=0, minAvailable=0), decode()),
        Rule.REPLICAS_RANGE,
        Level.WARNING,
        "spec.tasks[0].replicas",
        "is 0, below the floor",
        "scale the target to 1 first",
    ),
    "no GPU": (
        job(pod(containers=resources(limits={"cpu": "1"})), decode()),
        Rule.GPU_REQUEST,
        Level.ERROR,
        "spec.tasks[0].template.spec.containers[*].resources",
        "no container asks for a GPU",
        "write limits: {nvidia.com/gpu: 1}",
    ),
    "other GPUs than the pool counts": (
        job(pod(containers=resources(requests={"nvidia.com/gpu": 4})), decode()),
        Rule.GPU_REQUEST,
        Level.WARNING,
        "spec.tasks[0].template.spec.containers[*].resources",
        "a pod asks for 4 GPUs, and pool prefill counts 1 a pod",
        "set gpusPerReplica of the pool to 4",
    ),
    "killed before it has drained": (
        job(pod(terminationGracePeriodSeconds=10), decode()),
        Rule.GRACE_PERIOD,
        Level.WARNING,
        "spec.tasks[0].template.spec.terminationGracePeriodSeconds",
        "is 10, shorter than the 30s in which pool prefill drains",
        "terminationGracePeriodSeconds: 30",
    ),
    "soft topology": (
        job(networkTopology={"mode": "soft", "highestTierAllowed": 2}),
        Rule.TOPOLOGY_SOFT,
        Level.WARNING,
        "spec.networkTopology.mode",
        "is soft: nothing keeps pods together and highestTierAllowed 2 is not looked at",
        "networkTopology: {mode: hard, highestTierAllowed: 2}",
    ),
    "hard topology without a tier": (
        job(networkTopology={"mode": "hard"}),
        Rule.TOPOLOGY_TIER,
        Level.WARNING,
        "spec.networkTopology",
        "hard without a tier: the scheduler does not enforce it",
        "with highestTierAllowed",
    ),
    "tier of an unknown name": (
        job(networkTopology={"highestTierName": "rack"}),
        Rule.TOPOLOGY_TIER,
        Level.WARNING,
        "spec.networkTopology.highestTierName",
        "no HyperNode has the tierName rack (there are: leaf)",
        "the number of the tier",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("a_job", "rule", "level", "where", "what", "mend"), RED.values(), ids=RED)
def test_a_broken_rule_is_the_only_thing_found(
    a_job: Job, rule: Rule, level: Level, where: str, what: str, mend: str
):
    (one,) = not_ok(a_job)
    assert (one.rule, one.level) == (rule, level)
    assert one.where.endswith(where)
    assert what in one.what
    assert mend in one.mend


GREEN: dict[str, Job] = {
    "minAvailable at zero": job(
        task("prefill-worker", minAvailable=0), task("decode-worker", minAvailable=0)
    ),
    "policy that ends nothing": job(policies=[evicting(action="ResumeJob")]),
    "policy on failures": job(policies=[{"event": "PodFailed", "action": "RestartPod"}]),
    "policy of a task that no pool scales": job(
        task("prefill-worker"), decode(), task("router", policies=[evicting()])
    ),
    "policy on an exit code": job(policies=[{"exitCode": 3, "action": "RestartJob"}]),
    "a thousand retries": job(maxRetry=1000),
    "restartPolicy left out": job(
        task("prefill-worker", template={"spec": {"containers": resources(
            limits={"nvidia.com/gpu": 1})}}), decode()),
    "grace left out is 30 s": job(pod(), decode()),
    "grace as long as the drain": job(pod(terminationGracePeriodSeconds=30), decode()),
    "GPUs by claim": job(pod(containers=resources(), resourceClaims=[{"name": "gpu"}]), decode()),
    "GPU memory is no GPU": job(pod(containers=resources(
        limits={"volcano.sh/vgpu-number": 1, "volcano.sh/vgpu-memory": 8000})), decode()),
    "tier by a name that exists": job(networkTopology={"highestTierName": "leaf"}),
    "tier zero": job(networkTopology={"mode": "hard", "highestTierAllowed": 0}),
    "just created": job() | {"status": {}},
}  # fmt: skip


@pytest.mark.parametrize("a_job", GREEN.values(), ids=GREEN)
def test_what_is_as_it_should_be_is_not_complained_about(a_job: Job):
    assert [finding.line for finding in not_ok(a_job)] == []


def test_queues_that_are_not_known_are_not_missed():
    assert [f for f in volcano_findings(service(), job(queue="nope"), None) if f.mend] == []


def test_the_svc_plugin_is_told_and_nothing_to_mend():
    (one,) = [f for f in found(job(plugins={"svc": [], "ssh": []})) if f.rule is Rule.HOST_LISTS]
    assert one.level is Level.OK
    assert "find pods by their labels" in one.what


@pytest.mark.parametrize("action", EFFECTS)
def test_every_action_that_ends_pods_is_an_error_on_eviction(action: str):
    (one,) = not_ok(job(policies=[evicting(action=action)]))
    assert (one.rule, one.level) == (Rule.EVICTION_POLICY, Level.ERROR)


@pytest.mark.parametrize(
    ("phase", "level"),
    [
        ("Pending", None),
        ("Running", None),
        ("Restarting", Level.WARNING),
        ("Aborting", Level.WARNING),
        ("Terminating", Level.WARNING),
        ("Completing", Level.WARNING),
        ("Aborted", Level.ERROR),
        ("Terminated", Level.ERROR),
        ("Completed", Level.ERROR),
        ("Failed", Level.ERROR),
    ],
)
def test_only_a_live_job_is_scaled(phase: str, level: Level | None):
    told = not_ok(job() | {"status": {"state": {"phase": phase}}})
    assert [finding.level for finding in told] == ([] if level is None else [level])
    assert all(finding.rule is Rule.JOB_PHASE for finding in told)


def test_a_job_that_can_not_be_scaled_is_not_called_scalable():
    unscalable = job(policies=[evicting()])
    assert all("can be scaled" not in finding.what for finding in found(unscalable))


def test_the_patch_that_mends_minima_keeps_the_gang_whole():
    defaulted = job(*(task(f"{r}-worker", replicas=4, minAvailable=4) for r in Role))
    for one in not_ok(defaulted):
        patch = json.loads(one.mend.partition("-p '")[2].rstrip("'"))
        assert patch[1] == {"op": "add", "path": "/spec/minAvailable", "value": 2}


def test_replicas_of_several_pods_count_by_pods():
    asked = service(pods_per_replica=2, gpus_per_replica=2, min_replicas=1)
    assert not_ok(job(task("prefill-worker", minAvailable=2), decode()), asked) == []
    (one,) = not_ok(job(task("prefill-worker", replicas=5), decode()), asked)
    assert one.what.startswith("is 5, no whole number of replicas of 2 pods")


def test_where_is_the_object_and_the_field_a_reader_can_find():
    (one,) = not_ok(job(maxRetry=3))
    assert one.where == "Job pd spec.maxRetry"


CONFIGS: dict[str, tuple[str | None, Level, str]] = {
    "with the plugin": (f"tiers: [{{plugins: [{{name: gang}}, {{name: {PLUGIN}}}]}}]", Level.OK,
                        "has the plugin"),
    "without": ("tiers: [{plugins: [{name: gang}]}]", Level.ERROR, "lacks the plugin"),
    "without any": ("actions: allocate", Level.ERROR, "holds no YAML with tiers"),
    "garbled": ("tiers: [", Level.ERROR, "holds no YAML with tiers"),
    "not readable": (None, Level.WARNING, "can't be read"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "level", "what"), CONFIGS.values(), ids=CONFIGS)
def test_the_scheduler_needs_the_plugin_for_network_domains(
    text: str | None, level: Level, what: str
):
    one = plugin_finding(text, "volcano-system/volcano-scheduler-configmap")
    assert (one.level, what in one.what) == (level, True), one.line
    assert one.rule is (None if level is Level.OK else Rule.TOPOLOGY_PLUGIN)


def test_the_mend_of_a_missing_plugin_mends_it():
    one = plugin_finding("tiers: [{plugins: [{name: gang}]}]", "volcano-system/conf")
    (line,) = yaml.safe_load(one.mend.partition(": ")[2])
    assert plugin_finding(yaml.safe_dump({"tiers": [{"plugins": [line]}]}), "x").level is Level.OK


def original(defaulted: bool) -> list[Job]:
    """Return the Jobs as first asked for; `defaulted`: as the webhook stores them."""
    jobs = list(yaml.safe_load_all(ORIGINAL.read_text(encoding="utf-8")))
    for a_job in jobs if defaulted else ():
        a_job["spec"]["maxRetry"] = 3
        for a_task in a_job["spec"]["tasks"]:
            a_task["minAvailable"] = a_task["replicas"]
    return jobs


@pytest.mark.parametrize("defaulted", [False, True], ids=["as written", "as stored"])
@pytest.mark.parametrize("role", Role)
def test_the_scenario_as_first_asked_for_is_explained(role: Role, defaulted: bool):
    (a_job,) = [j for j in original(defaulted) if f"pd-{role}" in j["metadata"]["name"]]
    asked = builders.service(pools=(pool(role, f"pd-{role}-service"),))
    told = not_ok(a_job, asked)
    assert [(finding.where.partition(" spec.")[2], finding.level) for finding in told] == [
        ("tasks[0].minAvailable", Level.WARNING),
        ("maxRetry", Level.WARNING),
        ("tasks[0].template.spec.restartPolicy", Level.WARNING),
        ("networkTopology.mode", Level.WARNING),
    ]
    assert any("can be scaled from 1 to 12" in finding.what for finding in found(a_job, asked))


MENDS: dict[str, Callable[[Job], None]] = {
    "minima": lambda j: j["spec"].update(minAvailable=1) or j["spec"]["tasks"][0].update(
        minAvailable=1),
    "retries": lambda j: j["spec"].update(maxRetry=MAX_RETRY),
    "restarts": lambda j: j["spec"]["tasks"][0]["template"]["spec"].update(restartPolicy="Always"),
    "topology": lambda j: j["spec"].update(
        networkTopology={"mode": "hard", "highestTierAllowed": 2}),
}  # fmt: skip


def test_each_mend_takes_one_finding_of_the_scenario_away():
    a_job = copy.deepcopy(original(defaulted=True)[0])
    asked = builders.service(pools=(pool(Role.PREFILL, "pd-prefill-service"),))
    for left, mend in zip((3, 2, 1, 0), MENDS.values(), strict=True):
        mend(a_job)
        assert len(not_ok(a_job, asked)) == left


def test_a_pool_with_a_longer_drain_wants_a_longer_grace():
    asked = service(drain_s=120.0)
    told = not_ok(job(), asked)
    assert {finding.rule for finding in told} == {Rule.GRACE_PERIOD}
    assert not_ok(job(), replace(asked, pools=(pool(Role.PREFILL), pool(Role.DECODE)))) == []
