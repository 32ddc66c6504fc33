"""Fleets that never change: for the peak of a trace, or any other number."""

import math
from dataclasses import dataclass

from planner.model import Role
from planner.simulation.policies.base import Capacity, Hindsight, View, Wanted


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same replicas at all times, ordered at the first tick."""

    replicas: Wanted
    interval_s: float = 60.0

    def start(self) -> None:
        """Nothing is remembered."""
        return

    def decide(self, view: View, state: None) -> tuple[None, Wanted]:  # noqa: ARG002 - the protocol
        """Return the same replicas."""
        return state, self.replicas


def peak_fleet(capacity: Capacity, hindsight: Hindsight, headroom: float) -> Fixed:
    """Return the fleet that carries the busiest minute at full use, times `headroom`."""
    context = hindsight.isl_tokens + 0.5 * hindsight.osl_tokens
    full_tps = {
        Role.PREFILL: capacity.prefill_tps(hindsight.isl_tokens),
        Role.DECODE: capacity.decode_tps(context),
    }
    return Fixed({
        role: math.ceil(headroom * hindsight.peak_tps[role] / full_tps[role]) for role in Role
    })
