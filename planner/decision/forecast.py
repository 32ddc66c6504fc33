"""Step 3, forecast: the tokens/s each role must serve when an order made now will serve. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from planner.decision.lengths import length_mix
from planner.decision.unseen import with_unseen
from planner.model import Histogram, Load, Observation, Role, Service, Sizing, TokenLoad
from planner.sizing.dispersion import SCALES_S, dispersion_curve
from predictors import build
from predictors.conformal import Forecaster, ForecasterState

# Time in which lengths and handover are averaged [s]; the load itself is not.
SMOOTH_S = 300.0
# Requests of the smoothed mix that one interval's own mean length is weighed against.
MIX_REQUESTS = 20.0
# Intervals that dispersion is measured over.
DISPERSION_INTERVALS = 60
# Slices of the predictive distribution, each told by its middle: finer at the top, where the
# failures are.
SLICES = (0.2, 0.2, 0.2, 0.2, 0.1, 0.05, 0.03, 0.02)
LEVELS = np.cumsum(SLICES) - 0.5 * np.array(SLICES)
# The quantile that is told beside the mean where the whole distribution is sized for.
TOLD_QUANTILE = 0.9
# Entries beyond which a smoothed histogram forgets nothing by keeping fewer of them.
MAX_ENTRIES = 1e6


@dataclass(frozen=True, slots=True)
class ForecastMemory:
    """What forecasting remembers of one service."""

    series: Mapping[Role, ForecasterState[Any]] = field(default_factory=dict)
    seen_tps: Mapping[Role, float] = field(default_factory=dict)
    prompts: Histogram | None = None
    outputs: Histogram | None = None
    uncached_ratio: float = 1.0
    bins: tuple[tuple[float, tuple[float, ...]], ...] = ()
    handover_s: float | None = None
    backlog_tokens: float = 0.0


@cache
def forecaster(name: str) -> Forecaster[Any]:
    """Return the forecaster of that name; it holds no state, so one serves every service."""
    return Forecaster(build(name), adaptive=True)


def age(service: Service, memory: ForecastMemory) -> ForecastMemory:
    """Return the memory after an interval that could not be observed."""
    machine = forecaster(service.predictor)
    series = {role: machine.update(state, None) for role, state in memory.series.items()}
    return replace(memory, series=series)


def learn(service: Service, memory: ForecastMemory, observation: Observation) -> ForecastMemory:
    """Return the memory after one observed interval."""
    keep = math.exp(-observation.span_s / SMOOTH_S)
    prompts = _blend(memory.prompts, observation.prompts, keep)
    outputs = _blend(memory.outputs, observation.outputs, keep)
    ratio = memory.uncached_ratio
    if observation.finished > 0:
        ratio = observation.uncached_ratio + (ratio - observation.uncached_ratio) * keep
    seen = _demand_tps(memory, observation)
    machine = forecaster(service.predictor)
    series = {
        role: machine.update(memory.series.get(role) or machine.start(), seen[role])
        for role in Role
    }
    waiting = sum(observation.pools[p.name].waiting for p in service.pools_of(Role.PREFILL))
    handover_s = memory.handover_s
    if observation.handover_s is not None:
        last_s = observation.handover_s if handover_s is None else handover_s
        handover_s = observation.handover_s + (last_s - observation.handover_s) * keep
    new_bins = (observation.arrival_bins,) if observation.arrival_bins[1] else ()
    bins = (*memory.bins, *new_bins)
    mean_isl = prompts.mean if prompts and prompts.mean else 0.0
    return ForecastMemory(
        series,
        seen,
        prompts,
        outputs,
        ratio,
        bins[-DISPERSION_INTERVALS:],
        handover_s,
        waiting * mean_isl * ratio,
    )


def forecast(
    service: Service, memory: ForecastMemory, lead_s: Mapping[str, float], now_s: float
) -> Load | None:
    """Return the load to size for, None before the first request was ever seen.

    Parameters
    ----------
    service
        Whose load it is, and whether a quantile of it is sized for or all that may come.
    memory
        What was learnt, this interval included.
    lead_s
        Order to ready by pool name [s].
    now_s
        Time of the decision [s, Unix].

    Notes
    -----
    `up` covers [t + lead, t + lead + Δ]: an order now can't serve earlier; `keep` covers
    [t, t + lead + Δ]: what is released now is missed until a new order is ready (sizing §1).
    """
    if memory.prompts is None or memory.outputs is None:
        return None
    return Load(
        at_s=now_s,
        tokens={role: _token_load(service, memory, role, lead_s) for role in Role},
        lengths=length_mix(memory.prompts, memory.outputs),
        uncached_ratio=memory.uncached_ratio,
        scales_s=SCALES_S,
        dispersion=tuple(dispersion_curve(memory.bins).tolist()),
        backlog_tokens=memory.backlog_tokens,
        up_quantile=_up_quantile(service),
        handover_s=memory.handover_s,
    )


def _token_load(
    service: Service, memory: ForecastMemory, role: Role, lead_s: Mapping[str, float]
) -> TokenLoad:
    """Return one role's load over the two windows."""
    machine, state = forecaster(service.predictor), memory.series[role]
    lead = max(lead_s[pool.name] for pool in service.pools_of(role))
    first = int(lead // service.interval_s) + 1
    last = max(math.ceil((lead + service.interval_s) / service.interval_s - 1e-9), first)
    up = machine.forecast(state, first, last, _up_quantile(service))
    load = TokenLoad(memory.seen_tps[role], up.mean, up.upper, fallback=up.fallback)
    if service.sizing is Sizing.DISTRIBUTION:
        levels = machine.points(state, first, last, LEVELS).tolist()
        seen = tuple(zip(levels, SLICES, strict=True))
        points = with_unseen(seen, up.mean, up.coverage_samples, service.caution)
        return replace(load, up_points=points)
    keep = machine.forecast(state, 1, last, service.keep_quantile)
    return replace(load, keep_tps=max(keep.upper, up.upper))


def _up_quantile(service: Service) -> float:
    return service.up_quantile if service.sizing is Sizing.QUANTILE else TOLD_QUANTILE


def _demand_tps(memory: ForecastMemory, observation: Observation) -> Mapping[Role, float]:
    """Return the tokens/s that arrived for each role: arrivals × mean length (sizing §1)."""
    isl = _mean_tokens(observation.prompts, memory.prompts)
    osl = _mean_tokens(observation.outputs, memory.outputs)
    return {
        Role.PREFILL: observation.arrivals_rps * isl * observation.uncached_ratio,
        Role.DECODE: observation.arrivals_rps * osl,
    }


def _mean_tokens(new: Histogram | None, smoothed: Histogram | None) -> float:
    """Return this interval's mean length, leaning on the smoothed one when few finished."""
    count, total = (new.count, new.sum) if new is not None else (0.0, 0.0)
    if smoothed is not None and smoothed.count > 0.0:
        count, total = count + MIX_REQUESTS, total + MIX_REQUESTS * smoothed.sum / smoothed.count
    return total / count if count > 0.0 else 0.0


def _blend(old: Histogram | None, new: Histogram | None, keep: float) -> Histogram | None:
    """Return the exponentially forgetting sum of histograms."""
    if new is None or new.count <= 0.0:
        return old
    if old is None or old.upper_bounds != new.upper_bounds:
        return new
    blended = old.times(keep).plus(new)
    return blended.times(min(1.0, MAX_ENTRIES / blended.count))
