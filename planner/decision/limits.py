"""What bounds pools together: budgets of GPUs and money, the ratio of prefill to decode.

Both change the desired replicas that they are given in place, reach nothing else, and say in
reasons what they did.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from planner.model import Plan, Pool, Reason, Role, Service

ROUNDING = 1e-9  # sums of prices are not exact


@dataclass(frozen=True, slots=True)
class Budget:
    """A ceiling on the sum of what replicas weigh, by pool name."""

    what: str
    ceiling: float
    weight: Mapping[str, float]

    def excess(self, replicas: Mapping[str, int]) -> float:
        """Return by how much replicas are beyond the ceiling; below 0: what is left."""
        return sum(replicas[name] * weight for name, weight in self.weight.items()) - self.ceiling

    def more(self, pool: str, replicas: Mapping[str, int]) -> float:
        """Return how many replicas of a pool may be added; they need not be whole."""
        weight = self.weight.get(pool, 0.0)
        return max(-self.excess(replicas), 0.0) / weight if weight > 0.0 else math.inf


def budgets(service: Service) -> tuple[Budget, ...]:
    """Return the budgets of a service."""
    found = []
    for gpu_type, ceiling in service.limits.gpus.items():
        pools = (p for p in service.pools if p.gpu_type == gpu_type)
        weight = {p.name: float(p.gpus_per_replica) for p in pools}
        found.append(Budget(f"{ceiling} GPUs of type {gpu_type}", float(ceiling), weight))
    if (cost := service.limits.cost_per_hour) is not None:
        weight = {p.name: p.price_per_replica for p in service.pools}
        found.append(Budget(f"a cost of {cost:g} an hour", cost, weight))
    return tuple(found)


def keep_budgets(
    service: Service, desired: dict[str, int], spares: tuple[Mapping[str, int], ...], plan: Plan
) -> list[Reason]:
    """Cut what exceeds the GPU and cost limits, down to `spares` first, one after the other.

    What a window holds back gives way before what another pool needs is cut: a window guards
    against flapping, and here the replica is asked for elsewhere.
    """
    reasons = []
    needed = {p.name: plan.pools[p.name].up for p in service.pools}
    for budget in budgets(service):
        before = dict(desired)
        pools = [p for p in service.pools if budget.weight.get(p.name, 0.0) > 0.0]
        floors = {p.name: p.min_replicas for p in pools}
        for spare in (*spares, needed, floors):
            _cut_to_budget(budget, pools, desired, spare, needed)
        for pool in pools:
            if desired[pool.name] < before[pool.name]:
                message = (
                    f"pool {pool.name} is cut from {before[pool.name]} to {desired[pool.name]} "
                    f"replicas: the limit is {budget.what}"
                )
                values = {
                    "wanted": float(before[pool.name]),
                    "capped": float(desired[pool.name]),
                    "limit": budget.ceiling,
                }
                reasons.append(Reason("LimitedByBudget", message, pool.name, values))
    return reasons


def _cut_to_budget(
    budget: Budget,
    pools: list[Pool],
    desired: dict[str, int],
    spare: Mapping[str, int],
    needed: Mapping[str, int],
) -> None:
    """Cut replicas until a budget is kept, or all pools are at their spare or their floor."""
    while budget.excess(desired) > ROUNDING:
        cuttable = [p for p in pools if desired[p.name] > max(spare[p.name], p.min_replicas)]
        if not cuttable:
            return
        # The pool that is relatively best staffed gives the next replica.
        pool = max(cuttable, key=lambda p: (desired[p.name] / max(needed[p.name], 1), p.name))
        desired[pool.name] -= 1


def keep_ratio(
    service: Service,
    desired: dict[str, int],
    current: Mapping[str, int],
    room: Mapping[str, int],
) -> list[Reason]:
    """Bring prefill ÷ decode replicas within the bounds: first by not adding, then by adding.

    What is added is within room and budgets; these go before the ratio.
    """
    limits = service.limits
    prefill, decode = service.pools_of(Role.PREFILL), service.pools_of(Role.DECODE)

    def total(pools: tuple[Pool, ...]) -> int:
        return sum(desired[p.name] for p in pools)

    if limits.ratio_max is not None and total(prefill) > limits.ratio_max * total(decode):
        many, few, bound = prefill, decode, limits.ratio_max
        share = 1.0 / bound
    elif limits.ratio_min is not None and total(prefill) < limits.ratio_min * total(decode):
        many, few, bound = decode, prefill, limits.ratio_min
        share = bound
    else:
        return []
    would_be = f"{total(prefill)}:{total(decode)}"
    allowed = math.floor(total(few) / share + ROUNDING)
    for pool in reversed(many):
        spare = max(current[pool.name], pool.min_replicas)
        excess = max(total(many) - allowed, 0)
        desired[pool.name] -= min(max(desired[pool.name] - spare, 0), excess)
    needed = math.ceil(total(many) * share - ROUNDING)
    for pool in few:
        missing = needed - total(few)
        desired[pool.name] += max(min(missing, _addable(service, pool, desired, current, room)), 0)
    message = (
        f"prefill to decode replicas would be {would_be}, beyond the bound {bound:g}; "
        f"now {total(prefill)}:{total(decode)}"
    )
    if total(few) < needed:
        message += ", as far as limits and room allow"
    values = {"bound": bound, "prefill": total(prefill), "decode": total(decode)}
    return [Reason("RatioBound", message, values=values)]


def _addable(
    service: Service,
    pool: Pool,
    desired: Mapping[str, int],
    current: Mapping[str, int],
    room: Mapping[str, int],
) -> int:
    """Return how many replicas a pool may grow by within its ceiling, room and the budgets."""
    fits = min(max(room.get(pool.name, pool.max_replicas), current[pool.name]), pool.max_replicas)
    afforded = min(
        (budget.more(pool.name, desired) for budget in budgets(service)), default=math.inf
    )
    return math.floor(min(fits - desired[pool.name], afforded + ROUNDING))
