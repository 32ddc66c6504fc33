"""`check`: what to know before trusting a spec. The offline part: files only. Pure."""

import math
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import chain
from typing import Final

from planner.check.bounds import VLLM_BOUNDS_S, bound_finding
from planner.check.finding import Finding, error, ok, warning
from planner.check.fit import fit_findings
from planner.check.rules import Rule
from planner.model import Pool, Role, ScalingRules, SelectPolicy, Service
from planner.spec.contradictions import footprint
from planner.spec.pools import PoolSpec
from planner.spec.quantities import format_decimal, format_duration
from planner.spec.service import LoadedService, floors_of
from profiles import Profile
from profiles.sanity import oddities, roofline_faults

FORECAST_STEPS: Final = 16
"""Intervals ahead that a forecast is asked for at most."""


def check_offline(loaded: LoadedService) -> list[Finding]:
    """Return what files alone tell of a service, at least one finding a topic."""
    service = loaded.service
    return [
        ok("spec", f"valid: {len(service.pools)} pools, mode {service.mode}"),
        *fit_findings(service),
        *_differences(loaded),
        *_sanity(loaded),
        *_horizon(service),
        *_buckets(service),
        *_fallback(service),
        *chain.from_iterable(_behavior(pool) for pool in service.pools),
        *_limits(service),
        *_transfer(service),
        *_missing_parts(loaded),
    ]


def _differences(loaded: LoadedService) -> Iterator[Finding]:
    for pool in loaded.spec.spec.pools:
        profile = loaded.profiles[pool.name]
        found = list(_pool_differences(pool, profile))
        where = f"pool {pool.name}: profile"
        yield from found or [ok(where, f"agrees with the spec ({profile.provenance.how})")]


def _pool_differences(pool: PoolSpec, profile: Profile) -> Iterator[Finding]:
    where, made = f"pool {pool.name}", profile.provenance
    if None not in {pool.gpus_per_replica, made.gpus_per_replica} and (
        pool.gpus_per_replica != made.gpus_per_replica
    ):
        yield warning(
            f"{where}: gpusPerReplica",
            f"the spec says {pool.gpus_per_replica}, which is used; the profile was made with "
            f"{made.gpus_per_replica}",
            "use a profile of the same replica size, or correct the spec",
            Rule.PROFILE_DIFFERS,
        )
    if pool.startup_s and profile.startup_s and pool.startup_s != profile.startup_s:
        yield warning(
            f"{where}: startup",
            f"the spec says {format_duration(pool.startup_s)}, which is used; the profile "
            f"measured {format_duration(profile.startup_s)}",
            "leave startup out to take the profile's",
            Rule.PROFILE_DIFFERS,
        )
    if pool.gpu_type != "gpu" and made.gpu and pool.gpu_type.lower() not in made.gpu.lower():
        yield warning(
            f"{where}: gpuType",
            f"the spec says {pool.gpu_type}, the profile was made on {made.gpu}",
            "use a profile of that GPU",
            Rule.PROFILE_DIFFERS,
        )


def _sanity(loaded: LoadedService) -> Iterator[Finding]:
    for pool in loaded.service.pools:
        profile, where = loaded.profiles[pool.name], f"pool {pool.name}: profile"
        for fault in roofline_faults(profile):
            if fault.where.startswith(pool.role.value):
                what = f"{fault.where}: {fault.got}; legal: {fault.legal}"
                yield error(where, what, fault.mend, Rule.PROFILE_IMPOSSIBLE)
        for odd in oddities(profile):
            if odd.where.startswith(pool.role.value):
                what = f"{odd.where}: {odd.what} ({odd.name})"
                yield warning(where, what, odd.mend, Rule.PROFILE_ODD)


def _horizon(service: Service) -> Iterator[Finding]:
    ahead_s = FORECAST_STEPS * service.interval_s
    for pool in service.pools:
        where = f"pool {pool.name}: startup"
        words = f"{format_duration(pool.startup_s)} to start a replica"
        if pool.startup_s + service.interval_s > ahead_s:
            least = format_duration(math.ceil(pool.startup_s / (FORECAST_STEPS - 1)))
            yield warning(
                where,
                f"{words}, and the forecast ends {format_duration(ahead_s)} ahead "
                f"({FORECAST_STEPS} intervals)",
                f"raise interval to {least} or more, or start replicas faster",
                Rule.FORECAST_HORIZON,
            )
        else:
            yield ok(where, f"{words}, within the {format_duration(ahead_s)} of the forecast")


def _buckets(service: Service) -> Iterator[Finding]:
    if service.source == "vllm":
        for key, target_s in (("ttft", service.sla.ttft_s), ("itl", service.sla.itl_s)):
            yield bound_finding(key, target_s, VLLM_BOUNDS_S[key], "vLLM's")


def _fallback(service: Service) -> Iterator[Finding]:
    if service.fallback is None:
        yield warning(
            "fallback",
            "not set: when metrics are gone for long, replicas stay as they are",
            "set fallback.prefill and fallback.decode",
            Rule.FALLBACK,
        )
    else:
        pools = ", ".join(f"{name} {count}" for name, count in service.fallback.replicas.items())
        after = format_duration(service.fallback.after_s)
        yield ok("fallback", f"metrics gone for {after}: rise to {pools}")


