"""A comparison: who takes part, one run each, what is summed up, and what is printed."""

import json
from dataclasses import replace

import pytest

from planner.comparison.contest import Plan, contest, halfway
from planner.comparison.entries import ENTRIES
from planner.comparison.recipes import CaseRecipe, case_service, require_length
from planner.comparison.regret import SPARED
from planner.comparison.runs import ORACLES, Foresight, Run, Task, bounds_of, capacity_of, play
from planner.comparison.summary import summed_up
from planner.comparison.workers import play_all
from planner.errors import InputError
from planner.model import Role
from planner.simulation.cases import CASES, case_named, case_trace
from planner.simulation.oracles import OracleName, OracleRun
from planner.simulation.plant import Plant
from planner.simulation.results import summarise
from planner.simulation.statistics import Sweep, Tally
from planner.view.comparison_groups import Line, lines_of
from planner.view.comparison_rows import never_reached
from planner.view.comparison_table import (
    TROUBLES,
    comparison_tables,
    control_cells,
    following_cells,
    oracle_lines,
    regret_lines,
)
from planner.view.summary import POLICY, results_json

SHORT = CaseRecipe("conv", 0, until_s=900.0)
SHIPPED = ENTRIES[POLICY].knob.shipped
CAUTIOUS = 4.0 * SHIPPED


@pytest.fixture(scope="module")
def conv():
    return case_service(case_named("conv")).service


@pytest.fixture(scope="module")
def quick():
    plan = Plan([POLICY, "kpa"], points=2, asked=(0.5, 0.99), oracles=False, draws=20)
    return contest([SHORT], plan)


# ── one run ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["static-peak", "without-corrections"])
def test_a_run_has_the_row_of_simulate_and_a_tally_that_agrees(name):
    task = Task(SHORT, name, ENTRIES[name].knob.shipped)
    run = play(task)
    assert keys_of_simulate() <= set(run.row)
    assert sum(run.tally.requests) == run.row["requests"] > 0
    both = sum(run.tally.attained) / sum(run.tally.requests)
    assert both == pytest.approx(run.row["attainment"]["both"])
    assert sum(run.tally.gpu_s) / 3600.0 == pytest.approx(run.row["gpu_hours"])
    assert play(task).tally == run.tally


def keys_of_simulate():
    scenario = SHORT.build()
    plant = Plant(scenario.plant, scenario.trace)
    plant.drain()
    summary = summarise(plant.results(), 1.0, 1.0)
    return set(results_json(scenario.loaded.service, "t", 0, [], plant.results(), summary, 0.0))


def test_oracles_answer_for_every_attainment():
    found = play(Task(CaseRecipe("conv", 0, until_s=700.0), ORACLES, asked=(0.9,)))
    assert isinstance(found, Foresight)
    assert {run.oracle for run in found.runs} == set(OracleName)
    zero, same = (found.find(name, 0.9) for name in (OracleName.ZERO_LAG, OracleName.SAME_LAG))
    assert zero is None or same is None or zero.gpu_hours <= 1.01 * same.gpu_hours
    assert found.find(OracleName.ZERO_LAG, 0.5) is None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_is_a_service_of_default_settings(case):
    service = case_service(case).service
    assert (service.sla.ttft_s, service.sla.itl_s) == pytest.approx((case.ttft_s, case.itl_s))
    assert service.sla.attainment_ratio == pytest.approx(case.attainment)
    assert {pool.startup_s for pool in service.pools} == {case.lag_s}
    capacity = capacity_of(service)
    assert capacity.decode_tps(1000.0) > 0.0
    assert capacity.decode_best(1e-6, 1000.0)[1] == 1.0  # beyond reach: one sequence


def test_peers_know_one_pool_a_role(conv):
    twice = replace(conv, pools=(*conv.pools, replace(conv.pools[0], name="more")))
    with pytest.raises(InputError, match=r"role prefill has 2 pools \(prefill, more\); legal: 1"):
        bounds_of(twice)


def test_a_trace_shorter_than_a_start_is_refused():
    loaded = case_service(case_named("conv"))
    trace = CaseRecipe("conv", 0, until_s=60.0).build().trace
    with pytest.raises(InputError, match=r"takes 90 s to start.*give a trace longer"):
        require_length(trace, loaded, 10)
    with pytest.raises(InputError, match=r"--warmup: 100 intervals"):
        require_length(case_trace(case_named("conv")), loaded, 100)


# ── all runs ─────────────────────────────────────────────────────────────────────────────────────


