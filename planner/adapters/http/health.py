"""Whether the process is alive and ready, judged by the ticks that were finished.

A liveness probe restarts what hangs, so that only the planner's own standstill counts there; a
Prometheus or API server that is away is no reason to restart, but one not to be ready.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from planner.model import Service, ServiceKey
from planner.record import TickRecord
from planner.view.notation import span

# A tick may be late by so many intervals and this long besides [s]; the first one comes after
# the past was replayed.
LATE_INTERVALS, SLACK_S, FIRST_WITHIN_S = 3, 30.0, 900.0

# Ticks in a row without Prometheus or the API server after which the process is not ready.
BLIND_TICKS: Final = 3

BLIND: Final = {
    "MetricsUnavailable": "Prometheus",
    "ClusterUnavailable": "the Kubernetes API server",
}
"""What is away when a tick holds for a reason."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """When a service's last tick ended, None before the first, and since when it is blind.

    `blind` counts the ticks in a row on which `away` could not be read; `message` says why.
    """

    interval_s: float
    since_s: float
    ticked_s: float | None = None
    away: str | None = None
    blind: int = 0
    message: str = ""


class Health:
    """Follows the ticks of the services given.

    Parameters
    ----------
    services
        Which are to tick.
    elapsed_s
        Time since any fixed moment [s], of a clock that nobody sets.
    """

    def __init__(self, services: Sequence[Service], elapsed_s: Callable[[], float]) -> None:
        self._lock = threading.Lock()
        self._elapsed_s = elapsed_s
        self._is_leader = True
        self._pulses: dict[ServiceKey, Pulse] = {}
        self.follow(services)

    def follow(self, services: Sequence[Service]) -> None:
        """Expect ticks of these services from now on."""
        now_s = self._elapsed_s()
        with self._lock:
            old = self._pulses
            self._pulses = {
                s.key: replace(old.get(s.key, Pulse(s.interval_s, now_s)), interval_s=s.interval_s)
                for s in services
            }

    def record(self, tick: TickRecord) -> None:
        """Take one tick; an order between two of them says nothing of Prometheus."""
        if tick.is_check:
            return
        now_s, hold = self._elapsed_s(), tick.decision.hold
        away = BLIND.get(hold.reason.code) if hold is not None else None
        with self._lock:
            pulse = self._pulses.get(tick.service)
            if pulse is not None:
                self._pulses[tick.service] = replace(
                    pulse,
                    ticked_s=now_s,
                    away=away,
                    blind=pulse.blind + 1 if away else 0,
                    message=hold.reason.message if away and hold else "",
                )

    def lead(self, *, is_leader: bool) -> None:
        """Note whether this process decides: one that stands by need not tick."""
        now_s = self._elapsed_s()
        with self._lock:
            self._is_leader = is_leader
            if is_leader:  # the time it stood by is no delay
                self._pulses = {
                    key: Pulse(pulse.interval_s, now_s) for key, pulse in self._pulses.items()
                }

    def faults_of_life(self) -> tuple[str, ...]:
        """Return why the loop is taken for dead, a line each; nothing while it lives."""
        now_s = self._elapsed_s()
        with self._lock:
            pulses = self._pulses if self._is_leader else {}
            late = {key: _late(pulse, now_s) for key, pulse in pulses.items()}
        return tuple(f"{key}: {why}" for key, why in late.items() if why)

    def faults_of_readiness(self) -> tuple[str, ...]:
        """Return why the process is not ready, a line each; nothing when it is."""
        with self._lock:
            pulses = self._pulses if self._is_leader else {}
        waiting = [str(key) for key, pulse in pulses.items() if pulse.ticked_s is None]
        if waiting:
            return (f"{len(waiting)} of {len(pulses)} services have not ticked yet: {waiting[0]}",)
        # One service without metrics is its own affair; all of them are a source that is away.
        if pulses and all(pulse.blind >= BLIND_TICKS for pulse in pulses.values()):
            told = {p.away: f"no answer from {p.away}: {p.message}" for p in pulses.values()}
            return tuple(told.values())
        return ()


def _late(pulse: Pulse, now_s: float) -> str | None:
    """Return in words how late a tick is, None if it is not."""
    if pulse.ticked_s is None:
        waited_s = now_s - pulse.since_s
        if waited_s <= FIRST_WITHIN_S:
            return None
        return f"no tick in {span(waited_s)}; legal: the first within {span(FIRST_WITHIN_S)}"
    waited_s, legal_s = now_s - pulse.ticked_s, LATE_INTERVALS * pulse.interval_s + SLACK_S
    if waited_s <= legal_s:
        return None
    return f"the last tick was {span(waited_s)} ago; legal: {span(legal_s)}"
