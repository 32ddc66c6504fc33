"""The plant's clockwork, compiled: events of requests and replicas, nothing else.

Arrival → prefill queue → service → KV transfer → decode queue → lock-step decoding → done. Between
events a decode replica's progress is arithmetic. `advance` is the one entry; all state is in the
arrays of `State`, so that where a run is chopped into calls changes nothing. All compiled code
and its constants are in this one file: numba's cache sees changes of a caller's own file only.
"""

import math
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from planner.simulation.records import State

PREFILL: Final = 0
DECODE: Final = 1

STARTING: Final = 0
READY: Final = 1
DRAINING: Final = 2
GONE: Final = 3

UNFINISHED: Final = 0
SERVED: Final = 1
REFUSED: Final = 2

NOBODY: Final = -1
PROMPTS: Final = 0  # central queue: prompts for which no prefill replica is ready
SEQUENCES: Final = 1  # central queue: sequences for which no decode replica has room
OWN: Final = 2  # queue OWN + slot is that replica's
NEVER: Final = np.iinfo(np.int64).max

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function compiled on its first call, from the cache if it is there."""
    return cast("Callable[P, R]", njit(cache=True, nogil=True, error_model="numpy")(function))


@compiled
def bucket(bounds: NDArray[np.float64], value: float) -> int:
    """Return the index of the first upper bound at or above `value`, their number if none is."""
    low, high = 0, len(bounds)
    while low < high:
        middle = (low + high) // 2
        if bounds[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def push(s: State, queue: int, request: int) -> None:
    """Append a request to a FIFO queue, linked through the requests themselves."""
    q = s.queues[queue]
    s.requests[request].next = NOBODY
    if q.length == 0:
        q.head = request
    else:
        s.requests[q.tail].next = request
    q.tail = request
    q.length += 1


@compiled
def pop(s: State, queue: int) -> int:
    """Take the oldest request of a queue, NOBODY if it is empty."""
    q = s.queues[queue]
    if q.length == 0:
        return NOBODY
    request = q.head
    q.head = s.requests[request].next
    q.length -= 1
    return int(request)


@compiled
def send(s: State, request: int, at_s: float) -> None:
    """Start a KV transfer that ends at `at_s`."""
    i = s.clock[0].transfers
    s.clock[0].transfers += 1
    while i > 0 and s.heap[(i - 1) // 2].at_s > at_s:
        parent = (i - 1) // 2
        s.heap[i].at_s = s.heap[parent].at_s
        s.heap[i].request = s.heap[parent].request
        i = parent
    s.heap[i].at_s = at_s
    s.heap[i].request = request


@compiled
def receive(s: State) -> int:
    """Take the request whose KV transfer ends first."""
    request = int(s.heap[0].request)
    s.clock[0].transfers -= 1
    size = s.clock[0].transfers
    at_s, moved = s.heap[size].at_s, s.heap[size].request
    i = 0
    while 2 * i + 1 < size:
        child = 2 * i + 1
        if child + 1 < size and s.heap[child + 1].at_s < s.heap[child].at_s:
            child += 1
        if s.heap[child].at_s >= at_s:
            break
        s.heap[i].at_s = s.heap[child].at_s
        s.heap[i].request = s.heap[child].request
        i = child
    s.heap[i].at_s = at_s
    s.heap[i].request = moved
    return request


@compiled
def release_if_drained(s: State, slot: int, t: float) -> None:
    """Let a draining replica go once it has nothing left to do."""
    r = s.replicas[slot]
    idle = r.running == NOBODY and r.active == 0 and r.pending == 0
    if r.state == DRAINING and idle:
        r.state = GONE
        r.released_s = t
        s.next_s[slot] = np.inf


# ── prefill ──────────────────────────────────────────────────────────────────────────────────────


@compiled
def pick_prefill(s: State) -> int:
    """Return the ready prefill replica with the fewest outstanding tokens; shared: an idle one."""
    best, fewest = NOBODY, NEVER
    for slot in range(len(s.replicas)):
        r = s.replicas[slot]
        if r.state != READY or s.pools[r.pool].role != PREFILL:
            continue
        if s.rules[0].shared_prefill and r.running != NOBODY:
            continue
        if r.outstanding_tokens < fewest:
            best, fewest = slot, r.outstanding_tokens
    return best


@compiled
def route_prompt(s: State, request: int, t: float) -> None:
    """Hand a prompt to a prefill replica, or keep it centrally while there is none for it."""
    slot = pick_prefill(s)
    if slot == NOBODY:
        push(s, PROMPTS, request)
        return
    s.replicas[slot].outstanding_tokens += s.requests[request].computed_tokens
    if s.replicas[slot].running == NOBODY:
        start_prompt(s, slot, request, t)
    else:
        push(s, OWN + slot, request)


@compiled
def start_prompt(s: State, slot: int, request: int, t: float) -> None:
    """Begin the prefill of one prompt."""
    r, q = s.replicas[slot], s.requests[request]
    r.running = request
    r.started_s = t
    s.next_s[slot] = t + s.prefill_s[s.pools[r.pool].table, q.computed_tokens] * q.noise


@compiled
def finish_prompt(s: State, slot: int, t: float) -> None:
    """Count a prompt that is done, send its KV off and go on to the next."""
    r = s.replicas[slot]
    request = r.running
    q = s.requests[request]
    q.prefilled_s = t
    ttft_s = t - q.arrival_s
    r.finished += 1
    r.work_tokens += q.computed_tokens
    r.outstanding_tokens -= q.computed_tokens
    r.length_sum += q.isl_tokens
    s.length_counts[slot, bucket(s.length_bounds, float(q.isl_tokens))] += 1
    r.latency_sum += ttft_s
    s.latency_counts[slot, bucket(s.latency_bounds[PREFILL], ttft_s)] += 1
    r.service_count += 1
    r.service_sum += t - r.started_s
    rules = s.rules[0]
    send(s, request, t + rules.transfer_s_per_token * q.isl_tokens + rules.transfer_latency_s)
    r.running = NOBODY
    s.next_s[slot] = np.inf
    following = pop(s, OWN + slot)
    if following == NOBODY and rules.shared_prefill and r.state == READY:
        following = pop(s, PROMPTS)
        if following != NOBODY:
            r.outstanding_tokens += s.requests[following].computed_tokens
    if following != NOBODY:
        start_prompt(s, slot, following, t)
    else:
        release_if_drained(s, slot, t)


# ── decode ───────────────────────────────────────────────────────────────────────────────────────


@compiled
def steps_done(s: State, slot: int, t: float) -> float:
    """Return the steps since the segment began, with the part of the one under way."""
    r = s.replicas[slot]
    elapsed_s = t - r.segment_s
    if r.active == 0 or elapsed_s <= 0.0:
        return 0.0
    # The root of step_s j + growth_s j² = elapsed in the form that stands growth_s = 0.
    root_s = math.sqrt(max(r.step_s * r.step_s + 4.0 * r.growth_s * elapsed_s, 0.0))
    return float(2.0 * elapsed_s / (r.step_s + root_s))


@compiled
def interpolate_itl(s: State, pool: int, sequences: int, context_tokens: float) -> float:
    """Return the time of a decode step [s], linear between the table's contexts."""
    position = context_tokens / s.rules[0].context_step_tokens
    i = min(int(position), s.itl_s.shape[2] - 2)
    table = s.pools[pool].table
    low, high = s.itl_s[table, sequences, i], s.itl_s[table, sequences, i + 1]
    return float(low + (high - low) * (position - i))


