"""One round of requests: whether all ran together, and which of two clocks to believe. Pure.

The engine stamps tokens where it makes them; the client sees when they arrive, which is what users
see, but also whatever holds its own process up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from planner.profiling.timings import (
    Counters,
    Timing,
    most_together,
    sample_itl_s,
    steady_ratio,
)

STEADY_LEAST: Final = 0.25
"""Of the shortest request's decode: a shorter time with all together is no measurement."""

DECODE_LEAST_S: Final = 0.5
"""A shorter decode [s] is at the mercy of one delay of the client."""

QUEUED_LEAST: Final = 0.5
"""Waiting that amounts to this part of a request's decode: the scheduler did not admit all."""

AGREEMENT: Final = 2.0
"""Client and engine further apart than by this factor: something held the client up."""


@dataclass(frozen=True, slots=True)
class Round:
    """Requests that were sent at once, and what the engine counted of them, if it counts."""

    timings: Sequence[Timing]
    counted: Counters | None

    @property
    def is_steady(self) -> bool:
        """Whether all decoded together for long enough."""
        return steady_ratio(self.timings) >= STEADY_LEAST and self.decode_s >= DECODE_LEAST_S

    @property
    def decode_s(self) -> float:
        """The shortest request's time from its first to its last token at the client [s]."""
        return min(t.events_s[-1] - t.events_s[0] for t in self.timings)

    @property
    def ran(self) -> int:
        """How many ran together, as far as the engine admitted fewer than were sent.

        Notes
        -----
        Requests that start one after the other look alike to the client, whether they waited for a
        free place, for the prefill of others or for its own slowness. Only the engine's queue
        tells, and not where prompts are computed, for which they queue too.
        """
        if self.decode_s <= 0.0 or steady_ratio(self.timings) >= STEADY_LEAST:
            return len(self.timings)
        if self.counted is not None:
            life_s = self.counted.itl_sum_s / max(self.counted.ttft_count, 1.0)
            waited = self.counted.queued_s >= QUEUED_LEAST * life_s
            if not waited or (self.counted.computed_ratio or 0.0) > 0.5:
                return len(self.timings)
        return most_together(self.timings)

    @property
    def itl_s(self) -> float | None:
        """Mean inter-token latency as the client saw it [s]; None if its stamps tell nothing."""
        found_s = sample_itl_s(self.timings)
        if found_s is None or found_s <= 0.0:
            return None
        return found_s if _agree(found_s, self.server_itl_s) else None

    @property
    def server_itl_s(self) -> float | None:
        """The engine's own mean over all tokens of the round [s]."""
        return None if self.counted is None else self.counted.itl_s

    @property
    def ttft_s(self) -> float | None:
        """Mean time to first token as the client saw it [s]; None if it was held up.

        Where the engine answered others meanwhile its mean does not tell.
        """
        found_s = fmean(each.ttft_s for each in self.timings)
        with_others = self.counted is not None and self.counted.ttft_count > len(self.timings)
        return found_s if with_others or _agree(found_s, self.server_ttft_s) else None

    @property
    def server_ttft_s(self) -> float | None:
        """The engine's own mean [s]."""
        return None if self.counted is None else self.counted.ttft_s


def _agree(client_s: float, server_s: float | None) -> bool:
    if not server_s:
        return True
    return 1.0 / AGREEMENT <= client_s / server_s <= AGREEMENT
