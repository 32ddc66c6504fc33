"""What another profile changes in decisions: replicas over loads, what is within reach. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.decision.size import size
from planner.errors import InputError
from planner.model import (
    Factors,
    LengthMix,
    Load,
    Plan,
    Pool,
    Role,
    Service,
    ServiceKey,
    Sla,
    Target,
    TokenLoad,
)
from planner.profiling.region import Targets, fullest_batch, surfaces
from planner.sizing.dispersion import SCALES_S
from profiles import Profile

DEFAULT_TARGETS: Final = Targets(ttft_s=0.5, itl_s=0.03)
"""Where neither a spec nor a flag says what is asked for [s]."""

MIX_POINTS: Final = 32
GRID: Final = 9
MOST_REPLICAS: Final = 4000


@dataclass(frozen=True, slots=True)
class Traffic:
    """Lengths that decisions are made for, and what they are called."""

    name: str
    lengths: LengthMix


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two profiles: its name, and the service that runs on it."""

    name: str
    profile: Profile
    service: Service


def fixed_traffic(isl_tokens: float, osl_tokens: float) -> Traffic:
    """Return prompts of one length and outputs of a mean, exponential as chats roughly are."""
    name = f"prompts of {isl_tokens:g} tokens, outputs of {osl_tokens:g} in the mean"
    return Traffic(name, LengthMix((isl_tokens,), (1.0,), osl_tokens, 1.0))


def trace_traffic(name: str, isl_tokens: ArrayLike, osl_tokens: ArrayLike) -> Traffic:
    """Return the lengths of a trace [tokens]: prompts as quantiles, outputs as two moments."""
    osl = np.asarray(osl_tokens, dtype=np.float64)
    shares = (np.arange(MIX_POINTS) + 0.5) / MIX_POINTS
    points = np.quantile(np.asarray(isl_tokens, dtype=np.float64), shares)
    mean = float(osl.mean())
    weights = (1.0 / MIX_POINTS,) * MIX_POINTS
    return Traffic(
        name, LengthMix(tuple(points.tolist()), weights, mean, float(osl.var()) / mean**2)
    )


def plain_service(name: str, profile: Profile, targets: Targets) -> Service:
    """Return a service of one pool a role on this profile, without limits.

    Raises
    ------
    InputError
        If the profile lacks a role.
    """
    prefill, decode = surfaces(profile)
    if prefill is None or decode is None:
        missing = "prefill" if prefill is None else "decode"
        raise InputError(
            f"{name}: got no {missing} points; legal: both roles, or -f with a PDAutoscaler whose "
            f"{missing} pool has a profile in a file; give -f"
        )
    gpus = profile.provenance.gpus_per_replica or 1
    pools = tuple(
        Pool(
            name=role.value,
            role=role,
            target=Target("apps/v1", "Deployment", role.value),
            prefill=prefill if role is Role.PREFILL else None,
            decode=decode if role is Role.DECODE else None,
            max_replicas=MOST_REPLICAS,
            gpus_per_replica=gpus,
            kv_bytes_per_token=profile.kv_bytes_per_token,
        )
        for role in Role
    )
    sla = Sla(
        targets.ttft_s or DEFAULT_TARGETS.ttft_s or 0.0,
        targets.itl_s or DEFAULT_TARGETS.itl_s or 0.0,
    )
    return Service(ServiceKey("default", "compared"), sla, pools)


def profile_diff(
    sides: tuple[Side, Side], traffic: Traffic, loads_rps: Sequence[float]
) -> dict[str, Any]:
    """Return all that differs, as plain values: what `profile diff -o json` prints.

    Parameters
    ----------
    sides
        Both profiles, each with its service; the services have the same pools and SLA.
    traffic
        Lengths of requests.
    loads_rps
        Loads to decide at [requests/s].
    """
    sla = sides[0].service.sla
    return {
        "a": sides[0].name,
        "b": sides[1].name,
        "sla": {
            "ttft_s": sla.ttft_s,
            "itl_s": sla.itl_s,
            "attainment": sla.attainment_ratio,
        },
        "traffic": traffic.name,
        "decisions": [
            {"rps": rps}
            | {key: _decision(side, traffic, rps) for key, side in zip("ab", sides, strict=True)}
            for rps in loads_rps
        ],
        "reach": {key: _reach(side, traffic) for key, side in zip("ab", sides, strict=True)},
        "ratios": _ratios(sides[0].profile, sides[1].profile),
    }


