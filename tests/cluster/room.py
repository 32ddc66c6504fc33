"""One namespace over the eight nodes as the planner and strangers share it; what a tick says."""

from collections.abc import Callable, Mapping

from planner.adapters.clock import Deadline
from planner.model import Role
from planner.record import TickRecord
from tests.cluster.control_plane import FIRST_POD_S, ControlPlane
from tests.cluster.pilot import Pilot, job_of
from tests.cluster.rest import NODES, Manifest, core, jobs
from tests.cluster.waiting import happens, patience, wait_for
from tests.cluster.workloads import is_ready, pod_template, pods_of

MOST_TRIES = 4


class Room:
    """A namespace over the eight nodes: services, strangers, and what became of the pods."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.plane, self.rest, self.namespace = plane, plane.rest, namespace

    def place(
        self,
        prefix: str = "pd",
        *,
        tier: int | None = None,
        within: Mapping[str, str] | None = None,
        prefill: int = 1,
        decode: int = 1,
    ) -> None:
        """Create the Jobs of a service and wait until they serve."""
        counts = {Role.PREFILL: prefill, Role.DECODE: decode}
        for role, count in counts.items():
            job = job_of(role, count, prefix=prefix, tier=tier, within=within)
            self.rest.create(jobs(self.namespace), job)
        self.settled(prefix, prefill=prefill, decode=decode)

    def delete_job(self, name: str) -> None:
        """Delete a Job and wait until it and its pods are gone."""
        path = jobs(self.namespace, name)
        self.rest.delete(path)
        wait_for(f"{name} is gone", lambda: not self.rest.exists(path) and not self.pods(name))

    def create_again(self, role: Role, count: int, prefix: str = "pd") -> None:
        """Create a Job of a name that a deleted one had, and wait until it serves.

        Volcano 1.14 tries at growing intervals to forget a deleted Job, and a late try forgets one
        of the same name instead (`processCleanupJob` in its pkg/controllers/cache). That one never
        gets a pod, and nothing tells when the last try is over. So this does what a person would.
        """
        name = f"{prefix}-{role}"
        for _ in range(MOST_TRIES):
            self.rest.create(jobs(self.namespace), job_of(role, count, prefix=prefix))
            if happens(lambda: self.pods(name), FIRST_POD_S):
                self.settled(prefix, **{role: count})
                return
            self.delete_job(name)
        raise AssertionError(f"{name} got no pods, {MOST_TRIES} times created")

    def strangers(self, *nodes: str) -> list[str]:
        """Take a GPU of each node named, at once and without a scheduler; return the pods."""
        names = []
        for node in nodes:
            template = pod_template()
            pod = {"metadata": {"generateName": "stranger-"}, "spec": template["spec"]}
            pod["spec"] |= {"nodeName": node}
            made = self.rest.create(core(self.namespace, "pods"), pod)
            names.append(made["metadata"]["name"])
        return names

    def leave(self, stranger: str) -> None:
        self.rest.delete(core(self.namespace, "pods", stranger), grace_s=0)

    def cordon(self, node: str, *, is_closed: bool = True) -> None:
        self.rest.patch(f"{NODES}/{node}", {"spec": {"unschedulable": is_closed}})

    def pods(self, job: str) -> dict[str, Manifest]:
        return pods_of(self.rest, self.namespace, job)

    def waiting(self, *job_names: str) -> list[str]:
        """Return the pods without a node."""
        found = [pod for job in job_names for pod in self.pods(job).items()]
        return [name for name, pod in found if not pod["spec"].get("nodeName")]

    def settled(self, prefix: str = "pd", **replicas: int) -> None:
        """Wait until each Job has so many pods, all Ready."""
        for role, count in replicas.items():
            job = f"{prefix}-{role}"

            def is_so(job: str = job, count: int = count) -> bool:
                pods = self.pods(job).values()
                return len(pods) == count and all(map(is_ready, pods))

            wait_for(f"{count} pods of {job} are Ready, and no others are there", is_so)

    def events(self, target: str) -> set[tuple[str, str]]:
        found = self.rest.items(core(self.namespace, "events"))
        return {
            (event["reason"], event["message"])
            for event in found
            if event["involvedObject"]["name"] == target
            and event.get("source", {}).get("component") == "pd-planner"
        }


def desired(tick: TickRecord) -> dict[str, int]:
    return {name: pool.desired for name, pool in tick.decision.pools.items()}


def messages(tick: TickRecord, *codes: str) -> str:
    return "\n".join(r.message for r in tick.decision.reasons if r.code in codes)


def until_all(
    pilot: Pilot, what: str, holds: Callable[[Mapping[str, TickRecord]], bool]
) -> dict[str, TickRecord]:
    """Tick until the records of all services, by name, are as asked for; return them."""
    deadline = Deadline(30.0 * patience())
    while True:
        told = {key.name: tick for key, tick in pilot.tick_all().items()}
        if holds(told):
            return told
        assert deadline.left_s() > 0, f"{what}: last was {told}"
