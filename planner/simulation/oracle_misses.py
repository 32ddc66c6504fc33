"""How many requests of each minute a number of replicas would fail: local simulation of one pool.

The oracles' knowledge: the true trace on the true surfaces, the service noise of the very run
included, but each role by itself and each minute with a short past, so that a minute's count does
not hang on what was served before. What that leaves out, the replay in the plant puts right.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from planner.model import Role
from planner.simulation.config import PlantConfig
from planner.simulation.layout import build_state
from planner.simulation.oracle_kernel import LIMITS, decoding, serve_prompts, serve_sequences
from planner.simulation.traces import MINUTE_S, Trace

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

PAST_S: Final = {Role.PREFILL: 5.0, Role.DECODE: 30.0}
"""Traffic played before a minute, so that its first requests meet a pool at work [s]."""

FUTURE_S: Final = 60.0
"""Traffic played after a minute, so that its last sequences decode beside others [s]."""

FIRST_STEPS: Final = 1.5
"""Decode steps in a TTFT: half a step until the next boundary on average, and the first one."""

BURST: Final = 8
"""A minute that keeps n replicas busy is never worth more than so many times n + 1."""

WORST_SHARE: Final = 0.5
"""Fleets that fail more of a minute than this leave a backlog that no local count sees."""


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """What a run asks of the two pools, known in hindsight.

    Attributes
    ----------
    arrival_s, tokens, isl_tokens, osl_tokens
        As in the trace; `tokens` is what prefill computes.
    work_s
        float64[request], prefill time with its noise [s].
    ready_s
        float64[request], when decode would get it from a prefill without queue [s].
    ttft_left_s
        float64[request], what the TTFT target leaves for waiting [s]; may be below 0.
    itl_target_s
        Target ITL [s].
    itl_s, limits
        As in `oracle_kernel.Decoding`.
    """

    arrival_s: Floats
    tokens: NDArray[np.int32]
    isl_tokens: NDArray[np.int32]
    osl_tokens: NDArray[np.int32]
    work_s: Floats
    ready_s: Floats
    ttft_left_s: Floats
    itl_target_s: float
    itl_s: Floats
    limits: NDArray[Any]


def demand(config: PlantConfig, trace: Trace, ttft_s: float, itl_s: float) -> Demand:
    """Return what a trace asks of a plant of one pool a role under these targets [s].

    Raises
    ------
    ValueError
        If a role has several pools.
    """
    if len(config.pools) != len(Role):
        raise ValueError(
            f"oracles: got {len(config.pools)} pools; legal: one a role; merge those of one role"
        )
    state = build_state(config, trace)
    tokens = state.requests["computed_tokens"].copy()
    work_s = state.prefill_s[0][tokens] * state.requests["noise"]
    moved_s = config.transfer_s_per_token * trace.isl_tokens + config.transfer_latency_s
    (pool,) = (pool for pool in config.pools if pool.role is Role.DECODE)
    step_tokens = float(state.rules[0]["context_step_tokens"])
    limits = np.array([(pool.max_sequences, pool.kv_capacity_tokens, step_tokens)], LIMITS)
    alone_s = work_s + moved_s
    return Demand(
        trace.arrival_s,
        tokens,
        trace.isl_tokens,
        trace.osl_tokens,
        work_s,
        trace.arrival_s + alone_s,
        ttft_s - alone_s - FIRST_STEPS * itl_s,
        itl_s,
        state.itl_s[0],
        limits,
    )


def prefill_passes(demand: Demand, which: slice, replicas: int) -> Flags:
    """Return which requests of a slice that many prefill replicas serve in time, bool[request]."""
    arrival_s, work_s = demand.arrival_s[which], demand.work_s[which]
    done_s = serve_prompts(arrival_s, demand.tokens[which], work_s, replicas)
    return np.asarray(done_s - arrival_s - work_s <= demand.ttft_left_s[which])


def decode_passes(demand: Demand, which: slice, replicas: int, until_s: float = np.inf) -> Flags:
    """Return which requests of a slice that many decode replicas serve in time, bool[request].

    One that still runs at `until_s` [s] is judged by its gaps so far. Waiting for room counts
    against what prefill without a queue leaves of TTFT.
    """
    # Prompts of a minute overtake each other: decode takes them as they become ready.
    order = np.argsort(demand.ready_s[which], kind="stable")
    ready_s, left_s = (c[which][order] for c in (demand.ready_s, demand.ttft_left_s))
    isl_tokens, osl_tokens = (c[which][order] for c in (demand.isl_tokens, demand.osl_tokens))
    pool = decoding(ready_s, isl_tokens, osl_tokens, replicas, demand.itl_s, demand.limits)
    serve_sequences(pool, until_s)
    itl_s = (pool.last_token_s - pool.first_token_s) / np.maximum(pool.gaps, 1)
    # A prompt that is late without any queue is not decode's to fail.
    allowed_s = np.maximum(left_s, 0.0) + 2.0 * FIRST_STEPS * demand.itl_target_s
    passes = np.empty(len(order), dtype=bool)
    passes[order] = (itl_s <= demand.itl_target_s) & (pool.first_token_s - ready_s <= allowed_s)
    return passes


def passes(
    demand: Demand, role: Role, which: slice, replicas: int, until_s: float = np.inf
) -> Flags:
    """Return which requests of a slice that many replicas of a role serve in time."""
    if role is Role.PREFILL:
        return prefill_passes(demand, which, replicas)
    return decode_passes(demand, which, replicas, until_s)


def misses(demand: Demand, role: Role) -> Floats:
    """Return failures of each minute by replicas, float64[minute, replicas 0 … most].

    Of each minute those counts are simulated between which the answer lies: from the first that
    serves half of it to the first that more replicas do not better.
    """
    minutes = int(demand.arrival_s[-1] // MINUTE_S) + 1
    edges = np.searchsorted(demand.arrival_s, MINUTE_S * np.arange(minutes + 1))
    found = [_misses_of(demand, role, m, edges) for m in range(minutes)]
    table = np.empty((minutes, max(max(counts) for counts in found) + 1))
    for minute, counts in enumerate(found):
        low, high = min(counts), max(counts)
        table[minute, :low] = edges[minute + 1] - edges[minute]
        table[minute, low : high + 1] = [counts[c] for c in range(low, high + 1)]
        table[minute, high:] = counts[high]
    # One replica less never serves more; where chance says so it is not worth a schedule.
    return np.minimum.accumulate(table, axis=1)


def busy_replicas(demand: Demand, role: Role, which: slice, within_s: float) -> int:
    """Return the replicas that a slice keeps busy at full use if it lasts `within_s` [s]."""
    if role is Role.PREFILL:
        return max(1, math.ceil(float(demand.work_s[which].sum()) / within_s))
    osl = demand.osl_tokens[which].astype(float)
    context = float((demand.isl_tokens[which] + 0.5 * osl).mean())
    column = min(int(context / demand.limits[0]["context_step_tokens"]), demand.itl_s.shape[1] - 1)
    batch = max(1, int((demand.itl_s[1:, column] <= demand.itl_target_s).sum()))
    return max(1, math.ceil(float(osl.sum()) * demand.itl_target_s / batch / within_s))


def _misses_of(demand: Demand, role: Role, minute: int, edges: NDArray[np.int64]) -> dict[int, int]:
    """Return the failures of a minute for a run of replica counts around where it turns."""
    begin_s = minute * MINUTE_S
    first, last = int(edges[minute]), int(edges[minute + 1])
    requests = last - first
    if requests == 0:
        return {1: 0}
    until_s = begin_s + MINUTE_S + (FUTURE_S if role is Role.DECODE else 0.0)
    past, ahead = np.searchsorted(demand.arrival_s, [begin_s - PAST_S[role], until_s]).tolist()
    judged = slice(first - past, last - past)

    def failed(replicas: int) -> int:
        in_time = passes(demand, role, slice(past, ahead), replicas, until_s)
        return requests - int(in_time[judged].sum())

    guess = busy_replicas(demand, role, slice(first, last), MINUTE_S)
    return _around(failed, guess, WORST_SHARE * requests)


def _around(failed: Callable[[int], int], guess: int, too_many: float) -> dict[int, int]:
    """Return failures by replicas, from the last count that fails too many to where none helps."""
    counts = {guess: failed(guess)}
    while min(counts) > 1 and counts[min(counts)] <= too_many:
        counts[min(counts) - 1] = failed(min(counts) - 1)
    most = BURST * (guess + 1)
    while counts[max(counts)] > 0 and not _is_level(counts, too_many, most):
        counts[max(counts) + 1] = failed(max(counts) + 1)
    return counts


def _is_level(counts: dict[int, int], too_many: float, most: int) -> bool:
    """Return whether the last two replicas helped nobody: what fails still, fails always.

    Level far up is no end but an overload, unless there are `most` replicas already.
    """
    last = max(counts)
    is_overload = counts[last] > too_many and last < most
    return not is_overload and all(counts.get(last - k) == counts[last] for k in (1, 2))
