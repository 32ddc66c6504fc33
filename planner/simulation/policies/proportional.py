"""Both pools in proportion to decode's tokens/s, at a fixed ratio of prefill to decode.

Source: HeteroScale (arXiv 2508.19559): decode throughput drives both pools, changes below a
tenth are left out. The ratio is that of the whole trace's mean lengths, known in hindsight.
"""

import math
from dataclasses import dataclass

from planner.model import Role
from planner.simulation.policies.base import Capacity, Hindsight, View, Wanted
from planner.simulation.policies.windows import History, mean, noted

THRESHOLD = 0.1
WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class Proportional:
    """Decode replicas at 1 / `headroom` of their tokens/s, prefill by `ratio`."""

    capacity: Capacity
    ratio: float
    headroom: float
    interval_s: float = 15.0

    def start(self) -> History:
        """Return an empty window."""
        return ()

    def decide(self, view: View, state: History) -> tuple[History, Wanted]:
        """Return the pools for the last minute's throughput."""
        seen = view.roles[Role.DECODE]
        history = noted(state, view.at_s, seen.work_tps, WINDOW_S)
        need = self.headroom * mean(history) / self.capacity.decode_tps(view.context_tokens)
        if seen.ordered and abs(need / seen.ordered - 1.0) <= THRESHOLD:
            return history, view.ordered
        decode = max(math.ceil(need), 1)
        return history, {Role.DECODE: decode, Role.PREFILL: math.ceil(self.ratio * decode)}


def fixed_ratio(capacity: Capacity, hindsight: Hindsight) -> float:
    """Return prefill replicas a decode replica at which both are fully used."""
    context = hindsight.isl_tokens + 0.5 * hindsight.osl_tokens
    prefill = hindsight.isl_tokens / capacity.prefill_tps(hindsight.isl_tokens)
    decode = hindsight.osl_tokens / capacity.decode_tps(context)
    return prefill / decode
