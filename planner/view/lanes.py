"""When each cap and hold was in force: runs of ticks that share a reason. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from planner.model import Reason
from planner.record import TickRecord


@dataclass(frozen=True, slots=True)
class Lane:
    """One reason of one pool, or of the service, and the spans in which it was given [s].

    Each span goes from its first tick to the end of the interval after its last one.
    """

    code: str
    pool: str | None
    is_hold: bool
    spans: tuple[tuple[float, float], ...]
    ticks: int

    @property
    def label(self) -> str:
        """Code and pool, for a person."""
        return self.code if self.pool is None else f"{self.code} · {self.pool}"


def reason_lanes(records: Sequence[TickRecord], interval_s: float) -> tuple[Lane, ...]:
    """Return a lane for every reason and pool, holds first, then by how often it was given."""
    given: dict[tuple[str, str | None], list[float]] = {}
    holds: set[tuple[str, str | None]] = set()
    for record in records:
        decision = record.decision
        reasons: set[tuple[str, str | None]] = {_key(r) for r in decision.reasons}
        if decision.hold is not None:
            holds.add(_key(decision.hold.reason))
            reasons.add(_key(decision.hold.reason))
        for key in reasons:
            given.setdefault(key, []).append(decision.at_s)
    lanes = [
        Lane(code, pool, (code, pool) in holds, _spans(times, interval_s), len(times))
        for (code, pool), times in given.items()
    ]
    return tuple(sorted(lanes, key=lambda lane: (not lane.is_hold, -lane.ticks, lane.label)))


def _key(reason: Reason) -> tuple[str, str | None]:
    return reason.code, reason.pool


def _spans(times: Sequence[float], interval_s: float) -> tuple[tuple[float, float], ...]:
    """Return the runs of ticks that follow each other."""
    runs: list[list[float]] = []
    for at_s in times:
        if runs and at_s - runs[-1][1] <= interval_s * 0.01:
            runs[-1][1] = at_s + interval_s
        else:
            runs.append([at_s, at_s + interval_s])
    return tuple((start_s, end_s) for start_s, end_s in runs)
