"""Many services, one process: one batched read, every service's own decision, then the writes.

Services that share nodes are sized first, all of them; what they ask for together is allocated;
only then is anything written. So two services never both take the last GPU.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from planner.decision.contention import claims
from planner.decision.share import share
from planner.errors import ClusterError, MetricsError, TargetError
from planner.inventory import Inventory, Network
from planner.loop import Loop
from planner.model import Decision, Fleet, Hold, Mode, Reason, Room, Service, ServiceKey
from planner.ports import Cluster, Metrics, Telemetry
from planner.record import TickRecord
from planner.topology.capacity import Stock
from planner.topology.survey import PROMPT_TOKENS, survey
from planner.topology.tree import Tree, build_tree, is_same_network

log = logging.getLogger(__name__)

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
    """

    def __init__(
        self,
        services: Sequence[Service],
        metrics: Metrics,
        cluster: Cluster,
        telemetry: Sequence[Telemetry] = (),
        network: Network = Network(),  # noqa: B008 - a frozen value
    ) -> None:
        self._metrics = metrics
        self._cluster = cluster
        self._network = network
        self._loops = {s.key: Loop(s, cluster, telemetry) for s in services}
        self._contested = contested(services)
        self._charted: tuple[Inventory, Tree] | None = None
        self._ticked_s: dict[ServiceKey, float] = {}

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
        due = self.services if services is None else services
        samples = self._metrics.read(due, now_s)
        fleets = self._cluster.fleets(due, now_s)
        ground = self._ground(now_s)
        surveyed: dict[ServiceKey, Fleet | ClusterError] = {}
        decisions: dict[ServiceKey, Decision] = {}
        for service in due:
            key = service.key
            fleet = fleets.get(key, ClusterError("the cluster left the service out"))
            sample = samples.get(key, MetricsError("the metrics source left the service out"))
            self._ticked_s[key] = now_s
            try:
                surveyed[key] = self._contested.get(key) or self._surveyed(service, fleet, ground)
                decisions[key] = self._loops[key].decide(sample, surveyed[key], now_s)
            except Exception as error:  # one service's fault must not stop the others
                log.exception("%s: fault of the planner", key)
                surveyed[key] = ClusterError("not decided")
                decisions[key] = broken(error, now_s)
        if isinstance(ground, Ground):
            decisions = share(due, surveyed, decisions, ground.stock, ground.tree)
        return {key: self._loops[key].act(decision, now_s) for key, decision in decisions.items()}

    def _surveyed(
        self, service: Service, fleet: Fleet | ClusterError, ground: "Ground | ClusterError | None"
    ) -> Fleet | ClusterError:
        """Return the fleet with what the cluster's nodes and network mean for it."""
        if isinstance(fleet, ClusterError) or ground is None:
            return fleet
        if isinstance(ground, ClusterError):
            return unread(service, fleet, ground)
        tokens = self._loops[service.key].prompt_tokens or PROMPT_TOKENS
        found = survey(service, fleet, ground.stock, ground.tree, self._network, tokens)
        return replace(
            fleet,
            rooms=found.rooms,
            domains=found.domains,
            transfer=found.transfer,
            notes=found.notes,
        )

    def _ground(self, now_s: float) -> "Ground | ClusterError | None":
        """Return nodes and network at `now_s` [s, Unix]; the tree only anew when it changed."""
        inventory = self._cluster.inventory(now_s)
        if not isinstance(inventory, Inventory):
            return inventory
        if self._charted is None or not is_same_network(self._charted[0], inventory):
            self._charted = (inventory, build_tree(inventory.hypernodes, inventory.nodes))
        return Ground(Stock(inventory), self._charted[1])


@dataclass(frozen=True, slots=True)
class Ground:
    """What all services of a tick stand on: nodes with what is free on them, and domains."""

    stock: Stock
    tree: Tree


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


def broken(error: Exception, now_s: float) -> Decision:
    """Return the decision to do nothing after a fault of the planner itself."""
    message = f"fault of the planner, see its log: {type(error).__name__}: {error}; holding"
    reason = Reason("InternalError", message)
    return Decision(now_s, {}, (reason,), Hold(reason))


def unread(service: Service, fleet: Fleet, error: ClusterError) -> Fleet:
    """Return a fleet whose nodes could not be read: what runs has room, nothing more is known."""
    rooms = {
        p.name: Room(fleet.pools[p.name].replicas // p.pods_per_replica, why="nodes are not known")
        for p in service.pools
    }
    message = f"nodes and network can't be read, no scale-up: {error}"
    return replace(fleet, rooms=rooms, notes=(Reason("TopologyUnreadable", message),))
