"""The records of the plant: requests, replicas, queues, and the arrays that hold them.

`State` keeps its name and place: compiled caches of an older version name it, and fail without it.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

REQUEST: Final = np.dtype([
    ("arrival_s", "f8"), ("prefilled_s", "f8"), ("first_token_s", "f8"), ("finished_s", "f8"),
    ("noise", "f8"), ("isl_tokens", "i4"), ("osl_tokens", "i4"), ("computed_tokens", "i4"),
    ("next", "i4"), ("status", "i4"),
], align=True)  # fmt: skip

# One replica of either role. A segment is a run of decode steps with the same sequences: its first
# j steps take `step_s` j + `growth_s` j² [s]. `fresh` sequences have yet to give a first token,
# `pending` ones join at the next step boundary. `service` sums prefill times or token gaps,
# `handover` the times from prefill's end to the first token.
REPLICA: Final = np.dtype([
    ("pool", "i8"), ("ordinal", "i8"), ("state", "i8"),
    ("ordered_s", "f8"), ("ready_s", "f8"), ("released_s", "f8"),
    ("running", "i8"), ("started_s", "f8"), ("outstanding_tokens", "i8"),
    ("active", "i8"), ("fresh", "i8"), ("pending", "i8"), ("pending_tokens", "i8"),
    ("step", "i8"), ("first_finish_step", "i8"), ("context_tokens", "i8"),
    ("reserved_tokens", "i8"), ("segment_s", "f8"), ("segment_steps", "i8"),
    ("step_s", "f8"), ("growth_s", "f8"),
    ("finished", "i8"), ("work_tokens", "i8"), ("length_sum", "f8"), ("latency_sum", "f8"),
    ("service_count", "i8"), ("service_sum", "f8"),
    ("handover_count", "i8"), ("handover_sum", "f8"),
], align=True)  # fmt: skip

MEMBER: Final = np.dtype([("finish_step", "i8"), ("request", "i8")])
QUEUE: Final = np.dtype([("head", "i8"), ("tail", "i8"), ("length", "i8")])
ARRIVING: Final = np.dtype([("at_s", "f8"), ("request", "i8")])
POOL: Final = np.dtype([
    ("role", "i8"), ("table", "i8"), ("max_sequences", "i8"), ("kv_capacity_tokens", "i8"),
])  # fmt: skip
CLOCK: Final = np.dtype([
    ("now_s", "f8"), ("arrived", "i8"), ("closed", "i8"), ("transfers", "i8"),
    ("ttft_sum", "f8"), ("ttft_count", "i8"), ("itl_sum", "f8"), ("itl_count", "i8"),
])  # fmt: skip
RULES: Final = np.dtype([
    ("transfer_s_per_token", "f8"), ("transfer_latency_s", "f8"), ("context_step_tokens", "f8"),
    ("largest_kv_tokens", "i8"), ("shared_prefill", "i8"), ("fewest_sequences", "i8"),
])  # fmt: skip


class State(NamedTuple):
    """Everything the clockwork reads and writes.

    Attributes
    ----------
    requests, replicas, queues, pools
        Records as above; a replica's index is its slot, queues by `kernel.PROMPTS`, SEQUENCES,
        OWN + slot; `next` of a request links its queue.
    next_s
        float64[slot], when the replica has its next event [s]; inf: none.
    members
        MEMBER[slot, sequence], the batch of each decode replica, in order of joining.
    heap
        ARRIVING[request], a binary heap of KV transfers under way by their end.
    clock, rules
        One record each: where the run stands, and what holds for all of it.
    prefill_s
        float64[table, tokens], prefill time [s] by computed prompt tokens.
    itl_s
        float64[table, sequences, context step], time of a decode step [s].
    length_bounds, latency_bounds
        Upper bounds of the histograms [tokens] and [s], latency by role; +Inf is left out.
    length_counts, latency_counts
        int64[slot, bucket]; prompt length and TTFT of prefill, output length and ITL of decode.
    client_counts
        int64[role, bucket], TTFT and ITL at the client.
    """

    requests: NDArray[Any]
    replicas: NDArray[Any]
    queues: NDArray[Any]
    pools: NDArray[Any]
    next_s: NDArray[np.float64]
    members: NDArray[Any]
    heap: NDArray[Any]
    clock: NDArray[Any]
    rules: NDArray[Any]
    prefill_s: NDArray[np.float64]
    itl_s: NDArray[np.float64]
    length_bounds: NDArray[np.float64]
    latency_bounds: NDArray[np.float64]
    length_counts: NDArray[np.int64]
    latency_counts: NDArray[np.int64]
    client_counts: NDArray[np.int64]
