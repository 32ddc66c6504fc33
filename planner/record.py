"""One tick as one JSON line: audit trail, `explain`, golden tests, the page. Pure."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from planner.model import Decision, ServiceKey, Sla

SCHEMA_VERSION = 1

# Places kept of a number in the record: enough to replay a decision by eye, not noise.
PLACES = 6


@dataclass(frozen=True, slots=True)
class TickRecord:
    """What one service's tick saw, decided and did.

    Attributes
    ----------
    service
        Whose tick.
    decision
        The decision with everything it rests on.
    applied
        Whether its patch was written; None where there was nothing to write.
    error
        Why it was not, one line.
    sla
        What was asked, so that the record explains itself.
    """

    service: ServiceKey
    decision: Decision
    applied: bool | None = None
    error: str | None = None
    sla: Sla | None = None

    @property
    def sentence(self) -> str:
        """The tick in one sentence for a person."""
        decision = self.decision
        moves = any(pool.current != pool.desired for pool in decision.pools.values())
        if decision.hold is not None and not moves:
            return decision.hold.reason.message
        steps = [
            f"{name} {pool.current}→{pool.desired}"
            if pool.current != pool.desired
            else f"{name} stays at {pool.current}"
            for name, pool in decision.pools.items()
        ]
        first = next(iter(decision.reasons), None)
        moved = [n for n, pool in decision.pools.items() if pool.current != pool.desired]
        why = self.why(moved) if moved else first.message if first is not None else ""
        return ", ".join(steps) + (f": {why}" if why else "")

    @property
    def is_check(self) -> bool:
        """Whether it is an order between two ticks: it saw queues alone, and no interval."""
        return any(reason.code == "QueueGrowing" for reason in self.decision.reasons)

    def why(self, pools: Sequence[str]) -> str:
        """Return in words why pools move: what caps them, else what they need; empty: unknown."""
        decision = self.decision
        if decision.hold is not None:  # a hold that moves is a fallback
            told = [r for r in decision.reasons if r.code == "Fallback"]
        else:
            # What is kept although the plan needs less is no reason for what moves.
            told = [r for r in decision.reasons if r.code != "KeptForForecast"]
        for reason in told:
            if reason.pool is None or reason.pool in pools:
                return reason.message
        planned = {} if decision.plan is None else decision.plan.pools
        needs = [f"{planned[name].wanted} of {name}" for name in pools if name in planned]
        return f"the load to come needs {' and '.join(needs)}" if needs else ""

    def to_json(self) -> str:
        """Return the record as one JSON line without its end."""
        return json.dumps(self.to_dict(), separators=(",", ":"), allow_nan=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain JSON values."""
        decision = asdict(self.decision)
        observation = decision.get("observation")
        if observation is not None:  # raw buckets and bins are evidence, not explanation
            for bulky in ("prompts", "outputs", "arrival_bins"):
                observation.pop(bulky)
        return {
            "schemaVersion": SCHEMA_VERSION,
            "namespace": self.service.namespace,
            "name": self.service.name,
            "applied": self.applied,
            "error": self.error,
            "sentence": self.sentence,
            "sla": None if self.sla is None else _plain(asdict(self.sla)),
            **_plain(decision),
        }


def _plain(value: Any) -> Any:
    """Return JSON values: enums as text, numbers rounded, what is not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return round(value, PLACES) if math.isfinite(value) else None
    return str(value)
