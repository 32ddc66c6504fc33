"""Between two ticks: a queue that grows asks for replicas at once, and never gives any back. Pure.

How the pools stand is told by what was seen of them every few seconds (`planner.decision.looks`).
"""

import math
from dataclasses import dataclass
from itertools import pairwise

from planner.decision.lead import lead_times_s
from planner.decision.looks import CHECK_S, MIN_LOOKS, Capacity, Look, LookMemory
from planner.decision.need import failing_weight
from planner.model import Fleet, Pool, PoolFleet, Role, Service

# A pod that was not seen before is new, unless it has finished more than so many times what a
# replica can since the last look: then it was there and did not answer.
MOST_WORK = 2.0
# Share of the time that the TTFT leaves for waiting, from which a queue is too long.
LONG_WAIT = 0.5
# Utilisation that an order aims at.
FILL = 0.95
# What is ready is at most multiplied by this: a rate over seconds is not known better.
MOST_RATIO = 6.0


@dataclass(frozen=True, slots=True)
class Rise:
    """Replicas that a pool should have at once, and the figures that say so.

    Attributes
    ----------
    replicas
        What it should have.
    waiting, inside
        Requests that wait in the pool, and all that are in it.
    ready
        Replicas that serve.
    rate_rps
        Requests/s that arrive; decode: that prefill will hand over, 0 where what is inside asks.
    """

    replicas: int
    waiting: float
    inside: float
    ready: int
    rate_rps: float


def rises(service: Service, memory: LookMemory, fleet: Fleet) -> dict[str, Rise]:
    """Return the pools that need more replicas now than they are asked to have, by pool name.

    Parameters
    ----------
    service
        Whose pools these are.
    memory
        After `arm` and `look`.
    fleet
        Pods that exist and replicas that are ordered.

    Notes
    -----
    Prefill: where the queue would take longer than half of what the TTFT leaves for waiting, the
    arrivals of the last seconds, one standard deviation of their counts less, over the rate of a
    replica, and what works off the queue that an order made now will find. While all are busy the
    rate of a replica is the one measured: prompts that got longer look like fewer of them. Decode:
    where more sequences are inside than all batches may hold, batches for those who would be if
    each kept its limit; and where prefill orders, what takes all that it will hand over then.
    """
    needs = [
        (stand, _for_prompts(stand)) for stand in _stands(service, memory, fleet, Role.PREFILL)
    ]
    handed_rps = 0.0
    if any(need.replicas > 0.0 for _, need in needs):
        handed_rps = sum(need.handed_rps for _, need in needs)
    # Pools of decode share what comes as they share what is ordered now.
    load_ratio = _load_ratio(service, memory, fleet, handed_rps)
    for stand in _stands(service, memory, fleet, Role.DECODE):
        inside, handed = _for_sequences(stand), stand.ordered * load_ratio
        handed_need = _Need(min(handed, MOST_RATIO * stand.ready), handed_rps)
        needs.append((stand, inside if inside.replicas >= handed else handed_need))
    return {
        stand.pool.name: Rise(
            math.ceil(need.replicas), stand.waiting, stand.inside, stand.ready, need.rate_rps
        )
        for stand, need in needs
        if math.ceil(need.replicas) > stand.ordered
    }


@dataclass(frozen=True, slots=True)
class _Stand:
    """One pool that can be judged: looks enough, a capacity, and replicas that serve.

    Attributes
    ----------
    pool, capacity, looks
        Whose they are; what a replica of it can do; what was seen.
    ready, ordered
        Replicas that serve, and that are asked for.
    lead_s, starts_in_s
        Time until an order made now serves [s], and until those under way do, on average.
    failing_weight
        What all requests failing costs, in multiples of the work offered.
    """

    pool: Pool
    capacity: Capacity
    looks: tuple[Look, ...]
    ready: int
    ordered: int
    lead_s: float
    starts_in_s: float
    failing_weight: float

    @property
    def paid_s(self) -> float:
        """Time that a replica is paid for if it is ordered and released as soon as it may be."""
        return self.lead_s + self.pool.behavior.scale_down.stabilization_window_s

    @property
    def span_s(self) -> float:
        return self.looks[-1].at_s - self.looks[0].at_s

    @property
    def waiting(self) -> float:
        return self.looks[-1].waiting

    @property
    def inside(self) -> float:
        return self.looks[-1].inside


@dataclass(frozen=True, slots=True)
class _Need:
    """Replicas, 0 without a reason for any; requests/s that come, and that prefill hands over."""

    replicas: float = 0.0
    rate_rps: float = 0.0
    handed_rps: float = 0.0


def _stands(service: Service, memory: LookMemory, fleet: Fleet, role: Role) -> tuple[_Stand, ...]:
    """Return how the pools of a role stand, without those that can't be judged."""
    found: list[_Stand] = []
    leads_s = lead_times_s(service, fleet.pools)
    weight = failing_weight(service, service.sla.failure_budget)
    for pool in service.pools_of(role):
        capacity, looks = memory.capacities.get(pool.name), memory.looks.get(pool.name, ())
        of_pool = fleet.pools[pool.name]
        seen = looks[-1].pods // pool.pods_per_replica if looks else 0
        ready = min(of_pool.ready(pool.pods_per_replica), seen)
        if capacity is None or ready == 0 or len(looks) < MIN_LOOKS:
            continue
        ordered = of_pool.replicas // pool.pods_per_replica
        lead_s = leads_s[pool.name]
        starts_in_s = _starts_in_s(of_pool, lead_s, fleet.at_s)
        found.append(_Stand(pool, capacity, looks, ready, ordered, lead_s, starts_in_s, weight))
    return tuple(found)


