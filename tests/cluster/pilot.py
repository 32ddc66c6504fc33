"""The planner's own loop on a real cluster, tick by tick, with a load that a test sets.

The Supervisor and the Kubernetes adapter are those of `run`; only metrics and time are scripted,
so that a minute of waiting takes no time and a load is what the test says.
"""

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from planner.adapters.clock import Deadline, SystemClock, pause
from planner.adapters.kubernetes.api import KubernetesAccess
from planner.adapters.kubernetes.cluster import KubernetesCluster
from planner.adapters.kubernetes.events import KubernetesEvents
from planner.errors import ClusterError, MetricsError
from planner.inventory import Inventory
from planner.model import (
    Behavior,
    Fleet,
    Histogram,
    Mode,
    Pod,
    Role,
    Sample,
    ScalingRules,
    Service,
    ServiceKey,
    Signal,
    Sizing,
    Target,
)
from planner.record import TickRecord
from planner.supervisor import Supervisor
from tests.builders import ISL, LENGTHS, OSL, histogram, pod_sample, pool, service
from tests.cluster.control_plane import ControlPlane
from tests.cluster.rest import Manifest, Rest, jobs
from tests.cluster.waiting import OUTAGE_S, patience, wait_for
from tests.cluster.workloads import is_ready, pod_template, pods_of, task, volcano_job

FLOOR, CEILING = 1, 6
# Requests/s and the replicas that these pools need for them.
NEEDED: Mapping[float, Mapping[str, int]] = {
    10.0: {"prefill": 1, "decode": 1},
    60.0: {"prefill": 3, "decode": 2},
    120.0: {"prefill": 5, "decode": 3},
}
QUIET, BUSY, RUSH = NEEDED
SCRAPED_PODS = 8
TICK_EVERY_S = 0.2
API = "batch.volcano.sh/v1alpha1"


class Load:
    """Metrics of a load that a test sets at any time; None is no answer."""

    def __init__(self, rps: float) -> None:
        self.rps: float | None = rps
        self._finished = 0.0
        self._at_s: float | None = None

    def read(
        self, services: Sequence[Service], now_s: float
    ) -> Mapping[ServiceKey, Sample | MetricsError]:
        seen = self._sample(now_s)
        return {one.key: seen for one in services}

    def history(
        self,
        service: Service,  # noqa: ARG002 - the port
        start_s: float,
        end_s: float,
        step_s: float,
    ) -> Sequence[Sample | MetricsError]:
        steps = round((end_s - start_s) / step_s) + 1
        return [self._sample(start_s + index * step_s) for index in range(steps)]

    def _sample(self, now_s: float) -> Sample | MetricsError:
        span_s = 0.0 if self._at_s is None else now_s - self._at_s
        self._at_s = now_s
        if self.rps is None:
            return MetricsError("Prometheus is away")
        self._finished += self.rps * span_s
        each = self._finished / SCRAPED_PODS
        return Sample(
            now_s,
            {
                role: tuple(
                    pod_sample(
                        f"pd-{role}-{role}-worker-{index}", now_s, each, role, histograms=shown
                    )
                    for index in range(SCRAPED_PODS)
                )
                for role, shown in lengths(each).items()
            },
        )


def lengths(finished: float) -> Mapping[Role, Mapping[Signal, Histogram]]:
    """Return the histograms of a pod by its role.

    Without latencies nothing is learnt of the profile: a load always needs the same.
    """
    return {
        Role.PREFILL: {Signal.PROMPT_TOKENS: histogram(ISL, finished, LENGTHS)},
        Role.DECODE: {Signal.OUTPUT_TOKENS: histogram(OSL, finished, LENGTHS)},
    }


def acting_service(
    namespace: str, drain_s: float = 0.0, prefix: str = "pd", **over: Any
) -> Service:
    """Return a service in mode Act on the Jobs PREFIX-prefill and PREFIX-decode."""
    behavior = Behavior(scale_down=ScalingRules(stabilization_window_s=0.0))
    pools = tuple(
        pool(
            role,
            target=Target(API, "Job", f"{prefix}-{role}", f"{role}-worker"),
            min_replicas=FLOOR,
            max_replicas=CEILING,
            behavior=behavior,
            drain_s=drain_s,
        )
        for role in Role
    )
    given = {"mode": Mode.ACT, "interval_s": 1.0, "predictor": "LastValue", "pools": pools}
    # Medians: the steps of a scripted load are no uncertainty to be provided for.
    given |= {"sizing": Sizing.QUANTILE, "up_quantile": 0.5, "keep_quantile": 0.5}
    return service(key=ServiceKey(namespace, prefix), **(given | over))


def job_of(
    role: Role,
    replicas: int,
    *,
    prefix: str = "pd",
    tier: int | None = None,
    within: Mapping[str, str] | None = None,
) -> Manifest:
    """Return the Job that a pool of `acting_service` scales, on nodes with the labels `within`."""
    template = pod_template(node_selector=within)
    one = task(f"{role}-worker", replicas, floor=FLOOR, template=template)
    return volcano_job(f"{prefix}-{role}", one, tier=tier)


