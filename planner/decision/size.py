"""Step 4, size: the cheapest fleet that meets the SLA at the load to come. Pure."""

from collections.abc import Mapping
from dataclasses import replace

from planner.decision.fleets import Fleets, search_limit
from planner.decision.need import Target, kept_point, mean_point, needs_of, points_of
from planner.decision.price import priced_budgets
from planner.model import (
    Factors,
    Load,
    Plan,
    PoolPlan,
    Reason,
    Role,
    Service,
    Statistic,
)
from planner.sizing import decode, mean, prefill
from planner.sizing.joint import Choice

# A target that nothing reaches is replaced by this multiple of the best: room for a few requests.
BEST_EFFORT_RATIO = 1.25


def size(service: Service, load: Load, factors: Factors, room: Mapping[str, int]) -> Plan:
    """Return the replicas that the load needs, within the limits, and what they will fail.

    Parameters
    ----------
    service
        SLA, pools and limits.
    load
        What is coming.
    factors
        Corrections of the profiles.
    room
        Replicas by pool name that the cluster can hold; absent: any number.
    """
    if service.sla.statistic is Statistic.MEAN:
        return _mean_plan(service, load, factors, room)
    target = aim(service, load, factors)
    has_distribution = any(load.tokens[role].up_points for role in Role)
    # Beside what is ordered for: the mean load as if it were certain, or the one that is kept for.
    beside = mean_point if has_distribution else kept_point
    needs = {role: needs_of(service, load, factors, target, role, points_of(tokens), beside(tokens))
             for role, tokens in load.tokens.items()}  # fmt: skip
    up = {role: ordering for role, (ordering, _) in needs.items()}
    other = {role: second for role, (_, second) in needs.items()}
    unlimited = {p.name: search_limit(p, up[p.role]) for p in service.pools}
    ceilings = {p.name: min(p.max_replicas, room.get(p.name, p.max_replicas), unlimited[p.name])
                for p in service.pools}  # fmt: skip
    free = Fleets(service, up, unlimited, target.failure_budget)
    legal = Fleets(service, up, ceilings, target.failure_budget, service.limits)
    if has_distribution:
        budget, keep_budget = priced_budgets(free, replace(free, needs=other))
        kept = legal.cheapest(keep_budget)
    else:
        budget = target.failure_budget
        kept = replace(legal, needs=other).cheapest(budget)
    wanted, chosen = free.cheapest(budget), legal.cheapest(budget)
    pools = _pool_plans(service, wanted, chosen, kept)
    reasons = (*target.reasons, *_outside(service, load), *_shortages(service, pools, room, chosen))
    return Plan(
        pools=pools,
        failure_shares={
            Role.PREFILL: chosen.prefill_failures,
            Role.DECODE: chosen.decode_failures,
        },
        reachable=not target.reasons,
        best_ttft_s=target.best_ttft_s,
        best_itl_s=target.best_itl_s,
        reasons=reasons,
    )


def aim(service: Service, load: Load, factors: Factors) -> Target:
    """Return what can be aimed at, with a Reason for what can't be met.

    Notes
    -----
    Prompts that miss the TTFT even unqueued use up the failure budget first (sizing §1). Beyond
    it the SLA is unreachable by any number of replicas, and the rest is still served as asked.
    """
    sla = service.sla
    first = service.pools_of(Role.PREFILL)[0]
    alone = prefill.prefill_load(first, service, load, factors.of(first.name), 0.0, sla.ttft_s, 1.0)
    lost = alone.infeasible_share
    best_ttft_s = alone.best_ttft_s(sla.ttft_s, sla.failure_budget)
    best_itl_s = min(
        decode.decode_load(p, load, factors.of(p.name), 0.0, sla.itl_s).best_itl_s
        for p in service.pools_of(Role.DECODE)
    )
    reasons: list[Reason] = []
    ttft_s = sla.ttft_s
    if lost >= sla.failure_budget:
        ttft_s = BEST_EFFORT_RATIO * best_ttft_s
        message = (
            f"{lost:.1%} of prompts need more than {sla.ttft_s * 1e3:.0f} ms for their first token "
            f"even unqueued, {sla.attainment_ratio:.4g} of them can have "
            f"{best_ttft_s * 1e3:.0f} ms; planning for {ttft_s * 1e3:.0f} ms"
        )
        values = {"best_ttft_s": best_ttft_s, "infeasible_ratio": lost}
        reasons.append(Reason("SLAUnreachable", message, first.name, values))
    itl_s = sla.itl_s
    if best_itl_s > sla.itl_s:
        itl_s = BEST_EFFORT_RATIO * best_itl_s
        message = (
            f"one sequence alone takes {best_itl_s * 1e3:.1f} ms a token, the target is "
            f"{sla.itl_s * 1e3:.1f} ms; planning for {itl_s * 1e3:.1f} ms"
        )
        name = service.pools_of(Role.DECODE)[0].name
        reasons.append(Reason("SLAUnreachable", message, name, {"best_itl_s": best_itl_s}))
    budget = sla.failure_budget - lost if lost < sla.failure_budget else sla.failure_budget
    return Target(ttft_s, itl_s, budget, best_ttft_s, best_itl_s, tuple(reasons))


