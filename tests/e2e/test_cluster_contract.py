"""What every `Cluster` must do, asked of the one in memory and of the real one alike."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from planner.adapters.clock import SystemClock
from planner.adapters.kubernetes.api import KubernetesAccess
from planner.adapters.kubernetes.cluster import KubernetesCluster
from planner.adapters.memory import MemoryCluster
from planner.errors import ClusterError
from planner.model import Fleet, Patch, Pool, Role, Service, ServiceKey, Sla, Target
from planner.ports import Cluster
from tests.cluster.control_plane import ControlPlane
from tests.cluster.rest import jobs
from tests.cluster.topologies import eight_nodes
from tests.cluster.workloads import task, volcano_job

REPLICAS = {"prefill": 2, "decode": 3}


def service(namespace: str, name: str, job: str) -> Service:
    target = {role: Target("batch.volcano.sh/v1alpha1", "Job", job, role) for role in REPLICAS}
    pools = tuple(Pool(role, Role(role), target[role]) for role in REPLICAS)
    return Service(ServiceKey(namespace, name), Sla(0.5, 0.03), pools)


@dataclass
class Subject:
    """A cluster with the service `known` at `REPLICAS`, and one whose target does not exist."""

    cluster: Cluster
    known: Service
    unknown: Service
    now_s: Callable[[], float]

    def fleet(self, of: Service | None = None) -> Fleet | ClusterError:
        asked = of or self.known
        return self.cluster.fleets([asked], self.now_s())[asked.key]

    def replicas(self) -> dict[str, int]:
        fleet = self.fleet()
        assert isinstance(fleet, Fleet), fleet
        return {name: pool.replicas for name, pool in fleet.pools.items()}


@pytest.fixture
def in_memory() -> Subject:
    known, unknown = service("serving", "known", "pd"), service("serving", "unknown", "none")
    return Subject(MemoryCluster({known.key: REPLICAS}), known, unknown, lambda: 1000.0)


@pytest.fixture
def on_kubernetes(control_plane: ControlPlane, namespace: str) -> Iterator[Subject]:
    control_plane.lay_out(eight_nodes())
    tasks = [task(name, count) for name, count in REPLICAS.items()]
    control_plane.rest.create(jobs(namespace), volcano_job("pd", *tasks))
    known, unknown = service(namespace, "known", "pd"), service(namespace, "unknown", "none")
    cluster = KubernetesCluster(KubernetesAccess(control_plane.kubeconfig), [known, unknown])
    cluster.start()
    yield Subject(cluster, known, unknown, SystemClock(threading.Event()).now_s)
    cluster.close()


@pytest.fixture(params=["in_memory", "on_kubernetes"])
def subject(request: pytest.FixtureRequest) -> Subject:
    found: Subject = request.getfixturevalue(request.param)
    return found


def test_a_fleet_has_every_pool_at_the_time_it_was_asked_for(subject: Subject) -> None:
    now_s = subject.now_s()
    fleet = subject.cluster.fleets([subject.known], now_s)[subject.known.key]
    assert isinstance(fleet, Fleet)
    assert (fleet.at_s, list(fleet.pools)) == (now_s, ["prefill", "decode"])
    assert subject.replicas() == REPLICAS


def test_each_service_has_its_own_answer(subject: Subject) -> None:
    both = subject.cluster.fleets([subject.unknown, subject.known], subject.now_s())
    assert isinstance(both[subject.known.key], Fleet)
    refused = both[subject.unknown.key]
    assert isinstance(refused, ClusterError)
    assert "\n" not in str(refused)


def test_no_service_is_no_answer(subject: Subject) -> None:
    assert subject.cluster.fleets([], subject.now_s()) == {}


def test_what_is_written_is_read(subject: Subject) -> None:
    subject.fleet()
    subject.cluster.apply(subject.known, Patch({"prefill": 4}), subject.now_s())
    assert subject.replicas() == {"prefill": 4, "decode": 3}
    subject.cluster.apply(subject.known, Patch({"prefill": 1, "decode": 5}), subject.now_s())
    assert subject.replicas() == {"prefill": 1, "decode": 5}


def test_zero_is_a_count(subject: Subject) -> None:
    subject.fleet()
    subject.cluster.apply(subject.known, Patch({"decode": 0}), subject.now_s())
    assert subject.replicas() == {"prefill": 2, "decode": 0}


def test_a_negative_count_is_refused_and_changes_nothing(subject: Subject) -> None:
    subject.fleet()
    with pytest.raises(ClusterError):
        subject.cluster.apply(subject.known, Patch({"prefill": -1}), subject.now_s())
    assert subject.replicas() == REPLICAS


def test_a_pool_without_a_target_is_refused(subject: Subject) -> None:
    subject.fleet()
    subject.fleet(subject.unknown)
    with pytest.raises(ClusterError, match="scale target"):
        subject.cluster.apply(subject.unknown, Patch({"prefill": 1}), subject.now_s())
    with pytest.raises(ClusterError, match="scale target"):
        subject.cluster.apply(subject.known, Patch({"vision": 1}), subject.now_s())
    assert subject.replicas() == REPLICAS


def test_marks_alone_change_no_count(subject: Subject) -> None:
    subject.fleet()
    patch = Patch(drain={"pd-decode-2": subject.now_s() + 60.0}, keep=("pd-decode-1",))
    subject.cluster.apply(subject.known, patch, subject.now_s())
    assert subject.replicas() == REPLICAS
