"""What makes a Volcano Job unscalable or dangerous to scale, with the field and the mend. Pure.

Checked against Volcano 1.14's webhooks, controllers and scheduler by tests/e2e/test_check_live.py.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from planner.check.finding import Finding, Level, error, ok, warning
from planner.check.rules import Rule
from planner.check.template import Object, range_findings, scalable, template_findings
from planner.inventory import Queue
from planner.model import Pool, Service

GROUP: Final = "batch.volcano.sh"
MAX_RETRY: Final = 2_147_483_647
"""The largest value of the field: a service is to be restarted as often as need be."""

_FEW_RETRIES: Final = 1000  # a service that lives for months loses more pods than a batch job's 3
_LIVE_PHASES: Final = frozenset({"", "Pending", "Running"})
_PASSING_PHASES: Final = frozenset({"Restarting", "Aborting", "Terminating", "Completing"})

EFFECTS: Final[Mapping[str, str]] = {
    "RestartJob": "restarts every pod of the Job",
    "RestartTask": "restarts every pod of the task",
    "RestartPartition": "restarts every pod of the partition",
    "RestartPod": "uses up one of maxRetry with each pod that leaves",
    "TerminateJob": "ends the Job and all its pods",
    "AbortJob": "aborts the Job and all its pods",
    "CompleteJob": "completes the Job and ends all its pods",
}
"""What a policy's action does to a service when an ordinary event fires it."""


@dataclass(frozen=True, slots=True)
class Scaled:
    """A task that a pool scales: its index in the Job, and the task itself."""

    pool: Pool
    index: int
    task: Object

    @property
    def path(self) -> str:
        """Where the task is in the Job."""
        return f"spec.tasks[{self.index}]"

    @property
    def floor(self) -> int:
        """Pods below which the pool never goes."""
        return self.pool.min_replicas * self.pool.pods_per_replica


def is_volcano_job(pool: Pool) -> bool:
    """Return whether a pool is a task of a Volcano Job."""
    return (pool.target.api_version.partition("/")[0], pool.target.kind) == (GROUP, "Job")


def scaled_tasks(service: Service, job: Object) -> list[Scaled]:
    """Return the tasks of a Job that pools of the service scale; misspelt ones are left out."""
    places = {task.get("name"): (i, task) for i, task in enumerate(job["spec"]["tasks"])}
    pools = [p for p in service.pools if is_volcano_job(p) and p.target.name == name_of(job)]
    return [Scaled(p, *places[p.target.task]) for p in pools if p.target.task in places]


def name_of(job: Object) -> str:
    """Return the name of an object."""
    return str(job["metadata"]["name"])


def volcano_findings(
    service: Service, job: Object, queues: Sequence[Queue] | None
) -> Iterator[Finding]:
    """Yield everything about one Job but its networkTopology.

    Parameters
    ----------
    service
        Whose pools scale tasks of it.
    job
        The Job as the API server gives it, or a manifest.
    queues
        The cluster's queues, None if they are not known.

    Yields
    ------
    Finding
        One that is ok for each task that can be scaled, and whatever is not.
    """
    scaled = scaled_tasks(service, job)
    found = [*_misspelt(service, job), *_minima(job, scaled), *_policies(job, scaled)]
    found += [*_lifetime(job), *_queue(job, queues)]
    for one in scaled:
        found += [*_task(job, one)]
    yield from found
    if all(finding.level is not Level.ERROR for finding in found):
        for one in scaled:
            where = f"Job {name_of(job)} task {one.task['name']}"
            yield scalable(where, one.pool, one.task.get("replicas", 0))


def _at(job: Object, path: str) -> str:
    return f"Job {name_of(job)} {path}"


def _misspelt(service: Service, job: Object) -> Iterator[Finding]:
    names = [task.get("name") for task in job["spec"]["tasks"]]
    for pool in service.pools:
        if pool.target.name == name_of(job) and pool.target.task not in names:
            yield error(
                f"pool {pool.name}: scaleTargetRef.task",
                f"Job {name_of(job)} has no task {pool.target.task}",
                f"write one of {', '.join(map(str, names))}",
                Rule.TARGET,
            )


def _minimum(task: Object) -> int:
    # Without a value the webhook writes the replicas at creation.
    return int(task.get("minAvailable", task.get("replicas", 0)))


