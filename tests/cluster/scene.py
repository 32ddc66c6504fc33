"""One namespace over the eight nodes: its Jobs, their pods, and waiting for them."""

import pytest

from tests.cluster.rest import Manifest, Refused, Rest, jobs, pod_groups
from tests.cluster.waiting import wait_for
from tests.cluster.workloads import is_ready, is_unschedulable, node_of, pods_of

LEAF = {f"node{i}": f"leaf{i // 2}" for i in range(8)}


class Scene:
    """What tests ask about Volcano Jobs of one namespace."""

    def __init__(self, rest: Rest, namespace: str) -> None:
        self.rest = rest
        self.namespace = namespace

    def create(self, job: Manifest) -> str:
        self.rest.create(jobs(self.namespace), job)
        return str(job["metadata"]["name"])

    def created_and_ready(self, job: Manifest) -> str:
        name = self.create(job)
        replicas = sum(task["replicas"] for task in job["spec"]["tasks"])
        self.wait_ready(name, replicas)
        return name

    def job(self, name: str) -> Manifest:
        return self.rest.get(jobs(self.namespace, name))

    def phase(self, name: str) -> str:
        return str(self.job(name).get("status", {}).get("state", {}).get("phase", ""))

    def patch(self, name: str, operations: list[Manifest]) -> Manifest:
        return self.rest.patch(jobs(self.namespace, name), operations)

    def pods(self, name: str) -> dict[str, Manifest]:
        return pods_of(self.rest, self.namespace, name)

    def ready(self, name: str) -> set[str]:
        return {pod for pod, manifest in self.pods(name).items() if is_ready(manifest)}

    def uids(self, name: str) -> dict[str, str]:
        return {pod: manifest["metadata"]["uid"] for pod, manifest in self.pods(name).items()}

    def leaves(self, name: str) -> set[str]:
        return {LEAF[node_of(pod)] for pod in self.pods(name).values() if node_of(pod)}

    def pod_group(self, name: str) -> Manifest:
        groups = self.rest.items(pod_groups(self.namespace))
        (group,) = [g for g in groups if g["metadata"]["name"].startswith(f"{name}-")]
        return group

    def wait_ready(self, name: str, count: int) -> None:
        wait_for(
            f"{count} pods of {name} are Ready, and no others are there",
            lambda: len(self.ready(name)) == count == len(self.pods(name)),
        )

    def wait_stuck(self, name: str, ready: int, pending: int) -> None:
        """Wait until exactly so many are Ready and so many refused by the scheduler."""

        def is_stuck() -> bool:
            stuck = [pod for pod in self.pods(name).values() if is_unschedulable(pod)]
            return len(self.ready(name)) == ready and len(stuck) == pending

        wait_for(f"{name}: {ready} Ready, {pending} unschedulable", is_stuck)

    def refusal(self, name: str, operations: list[Manifest]) -> Refused:
        with pytest.raises(Refused) as caught:
            self.patch(name, operations)
        return caught.value
