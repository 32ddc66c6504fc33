"""The cases are the published ones, to the number: traffic, truth, and the grid planners get."""

from dataclasses import replace

import numpy as np
import pytest

from planner.errors import InputError, TraceError
from planner.model import Role
from planner.simulation.cases import (
    CASES,
    WARMUP_S,
    Case,
    case_named,
    case_plant,
    case_problem,
    case_profile,
    case_summary,
    case_trace,
)
from planner.simulation.config import DecodeRouter, PlantPool, PrefillRouter
from planner.simulation.plant import Plant
from planner.simulation.surface import DecodeTruth, PrefillTruth
from planner.simulation.traces import make_trace
from profiles import decode_surface, prefill_surface

BY_NAME = {case.name: case for case in CASES}
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def pools(case: Case, **over: float) -> tuple[PlantPool, PlantPool]:
    prefill, decode = case_plant(case, **over).pools  # type: ignore[arg-type]
    return prefill, decode


def prompt_s(case: Case, tokens: float) -> float:
    truth = pools(case, wiggle=0.0)[0].surface
    assert isinstance(truth, PrefillTruth)
    return float(truth.seconds(np.array([tokens]))[0])


def step_s(case: Case, sequences: float, context: float) -> float:
    truth = pools(case, wiggle=0.0)[1].surface
    assert isinstance(truth, DecodeTruth)
    return float(truth.seconds(np.array([sequences]), np.array([context]))[0])


@pytest.mark.parametrize(
    ("name", "copies", "gpu", "isl_max", "ttft_s", "itl_s", "lag_s"),
    [
        ("conv", 8, "h100", 16_384, 1.00, 0.044, 90.0),
        ("m_large", 2, "a100", 16_384, 3.05, 0.067, 120.0),
        ("synthetic", 1, "h100", 8_192, 1.35, 0.044, 120.0),
    ],
)
def test_a_case_is_what_was_published(
    name: str, copies: int, gpu: str, isl_max: int, ttft_s: float, itl_s: float, lag_s: float
) -> None:
    case = case_named(name)
    assert (case.copies, case.gpu, case.isl_max_tokens) == (copies, gpu, isl_max)
    assert (case.ttft_s, case.itl_s, case.lag_s) == (ttft_s, itl_s, lag_s)
    assert case.attainment == 0.99


def test_every_workload_is_a_case_in_the_set_up_of_the_synthetic_one() -> None:
    of = {case_named(name).trace: case_named(name) for name in ("synthetic", "constant", "spike")}
    assert of.keys() == {"synthetic-8h", "constant", "spike"}
    assert {replace(case, name="", trace="") for case in of.values()} == {
        replace(case_named("synthetic"), name="", trace="")
    }


def test_an_unknown_case_is_told_those_there_are() -> None:
    with pytest.raises(InputError, match=r"case konv: unknown; legal: conv, m_large, synthetic, c"):
        case_named("konv")


@pytest.mark.parametrize(
    ("name", "tokens", "seconds"),
    [
        ("conv", 1024, 0.105612),
        ("conv", 64, 0.049086),
        # 0.953582 − 0.463455 over 4096 tokens, 8192 more of them: the parabola bends below it.
        ("conv", 16_384, 0.953582 + 2 * 0.490127),
        ("m_large", 4096, 0.96515),
        # Newton's form: 3.20630e-4 a token, and 7.5368e-9 × 8192 × 12288 for the curvature.
        ("m_large", 16_384, 2.278451 + 2.626602 + 0.758672),
    ],
)
def test_a_prompt_takes_its_published_time(name: str, tokens: float, seconds: float) -> None:
    assert prompt_s(BY_NAME[name], tokens) == pytest.approx(seconds, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "sequences", "context", "seconds"),
    [
        ("conv", 16, 576, 0.032843),
        ("conv", 24, 100, 0.5 * (0.032843 + 0.036885)),
        # Beyond batch 64 the last slope: (52.356 − 36.885) / 32 ms a sequence.
        ("conv", 128, 576, 0.052356 + 64 * 0.015471 / 32),
        # 327,680 B × 32 × 1000 at 4 × 3.35e12 × 0.6 B/s.
        ("conv", 32, 1576, 0.036885 + 0.00130420),
        # The same at 4 × 2.04e12 × 0.6 B/s.
        ("m_large", 32, 1576, 0.052345 + 0.00214170),
    ],
)
def test_a_step_takes_its_published_time(
    name: str, sequences: float, context: float, seconds: float
) -> None:
    assert step_s(BY_NAME[name], sequences, context) == pytest.approx(seconds, rel=1e-5)


@every_case
def test_the_plant_keeps_the_rules(case: Case) -> None:
    config = case_plant(case, seed=3)
    prefill, decode = config.pools
    assert (prefill.initial_replicas, decode.initial_replicas) == (4, 4)
    assert (prefill.gpus_per_replica, decode.gpus_per_replica) == (4, 4)
    assert (prefill.startup_s, decode.startup_s) == (case.lag_s, case.lag_s)
    assert (decode.max_sequences, decode.kv_capacity_tokens) == (128, int(148e9 / 327_680))
    assert config.transfer_s_per_token == pytest.approx(327_680 / 25e9)
    assert (config.transfer_latency_s, config.startup_jitter, config.service_cv) == (
        0.005,
        0.3,
        0.05,
    )
    assert config.prefill_router is PrefillRouter.FEWEST_TOKENS
    assert config.decode_router is DecodeRouter.FEWEST_TOKENS
    assert config.seed == 3
    assert WARMUP_S == 600.0