def _pool_plans(
    service: Service, wanted: Choice, chosen: Choice, kept: Choice
) -> Mapping[str, PoolPlan]:
    """Return the three numbers of every pool."""
    plans: dict[str, PoolPlan] = {}
    for role in (Role.PREFILL, Role.DECODE):
        for index, pool in enumerate(service.pools_of(role)):
            need, up, keep = (
                (c.prefill if role is Role.PREFILL else c.decode).replicas[index]
                for c in (wanted, chosen, kept)
            )
            plans[pool.name] = PoolPlan(need, up, max(up, keep))
    return plans


def _outside(service: Service, load: Load) -> list[Reason]:
    """Say where the traffic leaves the profiled range; it is clamped there, never extrapolated."""
    reasons: list[Reason] = []
    computed = load.lengths.isl_mean_tokens * load.uncached_ratio
    context = load.lengths.context_tokens
    for pool in service.pools:
        if pool.prefill is not None and bool(pool.prefill.is_outside(computed)):
            low, high = pool.prefill.isl_min_tokens, pool.prefill.isl_max_tokens
            what, value = "mean prompt", computed
        elif pool.decode is not None and bool(pool.decode.is_outside(1.0, context)):
            low, high = pool.decode.context_min_tokens, pool.decode.context_max_tokens
            what, value = "mean context", context
        else:
            continue
        message = f"{what} of {value:.0f} tokens is outside the profile ({low:.0f} to {high:.0f})"
        reasons.append(Reason("OutsideProfile", message, pool.name, {"tokens": value}))
    return reasons


def _shortages(
    service: Service, plans: Mapping[str, PoolPlan], room: Mapping[str, int], chosen: Choice
) -> list[Reason]:
    """Say which limit keeps a pool below its need."""
    reasons: list[Reason] = []
    for pool in service.pools:
        plan = plans[pool.name]
        if plan.up > plan.wanted:
            message = (
                f"pool {pool.name} gets {plan.up} replicas instead of {plan.wanted}: a limit keeps "
                "another pool short"
            )
            values = {"wanted": plan.wanted, "planned": plan.up}
            reasons.append(Reason("LimitedByBudget", message, pool.name, values))
        if plan.up >= plan.wanted:
            continue
        fits = room.get(pool.name)
        if fits is not None and fits < min(plan.wanted, pool.max_replicas):
            code, limit = "CapacityShortage", f"only {fits} fit"
        elif plan.wanted > pool.max_replicas:
            code, limit = "TooManyReplicas", f"maxReplicas is {pool.max_replicas}"
        else:
            code, limit = "LimitedByBudget", "limits leave no more"
        message = f"pool {pool.name} needs {plan.wanted} replicas, {limit}: planned {plan.up}"
        if not chosen.within_budget:
            lost = chosen.prefill_failures + chosen.decode_failures
            message += f"; about {min(lost, 1.0):.1%} of requests will miss the SLA"
        shortage = (plan.wanted - plan.up) * pool.gpus_per_replica
        values = {"wanted": plan.wanted, "planned": plan.up, "shortage_gpus": shortage}
        reasons.append(Reason(code, message, pool.name, values))
    return reasons


def _mean_plan(service: Service, load: Load, factors: Factors, room: Mapping[str, int]) -> Plan:
    """Return the plan of the classic mean formula, for the first pool of each role.

    Other pools of a role stay at their floors: the formula knows one pool a role.
    """
    pools: dict[str, PoolPlan] = {}
    reachable = True
    for pool in service.pools:
        factor = factors.of(pool.name).level
        tokens = load.tokens[pool.role]
        if pool is not service.pools_of(pool.role)[0]:
            need = pool.min_replicas
        elif pool.role is Role.PREFILL:
            assert pool.prefill is not None
            computed = load.lengths.isl_mean_tokens * load.uncached_ratio
            need = mean.prefill_replicas(tokens.mean_tps, computed, factor, pool.prefill)
        else:
            assert pool.decode is not None
            context = load.lengths.isl_mean_tokens + 0.5 * load.lengths.osl_mean_tokens
            need, reachable = mean.decode_replicas(
                tokens.mean_tps, context, service.sla.itl_s, factor, pool.decode
            )
        ceiling = min(pool.max_replicas, room.get(pool.name, pool.max_replicas))
        up = max(min(need, ceiling), pool.min_replicas)
        pools[pool.name] = PoolPlan(max(need, pool.min_replicas), up, up)
    reasons: tuple[Reason, ...] = ()
    if not reachable:
        first = service.pools_of(Role.DECODE)[0].name
        message = "no profiled batch meets the ITL; planned for one sequence a replica"
        reasons = (Reason("SLAUnreachable", message, first, {"itl_s": service.sla.itl_s}),)
    return Plan(pools, {}, reachable=reachable, reasons=reasons)
