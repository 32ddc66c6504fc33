"""How long an order takes to serve, from the pods that did it last. Pure, without memory."""

import math
from collections.abc import Mapping

from planner.model import Pool, PoolFleet, Service

# Starts that count, newest first, and the weight of the spec's guess among them.
RECENT_STARTS, PRIOR_STARTS = 8, 2
# A pod that was ready in less was adopted, not started [s].
SHORTEST_START_S = 1.0


def lead_times_s(service: Service, fleet_pools: Mapping[str, PoolFleet]) -> Mapping[str, float]:
    """Return order-to-ready time by pool name [s]; elastic capacity adds the start of a node."""
    topology = service.topology
    node_s = topology.node_startup_s if topology.is_elastic else 0.0
    return {pool.name: lead_time_s(pool, fleet_pools[pool.name]) + node_s
            for pool in service.pools}  # fmt: skip


def lead_time_s(pool: Pool, fleet: PoolFleet) -> float:
    """Return the time from an order to a ready replica [s]: mean plus one standard deviation.

    Notes
    -----
    Measured from pod creation to Ready over the pods that exist, so that a restart knows it
    again at once; `startup` of the spec counts as two starts.
    """
    starts = sorted(
        (p.created_s, p.ready_s - p.created_s)
        for p in fleet.pods
        if p.ready_s is not None and p.ready_s - p.created_s >= SHORTEST_START_S
    )[-RECENT_STARTS:]
    times_s = [pool.startup_s] * PRIOR_STARTS + [took_s for _, took_s in starts]
    mean_s = sum(times_s) / len(times_s)
    return mean_s + math.sqrt(sum((t - mean_s) ** 2 for t in times_s) / len(times_s))