def test_a_contest_is_played_and_refined(quick):
    assert {row["policy"] for row in quick.rows} == {POLICY, "kpa"}
    values = {row["knob"]["value"] for row in quick.frontier if row["policy"] == "kpa"}
    assert len(values) >= 3
    assert {price.attainment for price in quick.prices} == {0.5, 0.99}
    own = next(p for p in quick.prices if p.policy == POLICY and p.attainment == 0.99)
    assert own.over_planner in {None, 1.0}
    assert json.loads(json.dumps(quick.document(), allow_nan=False))


def test_the_same_contest_gives_the_same_figures(quick):
    plan = Plan(["kpa"], points=1, oracles=False, draws=0)
    (row,) = contest([SHORT], plan).rows
    like = next(r for r in quick.rows if r["policy"] == "kpa")
    assert row["gpu_hours"] == like["gpu_hours"]
    assert row["attainment"] == like["attainment"]


def test_halfway_is_between_the_runs_that_a_price_is_read_from():
    one = [Tally((10.0,), (a,), (s,)) for a, s in ((5.0, 1.0), (8.0, 2.0), (10.0, 4.0))]
    sweep = Sweep.of([(float(k), [t]) for k, t in enumerate(one, 1)])
    assert halfway(sweep, (0.4, 0.6, 0.7, 0.9)) == [1.5, 2.5]


def test_ctrl_c_keeps_what_is_finished():
    tasks = [Task(SHORT, "static-peak", value) for value in (1.0, 1.3, 1.6)]
    heard = []

    def done(task, result):
        heard.append(task)
        if len(heard) == 2:
            raise KeyboardInterrupt

    found = play_all(tasks, 1, None, done)
    assert [r.value for r in found.results] == [1.0, 1.3]
    assert found.why_stopped == "stopped by Ctrl-C: 1 of 3 runs are left"
    assert heard == tasks[:2]


def test_what_is_kept_is_not_played_again():
    task = Task(SHORT, "static-peak", 1.0)
    run = play(task)
    plan = Plan(["static-peak"], points=1, oracles=False, draws=0)
    assert list(contest([SHORT], plan, store=Kept(task, run)).rows) == [run.row]


class Kept:
    """A store that holds one run and takes no other."""

    def __init__(self, task, run):
        self.held = {task: run}

    def find(self, task):
        return self.held.get(task)

    def keep(self, task, result):
        raise AssertionError(task, result)


# ── what is told ─────────────────────────────────────────────────────────────────────────────────


def ran(entry, value, attained, gpu_s, seed=0):
    row = {
        "policy": entry,
        "trace": "t",
        "seed": seed,
        "requests": 200,
        "asked": 0.99,
        "attainment": {"both": attained, "ttft": 1.0, "itl": 1.0, "worst_5min": attained},
        "gpu_hours": gpu_s / 1800.0,
        "knob": {"name": ENTRIES[entry].knob.name, "value": value},
        "scale_actions": 4,
        "reversals": 2,
        "unfinished": 0,
        "tick_ms": {"p50": 1.0, "p99": 2.0},
        "simulated_s": 7200.0,
        "ratio_to_oracle": None,
        "wasted_starts": 1,
        "lapses": 2,
        "recovery_s": 120.0,
        "peak_queue": 7,
        "elasticity": None,
    }
    tally = Tally((100.0, 100.0), (100.0 * attained,) * 2, (gpu_s, gpu_s))
    supplied = [[600.0, 1.0], [660.0, 2.0], [720.0, 2.0]]
    return Run("t", seed, entry, value, row, tally, dict.fromkeys(Role, supplied))


def foreseen(oracle, gpu_hours, attained=0.99, prefill=(1,), decode=(1,)):
    return OracleRun(oracle, 0.99, attained, 1.0, 1.0, 0.9, gpu_hours, 1.0, prefill, decode)


def summed(*more):
    runs = [
        ran(POLICY, SHIPPED, 0.98, 3600.0),
        ran(POLICY, CAUTIOUS, 1.0, 5400.0),
        ran("kpa", ENTRIES["kpa"].knob.shipped, 0.90, 7200.0),
    ]
    return summed_up([*runs, *more], [POLICY, "kpa"], (0.99,), 10, None)


def test_prices_stand_beside_the_oracles():
    oracles = (
        foreseen(OracleName.ZERO_LAG, 1.5),
        foreseen(OracleName.SAME_LAG, 2.0),
        foreseen(OracleName.BEST_STATIC, 4.0),
    )
    found = summed(Foresight("t", 0, oracles))
    own, kpa = found.prices
    assert own.reading.gpu_hours == pytest.approx(2.5)
    assert (own.over_oracle, own.over_static, own.over_planner) == pytest.approx((1.25, 0.625, 1.0))
    assert kpa.reading.gpu_hours is None
    shipped = found.rows[0]
    assert shipped["ratio_to_oracle"] == pytest.approx(1.0)
    assert shipped["oracle"]["zero_lag_gpu_hours"] == 1.5
    static = found.rows[-1]
    assert (static["policy"], static["gpu_hours"]) == ("static-best", 4.0)
    assert set(static) == set(shipped)


