"""A service's own past: what was observed of it, as a series and as a trace to replay. Pure."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from planner.decision.history import fleet_of
from planner.decision.lengths import points
from planner.decision.observe import observe
from planner.errors import ClusterError, InputError, MetricsError
from planner.model import Histogram, Observation, Role, Sample, Service
from planner.simulation.traces import Trace, make_trace


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


def past_trace(past: Sequence[Observation | None], interval_s: float, seed: int) -> Trace:
    """Return a trace with the rates and lengths that were observed.

    Notes
    -----
    Arrivals are Poisson within an interval and lengths are drawn from its histograms, so what
    happens below the interval is a model and not the past. A gap is silent.

    Raises
    ------
    InputError
        If nothing was observed.
    """
    random = np.random.default_rng(seed)
    arrivals: list[NDArray[np.float64]] = []
    isl: list[NDArray[np.float64]] = []
    osl: list[NDArray[np.float64]] = []
    for index, seen in enumerate(past):
        if seen is None or not seen.prompts or not seen.outputs:
            continue
        if seen.prompts.count <= 0 or seen.outputs.count <= 0:
            continue
        count = random.poisson(seen.arrivals_rps * interval_s)
        arrivals.append(index * interval_s + np.sort(random.uniform(0.0, interval_s, count)))
        isl.append(_draw(random, seen.prompts, count))
        osl.append(_draw(random, seen.outputs, count))
    if not arrivals or not sum(a.size for a in arrivals):
        raise InputError("--from-prometheus: no finished request in that window: give a longer one")
    return make_trace(
        "history",
        np.concatenate(arrivals),
        np.maximum(np.rint(np.concatenate(isl)), 1),
        np.maximum(np.rint(np.concatenate(osl)), 1),
        notes=("Arrivals inside an interval are Poisson; lengths are drawn from histograms.",),
    )


def _tokens_tps(seen: Observation, role: Role) -> float | None:
    histogram = seen.prompts if role is Role.PREFILL else seen.outputs
    if seen.arrivals_rps <= 0.0:
        return 0.0
    if histogram is None or histogram.mean is None:
        return None
    uncached = seen.uncached_ratio if role is Role.PREFILL else 1.0
    return seen.arrivals_rps * histogram.mean * uncached


def _draw(random: np.random.Generator, lengths: Histogram, count: int) -> NDArray[np.float64]:
    """Return `count` lengths [tokens] out of a histogram."""
    values, weights = points(lengths)
    return np.asarray(random.choice(values, size=count, p=weights / weights.sum()))
