"""The planner spared one trouble at a time: what it is told, and that it is the truth."""

from dataclasses import replace

import numpy as np
import pytest

from planner.comparison.entries import ENTRIES, GROUPS
from planner.comparison.recipes import CaseRecipe, case_service
from planner.comparison.regret import (
    NO_LAG,
    SPARED,
    TRUE_LOAD,
    TRUE_PROFILE,
    interval_tps,
    true_decode,
    true_prefill,
)
from planner.comparison.runs import Scenario, Task, play
from planner.model import Load, Role, TokenLoad
from planner.simulation.cases import case_named, case_plant
from planner.simulation.traces import make_trace
from planner.view.summary import POLICY

SHORT = CaseRecipe("conv", 0, until_s=900.0)


@pytest.fixture(scope="module")
def scenario():
    case = case_named("conv")
    # Minute by minute 1, 2, 3 … requests of 600 prompt tokens, half of them cached, and 60 more.
    arrival_s = [60.0 * minute + k for minute in range(10) for k in range(minute + 1)]
    trace = make_trace("ramp", arrival_s, 600, 60, 300)
    return Scenario(trace, case_service(case), case_plant(case), {}, 0.0)


def load(at_s):
    tokens = TokenLoad(seen_tps=7.0, mean_tps=1.0, up_tps=1.0, keep_tps=1.0)
    return Load(at_s, dict.fromkeys(Role, tokens), None, 1.0, (1.0,), (2.0,))


def foreseen(scenario, at_s, headroom=1.0):
    step = SPARED[TRUE_LOAD](scenario, headroom).ablation.steps["forecast"]
    return step(lambda *_: load(at_s))("service", "memory", {}, at_s).tokens


def test_a_trace_is_told_by_the_interval(scenario):
    assert interval_tps(scenario.trace, Role.PREFILL, 60.0)[:3] == (5.0, 10.0, 15.0)
    assert interval_tps(scenario.trace, Role.DECODE, 60.0)[:3] == (1.0, 2.0, 3.0)


def test_the_forecast_is_the_trace_over_both_windows(scenario):
    # A start takes 90 s, 117 s at most: ordered at 60 s it serves from the third minute on.
    tokens = foreseen(scenario, 60.0)[Role.DECODE]
    assert tokens == TokenLoad(seen_tps=7.0, mean_tps=4.0, up_tps=4.0, keep_tps=4.0)
    assert foreseen(scenario, 60.0, headroom=1.5)[Role.PREFILL].up_tps == pytest.approx(30.0)


def test_what_runs_is_kept_for_what_comes_before_an_order_would_serve(scenario):
    arrival_s = np.concatenate([[0.0], np.full(60, 70.0), [125.0, 185.0, 245.0]])
    falls = replace(scenario, trace=make_trace("falls", arrival_s, 600, 60))
    tokens = foreseen(falls, 60.0)[Role.DECODE]
    assert (tokens.up_tps, tokens.keep_tps) == (1.0, 60.0)


def test_after_the_trace_nothing_comes(scenario):
    assert foreseen(scenario, 6000.0)[Role.DECODE].keep_tps == 0.0


def test_no_forecast_stays_none(scenario):
    step = SPARED[TRUE_LOAD](scenario, 1.0).ablation.steps["forecast"]
    assert step(lambda *_: None)() is None


def test_true_surfaces_are_the_plants(scenario):
    plants = {pool.role: pool for pool in scenario.plant.pools}
    told = SPARED[TRUE_PROFILE](scenario, 0.65).scenario.loaded.service
    prefill, decode = (told.pools_of(role)[0] for role in (Role.PREFILL, Role.DECODE))
    isl = np.array([100.0, 777.0, 3000.0, 12_000.0])
    truth = plants[Role.PREFILL].surface.seconds(isl)
    assert prefill.prefill.service_s(isl) == pytest.approx(truth, rel=0.002)
    # A case's own profile is off by the wiggle.
    before = scenario.loaded.service.pools_of(Role.PREFILL)[0].prefill.service_s(isl)
    assert before != pytest.approx(truth, rel=0.002)
    batches, context = np.array([3.0, 17.0, 60.0, 110.0]), np.full(4, 1500.0)
    truth = plants[Role.DECODE].surface.seconds(batches, context)
    assert decode.decode.itl_s(batches, context) == pytest.approx(truth, rel=0.005)


def test_true_profiles_cover_what_was_told(scenario):
    told = scenario.loaded.profiles
    surfaces = {pool.name: pool.surface for pool in scenario.plant.pools}
    prefill = true_prefill(surfaces["prefill"], told["prefill"]).prefill
    assert (prefill[0].isl_tokens, prefill[-1].isl_tokens) == (64, 32_768)
    decode = true_decode(surfaces["decode"], told["decode"]).decode
    assert max(p.concurrency for p in decode) == 128
    contexts = [p.context_tokens for p in decode]
    assert (min(contexts), max(contexts)) == pytest.approx((256.0, 16_384.0))


def test_a_full_cache_still_ends_a_row(scenario):
    told = scenario.loaded.profiles["decode"]
    held = tuple(p for p in told.decode if p.concurrency * p.context_tokens <= 100_000)
    small = told.model_copy(update={"kv_capacity_tokens": 100_000, "decode": held})
    (surface,) = (p.surface for p in scenario.plant.pools if p.role is Role.DECODE)
    found = true_decode(surface, small).decode
    assert max(p.concurrency * p.context_tokens for p in found) <= 100_000


def test_without_lag_plant_and_planner_know_of_none(scenario):
    spared = SPARED[NO_LAG](scenario, 0.65).scenario
    assert {pool.startup_s for pool in spared.plant.pools} == {0.0}
    assert {pool.startup_s for pool in spared.loaded.service.pools} == {0.0}


@pytest.mark.parametrize("name", SPARED)
def test_each_is_played_and_acts_otherwise(name):
    shipped = ENTRIES[name].knob.shipped
    own = play(Task(SHORT, POLICY, ENTRIES[POLICY].knob.shipped))
    assert play(Task(SHORT, name, shipped)).row["gpu_hours"] != own.row["gpu_hours"]


def test_the_group_holds_the_planner_and_who_is_spared():
    assert GROUPS["regret"] == (POLICY, *SPARED)
    assert not set(GROUPS["ablation"]) & set(SPARED)