@compiled
def pick_decode(s: State, request: int, t: float) -> int:
    """Return the ready decode replica with room that is least used, NOBODY if none has room."""
    q = s.requests[request]
    best, least = NOBODY, np.inf
    for slot in range(len(s.replicas)):
        r = s.replicas[slot]
        pool = s.pools[r.pool]
        if r.state != READY or pool.role != DECODE:
            continue
        if r.active + r.pending >= pool.max_sequences:
            continue
        if r.reserved_tokens + q.isl_tokens + q.osl_tokens > pool.kv_capacity_tokens:
            continue
        if s.rules[0].fewest_sequences:
            use = float(r.active + r.pending)
        else:
            use = r.context_tokens + r.pending_tokens + r.active * steps_done(s, slot, t)
        if use < least:
            best, least = slot, use
    return best


@compiled
def admit(s: State, slot: int, request: int, t: float) -> None:
    """Let a sequence join a decode replica at its next step boundary."""
    r, q = s.replicas[slot], s.requests[request]
    s.members[slot, r.active + r.pending].request = request
    r.pending += 1
    r.pending_tokens += q.isl_tokens
    r.reserved_tokens += q.isl_tokens + q.osl_tokens
    if r.active == 0 or t <= r.segment_s:
        open_segment(s, slot, t)
        return
    # 1e-9 of a step: a boundary that rounding puts just behind us is this one.
    steps = max(1, math.ceil(steps_done(s, slot, t) - 1e-9))
    if steps < r.segment_steps:
        r.segment_steps = steps
        s.next_s[slot] = max(r.segment_s + steps * (r.step_s + steps * r.growth_s), t)


