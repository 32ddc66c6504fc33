"""`behavior` as HPA computes it: stabilisation windows, policies, selectPolicy. Pure.

Read against Kubernetes' horizontal pod autoscaler; the one addition is that a recommendation has
two sides: what must be reached (`up`) and what must not be released (`keep` ≥ `up`). With both
equal and no tolerance it is HPA's algorithm to the letter. Tolerance differs in one point: HPA
judges each recommendation by it, this module what the windows made of them, so that a window
that slides off a peak does not release it one replica at a time.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from planner.model import Behavior, PolicyType, Reason, ScalingPolicy, ScalingRules, SelectPolicy


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What was recommended at one time: reach `up`, do not go below `keep`."""

    at_s: float
    up: int
    keep: int


@dataclass(frozen=True, slots=True)
class ScaleEvent:
    """A change of replicas that happened: positive up, negative down."""

    at_s: float
    change: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Replicas after `behavior`, and why they are not what was recommended."""

    replicas: int
    reasons: tuple[Reason, ...] = ()


def apply_behavior(
    pool: str,
    current: int,
    recommendations: Sequence[Recommendation],
    events: Sequence[ScaleEvent],
    behavior: Behavior,
    now_s: float,
) -> Outcome:
    """Return the replicas that `behavior` allows now.

    Parameters
    ----------
    pool
        Name, for the reasons.
    current
        Replicas asked of the target now.
    recommendations
        Past ones and, last, the one of this tick.
    events
        Past changes.
    behavior
        The rules of both directions.
    now_s
        Time of the decision [s, Unix].
    """
    newest = recommendations[-1]
    direct = min(max(current, newest.up), newest.keep)
    stable = _stabilise(current, recommendations, behavior, now_s)
    tolerated = _tolerate(current, stable, behavior)
    limited = _rate_limit(current, tolerated, events, behavior, now_s)
    reasons: list[Reason] = []
    if direct > newest.up:
        reasons.append(_kept(pool, newest.up, direct))
    if stable != direct:
        reasons.append(_stabilised(pool, current, direct, stable, behavior))
    if tolerated != stable:
        message = f"pool {pool}: {current} → {stable} replicas is within the tolerance"
        values = {"recommended": stable, "held": tolerated}
        reasons.append(Reason("WithinTolerance", message, pool, values))
    if limited != tolerated:
        reasons.append(_limited(pool, current, tolerated, limited))
    return Outcome(limited, tuple(reasons))


def _kept(pool: str, up: int, kept: int) -> Reason:
    """Say that what the plan would not order is not released either."""
    message = (
        f"pool {pool} keeps {kept} replicas although {up} are recommended: what may come before "
        "a new order could serve is worth keeping them"
    )
    return Reason("KeptForForecast", message, pool, {"recommended": up, "kept": kept})


def _stabilised(pool: str, current: int, direct: int, stable: int, behavior: Behavior) -> Reason:
    """Say that a window holds back."""
    rising = direct > current
    window_s = (behavior.scale_up if rising else behavior.scale_down).stabilization_window_s
    message = (
        f"pool {pool} {_moves(current, stable)} instead of {direct}: recommendations of the "
        f"last {window_s:.0f} s do not all agree"
    )
    values = {"recommended": direct, "held": stable, "window_s": window_s}
    return Reason("ScaleUpStabilized" if rising else "ScaleDownStabilized", message, pool, values)


def _limited(pool: str, current: int, wanted: int, limited: int) -> Reason:
    """Say that policies hold back."""
    message = (
        f"pool {pool} {_moves(current, limited)} instead of {wanted}: scaling policies allow no "
        "more"
    )
    word = "ScaleUpLimit" if wanted > current else "ScaleDownLimit"
    return Reason(word, message, pool, {"recommended": wanted, "limited": limited})


def _moves(current: int, replicas: int) -> str:
    """Return what happens to the replicas, in words."""
    if current == replicas:
        return f"stays at {current}"
    return f"goes from {current} to {replicas}"


def _stabilise(
    current: int, recommendations: Sequence[Recommendation], behavior: Behavior, now_s: float
) -> int:
    """Return current, moved into [lowest `up`, highest `keep`] of the two windows.

    Upwards HPA takes the MIN over its window, downwards the MAX over its own.
    """
    *past, newest = recommendations
    up_s = now_s - behavior.scale_up.stabilization_window_s
    down_s = now_s - behavior.scale_down.stabilization_window_s
    lowest = min([newest.up, *(r.up for r in past if r.at_s > up_s)])
    highest = max([newest.keep, *(r.keep for r in past if r.at_s > down_s)])
    return min(max(current, lowest), highest)


def _tolerate(current: int, desired: int, behavior: Behavior) -> int:
    """Return current if the change is within the direction's tolerance.

    As in HPA the band includes its ends and knows no smallest step: at 10 %, 10 → 9 is passed
    over and 9 → 8 is not. From zero there is nothing to be relative to.
    """
    if current <= 0 or desired == current:
        return desired
    rules = behavior.scale_up if desired > current else behavior.scale_down
    change = abs(desired - current) / current
    return current if change <= rules.tolerance + 1e-12 else desired


def _rate_limit(
    current: int, desired: int, events: Sequence[ScaleEvent], behavior: Behavior, now_s: float
) -> int:
    """Return desired, cut to what the policies allow from the start of their periods."""
    if desired == current:
        return desired
    rules = behavior.scale_up if desired > current else behavior.scale_down
    if rules.select_policy is SelectPolicy.DISABLED:
        return current
    if not rules.policies:
        return desired
    rising = desired > current
    bounds = [_bound(policy, current, events, now_s, rising=rising) for policy in rules.policies]
    if rising:
        return min(desired, max(_select(rules, bounds), current))
    return max(desired, min(_select(rules, (-b for b in bounds), sign=-1), current))


def _select(rules: ScalingRules, bounds: Iterable[int], sign: int = 1) -> int:
    """Return the bound of the policy that rules: Max allows the most change, Min the least."""
    chosen = min(bounds) if rules.select_policy is SelectPolicy.MIN else max(bounds)
    return sign * chosen


def _bound(
    policy: ScalingPolicy,
    current: int,
    events: Sequence[ScaleEvent],
    now_s: float,
    *,
    rising: bool,
) -> int:
    """Return the replicas that one policy allows now.

    Notes
    -----
    Counted from the replicas at the period's start, ``current − changes since``: up by pods or
    rounded up by percent, down by pods or cut off by percent.
    """
    recent = sum(e.change for e in events if e.at_s > now_s - policy.period_s)
    start = current - recent
    if policy.type is PolicyType.PODS:
        return start + policy.value if rising else start - policy.value
    if rising:
        return math.ceil(start * (1.0 + policy.value / 100.0) - 1e-9)
    return int(start * (1.0 - policy.value / 100.0) + 1e-9)