def _behavior(pool: Pool) -> Iterator[Finding]:
    where = f"pool {pool.name}: behavior"
    if pool.min_replicas == pool.max_replicas:
        what = f"minReplicas and maxReplicas are both {pool.min_replicas}: it never scales"
        yield warning(where, what, "raise maxReplicas", Rule.FIXED_SIZE)
    up, down = pool.behavior.scale_up, pool.behavior.scale_down
    blocked = [way for way, rules in (("up", up), ("down", down)) if _is_blocked(rules)]
    if len(blocked) == 2:
        yield error(
            where,
            "it can scale neither up nor down",
            "remove selectPolicy: Disabled from one",
            Rule.BLOCKED_DIRECTION,
        )
    elif blocked:
        yield warning(
            where,
            f"it never scales {blocked[0]}",
            f"remove selectPolicy: Disabled from behavior.scale{blocked[0].title()}",
            Rule.BLOCKED_DIRECTION,
        )
    else:
        yield ok(where, f"up {_rules(up)}; down {_rules(down)}")


def _is_blocked(rules: ScalingRules) -> bool:
    return rules.select_policy is SelectPolicy.DISABLED or rules.tolerance >= 1.0


def _rules(rules: ScalingRules) -> str:
    limits = [f"{p.value} {p.type} in {format_duration(p.period_s)}" for p in rules.policies]
    return f"waits {format_duration(rules.stabilization_window_s)}, " + (
        f"{rules.select_policy} of {', '.join(limits)}" if limits else "no rate limit"
    )


def _limits(service: Service) -> Iterator[Finding]:
    topics: tuple[Callable[[Service], Iterator[Finding]], ...] = (_gpus, _cost, _ratio)
    found = [finding for topic in topics for finding in topic(service)]
    yield from found or [ok("limits", "none binds at the floors")]


def _gpus(service: Service) -> Iterator[Finding]:
    used, _ = footprint(floors_of(service.pools))
    types = {pool.gpu_type for pool in service.pools}
    for gpu_type, limit in service.limits.gpus.items():
        where = f"limits.gpus.{gpu_type}"
        if gpu_type not in types:
            mend = f"write one of {', '.join(sorted(types))}"
            yield warning(where, "no pool has this gpuType", mend, Rule.GPU_BUDGET)
        elif limit - used[gpu_type] < min(
            pool.gpus_per_replica for pool in service.pools if pool.gpu_type == gpu_type
        ):
            what = f"the floors need {used[gpu_type]} of {limit}: there is no room to scale up"
            mend = "raise the limit or lower minReplicas"
            yield warning(where, what, mend, Rule.GPU_BUDGET)


def _cost(service: Service) -> Iterator[Finding]:
    limit = service.limits.cost_per_hour
    if limit is None:
        return
    _, cost = footprint(floors_of(service.pools))
    missing = [pool.name for pool in service.pools if pool.gpu_hour_price is None]
    if cost is None:
        yield error(
            "limits.costPerHour",
            f"no gpuHourPrice for {', '.join(missing)}: a GPU of theirs would count as 1",
            "give every pool a gpuHourPrice",
            Rule.COST_BUDGET,
        )
    elif limit - cost < min(pool.price_per_replica for pool in service.pools):
        yield warning(
            "limits.costPerHour",
            f"the floors cost {format_decimal(cost)} of {format_decimal(limit)}: there is no room "
            "to scale up",
            "raise the limit or lower minReplicas",
            Rule.COST_BUDGET,
        )


def _ratio(service: Service) -> Iterator[Finding]:
    low, high = service.limits.ratio_min, service.limits.ratio_max
    if low is None and high is None:
        return
    prefill, decode = (_span(service, role) for role in (Role.PREFILL, Role.DECODE))
    most = prefill[1] / max(decode[0], 1)
    least = prefill[0] / max(decode[1], 1)
    if (low is not None and most < low) or (high is not None and least > high):
        yield error(
            "limits.prefillDecodeRatio",
            f"minReplicas and maxReplicas allow ratios from {least:g} to {most:g} only",
            "change the bounds or the pools",
            Rule.RATIO,
        )
    floors = prefill[0] / max(decode[0], 1)
    if (low is not None and floors < low) or (high is not None and floors > high):
        yield warning(
            "limits.prefillDecodeRatio",
            f"the floors have a ratio of {floors:g}, outside the bounds",
            "choose floors within the bounds",
            Rule.RATIO,
        )


def _span(service: Service, role: Role) -> tuple[int, int]:
    pools = service.pools_of(role)
    return sum(p.min_replicas for p in pools), sum(p.max_replicas for p in pools)


def _transfer(service: Service) -> Iterator[Finding]:
    for pool in service.pools_of(Role.PREFILL):
        if pool.kv_bytes_per_token is None:
            yield warning(
                f"pool {pool.name}: profile",
                "kv_bytes_per_token is not known: the time to move a prompt's KV cache counts as "
                "latency only",
                "add kv_bytes_per_token to the profile",
                Rule.KV_BYTES,
            )


def _missing_parts(loaded: LoadedService) -> Iterator[Finding]:
    asked = loaded.spec.spec
    if asked.forecast.predictor == "Prophet" and find_spec("prophet") is None:
        yield error(
            "forecast.predictor",
            "Prophet is not installed",
            "pip install 'pd-planner[prophet]', or choose Kalman",
            Rule.PREDICTOR_INSTALLED,
        )
