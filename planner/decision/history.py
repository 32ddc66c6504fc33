"""What the fleet must have been, from the metrics of the time. Pure.

A restart replays samples from Prometheus; the cluster keeps no history of its pods, but every pod
that served was scraped.
"""

from dataclasses import replace

from planner.decision.difference import alive
from planner.errors import ClusterError, MetricsError
from planner.model import Fleet, Pod, PoolFleet, Sample, Service


def fleet_of(
    service: Service,
    sample: Sample | MetricsError,
    at_s: float,
    before: Fleet | ClusterError,
    alive_now: Fleet | None = None,
) -> Fleet | ClusterError:
    """Return the pods that were scraped at `at_s` [s, Unix], ready, and those that were starting.

    Without metrics it is the fleet `before`: a gap in metrics is no change of replicas. Pods that
    are `alive_now` tell their own start, so that lead times are known again at once, and when they
    were ordered, which between two ticks no recommendation tells.
    """
    if isinstance(sample, MetricsError):
        return before
    pools: dict[str, PoolFleet] = {}
    for pool in service.pools:
        seen = alive(sample.pools.get(pool.name, ()))
        known = {p.name: p for p in alive_now.pools[pool.name].pods} if alive_now else {}
        ready = [_then(known.get(pod.pod), pod.pod, at_s) for pod in seen]
        names = {pod.name for pod in ready}
        starting = [
            replace(pod, ready_s=None)
            for pod in known.values()
            if pod.created_s <= at_s and pod.name not in names
        ]
        pools[pool.name] = PoolFleet(len(ready) + len(starting), (*ready, *starting))
    return Fleet(at_s, pools)


def _then(now: Pod | None, name: str, at_s: float) -> Pod:
    """Return a scraped pod as it was at `at_s` [s, Unix]: ready, with its real start if known."""
    if now is None or now.ready_s is None or now.ready_s > at_s:
        return Pod(name, at_s, at_s)
    return Pod(name, now.created_s, now.ready_s)