def _decision(side: Side, traffic: Traffic, rps: float) -> dict[str, Any]:
    """Return replicas by pool, limits aside, and the GPUs they take."""
    plan = _plan(side.service, traffic, rps)
    replicas = {name: pool.wanted for name, pool in plan.pools.items()}
    gpus = sum(p.gpus_per_replica * replicas[p.name] for p in side.service.pools)
    return {"replicas": replicas, "gpus": gpus, "reachable": plan.reachable}


def _plan(service: Service, traffic: Traffic, rps: float) -> Plan:
    """Return the plan at a steady Poisson load."""
    lengths = traffic.lengths
    rates = {
        Role.PREFILL: rps * lengths.isl_mean_tokens,
        Role.DECODE: rps * lengths.osl_mean_tokens,
    }
    load = Load(
        at_s=0.0,
        tokens={role: TokenLoad(tps, tps, tps, tps) for role, tps in rates.items()},
        lengths=lengths,
        uncached_ratio=1.0,
        scales_s=SCALES_S,
        dispersion=(1.0,) * len(SCALES_S),
    )
    return size(service, load, Factors(), {})


def _reach(side: Side, traffic: Traffic) -> dict[str, Any]:
    """Return the best latencies by any number of replicas, and one replica's fullest batch."""
    plan = _plan(side.service, traffic, 1.0)
    pools = side.service.pools_of(Role.DECODE)
    assert pools[0].decode is not None  # what Pool promises of this role
    context = traffic.lengths.context_tokens
    batch = fullest_batch(pools[0].decode, context, side.service.sla.itl_s)
    return {
        "reachable": plan.reachable,
        "best_ttft_s": plan.best_ttft_s,
        "best_itl_s": plan.best_itl_s,
        "context_tokens": context,
        "sequences_per_replica": batch.concurrency,
        "tokens_per_s_per_replica": batch.throughput_tps,
    }


def _ratios(a: Profile, b: Profile) -> dict[str, Any]:
    """Return B's latencies over A's where both were measured, None for a role one lacks."""
    (prefill_a, decode_a), (prefill_b, decode_b) = surfaces(a), surfaces(b)
    ttft = itl = None
    if prefill_a is not None and prefill_b is not None:
        low = max(prefill_a.isl_min_tokens, prefill_b.isl_min_tokens)
        high = min(prefill_a.isl_max_tokens, prefill_b.isl_max_tokens)
        if low < high:
            lengths = np.linspace(low, high, GRID)
            ttft = _spread(prefill_b.service_s(lengths) / prefill_a.service_s(lengths))
    if decode_a is not None and decode_b is not None:
        low = max(decode_a.context_min_tokens, decode_b.context_min_tokens)
        high = min(decode_a.context_max_tokens, decode_b.context_max_tokens)
        if low <= high:
            pairs = [
                (n, context)
                for context in np.linspace(low, high, GRID).tolist()
                for most in [min(decode_a.batch_limit(context), decode_b.batch_limit(context))]
                for n in np.linspace(1, max(most, 1), GRID).tolist()
            ]
            n, context = np.array(pairs).T
            itl = _spread(decode_b.itl_s(n, context) / decode_a.itl_s(n, context))
    return {"ttft": ttft, "itl": itl}


def _spread(ratios: NDArray[np.float64]) -> Mapping[str, float]:
    return {
        "min": float(ratios.min()),
        "median": float(np.median(ratios)),
        "max": float(ratios.max()),
    }
