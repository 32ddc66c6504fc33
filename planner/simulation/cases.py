"""The cases on which policies are compared: traffic, service, plant, and what a planner is told.

Three of them, each with a trace of its own, on the same 70-billion-parameter model. Everything a
policy may differ in is left out: whoever compares gives all of them the same case and seed.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from planner.errors import InputError
from planner.model import Role
from planner.simulation.config import DecodeRouter, PlantConfig, PlantPool, PrefillRouter
from planner.simulation.oracles import Problem
from planner.simulation.redrawn import REDRAWN
from planner.simulation.results import PlantResults, Summary, summarise
from planner.simulation.surface import WIGGLE, DecodeTruth, PrefillTruth
from planner.simulation.trace_files import open_trace
from planner.simulation.traces import Trace, clip, scale_trace
from planner.simulation.workloads import SYNTHETIC_SEED, WORKLOADS, draw
from profiles.samples import sample
from profiles.schema import Profile, build_profile

PREFILL: Final = "prefill"
DECODE: Final = "decode"

START_REPLICAS: Final = 4
WARMUP_S: Final = 600.0
ATTAINMENT: Final = 0.99
GPUS_PER_REPLICA: Final = 4
TRANSFER_BYTES_PER_S: Final = 25e9
TRANSFER_LATENCY_S: Final = 0.005

GRID_ISL_TOKENS: Final = np.rint(np.geomspace(64, 32_768, 15)).astype(int)
GRID_CONTEXT_TOKENS: Final = np.rint(np.geomspace(256, 16_384, 6)).astype(int)
GRID_CONCURRENCY: Final = np.array([1, 2, 4, 8, 16, 32, 64, 128])


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison.

    Attributes
    ----------
    name
        One word.
    trace
        A built-in trace, a workload of `WORKLOADS` or `REDRAWN`, or the path of a trace.
    copies
        Times the trace is replayed inside each minute.
    gpu
        `h100` or `a100`: both roles run on four of them a replica.
    isl_max_tokens
        Longer prompts are served elsewhere.
    ttft_s, itl_s
        Target latencies [s] that a request has to keep both of.
    lag_s
        Mean time from the order of a replica to its readiness [s].
    attainment
        Share of requests asked for.
    """

    name: str
    trace: str
    copies: int
    gpu: str
    isl_max_tokens: int
    ttft_s: float
    itl_s: float
    lag_s: float
    attainment: float = ATTAINMENT


CASES: Final = (
    Case("conv", "azure2023-conv", 8, "h100", 16_384, 1.00, 0.044, 90.0),
    Case("m_large", "servegen-m-large-6h", 2, "a100", 16_384, 3.05, 0.067, 120.0),
    Case("synthetic", "synthetic-8h", 1, "h100", 8_192, 1.35, 0.044, 120.0),
)

EVENTS: Final = tuple(
    replace(CASES[-1], name=name, trace=name) for name in WORKLOADS if name != CASES[-1].trace
)
"""Workloads of one event or none each, in the set-up of `synthetic`."""

REDRAWN_DAYS: Final = tuple(replace(CASES[1], name=name, trace=name, copies=1) for name in REDRAWN)
"""Production days drawn anew, in the set-up of `m_large`."""


def case_named(name: str) -> Case:
    """Return the case of that name, or one of `EVENTS` or `REDRAWN_DAYS`.

    Raises
    ------
    InputError
        If there is none.
    """
    known = {case.name: case for case in (*CASES, *EVENTS, *REDRAWN_DAYS)}
    if name not in known:
        raise InputError(f"case {name}: unknown; legal: {', '.join(known)}; choose one")
    return known[name]


def case_trace(case: Case, seed: int = 0, source: str | Path | None = None) -> Trace:
    """Return the requests in scope, scaled.

    Parameters
    ----------
    case
        The case.
    seed
        Fixes the shifts of the copies; a synthetic workload is the same draw for every seed.
    source
        Another trace in place of the case's.
    """
    name = str(source or case.trace)
    workload = WORKLOADS.get(name) or REDRAWN.get(name)
    trace = open_trace(name) if workload is None else draw(workload, SYNTHETIC_SEED)
    within, _ = clip(trace, case.isl_max_tokens)
    return scale_trace(within, case.copies, seed)


def case_points(case: Case, role: Role) -> Profile:
    """Return the published points that the truth of a role is made of."""
    return sample(f"llama-2-70b-{case.gpu}-tp4-{role.value}")


