"""What the fleet must have been, from the metrics of the time. Pure.

A restart replays samples from Prometheus; the cluster keeps no history of its pods, but every pod
that served was scraped.
"""

from planner.decision.difference import alive
from planner.errors import ClusterError, MetricsError
from planner.model import Fleet, Pod, PoolFleet, Sample, Service


def fleet_of(
    service: Service, sample: Sample | MetricsError, at_s: float, before: Fleet | ClusterError
) -> Fleet | ClusterError:
    """Return the pods that were scraped at `at_s` [s, Unix] as a fleet of ready pods.

    Without metrics it is the fleet `before`: a gap in metrics is no change of replicas.
    """
    if isinstance(sample, MetricsError):
        return before
    pools: dict[str, PoolFleet] = {}
    for pool in service.pools:
        seen = alive(sample.pools.get(pool.name, ()))
        pods = tuple(Pod(pod.pod, at_s, at_s) for pod in seen)
        pools[pool.name] = PoolFleet(len(pods), pods)
    return Fleet(at_s, pools)
