"""What is drawn follows the truth that is stated, and only what is said to change changes."""

from itertools import pairwise

import numpy as np
import pytest

from planner.errors import InputError, TraceError
from planner.simulation.traces import Trace
from planner.simulation.workloads import (
    WORKLOADS,
    Workload,
    draw,
    level,
    random_workload,
    rising,
    workload_named,
)

HOUR = 3600.0


@pytest.fixture(scope="module")
def traces() -> dict[str, Trace]:
    return {name: draw(workload) for name, workload in WORKLOADS.items()}


def rate_rps(trace: Trace, from_s: float, to_s: float) -> float:
    return float(((trace.arrival_s >= from_s) & (trace.arrival_s < to_s)).sum() / (to_s - from_s))


def part(trace: Trace, from_s: float, to_s: float) -> np.ndarray:
    return (trace.arrival_s >= from_s) & (trace.arrival_s < to_s)


def expected(workload: Workload, from_s: float, to_s: float) -> float:
    at_s = np.arange(from_s, to_s, 0.5) + 0.25
    return float(workload.rate_rps(at_s).sum() * 0.5)


@pytest.mark.parametrize("name", [n for n in WORKLOADS if n != "bursty"])
def test_arrivals_follow_the_stated_rate(name: str, traces: dict[str, Trace]) -> None:
    workload, trace = WORKLOADS[name], traces[name]
    assert workload.name == trace.name == name
    edges = np.arange(0.0, workload.duration_s + 1.0, 300.0)
    counts = np.histogram(trace.arrival_s, edges)[0]
    wanted = np.array([expected(workload, a, b) for a, b in pairwise(edges)])
    # The first arrival is moved to 0 s, which takes the last block a moment of its arrivals.
    assert (np.abs(counts - wanted) <= 5.0 * np.sqrt(wanted) + 5.0).all()


@pytest.mark.parametrize(
    ("hours", "rps"),
    [
        # 30 − 15 cos(2π t / 8 h), and what is laid on it.
        ((0.0, 0.1), 15.01),
        ((3.9, 4.1), 44.98),
        ((2.4, 2.6), 71.46),
        ((1.0, 1.0 + 1 / 60), 3 * 19.48),
        ((3.6, 3.6 + 1 / 60), 3 * 44.29),
        ((6.8, 6.8 + 1 / 60), 3 * 21.11),
        ((7.9, 8.0), 2 * 15.01),
    ],
    ids=["start", "noon", "double", "spike 1", "spike 2", "spike 3", "after the ramp"],
)
def test_the_synthetic_day_has_its_facts(
    hours: tuple[float, float], rps: float, traces: dict[str, Trace]
) -> None:
    from_s, to_s = hours[0] * HOUR, hours[1] * HOUR
    allowed = 5.0 * np.sqrt(rps / (to_s - from_s))
    assert rate_rps(traces["synthetic-8h"], from_s, to_s) == pytest.approx(rps, abs=allowed)


@pytest.mark.parametrize(
    ("hours", "isl", "osl"),
    [
        ((0.0, 4.0), 997, 200),
        # Prompts are cut at 8192 tokens: the mean of 2000 loses 25 of them.
        ((4.0, 5.0), 1975, 200),
        ((5.0, 5.5), 997, 200),
        ((5.5, 6.5), 997, 400),
        ((6.5, 8.0), 997, 200),
    ],
    ids=["before", "long prompts", "between", "long outputs", "after"],
)
def test_the_synthetic_lengths_have_their_facts(
    hours: tuple[float, float], isl: float, osl: float, traces: dict[str, Trace]
) -> None:
    trace = traces["synthetic-8h"]
    of = part(trace, hours[0] * HOUR, hours[1] * HOUR)
    assert trace.isl_tokens[of].mean() == pytest.approx(isl, rel=0.015)
    assert trace.osl_tokens[of].mean() == pytest.approx(osl, rel=0.015)
    assert trace.osl_tokens[of].std() / trace.osl_tokens[of].mean() == pytest.approx(0.8, rel=0.03)
    assert trace.isl_tokens.max() == 8192
    assert trace.osl_tokens.max() <= 4096


