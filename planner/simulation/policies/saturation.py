"""Scaling on spare KV cache and queue room, one replica at a time, as llm-d's variant autoscaler.

Source: llm-d workload-variant-autoscaler, saturation engine: a replica is saturated at a KV use
of 0.80 or 5 queued requests; one replica more when the mean spare falls below 0.10 or 3; one
fewer when the rest would keep that spare; nothing while replicas start.
"""

from dataclasses import dataclass

from planner.model import Role
from planner.simulation.policies.base import RoleView, View, Wanted

KV_RATIO, QUEUE = 0.80, 5.0
SPARE_KV_RATIO, SPARE_QUEUE = 0.10, 3.0


@dataclass(frozen=True, slots=True)
class Saturation:
    """All four thresholds times `scale`; below 1 it acts earlier."""

    scale: float = 1.0
    interval_s: float = 60.0

    def start(self) -> None:
        """Nothing is remembered."""
        return

    def decide(self, view: View, state: None) -> tuple[None, Wanted]:
        """Return one replica more or fewer, or what runs."""
        return state, {role: self._pool(view.roles[role]) for role in Role}

    def _pool(self, seen: RoleView) -> int:
        if seen.ready < seen.ordered or seen.ready == 0:
            return max(seen.ordered, 1)
        if not self._has_spare(seen, seen.ready):
            return seen.ordered + 1
        # The removal is simulated: the load of all on one replica fewer.
        if seen.ready > 1 and self._has_spare(seen, seen.ready - 1):
            return seen.ordered - 1
        return seen.ordered

    def _has_spare(self, seen: RoleView, replicas: int) -> bool:
        kv_ratio = seen.kv_ratio * seen.ready / replicas
        queue = seen.waiting / replicas
        spare_kv = self.scale * KV_RATIO - kv_ratio
        spare_queue = self.scale * QUEUE - queue
        return spare_kv >= self.scale * SPARE_KV_RATIO and spare_queue >= self.scale * SPARE_QUEUE
