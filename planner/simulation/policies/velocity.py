"""Token velocity: the rate at which tokens arrive over the rate at which a stage passes them on.

Source: TokenScale (arXiv 2512.03416). Prefill passes prompts on at its profiled tokens/s; decode
lets go of a sequence's ISL + OSL tokens when it ends. Its convertible decoders are left out: the
plant's replicas keep their role. A release waits a minute, as no delay is published.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from planner.model import Role
from planner.simulation.policies.base import Capacity, View, Wanted
from planner.simulation.policies.windows import History, highest, noted

HOLD_S = 60.0


@dataclass(frozen=True, slots=True)
class TokenVelocity:
    """Replicas for the arrivals of the last scrape, times `headroom`."""

    capacity: Capacity
    headroom: float = 1.0
    interval_s: float = 15.0

    def start(self) -> Mapping[Role, History]:
        """Return empty windows."""
        return dict.fromkeys(Role, ())

    def decide(
        self, view: View, state: Mapping[Role, History]
    ) -> tuple[Mapping[Role, History], Wanted]:
        """Return the highest need of the last minute."""
        together = view.isl_tokens + view.osl_tokens
        released_tps = self.capacity.decode_tps(view.context_tokens) * together / view.osl_tokens
        need = {
            Role.PREFILL: view.rps * view.isl_tokens / self.capacity.prefill_tps(view.isl_tokens),
            Role.DECODE: view.rps * together / released_tps,
        }
        windows = {
            role: noted(state[role], view.at_s, math.ceil(self.headroom * need[role]), HOLD_S)
            for role in Role
        }
        return windows, {role: int(highest(windows[role])) for role in Role}