def _minima(job: Object, scaled: Sequence[Scaled]) -> Iterator[Finding]:
    tasks: Sequence[Object] = job["spec"]["tasks"]
    minima = [_minimum(task) for task in tasks]
    floors = dict(enumerate(minima)) | {s.index: min(s.floor, minima[s.index]) for s in scaled}
    whole = sum(floors.values())
    for one in scaled:
        minimum, replicas = minima[one.index], one.task.get("replicas", 0)
        if minimum > one.floor:
            default = ", the webhook's default of all replicas" if minimum == replicas else ""
            yield warning(
                _at(job, f"{one.path}.minAvailable"),
                f"is {minimum}{default}, above the pool's floor of {one.floor}: fewer pods are "
                "refused unless it falls with them; the planner lowers both minAvailable in the "
                "same write, and never raises them again",
                _patch(job, {f"/spec/tasks/{one.index}/minAvailable": one.floor,
                             "/spec/minAvailable": whole}),
                Rule.MIN_AVAILABLE_TASK,
            )  # fmt: skip
    yield from _job_minimum(job, sum(minima), whole)


def _job_minimum(job: Object, needed: int, whole: int) -> Iterator[Finding]:
    minimum = job["spec"].get("minAvailable") or needed
    mend = _patch(job, {"/spec/minAvailable": whole})
    where = _at(job, "spec.minAvailable")
    sums = f"is {minimum}, and the tasks' minAvailable add up to {needed}"
    if minimum < needed and len(job["spec"]["tasks"]) > 1:
        what = f"{sums}: any {minimum} pods start the Job, prefill without decode too"
        yield warning(where, what, mend, Rule.MIN_AVAILABLE_JOB)
    elif minimum > needed:
        what = f"{sums}: fewer than {minimum} pods are refused; the planner lowers it in its write"
        yield warning(where, what, mend, Rule.MIN_AVAILABLE_JOB)


def _patch(job: Object, values: Mapping[str, int]) -> str:
    # These are among the few fields of a Job that may change.
    patch = [{"op": "add", "path": path, "value": value} for path, value in values.items()]
    namespace = job["metadata"].get("namespace", "default")
    return (
        f"kubectl -n {namespace} patch jobs.{GROUP} {name_of(job)} --type json "
        f"-p '{json.dumps(patch, separators=(',', ':'))}'"
    )


def _policies(job: Object, scaled: Sequence[Scaled]) -> Iterator[Finding]:
    holders = [("spec", job["spec"]), *((one.path, one.task) for one in scaled)]
    for path, holder in holders:
        for index, policy in enumerate(holder.get("policies") or ()):
            where = _at(job, f"{path}.policies[{index}]")
            events = {policy.get("event"), *(policy.get("events") or ())}
            effect = EFFECTS.get(policy.get("action", ""))
            if effect is not None:
                yield from _policy(where, events, policy, effect)


def _policy(
    where: str, events: set[str | None], policy: Mapping[str, Any], effect: str
) -> Iterator[Finding]:
    for event in sorted(events & {"PodEvicted", "*"}, key=str):
        yield error(
            where,
            f"{event} → {policy['action']}: every pod that a scale-down removes fires it, and it "
            f"{effect}",
            f"create the Job anew without {event} there (policies can't be changed)",
            Rule.EVICTION_POLICY,
        )
    if "PodPending" in events:
        after = f" for {policy['timeout']}" if "timeout" in policy else ""
        yield warning(
            where,
            f"PodPending → {policy['action']}: a new pod that waits{after} for a GPU or an image "
            f"fires it, and it {effect}",
            "create the Job anew without PodPending there (policies can't be changed)",
            Rule.PENDING_POLICY,
        )


