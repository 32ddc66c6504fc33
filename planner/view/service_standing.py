"""How a service stands after its last tick: one word for a list, and how bad it is. Pure."""

from dataclasses import dataclass
from typing import Final

from planner.model import Decision, Mode, Service
from planner.record import TickRecord

LIMITS: Final = ("CapacityShortage", "TooManyReplicas", "LimitedByBudget", "RatioBound")
"""Reasons for which a service has less than it needs."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A word, and its kind: ``missed`` (act), ``limited`` (look), ``met`` or ``quiet``."""

    word: str
    kind: str

    @property
    def rank(self) -> int:
        """Place in a list that begins with what needs somebody."""
        return ("missed", "limited", "quiet", "met").index(self.kind)


def standing(service: Service, record: TickRecord | None) -> Standing:
    """Return how a service stands; the worst that applies."""
    if service.mode is Mode.OFF:
        return Standing("off", "quiet")
    if record is None:
        return Standing("no decision yet", "quiet")
    return _trouble(record) or _verdict(service, record.decision)


def _trouble(record: TickRecord) -> Standing | None:
    """Return why there is no plan that can be followed, None if there is one."""
    hold = record.decision.hold
    if record.error is not None:
        return Standing("order refused", "missed")
    if hold is not None and hold.reason.code == "WarmingUp":
        return Standing("warming up", "quiet")
    if hold is not None:
        return Standing("holding", "missed")
    if any(reason.code == "SLAUnreachable" for reason in record.decision.reasons):
        return Standing("SLA out of reach", "missed")
    return None


def _verdict(service: Service, decision: Decision) -> Standing:
    """Return how the SLA was met; it is missed where even the bound from above tells so."""
    if any(reason.code == "QueueGrowing" for reason in decision.reasons):
        return Standing("queue growing", "limited")
    seen, asked = decision.observation, service.sla.attainment_ratio
    shares = [s for s in (seen.ttft, seen.itl) if s is not None] if seen else []
    if any(share.upper < asked for share in shares):
        return Standing("SLA missed", "missed")
    if any(reason.code in LIMITS for reason in decision.reasons):
        return Standing("limited", "limited")
    if any(share.lower < asked for share in shares):
        return Standing("close to target", "limited")
    return Standing("on target", "met") if shares else Standing("no requests", "quiet")
