"""A service's own past: what was observed of it, and as a series. Pure."""

from collections.abc import Sequence

from planner.decision.history import fleet_of
from planner.decision.observe import observe
from planner.errors import ClusterError, MetricsError
from planner.model import Observation, Role, Sample, Service


def observations(
    service: Service, samples: Sequence[Sample | MetricsError], start_s: float
) -> list[Observation | None]:
    """Return what each interval of history says, None where there is a gap.

    Parameters
    ----------
    service
        Whose past.
    samples
        One an interval, oldest first.
    start_s
        Time of the first [s, Unix].
    """
    seen: list[Observation | None] = []
    previous: Sample | None = None
    unseen = ClusterError("history holds no fleet")
    for index, sample in enumerate(samples):
        now_s = start_s + index * service.interval_s
        fleet = fleet_of(service, sample, now_s, unseen)
        if isinstance(sample, MetricsError) or isinstance(fleet, ClusterError):
            seen.append(None)
            continue
        found = observe(service, previous, sample, fleet, now_s)
        seen.append(found if isinstance(found, Observation) else None)
        if isinstance(found, Observation) or previous is None:
            previous = sample
    return seen


def token_series(past: Sequence[Observation | None], role: Role) -> list[float | None]:
    """Return the tokens/s demanded of one role in each interval, None in a gap."""
    return [None if seen is None else _tokens_tps(seen, role) for seen in past]


def _tokens_tps(seen: Observation, role: Role) -> float | None:
    histogram = seen.prompts if role is Role.PREFILL else seen.outputs
    if seen.arrivals_rps <= 0.0:
        return 0.0
    if histogram is None or histogram.mean is None:
        return None
    uncached = seen.uncached_ratio if role is Role.PREFILL else 1.0
    return seen.arrivals_rps * histogram.mean * uncached
