"""The `Cluster` port on a real cluster: targets read fresh, pods and nodes from watched caches.

Failure policy: a target that can't be scaled fails its own service; a cache that is out of date, or
an API server that does not answer, fails those that need it; nothing is guessed and nothing raises
but `apply`.
"""

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from planner.adapters.clock import SystemClock
from planner.adapters.kubernetes.api import KubernetesAccess, KubernetesApi
from planner.adapters.kubernetes.caches import ClusterCaches
from planner.adapters.kubernetes.ownership import costs_deletion, pods_by_target
from planner.adapters.kubernetes.targets import Place, SeenTarget, TargetReader
from planner.adapters.kubernetes.writes import TargetWriter, drained_at_s, each
from planner.adapters.targets import tells_its_pods
from planner.errors import ClusterError, ConflictError
from planner.inventory import Inventory
from planner.model import Fleet, Patch, Pod, PoolFleet, Service, ServiceKey, Target
from planner.ports import Clock

_LOG = logging.getLogger(__name__)

# For the first look at everything; a cluster that is slower is a Hold, not a failed start [s].
_START_S: Final = 20.0

_Pods = Mapping[Target, tuple[Pod, ...]] | ClusterError


class KubernetesCluster:
    """Scale targets of any known kind, their pods, and the nodes under them.

    Parameters
    ----------
    access
        Where the cluster is, or a connection to it.
    services
        What is asked; their namespaces are read where the whole cluster may not be.
    clock
        Says what time it is; None: the machine's.

    Raises
    ------
    InputError
        If there is neither a service account nor a usable kubeconfig.
    """

    def __init__(
        self,
        access: KubernetesAccess | KubernetesApi,
        services: Sequence[Service],
        clock: Clock | None = None,
    ) -> None:
        self.api = access if isinstance(access, KubernetesApi) else KubernetesApi(access)
        namespaces = {service.key.namespace for service in services}
        self._clock = clock or SystemClock(threading.Event())
        self._caches = ClusterCaches(self.api, namespaces, self._clock)
        self._reader = TargetReader(self.api)
        self._writer = TargetWriter(self.api, self._reader)
        self._decided_on: dict[tuple[ServiceKey, str], SeenTarget] = {}

    def start(self, timeout_s: float = _START_S) -> None:
        """Begin to follow the cluster; wait at most so long for the first look at it [s]."""
        self._caches.start(timeout_s)

    def close(self) -> None:
        """End all threads and connections."""
        self._caches.stop()
        self.api.close()

    def uid_of(self, key: ServiceKey, pool: str) -> str | None:
        """Return which object a pool's target was when it was last read, None if it was not."""
        seen = self._decided_on.get((key, pool))
        return seen.reading.uid if seen else None

    def pods(
        self, services: Sequence[Service]
    ) -> Mapping[ServiceKey, Mapping[str, tuple[Pod, ...]] | ClusterError]:
        """Return the pods by pool name as last seen, one entry a service; asks nobody."""
        targets = _targets(services)
        pods = {name: self._pods(name, all_) for name, all_ in targets.items()}
        return {s.key: _by_pool(s, pods[s.key.namespace]) for s in services}

    def fleets(
        self, services: Sequence[Service], now_s: float
    ) -> Mapping[ServiceKey, Fleet | ClusterError]:
        """Return the pools as they are at `now_s` [s, Unix], one entry a service; never raises."""
        by_namespace = _targets(services)
        seen = self._reader.read((n, target) for n, all_ in by_namespace.items() for target in all_)
        pods = {name: self._pods(name, all_) for name, all_ in by_namespace.items()}
        return {s.key: self._fleet(s, seen, pods[s.key.namespace], now_s) for s in services}

    def inventory(self, now_s: float) -> Inventory | ClusterError | None:
        """Return nodes and network at `now_s` [s, Unix], None if nobody lets us see nodes."""
        return self._caches.inventory(now_s)

    def apply(self, service: Service, patch: Patch, now_s: float) -> None:
        """Write a patch: marks, then targets that grow, then, if all went well, those that shrink.

        Raises
        ------
        ClusterError
            If a write was refused or the cluster could not be reached. Each target is written
            whole or not at all; what was written before the fault stands.
        """  # noqa: DOC502 - the first of those that were collected
        wanted = [(self._decided(service, name), n) for name, n in patch.replicas.items()]
        faults = self._mark(service, patch, now_s)
        faults += self._writer.scale(
            service.key.namespace,
            [(seen.reading, count) for seen, count in wanted],
            may_shrink=not faults,
        )
        if faults:
            first, *others = faults
            for other in others:
                _LOG.warning("%s: %s", service.key, other)
            raise first

    def _decided(self, service: Service, pool: str) -> SeenTarget:
        seen = self._decided_on.get((service.key, pool))
        if seen is None:
            raise ConflictError(
                f"{service.key}: the scale target of pool {pool} is not known from the last look; "
                "nothing is written"
            )
        return seen

    def _mark(self, service: Service, patch: Patch, now_s: float) -> list[ClusterError]:
        written_s = self._clock.now_s()
        until: dict[str, float | None] = dict.fromkeys(patch.keep)
        until |= {pod: drained_at_s(at_s, now_s, written_s) for pod, at_s in patch.drain.items()}
        uids = self._caches.uids(service.key.namespace, until)
        return each(
            partial(
                self._writer.mark,
                service.key.namespace,
                pod,
                uids.get(pod),
                until_s,
                has_cost=any(costs_deletion(pool.target, pod) for pool in service.pools),
            )
            for pod, until_s in until.items()
        )

    def _pods(self, namespace: str, targets: Iterable[Target]) -> _Pods:
        pods = self._caches.pods(namespace)
        return pods if isinstance(pods, ClusterError) else pods_by_target(pods, targets)

    def _fleet(
        self,
        service: Service,
        seen: Mapping[Place, SeenTarget | ClusterError],
        pods: _Pods,
        now_s: float,
    ) -> Fleet | ClusterError:
        targets = {p.name: seen[service.key.namespace, p.target] for p in service.pools}
        known = {name: one for name, one in targets.items() if isinstance(one, SeenTarget)}
        for pool in service.pools:
            self._decided_on.pop((service.key, pool.name), None)
        for one in (*targets.values(), pods):
            if isinstance(one, ClusterError):
                return one
        self._decided_on |= {(service.key, name): one for name, one in known.items()}
        own = pods if isinstance(pods, Mapping) else {}
        return Fleet(
            now_s,
            {p.name: self._pool_fleet(known[p.name], own[p.target]) for p in service.pools},
        )

    def _pool_fleet(self, seen: SeenTarget, pods: tuple[Pod, ...]) -> PoolFleet:
        tier = seen.tier
        if tier is None and seen.tier_name is not None:
            tier = self._caches.tiers().get(seen.tier_name)
        return PoolFleet(
            replicas=seen.reading.replicas,
            pods=pods,
            uid=seen.reading.uid,
            shape=seen.shape,
            pinned_tier=tier,
            changed_by=seen.changed_by,
            is_listed=tells_its_pods(seen.reading.target),
        )


def _targets(services: Sequence[Service]) -> dict[str, list[Target]]:
    """Return the scale targets by namespace."""
    by_namespace: dict[str, list[Target]] = {}
    for service in services:
        targets = by_namespace.setdefault(service.key.namespace, [])
        targets.extend(pool.target for pool in service.pools)
    return by_namespace


def _by_pool(service: Service, pods: _Pods) -> Mapping[str, tuple[Pod, ...]] | ClusterError:
    if isinstance(pods, ClusterError):
        return pods
    return {pool.name: pods[pool.target] for pool in service.pools}
