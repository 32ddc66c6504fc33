"""The planner spared one of its troubles at a time, to see what each of them costs.

Told the load to come, it pays for no forecast; told how fast its replicas truly are, for no model;
with replicas that are ready at once, for no lag. What is left is the price of its own rules.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from planner.comparison.ablation import WHOLE, Ablation, Step
from planner.model import Load, Pool, Role, Service, TokenLoad
from planner.simulation.config import PlantPool
from planner.simulation.oracles import START_UP_MAX, without_lag
from planner.simulation.surface import DecodeTruth, PrefillTruth
from planner.simulation.traces import Trace
from profiles import DecodePoint, PrefillPoint, Profile, decode_surface, prefill_surface

if TYPE_CHECKING:
    from planner.comparison.runs import Scenario

TRUE_LOAD: Final = "with-true-load"
TRUE_PROFILE: Final = "with-true-profile"
NO_LAG: Final = "without-lag"

ISL_POINTS, CONTEXT_POINTS, CONCURRENCY_POINTS = 80, 24, 48
"""Of the true profile: so many that what lies between two of them is no error any more."""


@dataclass(frozen=True, slots=True)
class Spared:
    """A scenario with one trouble less, and what to decide under."""

    scenario: "Scenario"
    ablation: Ablation = WHOLE


# ── the load to come ─────────────────────────────────────────────────────────────────────────────


def _with_true_load(scenario: "Scenario", headroom: float) -> Spared:
    """Return the planner whose forecast is the trace itself, times `headroom`."""
    service = scenario.loaded.service
    rates = {role: interval_tps(scenario.trace, role, service.interval_s) for role in Role}

    def made(forecast: Step) -> Step:
        def step(*arguments: Any) -> Load | None:
            load: Load | None = forecast(*arguments)
            if load is None:
                return None
            loads = {role: _foreseen(load, role, rates[role], service, headroom) for role in Role}
            return replace(load, tokens=loads)

        return step

    return Spared(scenario, Ablation(steps={"forecast": made}))


def interval_tps(trace: Trace, role: Role, interval_s: float) -> tuple[float, ...]:
    """Return the tokens/s that arrive for a role in each interval of a trace."""
    computed = trace.isl_tokens - trace.cached_tokens
    tokens = computed if role is Role.PREFILL else trace.osl_tokens
    index = (trace.arrival_s // interval_s).astype(np.int64)
    return tuple((np.bincount(index, weights=tokens) / interval_s).tolist())


def _foreseen(
    load: Load, role: Role, tps: tuple[float, ...], service: Service, headroom: float
) -> TokenLoad:
    """Return what will come, over the windows that a forecast is made for.

    An order serves after the longest start that there is; until then nobody else does.
    """
    interval_s = service.interval_s
    lead_s = max(pool.startup_s for pool in service.pools_of(role))
    now = round(load.at_s / interval_s)
    first = now + int(lead_s // interval_s)
    end = max(now + math.ceil((START_UP_MAX * lead_s + interval_s) / interval_s), first + 1)
    up_tps = headroom * max(tps[first:end], default=0.0)
    keep_tps = headroom * max(tps[now:end], default=0.0)
    tokens = load.tokens[role]
    keep_tps = max(up_tps, keep_tps)
    return replace(tokens, mean_tps=up_tps, up_tps=up_tps, keep_tps=keep_tps, up_points=())


# ── the true speed ───────────────────────────────────────────────────────────────────────────────


def _with_true_profile(scenario: "Scenario", _: float) -> Spared:
    """Return the planner whose surfaces go through the plant's true times."""
    loaded = scenario.loaded
    truth = {pool.name: pool for pool in scenario.plant.pools}
    pools = tuple(
        _truly_profiled(pool, truth[pool.name], loaded.profiles[pool.name])
        for pool in loaded.service.pools
    )
    told = replace(loaded, service=replace(loaded.service, pools=pools))
    return Spared(replace(scenario, loaded=told))


def _truly_profiled(pool: Pool, plant: PlantPool, told: Profile) -> Pool:
    if pool.role is Role.PREFILL:
        assert isinstance(plant.surface, PrefillTruth)
        return replace(pool, prefill=prefill_surface(true_prefill(plant.surface, told)))
    assert isinstance(plant.surface, DecodeTruth)
    return replace(pool, decode=decode_surface(true_decode(plant.surface, told)))


def true_prefill(truth: PrefillTruth, told: Profile) -> Profile:
    """Return a profile of the truth over the prompt lengths of the one that was told."""
    isl = [point.isl_tokens for point in told.prefill if point.batch == 1]
    lengths = np.unique(np.rint(np.geomspace(min(isl), max(isl), ISL_POINTS)))
    points = zip(lengths, truth.seconds(lengths), strict=True)
    prefill = tuple(PrefillPoint(isl_tokens=int(n), ttft_s=float(s)) for n, s in points)
    return told.model_copy(update={"prefill": prefill})


def true_decode(truth: DecodeTruth, told: Profile) -> Profile:
    """Return a profile of the truth over what was told; full KV caches still end its rows."""
    most = max(point.concurrency for point in told.decode)
    batches = np.unique(np.rint(np.geomspace(1.0, most, CONCURRENCY_POINTS)))
    contexts = [point.context_tokens for point in told.decode]
    points = [
        DecodePoint(concurrency=float(n), context_tokens=float(context), itl_s=float(s))
        for context in np.geomspace(min(contexts), max(contexts), CONTEXT_POINTS)
        for n, s in zip(batches, truth.seconds(batches, np.array(context)), strict=True)
        if _is_held(float(n), float(context), told)
    ]
    return told.model_copy(update={"decode": tuple(points)})


def _is_held(sequences: float, context_tokens: float, told: Profile) -> bool:
    """Tell whether a profile may have the point: where one point is beyond KV, all may be."""
    capacity = told.kv_capacity_tokens or math.inf
    widest = max(point.concurrency * point.context_tokens for point in told.decode)
    return sequences * context_tokens <= max(capacity, widest)


# ── no lag ───────────────────────────────────────────────────────────────────────────────────────


def _without_lag(scenario: "Scenario", _: float) -> Spared:
    """Return the planner whose replicas are ready when they are ordered, as it knows."""
    service = scenario.loaded.service
    pools = tuple(replace(pool, startup_s=0.0) for pool in service.pools)
    told = replace(scenario.loaded, service=replace(service, pools=pools))
    return Spared(replace(scenario, loaded=told, plant=without_lag(scenario.plant)))


SPARED: Final[Mapping[str, Callable[["Scenario", float], Spared]]] = {
    TRUE_LOAD: _with_true_load,
    TRUE_PROFILE: _with_true_profile,
    NO_LAG: _without_lag,
}
"""By the entry's name, for a scenario and the entry's knob; only the first one's knob is its own,
as a load that is known has no quantiles."""
