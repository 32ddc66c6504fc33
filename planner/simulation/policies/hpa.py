"""Kubernetes' HorizontalPodAutoscaler on a figure per replica, for each pool alone.

Source: Kubernetes documentation, "Horizontal Pod Autoscaling", algorithm details; defaults of the
controller: 15 s, tolerance 10 %, down window 300 s, up by 4 pods or 100 % a period of 15 s.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from planner.model import Role
from planner.simulation.policies.base import Capacity, RoleView, View, Wanted
from planner.simulation.policies.windows import History, highest, mean, noted

TOLERANCE = 0.1
DOWN_WINDOW_S = 300.0
UP_PODS, UP_RATIO = 4, 2.0
RATE_WINDOW_S = 60.0

Loads = Callable[[View], Mapping[Role, float]]
"""What is used of each pool, in replicas at their full use."""


@dataclass(frozen=True, slots=True)
class HpaState:
    """By role: the figure of the last minute, and the recommendations of the down window."""

    used: Mapping[Role, History]
    recommended: Mapping[Role, History]


@dataclass(frozen=True, slots=True)
class Hpa:
    """HPA on `loads`, averaged over `rate_window_s` [s], at 1 / `headroom` of full use."""

    loads: Loads
    headroom: float
    rate_window_s: float = 0.0
    interval_s: float = 15.0

    def start(self) -> HpaState:
        """Return empty windows."""
        return HpaState(dict.fromkeys(Role, ()), dict.fromkeys(Role, ()))

    def decide(self, view: View, state: HpaState) -> tuple[HpaState, Wanted]:
        """Return what HPA's algorithm wants of each pool."""
        loads = self.loads(view)
        used = {
            role: noted(state.used[role], view.at_s, loads[role], self.rate_window_s)
            for role in Role
        }
        recommended = {
            role: noted(
                state.recommended[role],
                view.at_s,
                desired(view.roles[role].ordered, self.headroom * mean(used[role])),
                DOWN_WINDOW_S,
            )
            for role in Role
        }
        wanted = {role: limited(view.roles[role].ordered, recommended[role]) for role in Role}
        return HpaState(used, recommended), wanted


def desired(current: int, load: float) -> float:
    """Return ceil(load), or `current` where their ratio is within the tolerance.

    Examples
    --------
    >>> desired(10, 10.9), desired(10, 11.2)
    (10, 12)
    """
    if current > 0 and abs(load / current - 1.0) <= TOLERANCE:
        return current
    return math.ceil(load - 1e-9)


def limited(current: int, recommended: History) -> int:
    """Return the newest recommendation: down to the window's highest, up by the default policy.

    Examples
    --------
    >>> limited(10, ((0.0, 9.0), (15.0, 4.0))), limited(3, ((0.0, 30.0),))
    (9, 7)
    """
    newest = recommended[-1][1]
    if newest < current:
        return min(current, int(highest(recommended)))
    return min(int(newest), max(current + UP_PODS, int(current * UP_RATIO)))


def hpa_on_concurrency(capacity: Capacity, headroom: float) -> Hpa:
    """Return HPA on requests in flight a replica.

    A prefill replica is fully used by one prompt, a decode replica by the sequences at which it
    just meets the ITL target; they are looked up anew at every tick, which is more than an HPA,
    whose target is written once, can do.
    """

    def loads(view: View) -> Mapping[Role, float]:
        full = capacity.sequences(view.context_tokens)
        prefill, decode = (inside(view.roles[role]) for role in (Role.PREFILL, Role.DECODE))
        return {Role.PREFILL: prefill, Role.DECODE: decode / full}

    return Hpa(loads, headroom)


def hpa_on_tokens(capacity: Capacity, headroom: float) -> Hpa:
    """Return HPA on tokens/s a replica over the last minute; a busy pool shows no more."""

    def loads(view: View) -> Mapping[Role, float]:
        work = {role: view.roles[role].work_tps for role in Role}
        return {
            Role.PREFILL: work[Role.PREFILL] / capacity.prefill_tps(view.isl_tokens),
            Role.DECODE: work[Role.DECODE] / capacity.decode_tps(view.context_tokens),
        }

    return Hpa(loads, headroom, RATE_WINDOW_S)


def inside(seen: RoleView) -> float:
    """Return the requests in all pods of a pool."""
    return seen.running + seen.waiting