def test_rows_say_how_each_pool_follows_the_need():
    need = foreseen(OracleName.ZERO_LAG, 1.5, prefill=(0,) * 10 + (2, 2), decode=(1,))
    fixed = foreseen(OracleName.BEST_STATIC, 4.0, prefill=(3,), decode=(1,))
    own, _, static = summed(Foresight("t", 0, (need, fixed))).rows
    found = {role: own["elasticity"][role] for role in Role}
    # One of two is missing over the first of two minutes; decode has one too many in the second.
    assert found[Role.PREFILL]["theta_u_pct"] == pytest.approx(25.0)
    assert found[Role.PREFILL]["theta_o_pct"] == 0.0
    assert found[Role.DECODE]["tau_o_pct"] == pytest.approx(50.0)
    assert found[Role.DECODE]["speed_up_over_static"] is None
    assert static["elasticity"][Role.PREFILL]["theta_o_pct"] == pytest.approx(50.0)


def test_without_a_need_nobody_follows_it():
    found = summed(Foresight("t", 0, (foreseen(OracleName.ZERO_LAG, 1.5, attained=0.9),)))
    assert found.rows[0]["elasticity"] is None
    own = lines_of(found.document())["t"][0]
    assert set(following_cells(own, Role.DECODE)[1:]) == {"–"}
    # 4 actions, 2 turns, 1 wasted start and 2 lapses in two hours.
    assert control_cells(own) == [POLICY, "2.0", "1.0", "0.5", "1.0", "120 s", "7"]


def test_an_oracle_that_falls_short_is_no_measure():
    found = summed(Foresight("t", 0, (foreseen(OracleName.SAME_LAG, 2.0, attained=0.98),)))
    assert found.prices[0].over_oracle is None
    assert found.rows[0]["ratio_to_oracle"] is None


def test_a_sweep_that_never_attains_says_the_best():
    (line,) = never_reached(summed().prices)
    assert line.startswith("t: kpa: no headroom of the sweep reaches 0.99: the best is 0.9000 at")
    assert line.endswith(f"{ENTRIES['kpa'].knob.shipped:g}")


def test_a_knob_that_lacks_a_seed_is_left_out():
    found = summed(ran(POLICY, SHIPPED, 0.98, 3600.0, seed=1), ran("kpa", 3.0, 1.0, 9000.0, seed=1))
    own = found.prices[0]
    assert own.best_value == SHIPPED


def test_lines_are_means_over_seeds():
    found = summed(
        ran(POLICY, SHIPPED, 1.0, 5400.0, seed=1), ran(POLICY, CAUTIOUS, 1.0, 5400.0, seed=1)
    )
    own = lines_of(found.document())["t"][0]
    assert own.mean("attainment", "both") == pytest.approx(0.99)
    assert own.lowest("attainment", "worst_5min") == 0.98
    assert own.an_hour("reversals") == 1.0
    assert own.mean("ratio_to_oracle") is None


def priced(policy, gpu_hours, is_bound=False):
    row = {"trace": "t", "policy": policy, "attainment": 0.99, "gpu_hours": gpu_hours,
           "is_bound": is_bound}  # fmt: skip
    return Line("t", policy, [], {0.99: row})


def test_regret_is_the_difference_to_who_is_spared():
    lines = [
        priced(POLICY, 80.0),
        priced("with-true-load", 70.5),
        priced("with-true-profile", 81.0),
        priced("without-lag", 75.0, is_bound=True),
    ]
    (told,) = regret_lines(lines)
    assert told == "At 99% pd-planner pays of its 80.0 GPU-h for: the forecast +9.5, the model -1.0"
    assert regret_lines(lines[:1]) == regret_lines(lines[1:]) == []
    assert regret_lines([priced(POLICY, None), priced("with-true-load", 70.0)]) == []
    assert set(TROUBLES) == set(SPARED)


def test_tables_hold_every_policy_and_oracle(capsys):
    from rich.console import Console

    found = summed(Foresight("t", 0, (foreseen(OracleName.SAME_LAG, 2.0),)))
    Console(width=100).print(comparison_tables(found.document()))
    text = capsys.readouterr().out
    for word in (POLICY, "kpa", "static-best", "best 90%", "O2, all known"):
        assert (word in text) == (word != "static-best")
    assert oracle_lines(found.oracles, "other") == []
