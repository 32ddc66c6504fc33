"""Back-pressure of queues: the predicted time to drain one over what the SLO leaves for it.

Source: the idea of Chiron (arXiv 2501.08090): predict how long a queue takes from its length and
the profiled throughput, set that against the SLO, and add instances while it is longer. Its batch
requests and the batch sizes of its instances are left out: all requests here are interactive, and
an engine chooses its batches itself. A release waits a minute, as no delay is published.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from planner.model import Role
from planner.simulation.policies.base import Capacity, View, Wanted
from planner.simulation.policies.windows import History, highest, noted

HOLD_S = 60.0


@dataclass(frozen=True, slots=True)
class DrainTime:
    """Replicas at which back-pressure is 1 / `headroom`."""

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
        need = {role: self.headroom * self._pressure_of_one(role, view) for role in Role}
        windows = {
            role: noted(state[role], view.at_s, math.ceil(need[role] - 1e-9), HOLD_S)
            for role in Role
        }
        return windows, {role: int(highest(windows[role])) for role in Role}

    def _pressure_of_one(self, role: Role, view: View) -> float:
        """Return the back-pressure that one replica would have: n have an n-th of it.

        A request that waits, for its prompt to be computed or for room among the sequences, waits
        at the cost of its TTFT.
        """
        if role is Role.PREFILL:
            tokens, tps = view.isl_tokens, self.capacity.prefill_tps(view.isl_tokens)
        else:
            tokens, tps = view.osl_tokens, self.capacity.decode_tps(view.context_tokens)
        return back_pressure(
            view.roles[role].waiting * tokens, view.rps * tokens, tps, self.capacity.ttft_s
        )


def back_pressure(queued_tokens: float, arriving_tps: float, tps: float, slo_s: float) -> float:
    """Return the time to pass on what waits and what arrives meanwhile, over the SLO.

    Parameters
    ----------
    queued_tokens
        Tokens of the requests that wait.
    arriving_tps
        Tokens that arrive [tokens/s].
    tps
        Tokens that are passed on [tokens/s].
    slo_s
        Time within which the queue should be drained [s]; what arrives during it is counted.

    Examples
    --------
    500 tokens wait and 200 more arrive within the SLO, which at 1,000 tokens/s takes 0.7 s:

    >>> back_pressure(500.0, 400.0, 1000.0, 0.5)
    1.4
    """
    return (queued_tokens + arriving_tps * slo_s) / tps / slo_s
