"""Who takes part in a comparison, and what an ablation takes away."""

import contextlib
from dataclasses import replace

import pytest

from planner.comparison.ablation import ABLATIONS, without_margin, without_tails
from planner.comparison.entries import (
    ENTRIES,
    GROUPS,
    OWN,
    OWN_KNOB,
    PEERS,
    knob_values,
    read_names,
)
from planner.comparison.recipes import case_service
from planner.decision import decide as decision
from planner.errors import InputError
from planner.model import Factors, Load, Role, Sizing, Statistic, TokenLoad
from planner.simulation.cases import case_named
from planner.simulation.policies.base import Knob
from planner.view.summary import POLICY


@pytest.fixture(scope="module")
def conv():
    return case_service(case_named("conv")).service


def load(tps=100.0):
    tokens = TokenLoad(
        seen_tps=tps, mean_tps=tps, up_tps=1.2 * tps, keep_tps=1.5 * tps, up_points=((tps, 1.0),)
    )
    return Load(0.0, dict.fromkeys(Role, tokens), None, 1.0, (1.0,), (2.0,))


# ── who takes part ───────────────────────────────────────────────────────────────────────────────


def test_by_default_the_planner_meets_all_peers():
    assert read_names(None) == [POLICY, *PEERS]


def test_groups_are_spelt_out_and_nobody_comes_twice():
    assert read_names(f"kpa, peers,{POLICY}") == [
        "kpa",
        *[n for n in PEERS if n != "kpa"],
        POLICY,
    ]
    assert set(read_names("all")) == set(ENTRIES)


def test_a_misspelt_policy_is_told_which_exist():
    with pytest.raises(InputError, match=r"--policy: 'kpaa' is unknown; legal: .*kpa, .*all"):
        read_names("kpa,kpaa")


@pytest.mark.parametrize("name", ENTRIES)
def test_every_grid_holds_what_ships(name):
    knob = ENTRIES[name].knob
    assert knob.shipped in knob.grid
    assert len(set(knob.grid)) == len(knob.grid) >= 8


@pytest.mark.parametrize(
    ("points", "values"),
    [
        pytest.param(1, [3.0], id="as-shipped-alone"),
        pytest.param(2, [1.0, 3.0, 6.0], id="ends-and-shipped"),
        pytest.param(9, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], id="all"),
    ],
)
def test_knob_values_spread_over_the_grid(points, values):
    assert knob_values(Knob("k", 3.0, (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)), points) == values


def test_the_planners_knob_is_its_caution_as_shipped(conv):
    assert OWN_KNOB.shipped == conv.caution
    service, _ = OWN[POLICY].turned(conv, 4.0)
    assert service == replace(conv, caution=4.0)
    assert OWN[POLICY].turned(conv, conv.caution)[0] == conv


def test_without_the_distribution_the_knob_is_a_quantile(conv):
    entry = OWN["without-distribution"]
    assert entry.knob.shipped == conv.up_quantile
    service, _ = entry.turned(conv, 0.95)
    assert service == replace(
        conv, sizing=Sizing.QUANTILE, up_quantile=0.95, keep_quantile=max(0.95, conv.keep_quantile)
    )


# ── the planner without one mechanism ────────────────────────────────────────────────────────────


def forecast_under(ablation):
    """Return the forecast of `load()` that sizing gets under an ablation."""
    step = ablation.steps["forecast"](lambda *_: load())
    return step("service", "memory", {}, 0.0)


def test_ablations_of_the_forecast_pass_on_less():
    margin = forecast_under(without_margin(1.1)).tokens[Role.PREFILL]
    assert margin.up_tps == margin.keep_tps == pytest.approx(110.0)
    assert margin.up_points == ()
    assert forecast_under(ABLATIONS["dispersion"]).dispersion == (1.0,)
    assert forecast_under(without_tails(2.0)).tokens[Role.DECODE].mean_tps == 200.0
    assert ABLATIONS["dispersion"].steps["forecast"](lambda *_: None)() is None


def test_ablations_of_the_service(conv):
    assert without_tails(1.0).service(conv).sla.statistic is Statistic.MEAN
    assert ABLATIONS["kalman"].service(conv).predictor == "LastValue"
    pools = ABLATIONS["window"].service(conv).pools
    assert {p.behavior.scale_down.stabilization_window_s for p in pools} == {0.0}


def test_other_steps_are_put_back_whatever_happens():
    kept = decision.correct, decision.lead_times_s
    with contextlib.suppress(RuntimeError), ABLATIONS["corrections"].applied():
        assert decision.correct is not kept[0]
        raise RuntimeError
    assert (decision.correct, decision.lead_times_s) == kept


def test_uncorrected_and_at_once(conv):
    corrected = ABLATIONS["corrections"].steps["correct"](lambda *_: ("memory", "factors"))
    assert corrected(conv, None, None) == ("memory", Factors())
    assert ABLATIONS["queue-check"].steps["rises"](None)("services", "states") == {}
    assert set(ABLATIONS["horizon"].steps["lead_times_s"](None)(conv, {}).values()) == {0.0}


def test_groups_name_entries():
    assert {name for names in GROUPS.values() for name in names} <= set(ENTRIES)
