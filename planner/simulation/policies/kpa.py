"""Knative's pod autoscaler on requests in flight: a stable window and a panic window.

Source: knative.dev documentation, "Additional autoscaling configuration": stable window 60 s,
panic window 10 % of it, panic threshold 200 %, target utilisation 70 %, scale-up at most 1000 ×
and scale-down at most 2 × a tick. Scrapes come every 15 s here, so panic looks at the last one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from planner.model import Role
from planner.simulation.policies.base import Capacity, View, Wanted
from planner.simulation.policies.hpa import inside
from planner.simulation.policies.windows import History, mean, noted

STABLE_S = 60.0
PANIC_RATIO = 2.0
DOWN_RATIO = 2.0
SHIPPED_HEADROOM = 1.0 / 0.7


@dataclass(frozen=True, slots=True)
class PoolMemory:
    """Load over the stable window, when panic was last called for [s], the highest since."""

    load: History = ()
    panic_s: float | None = None
    peak: int = 0


@dataclass(frozen=True, slots=True)
class Kpa:
    """One autoscaler a pool at 1 / `headroom` of full use."""

    capacity: Capacity
    headroom: float = SHIPPED_HEADROOM
    interval_s: float = 15.0

    def start(self) -> Mapping[Role, PoolMemory]:
        """Return no memory of any load."""
        return {role: PoolMemory() for role in Role}

    def decide(
        self, view: View, state: Mapping[Role, PoolMemory]
    ) -> tuple[Mapping[Role, PoolMemory], Wanted]:
        """Return the stable wish, or while in panic the highest since it began."""
        full = {Role.PREFILL: 1.0, Role.DECODE: self.capacity.sequences(view.context_tokens)}
        memory = {
            role: remember(
                state[role],
                view.at_s,
                self.headroom * inside(view.roles[role]) / full[role],
                view.roles[role].ready,
            )
            for role in Role
        }
        return memory, {role: wish(memory[role], view.roles[role].ready) for role in Role}


def remember(memory: PoolMemory, at_s: float, load: float, ready: int) -> PoolMemory:
    """Return the memory after one tick; `load` is in replicas at their target."""
    history = noted(memory.load, at_s, load, STABLE_S)
    if math.ceil(load) >= PANIC_RATIO * max(ready, 1):
        panic_s: float | None = at_s
    else:
        is_over = memory.panic_s is None or at_s - memory.panic_s > STABLE_S
        panic_s = None if is_over else memory.panic_s
    peak = 0 if panic_s is None else max(memory.peak, ready, math.ceil(load))
    return PoolMemory(history, panic_s, peak)


def wish(memory: PoolMemory, ready: int) -> int:
    """Return the replicas wanted: never fewer while in panic, at most halved otherwise."""
    if memory.panic_s is not None:
        return memory.peak
    return max(math.ceil(mean(memory.load) - 1e-9), math.floor(ready / DOWN_RATIO))
