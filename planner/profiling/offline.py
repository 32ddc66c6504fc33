"""`profile offline`: a profile out of an estimator, without an engine and without a GPU."""

import math
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from planner.errors import InputError
from planner.profiling.aiconfigurator import Replica
from planner.profiling.region import Targets, operating_region
from profiles import Profile, profile_text, write_profile
from profiles.sanity import oddities
from profiles.schema import SCHEMA_VERSION, build_profile

FIRST_TOKENS: Final = 128
"""Shortest prompt and context of the grid [tokens]: below it nothing but overhead is left."""

ISL_MAX_TOKENS: Final = 32_768
"""Longest prompt unless another is asked for or the model's context ends before [tokens]."""

BATCH_MAX: Final = 256
"""Largest batch of the grid unless `max_sequences` is given: vLLM's default on smaller GPUs."""

DIGITS: Final = 5
"""Of a latency: more than an estimate knows, and few enough to read."""


class Estimator(Protocol):
    """What one replica would do; asked point by point."""

    tool: str
    model: str
    gpu: str
    engine_version: str
    context_max_tokens: int

    @property
    def number_format(self) -> str:
        """Format of the weights."""
        ...

    def ttft_s(self, isl_tokens: int) -> float:
        """Return the time of one prefill pass over one prompt [s]."""
        ...

    def itl_s(self, concurrency: int, context_tokens: int) -> float:
        """Return the time of one decode step of a batch at one context [s]."""
        ...

    def kv_bytes_per_token(self) -> float | None:
        """Return the KV cache of one token [B], None where it is not constant."""
        ...

    def kv_capacity_tokens(self) -> int:
        """Return the tokens that the KV cache of the replica holds."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """Which points are wanted, and what the estimator can't know.

    Attributes
    ----------
    roles
        `prefill`, `decode` or both.
    isl_max_tokens
        Longest prompt and context [tokens]; None: what the model takes, at most `ISL_MAX_TOKENS`.
    max_sequences
        Largest batch that the engine's scheduler runs.
    kv_capacity_tokens
        In place of the estimate [tokens].
    startup_s
        From the creation of a replica to its readiness [s].
    """

    roles: Sequence[str] = ("prefill", "decode")
    isl_max_tokens: int | None = None
    max_sequences: int | None = None
    kv_capacity_tokens: int | None = None
    startup_s: float | None = None


def offline_profile(replica: Replica, asked: Asked, targets: Targets, output: Path | None) -> int:
    """Estimate a profile, write it, and tell on stderr what to know of it."""
    from planner.profiling.aiconfigurator import AiConfigurator
    from planner.profiling.commands import refuse_impossible
    from planner.view.profile_lines import profile_lines

    profile = estimated_profile(AiConfigurator(replica), replica, asked)
    refuse_impossible(profile, replica.model)
    region, odd = operating_region(profile, targets), oddities(profile)
    for line in (*notes(profile), *profile_lines(profile, targets, region, (), odd)):
        print(line, file=sys.stderr)  # noqa: T201
    if output is None:
        print(profile_text(profile), end="", flush=True)  # noqa: T201
    else:
        write_profile(profile, output)
    return 0


def estimated_profile(estimator: Estimator, replica: Replica, asked: Asked) -> Profile:
    """Return the profile of a grid of estimates; the same question has the same answer."""
    isl_max = _isl_max_tokens(estimator, asked)
    capacity = asked.kv_capacity_tokens
    per_token = estimator.kv_bytes_per_token()
    if capacity is None and per_token is not None:
        capacity = estimator.kv_capacity_tokens()
    document: dict[str, Any] = {
        "schemaVersion": SCHEMA_VERSION,
        "provenance": _provenance(estimator, replica, asked),
        "kv_capacity_tokens": capacity,
        "max_sequences": asked.max_sequences,
        "kv_bytes_per_token": per_token,
        "startup_s": asked.startup_s,
    }
    if "prefill" in asked.roles:
        document["prefill"] = list(_prefill(estimator, isl_max))
    if "decode" in asked.roles:
        most = asked.max_sequences or BATCH_MAX
        document["decode"] = list(_decode(estimator, isl_max, most, capacity))
    return build_profile(document, replica.model)


def _isl_max_tokens(estimator: Estimator, asked: Asked) -> int:
    """Return the longest prompt of the grid [tokens].

    Raises
    ------
    InputError
        If the model does not take it.
    """
    longest = estimator.context_max_tokens
    if asked.isl_max_tokens is None:
        return min(longest, ISL_MAX_TOKENS)
    if asked.isl_max_tokens > longest:
        raise InputError(
            f"--isl-max: got {asked.isl_max_tokens}; legal: 512 to {longest}, the model's longest "
            "context; ask for less"
        )
    return asked.isl_max_tokens


def _prefill(estimator: Estimator, isl_max: int) -> Iterator[Mapping[str, Any]]:
    for isl in grid((2, 3), isl_max):
        yield {
            "isl_tokens": isl,
            "ttft_s": _latency_s(estimator.ttft_s(isl), f"prefill of {isl} tokens"),
        }


def _decode(
    estimator: Estimator, isl_max: int, most: int, capacity: int | None
) -> Iterator[Mapping[str, Any]]:
    for context in grid((2,), isl_max):
        for n in batches(context, most, capacity):
            where = f"decode of {n} sequences at {context} tokens"
            itl_s = _latency_s(estimator.itl_s(n, context), where)
            yield {"concurrency": n, "context_tokens": context, "itl_s": itl_s}


def grid(steps: Sequence[int], last: int) -> list[int]:
    """Return lengths [tokens] from the first to the last, `steps` halves of each power of two.

    Examples
    --------
    >>> grid((2, 3), 600), grid((2,), 512)
    ([128, 192, 256, 384, 512, 600], [128, 256, 512])
    """
    octaves = range(last.bit_length())
    found = {step * FIRST_TOKENS // 2 << octave for octave in octaves for step in steps}
    return sorted({length for length in found if length < last} | {last})


def batches(context_tokens: int, most: int, capacity_tokens: int | None) -> list[int]:
    """Return the batches of a context: powers of two, and the largest that fits the KV cache.

    Examples
    --------
    >>> batches(1024, 64, 10_240), batches(1024, 4, None), batches(1024, 4, 1000)
    ([1, 2, 4, 8, 10], [1, 2, 4], [])
    """
    room = most if capacity_tokens is None else min(most, capacity_tokens // context_tokens)
    powers = {1 << k for k in range(room.bit_length())}
    return sorted(powers | {room}) if room else []


def _latency_s(estimated_s: float, where: str) -> float:
    """Return an estimate to `DIGITS` digits [s].

    Raises
    ------
    InputError
        If it is none: the estimator's data have a hole there.
    """
    if not (math.isfinite(estimated_s) and estimated_s > 0.0):
        raise InputError(
            f"{where}: the estimate is {estimated_s:g} s; legal: a finite time above 0; choose "
            "another --gpu, --engine or --tensor-parallel, or a shorter --isl-max"
        )
    return float(f"{estimated_s:.{DIGITS}g}")


def _provenance(estimator: Estimator, replica: Replica, asked: Asked) -> Mapping[str, Any]:
    # No date: an estimate follows from the versions, whatever the day.
    return {
        "how": "estimated",
        "tool": f"{estimator.tool}, its data of {replica.engine} {estimator.engine_version}",
        "engine": replica.engine,
        "engineVersion": estimator.engine_version,
        "model": f"{estimator.model}, {estimator.number_format}",
        "gpu": estimator.gpu,
        "gpusPerReplica": replica.tensor_parallel,
        "parallelism": f"TP{replica.tensor_parallel}",
        "command": _command(estimator, replica, asked),
    }


def _command(estimator: Estimator, replica: Replica, asked: Asked) -> str:
    """Return the command that makes the points again."""
    words: dict[str, object] = {
        "--model": replica.model,
        "--gpu": estimator.gpu,
        "--tensor-parallel": replica.tensor_parallel,
        "--engine": replica.engine,
        "--gpu-memory-utilization": replica.gpu_memory_utilization,
        "--kv-cache-dtype": replica.kv_cache_dtype,
        "--role": asked.roles[0] if len(asked.roles) == 1 else None,
        "--isl-max": asked.isl_max_tokens,
        "--max-sequences": asked.max_sequences,
        "--kv-capacity-tokens": asked.kv_capacity_tokens,
        "--startup": None if asked.startup_s is None else f"{asked.startup_s:g}s",
    }
    given = [str(word) for pair in words.items() if pair[1] is not None for word in pair]
    return shlex.join(["pd-planner", "profile", "offline", *given])


def notes(profile: Profile) -> Iterator[str]:
    """Yield what is not in an estimated profile, and why.

    Yields
    ------
    str
        One line.
    """
    made = profile.provenance
    yield f"estimated by {made.tool} on {made.gpu}, not measured: measure before you rely on it"
    unknown = {
        "kv_bytes_per_token": "the KV cache of this model does not grow evenly with context",
        "kv_capacity_tokens": "the same, so that its tokens can't be counted; --kv-capacity-tokens",
        "max_sequences": "a setting of the engine: --max-sequences",
        "startup_s": "no estimate: --startup, or startup in the pool",
    }
    for key, why in unknown.items():
        if getattr(profile, key) is None:
            yield f"{key} is null: {why}"