def test_a_shift_of_lengths_moves_nothing_else(traces: dict[str, Trace]) -> None:
    plain, isl, osl = (traces[name] for name in ("constant", "isl-shift", "osl-shift"))
    np.testing.assert_array_equal(plain.arrival_s, isl.arrival_s)
    np.testing.assert_array_equal(plain.osl_tokens, isl.osl_tokens)
    np.testing.assert_array_equal(plain.isl_tokens, osl.isl_tokens)
    after = part(plain, 1801.0, HOUR)
    assert isl.isl_tokens[after].sum() / plain.isl_tokens[after].sum() == pytest.approx(2, 0.03)
    assert osl.osl_tokens[after].sum() / plain.osl_tokens[after].sum() == pytest.approx(2, 0.03)
    before = part(plain, 0.0, 1799.0)
    np.testing.assert_array_equal(plain.isl_tokens[before], isl.isl_tokens[before])


def test_silence_is_silent(traces: dict[str, Trace]) -> None:
    assert rate_rps(traces["zero-and-return"], 1800.0, 2699.0) == 0.0
    assert rate_rps(traces["zero-and-return"], 2700.0, 3500.0) == pytest.approx(20.0, rel=0.05)


def test_the_cache_collapses_and_the_prompts_stay(traces: dict[str, Trace]) -> None:
    trace, plain = traces["cache-collapse"], traces["constant"]
    share = trace.cached_tokens / trace.isl_tokens
    before, after = part(trace, 0.0, 1799.0), part(trace, 1801.0, HOUR)
    assert share[before].mean() == pytest.approx(0.4, abs=0.005)
    assert (share[after] == 0.0).all()
    np.testing.assert_array_equal(trace.isl_tokens, plain.isl_tokens)


def test_bursts_are_bursts(traces: dict[str, Trace]) -> None:
    def dispersion(trace: Trace) -> float:
        counts = np.histogram(trace.arrival_s, np.arange(0.0, HOUR, 10.0))[0]
        return float(counts.var() / counts.mean())

    assert dispersion(traces["constant"]) == pytest.approx(1.0, abs=0.35)
    # 1 + mean × cv²: 200 arrivals in 10 s, cv 0.5. The blocks start where the trace does.
    assert dispersion(traces["bursty"]) == pytest.approx(51.0, rel=0.35)


def test_a_draw_is_its_seed() -> None:
    first, same, other = (draw(WORKLOADS["step"], seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.arrival_s, same.arrival_s)
    np.testing.assert_array_equal(first.isl_tokens, same.isl_tokens)
    assert len(first) != len(other)


@pytest.mark.parametrize("seed", range(12))
def test_random_regimes_are_sane_and_repeat(seed: int) -> None:
    workload = random_workload(seed, duration_s=1200.0)
    at_s = np.arange(0.0, 1200.0, 5.0)
    rates = workload.rate_rps(at_s)
    # 40 requests/s, a wave of at most 1.6, three steps of 3 and three spikes of 5 at once.
    assert ((rates > 0.0) & (rates <= 40.0 * 1.6 * 27.0 * 125.0)).all()
    for lengths, plain in ((workload.isl_tokens, 1000.0), (workload.osl_tokens, 200.0)):
        assert ((lengths(at_s) >= plain / 4.0) & (lengths(at_s) <= plain * 4.0)).all()
    again = random_workload(seed, duration_s=1200.0)
    np.testing.assert_array_equal(rates, again.rate_rps(at_s))
    np.testing.assert_array_equal(draw(workload, 1).arrival_s, draw(again, 1).arrival_s)


def test_random_regimes_differ() -> None:
    at_s = np.arange(0.0, 7200.0, 60.0)
    rates = {tuple(np.round(random_workload(seed).rate_rps(at_s), 6)) for seed in range(12)}
    assert len(rates) == 12


def test_a_ramp_is_straight() -> None:
    ramp = rising(100.0, 200.0, 3.0)
    assert ramp(np.array([0.0, 100.0, 150.0, 200.0, 900.0])).tolist() == [1, 1, 2, 3, 3]


def test_nothing_drawn_is_told() -> None:
    nothing = Workload("nothing", 60.0, level(0.0), level(10.0), level(10.0), level(0.0))
    with pytest.raises(TraceError, match="nothing: got no requests"):
        draw(nothing)


def test_an_unknown_workload_is_told_those_there_are() -> None:
    with pytest.raises(InputError, match=r"workload spikes: unknown; legal: constant, step"):
        workload_named("spikes")
