"""How a fleet follows its need: every figure worked out by hand."""

import doctest
from dataclasses import astuple

import numpy as np
import pytest

from planner.simulation import elasticity as module
from planner.simulation.elasticity import (
    Elasticity,
    Lapses,
    elasticity,
    lapses,
    peak_in_prefill,
    speed_up,
    supply,
)
from planner.simulation.results import Lifetime, PlantResults

NAN = float("nan")


def results(arrival_s=(), ttft_s=(), prefilled_s=None, status=None, lives=(), end_s=600.0):
    count = len(arrival_s)
    at_s = np.array(arrival_s, dtype=float)
    return PlantResults(
        arrival_s=at_s,
        prefilled_s=at_s if prefilled_s is None else np.array(prefilled_s),
        finished_s=at_s,
        ttft_s=np.array(ttft_s, dtype=float) if ttft_s else np.zeros(count),
        itl_s=np.zeros(count),
        status=np.ones(count, np.int32) if status is None else np.array(status, np.int32),
        end_s=end_s,
        lifetimes=tuple(lives),
        orders={},
        gpus_per_replica={"prefill": 1},
    )


def life(ready_s, released_s, pool="prefill"):
    return Lifetime(pool, "pod", 0.0, ready_s, released_s)


def test_the_example_holds():
    assert doctest.testmod(module).failed == 0


# ── following the need ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("need", "steps", "figures"),
    [
        pytest.param((2, 2), [(0, 2), (120, 2)], (0, 0, 0, 0, 0, 0), id="as-needed"),
        pytest.param((4, 4), [(0, 3), (120, 3)], (25, 0, 100, 0, 0, 0), id="a-quarter-missing"),
        pytest.param((2, 2), [(0, 5), (120, 5)], (0, 150, 0, 100, 0, 0), id="more-than-twice"),
        # The need doubles after one minute of two; supply stands still: one minute of one differs.
        pytest.param((1, 2), [(0, 1), (120, 1)], (25, 0, 50, 0, 100, -30), id="left-behind"),
        # Half a minute late.
        pytest.param((1, 2), [(0, 1), (90, 2), (120, 2)], (12.5, 0, 25, 0, 100, -30), id="late"),
        # In time: both rise over the same minute.
        pytest.param((1, 2), [(0, 1), (60, 2), (120, 2)], (0, 0, 0, 0, 0, 0), id="in-time"),
        # Supply turns in both minutes, the need never does.
        pytest.param(
            (2, 2, 2),
            [(0, 2), (60, 3), (120, 2), (180, 2)],
            (0, 100 / 6, 0, 100 / 3, 100, 40),
            id="restless",
        ),
        # From the second minute on: what was before is left out.
        pytest.param((9, 1), [(60, 1), (120, 1)], (0, 0, 0, 0, 0, 0), id="after-the-warm-up"),
        # A schedule that ends keeps its last count.
        pytest.param((1, 2), [(60, 2), (300, 2)], (0, 0, 0, 0, 0, 0), id="beyond-the-schedule"),
    ],
)
def test_elasticity_by_hand(need, steps, figures):
    assert astuple(elasticity(need, steps)) == pytest.approx(figures)


def test_supply_counts_what_serves():
    lives = [
        life(0.0, 600.0),
        life(90.0, 300.0),
        life(None, 120.0),
        life(30.0, 70.0),
        life(0.0, 600.0, "decode"),
    ]
    found = supply(results(lives=lives), "prefill", 60.0, 400.0)
    assert found == [[60.0, 2.0], [70.0, 1.0], [90.0, 2.0], [300.0, 1.0], [400.0, 1.0]]
    assert supply(results(), "prefill", 0.0, 60.0) == [[0.0, 0.0], [60.0, 0.0]]


def test_speed_up_is_the_geometric_mean_of_four():
    own, twice = (Elasticity(*(factor * x for x in (1, 2, 3, 4, 5, 6))) for factor in (1, 2))
    assert speed_up(own, twice) == pytest.approx(2.0)
    assert speed_up(twice, own) == pytest.approx(0.5)
    assert speed_up(own, own) == pytest.approx(1.0)
    assert speed_up(own, Elasticity(0.0, 2, 3, 4, 5, 6)) is None
    assert speed_up(Elasticity(1, 2, 0.0, 4, 5, 6), own) is None


# ── lapses and queues ────────────────────────────────────────────────────────────────────────────


def by_minute(*shares):
    """Return 20 requests a minute, of which these shares attain; None: no request."""
    arrival_s, ttft_s = [], []
    for minute, share in enumerate(shares):
        if share is not None:
            arrival_s += [60.0 * minute + k for k in range(20)]
            ttft_s += [0.5 if k < round(20 * share) else 2.0 for k in range(20)]
    return results(arrival_s, ttft_s)


@pytest.mark.parametrize(
    ("shares", "found"),
    [
        pytest.param((1.0, 0.95, 1.0), Lapses(0, 0.0), id="just-good-enough"),
        pytest.param((1.0, 0.90, 0.5, 1.0), Lapses(1, 120.0), id="two-minutes"),
        pytest.param((0.9, 1.0, 0.9, 0.9, 0.9, 1.0), Lapses(2, 180.0), id="the-longer-of-two"),
        pytest.param((1.0, 0.9, None, None, 1.0), Lapses(1, 180.0), id="silence-heals-nothing"),
        pytest.param((1.0, 0.9, 0.9), Lapses(1, 120.0), id="never-back"),
        pytest.param((None, None), Lapses(0, 0.0), id="nobody"),
    ],
)
def test_a_lapse_ends_with_the_first_minute_back(shares, found):
    assert lapses(by_minute(*shares), 1.0, 1.0, 0.0, 60.0) == found


def test_lapses_of_the_warm_up_are_left_out():
    assert lapses(by_minute(0.0, 1.0), 1.0, 1.0, 60.0, 60.0) == Lapses(0, 0.0)


def test_the_peak_counts_who_is_inside():
    run = results(
        arrival_s=(0.0, 1.0, 2.0, 3.0, 10.0),
        prefilled_s=(5.0, 6.0, 2.5, NAN, 11.0),
        status=(1, 1, 1, 0, 1),
    )
    assert peak_in_prefill(run, 0.0) == 3
    assert peak_in_prefill(run, 4.0) == 2
    assert peak_in_prefill(run, 20.0) == 0


def test_who_was_refused_never_waited():
    run = results(arrival_s=(0.0, 1.0), prefilled_s=(NAN, NAN), status=(2, 0))
    assert peak_in_prefill(run, 0.0) == 1
