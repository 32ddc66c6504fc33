"""Many services, one process: one batched read, every service's own decision, then the writes.

Services that share nodes are sized first, all of them; what they ask for together is allocated;
only then is anything written. So two services never both take the last GPU. Between two ticks of a
service its queues are looked at, and what grows is ordered for at once, by the same path.
"""

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from planner.decision.contention import claims
from planner.decision.share import share
from planner.errors import ClusterError, MetricsError, TargetError
from planner.inventory import Network
from planner.loop import Loop
from planner.model import (
    Decision,
    Fleet,
    Hold,
    Mode,
    PoolDecision,
    Reason,
    Sample,
    Service,
    ServiceKey,
)
from planner.ports import Cluster, Metrics, Probe, Telemetry
from planner.record import TickRecord
from planner.surveyor import Ground, Surveyor

log = logging.getLogger(__name__)

T = TypeVar("T")
Decide = Callable[[Sample | MetricsError, Fleet | ClusterError, float], Decision | None]

# Intervals of history that a restart replays, and the most it goes back [s].
HISTORY_INTERVALS, HISTORY_S = 240, 24 * 3600.0


class Supervisor:
    """Ticks the loops of several services.

    Parameters
    ----------
    services
        What is asked; keys all different.
    metrics, cluster
        Where all of them are read and written.
    telemetry
        Who is told of every tick.
    network
        What is known of the paths between nodes.
    probe
        Who looks at the pods between two ticks; None: nobody does.
    """

    def __init__(
        self,
        services: Sequence[Service],
        metrics: Metrics,
        cluster: Cluster,
        telemetry: Sequence[Telemetry] = (),
        network: Network = Network(),  # noqa: B008 - a frozen value
        probe: Probe | None = None,
    ) -> None:
        self._metrics = metrics
        self._cluster = cluster
        self._loops = {s.key: Loop(s, cluster, telemetry) for s in services}
        self._contested = contested(services)
        self._surveyor = Surveyor(cluster, network)
        self._ticked_s: dict[ServiceKey, float] = {}
        self._probe = probe
        # Services that the probe can't see, and those not checked again before their next tick.
        self._unseen: set[ServiceKey] = set()
        self._faulty: set[ServiceKey] = set()
        # Ticks and checks come from two threads; only the probe is read outside.
        self._deciding = threading.Lock()

    @property
    def services(self) -> tuple[Service, ...]:
        """The services in the order given."""
        return tuple(loop.service for loop in self._loops.values())

    def beat_s(self) -> float:
        """Return the longest time of which every interval is a multiple [s]."""
        return math.gcd(*(round(s.interval_s * 1000) for s in self.services)) / 1000.0

    def due(self, now_s: float) -> tuple[Service, ...]:
        """Return the services for which a multiple of their interval has passed by `now_s`."""
        return tuple(
            s
            for s in self.services
            if now_s // s.interval_s > self._ticked_s.get(s.key, -math.inf) // s.interval_s
        )

    def restore(self, now_s: float, services: Sequence[Service] | None = None) -> int:
        """Replay what happened before `now_s` [s, Unix] to all services, or those given.

        Returns
        -------
        int
            Intervals that were replayed.
        """
        asked = self.services if services is None else services
        fleets = self._cluster.fleets(asked, now_s)
        replayed = 0
        for service in asked:
            window_s = min(HISTORY_INTERVALS * service.interval_s, HISTORY_S)
            fleet = fleets.get(service.key)
            alive_now = fleet if isinstance(fleet, Fleet) else None
            replayed += self._loops[service.key].restore(self._metrics, now_s, window_s, alive_now)
        return replayed

    def tick(
        self, now_s: float, services: Sequence[Service] | None = None
    ) -> dict[ServiceKey, TickRecord]:
        """Read, decide and apply for all services, or those given, at `now_s` [s, Unix]."""
        with self._deciding:
            return self._tick(now_s, services)

    def check(self, now_s: float) -> dict[ServiceKey, TickRecord]:
        """Look at the pods of services that are not due at `now_s` [s, Unix]; order what rises.

        Nothing is released, and what can't be seen orders nothing. A tick is never waited for: it
        decides on more.
        """
        asked = self._between_ticks(now_s)
        if self._probe is None or not asked:
            return {}
        seen = self._probe.read(asked, now_s)
        if not self._deciding.acquire(blocking=False):
            return {}
        try:
            return self._check([s for s in asked if self._ticked_s[s.key] < now_s], seen, now_s)
        finally:
            self._deciding.release()

    def _between_ticks(self, now_s: float) -> list[Service]:
        """Return the services that may order between two ticks, and are due for none."""
        due = {service.key for service in self.due(now_s)}
        return [
            s
            for s in self.services
            if s.mode is not Mode.OFF
            and s.key in self._ticked_s
            and s.key not in due
            and s.key not in self._contested
            and s.key not in self._faulty
        ]

    def _check(
        self,
        asked: Sequence[Service],
        seen: Mapping[ServiceKey, Sample | MetricsError],
        now_s: float,
    ) -> dict[ServiceKey, TickRecord]:
        pressed: dict[ServiceKey, Sample] = {}
        for service in asked:
            key, sample = service.key, self._told(service, seen.get(service.key))
            if sample is None:
                continue
            found = safely(key, partial(self._loops[key].notice, sample, now_s))
            if isinstance(found, Exception):
                self._faulty.add(key)
            elif found:
                pressed[key] = sample
        rising = [s for s in asked if s.key in pressed]
        if not rising:
            return {}
        fleets = self._cluster.fleets(rising, now_s)
        ground = self._surveyor.ground(now_s)
        surveyed: dict[ServiceKey, Fleet | ClusterError] = {}
        decisions: dict[ServiceKey, Decision] = {}
        for service in rising:
            key = service.key
            fleet = fleets.get(key, ClusterError("the cluster left the service out"))
            check = self._loops[key].check
            surveyed[key], decision = self._decided(
                service, check, pressed[key], fleet, ground, now_s
            )
            if decision is not None and decision.hold is None:
                decisions[key] = decision
            elif decision is not None:
                self._faulty.add(key)
        if decisions and isinstance(ground, Ground):
            decisions = self._shared(decisions, surveyed, ground, now_s)
        return {key: self._loops[key].act(decision, now_s) for key, decision in decisions.items()}

    def _told(self, service: Service, sample: Sample | MetricsError | None) -> Sample | None:
        """Return what the probe told of a service, if it did; the first time it can't is logged."""
        if isinstance(sample, Sample):
            self._unseen.discard(service.key)
            return sample
        if sample is not None and service.key not in self._unseen:
            self._unseen.add(service.key)
            log.warning("%s; no order between two ticks until it is mended", sample)
        return None

    def _shared(
        self,
        decisions: Mapping[ServiceKey, Decision],
        surveyed: Mapping[ServiceKey, Fleet | ClusterError],
        ground: Ground,
        now_s: float,
    ) -> dict[ServiceKey, Decision]:
        """Return the decisions cut to what is left beside what all services have ordered."""
        others = [s for s in self.services if s.key not in decisions and s.mode is Mode.ACT]
        fleets: dict[ServiceKey, Fleet | ClusterError] = dict(surveyed)
        read = self._cluster.fleets(others, now_s) if others else {}
        for service in others:
            fleet = read.get(service.key, ClusterError("the cluster left the service out"))
            fleets[service.key] = self._surveyed(service, fleet, ground)
        staying = {s.key: as_it_is(s, fleets[s.key], now_s) for s in others}
        asking = [s for s in self.services if s.key in decisions or s.key in staying]
        granted = share(asking, fleets, {**staying, **decisions}, ground.stock, ground.tree)
        return {key: granted[key] for key in decisions}

    def _tick(
        self, now_s: float, services: Sequence[Service] | None
    ) -> dict[ServiceKey, TickRecord]:
        due = self.services if services is None else services
        samples = self._metrics.read(due, now_s)
        fleets = self._cluster.fleets(due, now_s)
        ground = self._surveyor.ground(now_s)
        surveyed: dict[ServiceKey, Fleet | ClusterError] = {}
        decisions: dict[ServiceKey, Decision] = {}
        for service in due:
            key = service.key
            fleet = fleets.get(key, ClusterError("the cluster left the service out"))
            sample = samples.get(key, MetricsError("the metrics source left the service out"))
            self._ticked_s[key] = now_s
            self._faulty.discard(key)
            decide = self._loops[key].decide
            surveyed[key], decision = self._decided(service, decide, sample, fleet, ground, now_s)
            assert decision is not None
            decisions[key] = decision
        if isinstance(ground, Ground):
            decisions = share(due, surveyed, decisions, ground.stock, ground.tree)
        return {key: self._loops[key].act(decision, now_s) for key, decision in decisions.items()}

    def _decided(
        self,
        service: Service,
        decide: Decide,
        sample: Sample | MetricsError,
        fleet: Fleet | ClusterError,
        ground: Ground | ClusterError | None,
        now_s: float,
    ) -> tuple[Fleet | ClusterError, Decision | None]:
        """Return the fleet as surveyed and what one service does; a fault of its own is a hold."""

        def survey_and_decide() -> tuple[Fleet | ClusterError, Decision | None]:
            contest = self._contested.get(service.key)
            found = contest or self._surveyed(service, fleet, ground)
            return found, decide(sample, found, now_s)

        done = safely(service.key, survey_and_decide)
        if isinstance(done, Exception):
            return ClusterError("not decided"), broken(done, now_s)
        return done

    def _surveyed(
        self, service: Service, fleet: Fleet | ClusterError, ground: Ground | ClusterError | None
    ) -> Fleet | ClusterError:
        tokens = self._loops[service.key].prompt_tokens
        return self._surveyor.surveyed(service, fleet, ground, tokens)


