"""The rows of a report's table of decisions. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from planner.record import TickRecord

ROWS_MAX: Final = 2000
"""Past this a browser gets slow, and nobody scrolls."""


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """One decision: `kind` is ``hold``, ``change``, ``cap`` or ``quiet``; reasons as code, text."""

    at_s: float
    kind: str
    sentence: str
    reasons: tuple[tuple[str, str], ...]


def decision_rows(records: Sequence[TickRecord]) -> tuple[tuple[DecisionRow, ...], int]:
    """Return the rows in order of time, and how many quiet ones were left out to keep it short."""
    rows = [_row(record) for record in records]
    excess = len(rows) - ROWS_MAX
    if excess <= 0:
        return tuple(rows), 0
    # Changes and holds tell the story; ticks on which nothing happened go first.
    order = sorted(range(len(rows)), key=lambda i: ("quiet", "cap").index(rows[i].kind)
                   if rows[i].kind in {"quiet", "cap"} else 2)  # fmt: skip
    dropped = set(order[:excess])
    return tuple(row for i, row in enumerate(rows) if i not in dropped), excess


def _row(record: TickRecord) -> DecisionRow:
    decision = record.decision
    reasons = [(r.code, r.message) for r in decision.reasons]
    if record.error is not None:
        reasons.insert(0, ("PatchRefused", record.error))
    changes = any(pool.desired != pool.current for pool in decision.pools.values())
    if decision.hold is not None:
        sentence = "rises to the fallback" if changes else "keeps what runs"
        return DecisionRow(decision.at_s, "hold", sentence, tuple(reasons))
    kind = "change" if changes else "cap" if reasons else "quiet"
    first = f": {decision.reasons[0].message}" if decision.reasons else ""
    # The reasons stand in their own column.
    return DecisionRow(decision.at_s, kind, record.sentence.removesuffix(first), tuple(reasons))