@compiled
def open_segment(s: State, slot: int, t: float) -> None:
    """Join whoever waits and plan the steps until the batch next changes."""
    r = s.replicas[slot]
    for i in range(r.active, r.active + r.pending):
        member = s.members[slot, i]
        q = s.requests[member.request]
        member.finish_step = r.step + q.osl_tokens
        r.first_finish_step = min(r.first_finish_step, member.finish_step)
        r.context_tokens += q.isl_tokens
    r.active += r.pending
    r.fresh += r.pending
    r.pending = 0
    r.pending_tokens = 0
    r.segment_s = t
    if r.active == 0:
        r.first_finish_step = NEVER
        s.next_s[slot] = np.inf
        return
    # Every context grows by one a step: ITL at both ends of the segment makes its mid-point rule.
    planned = r.first_finish_step - r.step
    context = r.context_tokens / r.active
    r.step_s = interpolate_itl(s, r.pool, r.active, context)
    last_s = interpolate_itl(s, r.pool, r.active, context + planned)
    r.growth_s = (last_s - r.step_s) / (2.0 * planned)
    steps = 1 if r.fresh > 0 else planned
    r.segment_steps = steps
    s.next_s[slot] = t + steps * (r.step_s + steps * r.growth_s)


@compiled
def close_segment(s: State, slot: int, t: float) -> None:
    """Book the steps done, give first tokens, let finished sequences go."""
    r = s.replicas[slot]
    steps = r.segment_steps
    r.step += steps
    r.context_tokens += r.active * steps
    r.work_tokens += r.active * steps
    # A sequence's first token has no gap before it; with fresh ones a segment is one step.
    r.service_count += (r.active - r.fresh) * steps
    r.service_sum += (r.active - r.fresh) * (t - r.segment_s)
    for i in range(r.active - r.fresh, r.active):
        give_first_token(s, slot, s.members[slot, i].request, t)
    r.fresh = 0
    if r.step >= r.first_finish_step:
        let_go(s, slot, t)


@compiled
def give_first_token(s: State, slot: int, request: int, t: float) -> None:
    """Count a first token, at the replica and at the client."""
    r, q, clock = s.replicas[slot], s.requests[request], s.clock[0]
    q.first_token_s = t
    r.handover_count += 1
    r.handover_sum += t - q.prefilled_s
    ttft_s = t - q.arrival_s
    clock.ttft_count += 1
    clock.ttft_sum += ttft_s
    s.client_counts[PREFILL, bucket(s.latency_bounds[PREFILL], ttft_s)] += 1


@compiled
def let_go(s: State, slot: int, t: float) -> None:
    """Take out the sequences that end at this step, keeping the others in order."""
    r = s.replicas[slot]
    kept = 0
    r.first_finish_step = NEVER
    for i in range(r.active):
        finish_step, request = s.members[slot, i].finish_step, s.members[slot, i].request
        if finish_step <= r.step:
            finish_sequence(s, slot, request, t)
            continue
        s.members[slot, kept].finish_step = finish_step
        s.members[slot, kept].request = request
        r.first_finish_step = min(r.first_finish_step, finish_step)
        kept += 1
    # Those who wait to join stand behind the batch and move up with it.
    for i in range(r.pending):
        s.members[slot, kept + i].request = s.members[slot, r.active + i].request
    r.active = kept