def _lifetime(job: Object) -> Iterator[Finding]:
    spec, phase = job["spec"], (job.get("status") or {}).get("state", {}).get("phase", "")
    if phase not in _LIVE_PHASES:
        passing = phase in _PASSING_PHASES
        make, mend = (warning, "wait until it is Running") if passing else (
            error, "delete the Job and create it anew")  # fmt: skip
        what = f"is {phase}: nothing is written to it"
        yield make(_at(job, "status.state.phase"), what, mend, Rule.JOB_PHASE)
    retries = spec.get("maxRetry", 3)
    if retries < _FEW_RETRIES:
        yield warning(
            _at(job, "spec.maxRetry"),
            f"is {retries}: it counts restarts over the whole life of the Job, and then the Job "
            "fails and ends every pod",
            f"create the Job anew with maxRetry: {MAX_RETRY}",
            Rule.MAX_RETRY,
        )
    if "minSuccess" in spec:
        what = f"is {spec['minSuccess']}: that many pods that end well complete the whole Job"
        mend = "create the Job anew without it"
        yield warning(_at(job, "spec.minSuccess"), what, mend, Rule.MIN_SUCCESS)
    if "ttlSecondsAfterFinished" in spec:
        seconds = spec["ttlSecondsAfterFinished"]
        what = f"is {seconds}: a Job that fails or completes is deleted after {seconds} s"
        mend = "create the Job anew without it"
        yield warning(_at(job, "spec.ttlSecondsAfterFinished"), what, mend, Rule.TTL)


def _queue(job: Object, queues: Sequence[Queue] | None) -> Iterator[Finding]:
    spec = job["spec"]
    scheduler = spec.get("schedulerName", "volcano")
    if scheduler != "volcano":
        yield warning(
            _at(job, "spec.schedulerName"),
            f"is {scheduler}: minAvailable, queue and networkTopology are Volcano's alone",
            "create the Job anew with schedulerName: volcano",
            Rule.SCHEDULER_NAME,
        )
    if queues is not None:
        yield from _queue_state(_at(job, "spec.queue"), spec.get("queue", "default"), queues)
    if "svc" in (spec.get("plugins") or {}):
        yield ok(
            _at(job, "spec.plugins.svc"),
            "its lists of hosts (VC_*_HOSTS) in running pods stay as they are when replicas "
            "change: find pods by their labels",
            Rule.HOST_LISTS,
        )


def _queue_state(where: str, name: str, queues: Sequence[Queue]) -> Iterator[Finding]:
    queue = next((queue for queue in queues if queue.name == name), None)
    if queue is None:
        names = ", ".join(sorted(queue.name for queue in queues)) or "none"
        what, mend = f"{name} does not exist", f"create queue {name}, or use one of: {names}"
        yield error(where, what, mend, Rule.QUEUE)
    elif not queue.is_open:
        what = f"{name} is closed: no new pod is scheduled"
        yield error(where, what, f"vcctl queue operate -a open -n {name}", Rule.QUEUE)


def _task(job: Object, one: Scaled) -> Iterator[Finding]:
    pool, task = one.pool, one.task
    yield from range_findings(pool, task.get("replicas", 0), _at(job, f"{one.path}.replicas"))
    if task.get("partitionPolicy"):
        yield error(
            _at(job, f"{one.path}.partitionPolicy"),
            "a task in partitions can't be scaled: its size can't be changed, and other replicas "
            "than totalPartitions × partitionSize are refused",
            "create the Job anew without it; networkTopology of the Job keeps pods together",
            Rule.PARTITION_POLICY,
        )
    if task.get("dependsOn"):
        names = ", ".join((task["dependsOn"].get("name")) or ())
        yield warning(
            _at(job, f"{one.path}.dependsOn"),
            f"pods of it are made only while every pod of {names} runs: a scale-up of both waits",
            "create the Job anew without it",
            Rule.DEPENDS_ON,
        )
    yield from _template(job, one)


def _template(job: Object, one: Scaled) -> Iterator[Finding]:
    pod_spec = (one.task.get("template") or {}).get("spec") or {}
    where = _at(job, f"{one.path}.template.spec")
    policy = pod_spec.get("restartPolicy", "Always")
    if policy != "Always":
        left = "ends for whatever reason" if policy == "Never" else "ends with exit code 0"
        yield warning(
            f"{where}.restartPolicy",
            f"is {policy}: a server that {left} is not started again, and its pod is never "
            "replaced",
            "create the Job anew with restartPolicy: Always",
            Rule.RESTART_POLICY,
        )
    expected = one.pool.gpus_per_replica / one.pool.pods_per_replica
    yield from template_findings(one.pool, pod_spec, where, expected)
