"""From a configuration and a trace to the clockwork's arrays, and room for more replicas."""

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from planner.model import Role
from planner.simulation import kernel, records
from planner.simulation.config import DecodeRouter, PlantConfig, PrefillRouter
from planner.simulation.records import State
from planner.simulation.surface import DecodeTruth, Floats, PrefillTruth
from planner.simulation.traces import Trace

SLOTS: Final = 16
"""Replicas there is room for at first; doubled whenever they run out."""

LENGTH_BOUNDS: Final = tuple(float(d * 10**e) for e in range(6) for d in (1, 2, 5))[:-2]
"""vLLM's length buckets for a context of 131,072 tokens: 1, 2, 5 … 50,000, 100,000."""

# fmt: off
TTFT_BOUNDS: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)
"""vLLM's `time_to_first_token_seconds`."""

ITL_BOUNDS: Final = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
)
"""vLLM's `request_time_per_output_token_seconds`."""
# fmt: on

ROLE_CODE: Final = {Role.PREFILL: kernel.PREFILL, Role.DECODE: kernel.DECODE}


def build_state(config: PlantConfig, trace: Trace) -> State:
    """Return the clockwork at 0 s, without a replica."""
    decode = [pool for pool in config.pools if pool.role is Role.DECODE]
    largest = max(pool.kv_capacity_tokens for pool in decode)
    longest = float((trace.isl_tokens + trace.osl_tokens).max())
    prefill_s, itl_s = _tables(config, trace, longest)
    bounds = np.full((2, len(TTFT_BOUNDS)), np.inf)
    bounds[kernel.PREFILL] = TTFT_BOUNDS
    bounds[kernel.DECODE, : len(ITL_BOUNDS)] = ITL_BOUNDS
    rules = np.zeros(1, records.RULES)
    rules["transfer_s_per_token"] = config.transfer_s_per_token
    rules["transfer_latency_s"] = config.transfer_latency_s
    rules["context_step_tokens"] = longest / (itl_s.shape[2] - 1)
    rules["largest_kv_tokens"] = largest
    rules["shared_prefill"] = config.prefill_router is PrefillRouter.SHARED
    rules["fewest_sequences"] = config.decode_router is DecodeRouter.FEWEST_SEQUENCES
    return State(
        requests=_requests(config, trace),
        replicas=_free_replicas(SLOTS),
        queues=np.zeros(kernel.OWN + SLOTS, records.QUEUE),
        pools=_pools(config),
        next_s=np.full(SLOTS, np.inf),
        members=np.zeros((SLOTS, max(pool.max_sequences for pool in decode)), records.MEMBER),
        heap=np.zeros(len(trace), records.ARRIVING),
        clock=np.zeros(1, records.CLOCK),
        rules=rules,
        prefill_s=prefill_s,
        itl_s=itl_s,
        length_bounds=np.array(LENGTH_BOUNDS),
        latency_bounds=bounds,
        length_counts=np.zeros((SLOTS, len(LENGTH_BOUNDS) + 1), np.int64),
        latency_counts=np.zeros((SLOTS, len(TTFT_BOUNDS) + 1), np.int64),
        client_counts=np.zeros((2, len(TTFT_BOUNDS) + 1), np.int64),
    )


def _requests(config: PlantConfig, trace: Trace) -> NDArray[Any]:
    requests = np.zeros(len(trace), records.REQUEST)
    requests["arrival_s"] = trace.arrival_s
    requests["isl_tokens"] = trace.isl_tokens
    requests["osl_tokens"] = trace.osl_tokens
    requests["computed_tokens"] = trace.isl_tokens - trace.cached_tokens
    for moment in ("prefilled_s", "first_token_s", "finished_s"):
        requests[moment] = np.nan
    # Lognormal with mean 1: σ² = ln(1 + cv²), µ = −σ²/2.
    variance = math.log1p(config.service_cv**2)
    normal = np.random.default_rng([config.seed, 0]).standard_normal(len(trace))
    requests["noise"] = np.exp(math.sqrt(variance) * normal - variance / 2.0)
    return requests


def _pools(config: PlantConfig) -> NDArray[Any]:
    pools = np.zeros(len(config.pools), records.POOL)
    tables = dict.fromkeys(Role, 0)
    for i, pool in enumerate(config.pools):
        sizes = (pool.max_sequences, pool.kv_capacity_tokens)
        pools[i] = (ROLE_CODE[pool.role], tables[pool.role], *sizes)
        tables[pool.role] += 1
    return pools


def _tables(config: PlantConfig, trace: Trace, longest: float) -> tuple[Floats, Floats]:
    surfaces = [pool.surface for pool in config.pools]
    tokens = int((trace.isl_tokens - trace.cached_tokens).max())
    batch = max(pool.max_sequences for pool in config.pools if pool.role is Role.DECODE)
    prefill = [s.table(tokens) for s in surfaces if isinstance(s, PrefillTruth)]
    decode = [s.table(batch, longest) for s in surfaces if isinstance(s, DecodeTruth)]
    return np.ascontiguousarray(prefill, float), np.ascontiguousarray(decode, float)


def _free_replicas(count: int) -> NDArray[Any]:
    replicas = np.zeros(count, records.REPLICA)
    replicas["state"] = kernel.GONE
    replicas["pool"] = kernel.NOBODY
    return replicas


def free_slot(state: State) -> int:
    """Return the first slot without a replica, `kernel.NOBODY` if all are taken."""
    free = np.flatnonzero(state.replicas["pool"] == kernel.NOBODY)
    return int(free[0]) if len(free) else kernel.NOBODY


def clear_slot(state: State, slot: int) -> None:
    """Make a slot free for another replica."""
    state.replicas[slot] = _free_replicas(1)[0]
    state.queues[kernel.OWN + slot] = np.zeros(1, records.QUEUE)[0]
    state.next_s[slot] = np.inf
    state.length_counts[slot] = 0
    state.latency_counts[slot] = 0


def doubled(state: State) -> State:
    """Return the same state with room for twice as many replicas."""
    more = len(state.replicas)
    return state._replace(
        replicas=np.concatenate([state.replicas, _free_replicas(more)]),
        queues=np.concatenate([state.queues, np.zeros(more, records.QUEUE)]),
        next_s=np.concatenate([state.next_s, np.full(more, np.inf)]),
        members=np.concatenate([state.members, np.zeros_like(state.members)]),
        length_counts=np.concatenate([state.length_counts, np.zeros_like(state.length_counts)]),
        latency_counts=np.concatenate([state.latency_counts, np.zeros_like(state.latency_counts)]),
    )