def contested(services: Sequence[Service]) -> dict[ServiceKey, TargetError]:
    """Return an error for every acting service with a pool whose target another one scales too.

    None of them is preferred: as with two HPAs on one target, only a person knows who is right.
    """
    faults: dict[ServiceKey, TargetError] = {}
    for claimed in claims(s for s in services if s.mode is Mode.ACT):
        if len(claimed) < 2:
            continue
        target = claimed[0][1].target
        told = " and ".join(f"pool {pool.name} of {service.key}" for service, pool in claimed)
        what = f"{target.kind} {target.name}" + (f", task {target.task}" if target.task else "")
        message = f"{what} is the target of {told}: leave it to one of them"
        for service, _ in claimed:  # the first of several is enough for a line
            faults.setdefault(service.key, TargetError(message, "TargetContended"))
    return faults


def as_it_is(service: Service, fleet: Fleet | ClusterError, now_s: float) -> Decision:
    """Return the decision to leave a service as it is, for others to see what it has ordered."""
    if isinstance(fleet, ClusterError):
        return Decision(now_s, {}, ())
    pools: dict[str, PoolDecision] = {}
    for pool in service.pools:
        of_pool = fleet.pools[pool.name]
        ordered = of_pool.replicas // pool.pods_per_replica
        ready = of_pool.ready(pool.pods_per_replica)
        domain = fleet.domains.get(pool.name)
        pools[pool.name] = PoolDecision(ordered, ordered, ordered, ready, pool.startup_s, domain)
    return Decision(now_s, pools, ())


def safely(key: ServiceKey, act: Callable[[], T]) -> T | Exception:
    """Return what came of it, or the fault: one service's must not stop the others."""
    try:
        return act()
    except Exception as error:
        log.exception("%s: fault of the planner", key)
        return error


def broken(error: Exception, now_s: float) -> Decision:
    """Return the decision to do nothing after a fault of the planner itself."""
    message = f"fault of the planner, see its log: {type(error).__name__}: {error}; holding"
    reason = Reason("InternalError", message)
    return Decision(now_s, {}, (reason,), Hold(reason))
