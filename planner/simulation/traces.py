"""Request traces as values: when requests come and how long they are. Pure."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.errors import TraceError

MINUTE_S: Final = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Requests in order of arrival.

    Attributes
    ----------
    name
        Where it comes from, for reports.
    arrival_s
        float64[request], ascending, from the start of the trace [s].
    isl_tokens, osl_tokens
        int32[request], prompt and output lengths [tokens], ≥ 1.
    cached_tokens
        int32[request], leading prompt tokens that need no computing [tokens], < isl_tokens.
    notes
        What was left out on reading, one sentence each.
    """

    name: str
    arrival_s: NDArray[np.float64]
    isl_tokens: NDArray[np.int32]
    osl_tokens: NDArray[np.int32]
    cached_tokens: NDArray[np.int32]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def duration_s(self) -> float:
        """Time of the last arrival [s]."""
        return float(self.arrival_s[-1])


def make_trace(
    name: str,
    arrival_s: ArrayLike,
    isl_tokens: ArrayLike,
    osl_tokens: ArrayLike,
    cached_tokens: ArrayLike = 0,
    notes: tuple[str, ...] = (),
) -> Trace:
    """Return the trace of these requests, sorted by arrival, the first one at 0 s.

    Raises
    ------
    TraceError
        If there is no request.
    """
    times = np.asarray(arrival_s, dtype=np.float64)
    if times.size == 0:
        raise TraceError(f"{name}: got no requests; legal: 1 or more; give a trace that has some")
    order = np.argsort(times, kind="stable")
    isl, osl, cached = (
        np.broadcast_to(np.asarray(column, dtype=np.int32), times.shape)[order]
        for column in (isl_tokens, osl_tokens, cached_tokens)
    )
    # An engine computes at least the last prompt token, cached or not: it needs its output.
    return Trace(name, times[order] - times[order[0]], isl, osl, np.minimum(cached, isl - 1), notes)


def scale_trace(trace: Trace, copies: int, seed: int = 0) -> Trace:
    """Return `copies` times the traffic with its burstiness kept.

    Copy 0 is the trace itself. Every minute of a further copy is shifted cyclically inside that
    minute by its own random offset, so that bursts of copies need not meet but stay as sharp and
    in their minute; the last, shorter minute turns within its own length.

    Raises
    ------
    TraceError
        If `copies` is below 1.
    """
    if copies < 1:
        raise TraceError(f"scale: got {copies}; legal: whole number >= 1; give 1 for no scaling")
    if copies == 1:
        return trace
    rng = np.random.default_rng([seed, copies])
    minute = (trace.arrival_s // MINUTE_S).astype(np.int64)
    start_s = minute * MINUTE_S
    length_s = np.where(minute == minute[-1], trace.duration_s - start_s[-1], MINUTE_S)
    # A last minute of a single moment can't turn; any length does then.
    length_s = np.where(length_s > 0.0, length_s, 1.0)
    offsets = rng.uniform(0.0, MINUTE_S, (copies - 1, minute[-1] + 1))
    shifted = [start_s + (trace.arrival_s - start_s + o[minute]) % length_s for o in offsets]
    if trace.duration_s == start_s[-1]:
        for times in shifted:
            times[minute == minute[-1]] = trace.duration_s
    times = np.concatenate([trace.arrival_s, *shifted])
    order = np.argsort(times, kind="stable")
    return replace(
        trace,
        name=f"{trace.name} x {copies}",
        arrival_s=times[order],
        isl_tokens=np.tile(trace.isl_tokens, copies)[order],
        osl_tokens=np.tile(trace.osl_tokens, copies)[order],
        cached_tokens=np.tile(trace.cached_tokens, copies)[order],
    )


def clip(trace: Trace, max_isl_tokens: int) -> tuple[Trace, int]:
    """Return the trace without prompts longer than `max_isl_tokens`, and how many those were.

    Times stay as they are, so that a minute of the result is the same minute of the trace.

    Raises
    ------
    TraceError
        If no request is left.
    """
    kept = trace.isl_tokens <= max_isl_tokens
    dropped = int(len(trace) - kept.sum())
    if dropped == len(trace):
        raise TraceError(
            f"{trace.name}: every prompt is above {max_isl_tokens} tokens; legal: at least one "
            "within; raise sla.scope.maxInputTokens"
        )
    return (
        replace(
            trace,
            arrival_s=trace.arrival_s[kept],
            isl_tokens=trace.isl_tokens[kept],
            osl_tokens=trace.osl_tokens[kept],
            cached_tokens=trace.cached_tokens[kept],
        ),
        dropped,
    )