@compiled
def finish_sequence(s: State, slot: int, request: int, t: float) -> None:
    """Count a finished request; one output token has no gap and counts as 0 s, as in vLLM."""
    r, q, clock = s.replicas[slot], s.requests[request], s.clock[0]
    q.finished_s = t
    q.status = SERVED
    itl_s = (t - q.first_token_s) / (q.osl_tokens - 1) if q.osl_tokens > 1 else 0.0
    place = bucket(s.latency_bounds[DECODE], itl_s)
    r.finished += 1
    r.context_tokens -= q.isl_tokens + q.osl_tokens
    r.reserved_tokens -= q.isl_tokens + q.osl_tokens
    r.length_sum += q.osl_tokens
    s.length_counts[slot, bucket(s.length_bounds, float(q.osl_tokens))] += 1
    r.latency_sum += itl_s
    s.latency_counts[slot, place] += 1
    clock.itl_count += 1
    clock.itl_sum += itl_s
    s.client_counts[DECODE, place] += 1
    clock.closed += 1


@compiled
def serve_sequences(s: State, t: float) -> None:
    """Admit waiting sequences in order of arrival until the first finds no room."""
    while s.queues[SEQUENCES].length > 0:
        slot = pick_decode(s, s.queues[SEQUENCES].head, t)
        if slot == NOBODY:
            return
        admit(s, slot, pop(s, SEQUENCES), t)


# ── events ───────────────────────────────────────────────────────────────────────────────────────


@compiled
def become_ready(s: State, slot: int, t: float) -> None:
    """Put a started replica into service and give it what waits."""
    s.replicas[slot].state = READY
    s.next_s[slot] = np.inf
    if s.pools[s.replicas[slot].pool].role == DECODE:
        serve_sequences(s, t)
        return
    waiting = s.queues[PROMPTS].length
    if s.rules[0].shared_prefill:
        waiting = min(waiting, 1)
    for _ in range(waiting):
        route_prompt(s, pop(s, PROMPTS), t)


@compiled
def replica_event(s: State, slot: int, t: float) -> None:
    """Do what a replica was due to do."""
    r = s.replicas[slot]
    if r.state == STARTING:
        become_ready(s, slot, t)
    elif s.pools[r.pool].role == PREFILL:
        finish_prompt(s, slot, t)
    else:
        close_segment(s, slot, t)
        open_segment(s, slot, t)
        serve_sequences(s, t)
        release_if_drained(s, slot, t)


@compiled
def arrive(s: State, t: float) -> None:
    """Take the next request of the trace; one that can never fit is refused."""
    request = s.clock[0].arrived
    s.clock[0].arrived += 1
    q = s.requests[request]
    if q.isl_tokens + q.osl_tokens > s.rules[0].largest_kv_tokens:
        q.status = REFUSED
        s.clock[0].closed += 1
    else:
        route_prompt(s, request, t)


@compiled
def next_replica(s: State) -> int:
    """Return the slot whose event is next, the lowest of several."""
    slot = 0
    for i in range(1, len(s.next_s)):
        if s.next_s[i] < s.next_s[slot]:
            slot = i
    return slot


@compiled
def advance(s: State, until_s: float, stop_when_closed: bool) -> None:  # noqa: FBT001
    """Play all events up to and including `until_s` [s], or until the last request is closed."""
    clock = s.clock[0]
    total = len(s.requests)
    while not (stop_when_closed and clock.closed == total):
        slot = next_replica(s)
        arrival_s = s.requests[clock.arrived].arrival_s if clock.arrived < total else np.inf
        received_s = s.heap[0].at_s if clock.transfers > 0 else np.inf
        t = min(s.next_s[slot], arrival_s, received_s)
        if t > until_s or t == np.inf:
            return
        clock.now_s = t
        if t == s.next_s[slot]:
            replica_event(s, slot, t)
        elif t == received_s:
            push(s, SEQUENCES, receive(s))
            serve_sequences(s, t)
        else:
            arrive(s, t)