def test_the_start_and_the_lag_can_be_given() -> None:
    prefill, decode = pools(BY_NAME["conv"], prefill=7, decode=9, lag_s=0.0)
    assert (prefill.initial_replicas, decode.initial_replicas) == (7, 9)
    assert (prefill.startup_s, decode.startup_s) == (0.0, 0.0)


@every_case
def test_the_truth_sways_within_four_per_cent(case: Case) -> None:
    tokens = np.linspace(64.0, case.isl_max_tokens, 500)
    plain, swaying = pools(case, wiggle=0.0)[0].surface, pools(case)[0].surface
    assert isinstance(plain, PrefillTruth)
    assert isinstance(swaying, PrefillTruth)
    ratio = swaying.seconds(tokens) / plain.seconds(tokens)
    assert 0.005 < np.abs(ratio - 1.0).max() <= 0.04


@every_case
@pytest.mark.parametrize("error", [-0.2, 0.0, 0.2], ids=str)
def test_planners_get_a_coarse_grid_without_the_sway(case: Case, error: float) -> None:
    told = case_profile(case, error)
    lengths = [p.isl_tokens for p in told.prefill]
    assert (len(lengths), lengths[0], lengths[-1]) == (15, 64, 32_768)
    contexts = sorted({p.context_tokens for p in told.decode})
    concurrencies = sorted({p.concurrency for p in told.decode})
    assert (len(contexts), contexts[0], contexts[-1]) == (6, 256, 16_384)
    assert (len(concurrencies), concurrencies[0], concurrencies[-1]) == (8, 1, 128)
    assert len(told.decode) == 48
    for prompt in told.prefill:
        expected_s = prompt_s(case, prompt.isl_tokens) * (1 + error)
        assert prompt.ttft_s == pytest.approx(expected_s)
    for point in told.decode:
        expected_s = step_s(case, point.concurrency, point.context_tokens) * (1 + error)
        assert point.itl_s == pytest.approx(expected_s)
    assert (told.kv_capacity_tokens, told.max_sequences) == (451_660, 128)
    assert told.startup_s == case.lag_s


@every_case
def test_a_planner_can_read_the_grid(case: Case) -> None:
    told = case_profile(case)
    # A coarse grid between its points: within 3 % of the truth.
    seen_s = float(prefill_surface(told).service_s(2000))
    assert seen_s == pytest.approx(prompt_s(case, 2000), rel=0.03)
    best = decode_surface(told).best_throughput(case.itl_s, 1200.0)
    assert best.itl_s <= case.itl_s
    assert step_s(case, best.concurrency, 1200.0) == pytest.approx(best.itl_s, rel=0.03)


def test_an_error_that_leaves_no_time_is_refused() -> None:
    with pytest.raises(InputError, match=r"profile error: got -1.0; legal: above -1"):
        case_profile(BY_NAME["conv"], -1.0)


@pytest.mark.parametrize(
    ("name", "requests"),
    # Five of ServeGen's prompts are above the cap.
    [("conv", 8 * 19_366), ("m_large", 2 * (209_411 - 5))],
)
def test_traffic_is_scaled_and_in_scope(name: str, requests: int) -> None:
    case = BY_NAME[name]
    first, second = case_trace(case, seed=0), case_trace(case, seed=1)
    assert len(first) == len(second) == requests
    assert first.isl_tokens.max() <= case.isl_max_tokens
    assert not np.array_equal(first.arrival_s, second.arrival_s)
    minutes = [np.bincount((t.arrival_s // 60.0).astype(int)) for t in (first, second)]
    np.testing.assert_array_equal(*minutes)
    assert (minutes[0] % case.copies == 0).all()


def test_the_synthetic_traffic_is_one_draw() -> None:
    first, second = (case_trace(BY_NAME["synthetic"], seed) for seed in (0, 1))
    np.testing.assert_array_equal(first.arrival_s, second.arrival_s)
    # The integral of the rate is 1,056,020 requests, its root 1,028.
    assert len(first) == pytest.approx(1_056_020, abs=4 * 1028)
    assert first.isl_tokens.max() == 8192


def test_another_trace_can_take_its_place(tmp_path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("t_s,isl,osl\n0,100,10\n5,20000,10\n30,200,20\n")
    trace = case_trace(BY_NAME["conv"], source=path)
    assert len(trace) == 16
    assert set(trace.isl_tokens) == {100, 200}
    with pytest.raises(TraceError, match="no such file"):
        case_trace(BY_NAME["conv"], source=tmp_path / "none.csv")


def test_a_problem_is_the_case_in_full(tmp_path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("t_s,isl,osl\n0,100,10\n30,200,20\n")
    case = BY_NAME["m_large"]
    problem = case_problem(case, seed=2, source=path)
    assert (problem.ttft_s, problem.itl_s, problem.warmup_s) == (case.ttft_s, case.itl_s, 600.0)
    assert problem.config.seed == 2
    assert {p.role for p in problem.config.pools} == set(Role)
    assert len(problem.trace) == 4


def test_the_first_ten_minutes_do_not_count() -> None:
    case = BY_NAME["conv"]
    # Nine prompts of more than half a second for four replicas: the last is late, and early.
    late = [0.0] * 9 + [700.0]
    plant = Plant(case_plant(case), make_trace("late", late, 5000, 2))
    plant.drain()
    summary = case_summary(case, plant.results())
    assert (summary.requests, summary.attainment.both) == (1, 1.0)
    billed_s = plant.now_s - 600.0
    assert summary.total_gpu_hours == pytest.approx(8 * 4 * billed_s / 3600.0)