def case_plant(
    case: Case,
    seed: int = 0,
    prefill: int = START_REPLICAS,
    decode: int = START_REPLICAS,
    lag_s: float | None = None,
    wiggle: float = WIGGLE,
) -> PlantConfig:
    """Return the plant of a case.

    Parameters
    ----------
    case
        The case.
    seed
        Fixes start-up times, service noise and the wiggle of the truth.
    prefill, decode
        Replicas that are ready at 0 s.
    lag_s
        Mean start-up time in place of the case's [s].
    wiggle
        Bound on what the truth deviates from the published points; 0 switches it off.
    """
    points = {role: case_points(case, role) for role in Role}
    startup_s = case.lag_s if lag_s is None else lag_s
    sizes = points[Role.DECODE]
    pools = (
        PlantPool(
            PREFILL,
            Role.PREFILL,
            PrefillTruth.of(points[Role.PREFILL], wiggle, seed),
            startup_s,
            GPUS_PER_REPLICA,
            prefill,
        ),
        PlantPool(
            DECODE,
            Role.DECODE,
            DecodeTruth.of(sizes, wiggle, seed),
            startup_s,
            GPUS_PER_REPLICA,
            decode,
            max_sequences=sizes.max_sequences or 0,
            kv_capacity_tokens=sizes.kv_capacity_tokens or 0,
        ),
    )
    return PlantConfig(
        pools,
        transfer_bandwidth_bytes_per_s=TRANSFER_BYTES_PER_S,
        transfer_latency_s=TRANSFER_LATENCY_S,
        kv_bytes_per_token=sizes.kv_bytes_per_token or 0.0,
        prefill_router=PrefillRouter.FEWEST_TOKENS,
        decode_router=DecodeRouter.FEWEST_TOKENS,
        seed=seed,
    )


def case_profile(case: Case, profile_error: float = 0.0) -> Profile:
    """Return what every planner is told: a coarse grid of the truth without its wiggle.

    Parameters
    ----------
    case
        The case.
    profile_error
        All times are multiplied by 1 + this; −0.2 makes replicas look a fifth faster.

    Raises
    ------
    InputError
        If the error leaves no time above 0.
    """
    if not profile_error > -1.0:
        raise InputError(f"profile error: got {profile_error}; legal: above -1; correct it")
    steps_s, prompts_s = _grid_itl_s(case), _grid_prefill_s(case)
    told = 1.0 + profile_error
    sizes = case_points(case, Role.DECODE)
    document = {
        "schemaVersion": "1",
        "provenance": {**sizes.provenance.model_dump(), "how": "estimated"},
        "prefill": [
            {"isl_tokens": int(isl), "ttft_s": float(s * told)}
            for isl, s in zip(GRID_ISL_TOKENS, prompts_s, strict=True)
        ],
        "decode": [
            {"concurrency": float(n), "context_tokens": float(c), "itl_s": float(s * told)}
            for c, row in zip(GRID_CONTEXT_TOKENS, steps_s, strict=True)
            for n, s in zip(GRID_CONCURRENCY, row, strict=True)
        ],
        "kv_capacity_tokens": sizes.kv_capacity_tokens,
        "max_sequences": sizes.max_sequences,
        "kv_bytes_per_token": sizes.kv_bytes_per_token,
        "startup_s": case.lag_s,
    }
    return build_profile(document, f"case {case.name}")


def _grid_prefill_s(case: Case) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    truth = PrefillTruth.of(case_points(case, Role.PREFILL), wiggle=0.0)
    return truth.seconds(GRID_ISL_TOKENS.astype(float))


def _grid_itl_s(case: Case) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    truth = DecodeTruth.of(case_points(case, Role.DECODE), wiggle=0.0)
    n, context = GRID_CONCURRENCY.astype(float), GRID_CONTEXT_TOKENS.astype(float)
    return truth.seconds(n[None, :], context[:, None])


def case_problem(case: Case, seed: int = 0, source: str | Path | None = None) -> Problem:
    """Return what the oracles have to know of a case; arguments as in `case_trace`."""
    trace = case_trace(case, seed, source)
    return Problem(case_plant(case, seed), trace, case.ttft_s, case.itl_s, WARMUP_S)


def case_summary(case: Case, results: PlantResults) -> Summary:
    """Return attainment and GPU-hours of a run, the warm-up left out and the drain in."""
    return summarise(results, case.ttft_s, case.itl_s, WARMUP_S)
