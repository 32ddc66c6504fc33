"""One pool alone under known arrivals, compiled: what a number of replicas would have served.

The plant's own rules without orders, noise of its own or the other role, so that thousands of
small runs take seconds. All compiled code of the oracles is in this one file, as numba's cache
sees changes of a caller's own file only; constants and `compiled` are the plant's.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.simulation.kernel import NEVER, NOBODY, compiled

BATCH: Final = np.dtype([
    ("active", "i8"), ("fresh", "i8"), ("pending", "i8"), ("pending_tokens", "i8"),
    ("step", "i8"), ("first_finish_step", "i8"), ("context_tokens", "i8"),
    ("reserved_tokens", "i8"), ("opened_s", "f8"), ("next_s", "f8"),
], align=True)  # fmt: skip
LIMITS: Final = np.dtype([
    ("max_sequences", "i8"), ("kv_capacity_tokens", "i8"), ("context_step_tokens", "f8"),
])  # fmt: skip


@compiled
def serve_prompts(
    arrival_s: NDArray[np.float64],
    tokens: NDArray[np.int32],
    work_s: NDArray[np.float64],
    replicas: int,
) -> NDArray[np.float64]:
    """Return when each prompt is done [s], float64[request].

    A prompt goes to the replica with the fewest outstanding tokens and waits its turn there, so
    that its end is known on arrival.

    Parameters
    ----------
    arrival_s, tokens, work_s
        Arrivals in order [s], computed prompt tokens, prefill times [s].
    replicas
        At least 1, ready throughout.
    """
    done_s = np.empty(len(arrival_s))
    following = np.full(len(arrival_s), NOBODY)
    first, last = np.full(replicas, NOBODY), np.full(replicas, NOBODY)
    outstanding = np.zeros(replicas, np.int64)
    for i in range(len(arrival_s)):
        best = 0
        for r in range(replicas):
            while first[r] != NOBODY and done_s[first[r]] <= arrival_s[i]:
                outstanding[r] -= tokens[first[r]]
                first[r] = following[first[r]]
            if outstanding[r] < outstanding[best]:
                best = r
        begin_s = arrival_s[i]
        if first[best] == NOBODY:
            first[best] = i
        else:
            begin_s = done_s[last[best]]
            following[last[best]] = i
        last[best] = i
        outstanding[best] += tokens[i]
        done_s[i] = begin_s + work_s[i]
    return done_s


class Decoding(NamedTuple):
    """A decode pool at work.

    Attributes
    ----------
    ready_s, isl_tokens, osl_tokens
        [request], in order of readiness: KV is there [s], lengths [tokens].
    first_token_s, last_token_s, gaps
        [request], what comes out: moments [s], nan where it has not come to that, and the gaps
        between them, those so far of a sequence that is cut off.
    finish_step
        int64[request], the step of its replica at which it ends.
    batches, members
        BATCH[replica] and int64[replica, sequence], the requests in each in order of joining.
    itl_s
        float64[sequences, context step], time of a step [s].
    limits
        One record.
    """

    ready_s: NDArray[np.float64]
    isl_tokens: NDArray[np.int32]
    osl_tokens: NDArray[np.int32]
    first_token_s: NDArray[np.float64]
    last_token_s: NDArray[np.float64]
    gaps: NDArray[np.int64]
    finish_step: NDArray[np.int64]
    batches: NDArray[Any]
    members: NDArray[np.int64]
    itl_s: NDArray[np.float64]
    limits: NDArray[Any]


def decoding(
    ready_s: NDArray[np.float64],
    isl_tokens: NDArray[np.int32],
    osl_tokens: NDArray[np.int32],
    replicas: int,
    itl_s: NDArray[np.float64],
    limits: NDArray[Any],
) -> Decoding:
    """Return an idle pool of that many replicas before its first request."""
    batches = np.zeros(replicas, BATCH)
    batches["next_s"] = np.inf
    batches["opened_s"] = -np.inf
    batches["first_finish_step"] = NEVER
    room = int(limits[0]["max_sequences"])
    nothing = np.full(len(ready_s), np.nan)
    return Decoding(
        ready_s,
        isl_tokens,
        osl_tokens,
        nothing,
        nothing.copy(),
        osl_tokens.astype(np.int64) - 1,
        np.full(len(ready_s), NEVER),
        batches,
        np.zeros((replicas, room), np.int64),
        itl_s,
        limits,
    )


@compiled
def serve_sequences(s: Decoding, until_s: float) -> None:
    """Play all arrivals and steps up to `until_s` [s], then cut off what still runs."""
    arrived, admitted = 0, 0
    while True:
        slot = 0
        for i in range(1, len(s.batches)):
            if s.batches[i].next_s < s.batches[slot].next_s:
                slot = i
        arrival_s = s.ready_s[arrived] if arrived < len(s.ready_s) else np.inf
        t = min(s.batches[slot].next_s, arrival_s)
        if t > until_s or t == np.inf:
            cut_off(s)
            return
        if t == s.batches[slot].next_s:
            close_step(s, slot, t)
            open_step(s, slot, t)
        else:
            arrived += 1
        while admitted < arrived:
            slot = least_used(s, admitted)
            if slot == NOBODY:
                break
            join(s, slot, admitted, t)
            admitted += 1


@compiled
def cut_off(s: Decoding) -> None:
    """Book running sequences as if their latest token were the last."""
    for slot in range(len(s.batches)):
        b = s.batches[slot]
        for i in range(b.active - b.fresh):
            request = s.members[slot, i]
            s.last_token_s[request] = b.opened_s
            s.gaps[request] -= s.finish_step[request] - b.step


@compiled
def least_used(s: Decoding, request: int) -> int:
    """Return the replica with room that has the fewest KV tokens in use, NOBODY if none has."""
    wanted = s.isl_tokens[request] + s.osl_tokens[request]
    limits = s.limits[0]
    best, least = NOBODY, NEVER
    for i in range(len(s.batches)):
        b = s.batches[i]
        is_full = b.active + b.pending >= limits.max_sequences
        if is_full or b.reserved_tokens + wanted > limits.kv_capacity_tokens:
            continue
        if b.context_tokens + b.pending_tokens < least:
            best, least = i, b.context_tokens + b.pending_tokens
    return best


@compiled
def join(s: Decoding, slot: int, request: int, t: float) -> None:
    """Let a sequence in at the next step, which is now if none is under way."""
    b = s.batches[slot]
    s.members[slot, b.active + b.pending] = request
    b.pending += 1
    b.pending_tokens += s.isl_tokens[request]
    b.reserved_tokens += s.isl_tokens[request] + s.osl_tokens[request]
    if b.active == 0 or t <= b.opened_s:
        open_step(s, slot, t)


@compiled
def open_step(s: Decoding, slot: int, t: float) -> None:
    """Take in who waits and start a step of the batch."""
    b = s.batches[slot]
    for i in range(b.active, b.active + b.pending):
        request = s.members[slot, i]
        s.finish_step[request] = b.step + s.osl_tokens[request]
        b.first_finish_step = min(b.first_finish_step, s.finish_step[request])
    b.context_tokens += b.pending_tokens
    b.active += b.pending
    b.fresh += b.pending
    b.pending = 0
    b.pending_tokens = 0
    b.opened_s = t
    if b.active == 0:
        b.next_s = np.inf
        return
    position = b.context_tokens / b.active / s.limits[0].context_step_tokens
    i = min(int(position), s.itl_s.shape[1] - 2)
    low, high = s.itl_s[b.active, i], s.itl_s[b.active, i + 1]
    b.next_s = t + low + (high - low) * (position - i)


@compiled
def close_step(s: Decoding, slot: int, t: float) -> None:
    """End a step: every sequence has one token more, those that are complete leave."""
    b = s.batches[slot]
    b.step += 1
    b.context_tokens += b.active
    for i in range(b.active - b.fresh, b.active):
        s.first_token_s[s.members[slot, i]] = t
    b.fresh = 0
    if b.step < b.first_finish_step:
        return
    kept = 0
    b.first_finish_step = NEVER
    for i in range(b.active + b.pending):
        request = s.members[slot, i]
        if i < b.active and s.finish_step[request] <= b.step:
            s.last_token_s[request] = t
            b.context_tokens -= s.isl_tokens[request] + s.osl_tokens[request]
            b.reserved_tokens -= s.isl_tokens[request] + s.osl_tokens[request]
            continue
        if i < b.active:
            b.first_finish_step = min(b.first_finish_step, s.finish_step[request])
        s.members[slot, kept] = request
        kept += 1
    b.active = kept - b.pending