def _starts_in_s(of_pool: PoolFleet, lead_s: float, now_s: float) -> float:
    """Return when what is ordered and not ready will serve, on average; the lead if nothing is."""
    left_s = [
        lead_s
        if pod.unschedulable is not None
        else min(max(pod.created_s + lead_s - now_s, 0.0), lead_s)
        for pod in of_pool.pods
        if pod.ready_s is None and not pod.terminating
    ]
    return sum(left_s) / len(left_s) if left_s else lead_s


def _for_prompts(stand: _Stand) -> _Need:
    """Return what a queue of prompts asks for."""
    capacity, looks, span_s, pool = stand.capacity, stand.looks, stand.span_s, stand.pool
    finished = sum(_finished(a, b, capacity.rate_rps) for a, b in pairwise(looks))
    rate_rps = max(finished + stand.inside - looks[0].inside, 0.0) / span_s
    each_rps = capacity.rate_rps
    if finished >= 1.0 and all(seen.waiting > 0.0 for seen in looks):
        # Who became ready meanwhile has done nothing before.
        worked_s = sum(
            (b.at_s - a.at_s) * min(a.pods // pool.pods_per_replica, stand.ready)
            for a, b in pairwise(looks)
        )
        each_rps = min(each_rps, finished / worked_s) if worked_s > 0.0 else each_rps
    surely_rps = max(rate_rps - math.sqrt(capacity.dispersion * rate_rps / span_s), 0.0)
    if stand.waiting / (each_rps * stand.ready) <= LONG_WAIT * capacity.slack_s:
        return _Need(0.0, rate_rps, surely_rps)
    queue = _queue_found(stand, surely_rps, each_rps)
    queue_rps = queue / _drain_s(stand, queue, rate_rps)
    replicas = surely_rps / (FILL * each_rps) + queue_rps / each_rps
    replicas = min(replicas, MOST_RATIO * stand.ready)
    serving = max(min(replicas, pool.max_replicas), stand.ordered)
    return _Need(replicas, rate_rps, min(surely_rps + queue_rps, serving * each_rps))


def _queue_found(stand: _Stand, rate_rps: float, each_rps: float) -> float:
    """Return the prompts that an order made now will find waiting when it serves.

    Notes
    -----
    Until what is under way serves the queue grows as it does, but by no more than it has: what
    lasted for some time is expected to last as long again. From then on it shrinks.
    """
    grows_rps = rate_rps - stand.ready * each_rps
    shrinks_rps = max(stand.ordered * each_rps - rate_rps, 0.0)
    until_start = stand.waiting + min(grows_rps * stand.starts_in_s, stand.waiting)
    return max(max(until_start, 0.0) - shrinks_rps * (stand.lead_s - stand.starts_in_s), 0.0)


def _drain_s(stand: _Stand, queue: float, rate_rps: float) -> float:
    """Return the time in which a queue is best worked off [s].

    Notes
    -----
    Where the arrivals of b seconds wait, working them off in T takes b / T of the work offered
    more, which is paid for `paid_s`; and for T all requests fail, which weighs `failing_weight`
    times the work offered. The sum is least at ``T = √(b · paid_s / failing_weight)``.
    """
    if rate_rps <= 0.0:
        return math.inf
    queue_s = queue / rate_rps
    return max(math.sqrt(queue_s * stand.paid_s / stand.failing_weight), CHECK_S)


def _finished(earlier: Look, later: Look, each_rps: float) -> float:
    """Return what finished between two looks, on pods that did not start anew."""
    most = MOST_WORK * each_rps * (later.at_s - earlier.at_s)
    changes = (
        n - earlier.finished[pod] if pod in earlier.finished else n if n <= most else 0.0
        for pod, n in later.finished.items()
    )
    return sum(change for change in changes if change > 0.0)


def _for_sequences(stand: _Stand) -> _Need:
    """Return what the sequences inside ask for, and those that are surely still to come."""
    capacity, inside = stand.capacity, stand.inside
    beyond = inside - stand.ready * capacity.batch
    if capacity.batch <= 0 or beyond <= 0.0:
        return _Need()
    grown = inside - stand.looks[0].inside - math.sqrt(capacity.dispersion * inside)
    inside += min(max(grown, 0.0) / stand.span_s * stand.lead_s, beyond)
    # A batch beyond its limit is slow, and who is in it stays the longer: on target fewer would be
    # inside (Little's law), and more replicas for the pile would stand idle when they are ready.
    crowd = min(int(inside / stand.ready), len(capacity.itl_s) - 1)
    pace = capacity.itl_s[capacity.batch] / capacity.itl_s[crowd] if capacity.itl_s else 1.0
    return _Need(min(inside * pace / (FILL * capacity.batch), MOST_RATIO * stand.ready))


def _load_ratio(service: Service, memory: LookMemory, fleet: Fleet, handed_rps: float) -> float:
    """Return what prefill will hand over, over what the replicas ordered for decode can take.

    A queue before prefill hides from decode what comes.
    """
    takes_rps = sum(
        fleet.pools[pool.name].replicas
        // pool.pods_per_replica
        * memory.capacities[pool.name].rate_rps
        for pool in service.pools_of(Role.DECODE)
        if pool.name in memory.capacities
    )
    return handed_rps / (FILL * takes_rps) if 0.0 < takes_rps < math.inf else 0.0