class Time:
    """The wall's time with skips in it, which is the planner's time [s, Unix]."""

    def __init__(self) -> None:
        self._clock = SystemClock(threading.Event())
        self._skips: list[tuple[float, float]] = []

    def now_s(self) -> float:
        return self.of(self._clock.now_s())

    def of(self, wall_s: float) -> float:
        """Return the planner's time at a time of the wall."""
        return wall_s + sum(by_s for at_s, by_s in self._skips if at_s <= wall_s)

    def skip(self, by_s: float) -> None:
        """Skip a time, at a whole second: pods are stamped in those."""
        at_s = math.ceil(self._clock.now_s())
        self._clock.wait_until(at_s)
        self._skips.append((at_s, by_s))


class Timely:
    """A cluster whose pods were created and became Ready in the planner's time."""

    def __init__(self, cluster: KubernetesCluster, time: Time) -> None:
        self._cluster, self._time = cluster, time
        self.inventory, self.apply = cluster.inventory, cluster.apply

    def fleets(
        self, services: Sequence[Service], now_s: float
    ) -> Mapping[ServiceKey, Fleet | ClusterError]:
        found = self._cluster.fleets(services, now_s)
        return {key: self._fleet(fleet) for key, fleet in found.items()}

    def _fleet(self, fleet: Fleet | ClusterError) -> Fleet | ClusterError:
        if isinstance(fleet, ClusterError):
            return fleet
        pools = {
            name: replace(pool, pods=tuple(map(self._pod, pool.pods)))
            for name, pool in fleet.pools.items()
        }
        return replace(fleet, pools=pools)

    def _pod(self, pod: Pod) -> Pod:
        ready_s = None if pod.ready_s is None else self._time.of(pod.ready_s)
        return replace(pod, created_s=self._time.of(pod.created_s), ready_s=ready_s)


class Pilot:
    """Ticks when told to."""

    def __init__(self, services: Sequence[Service], cluster: KubernetesCluster, load: Load) -> None:
        self.load = load
        self._time = Time()
        self._events = KubernetesEvents(cluster.api, services, cluster.uid_of)
        timely = Timely(cluster, self._time)
        self._inventory = timely.inventory
        self._supervisor = Supervisor(services, load, timely, [self._events])
        self._supervisor.restore(self.now_s())

    def now_s(self) -> float:
        """Return the time of the planner [s, Unix]: the wall's, and what was skipped."""
        return self._time.now_s()

    def skip(self, by_s: float) -> None:
        """Let a time pass at once [s]."""
        self._time.skip(by_s)

    def tick(self) -> TickRecord:
        """Tick once; return what was recorded, of the first service if there are several."""
        return next(iter(self.tick_all().values()))

    def tick_all(self) -> Mapping[ServiceKey, TickRecord]:
        pause(TICK_EVERY_S)
        return self._supervisor.tick(self.now_s())

    def until(
        self, what: str, holds: Callable[[TickRecord], bool], timeout_s: float = 30.0
    ) -> TickRecord:
        """Tick until a record is as asked for; return it."""
        deadline = Deadline(timeout_s * patience())
        while True:
            told = self.tick()
            if holds(told):
                return told
            assert deadline.left_s() > 0, f"{what}: last was {told.decision}, {told.error}"

    def inventory(self) -> Inventory:
        """Return the nodes and the network as the planner sees them now."""
        found = self._inventory(self.now_s())
        assert isinstance(found, Inventory), found
        return found

    def close(self) -> None:
        self._events.close()


@contextlib.contextmanager
def piloted(
    plane: ControlPlane,
    *services: Service,
    rps: float = QUIET,
    timeout_s: float = 10.0,
) -> Iterator[Pilot]:
    # On Jobs that are there, after a past under a steady load.
    access = KubernetesAccess(plane.kubeconfig, timeout_s=timeout_s)
    cluster = KubernetesCluster(access, services)
    cluster.start()
    with contextlib.closing(cluster):
        pilot = Pilot(services, cluster, Load(rps))
        with contextlib.closing(pilot):
            yield pilot


def place(plane: ControlPlane, namespace: str, prefix: str = "pd") -> None:
    """Create the Jobs of `acting_service`, as large as a quiet load needs."""
    for role, replicas in NEEDED[QUIET].items():
        plane.rest.create(jobs(namespace), job_of(Role(role), replicas, prefix=prefix))


BOUNDS = {f"pd-{role}": (FLOOR, CEILING) for role in Role}


def is_at_rest(told: TickRecord) -> bool:
    """Tell whether a tick decided, and to change nothing."""
    return told.decision.hold is None and told.decision.patch is None


def serves(rps: float) -> Callable[[TickRecord], bool]:
    """Return whether exactly what a load needs serves, and it is to stay so."""

    def holds(told: TickRecord) -> bool:
        pools = told.decision.pools
        return is_at_rest(told) and all(
            pools[name].current == pools[name].ready == count for name, count in NEEDED[rps].items()
        )

    return holds


def wait_ready(rest: Rest, namespace: str, rps: float) -> None:
    """Wait until exactly the pods that a load needs are there, all of them Ready."""

    def all_are() -> bool:
        found = {name: pods_of(rest, namespace, f"pd-{name}").values() for name in NEEDED[rps]}
        return all(
            sum(map(is_ready, found[name])) == count == len(found[name])
            for name, count in NEEDED[rps].items()
        )

    wait_for(f"the pods for {rps:g} requests/s are Ready", all_are, OUTAGE_S)
