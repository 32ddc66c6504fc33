"""Frontiers, prices at equal attainment and their intervals."""

import numpy as np
import pytest

from planner.simulation.results import Lifetime, PlantResults
from planner.simulation.statistics import (
    Reading,
    Sweep,
    Tally,
    frontier,
    interval,
    prices,
    read_at,
    resampled,
    tally,
)


def results(arrival_s, ttft_s, lifetimes=(), end_s=1000.0):
    arrival = np.array(arrival_s)
    return PlantResults(
        arrival_s=arrival,
        prefilled_s=arrival,
        finished_s=arrival,
        ttft_s=np.array(ttft_s),
        itl_s=np.zeros(arrival.size),
        status=np.ones(arrival.size, np.int32),
        end_s=end_s,
        lifetimes=tuple(lifetimes),
        orders={},
        gpus_per_replica={"prefill": 2},
    )


def steady(attained, hours, windows=12, seeds=1):
    """Return a sweep whose every window is alike."""
    runs = []
    for knob, (share, gpu_hours) in enumerate(zip(attained, hours, strict=True)):
        gpu_s = 3600.0 * gpu_hours / windows
        one = Tally((100.0,) * windows, (100.0 * share,) * windows, (gpu_s,) * windows)
        runs.append((float(knob), [one] * seeds))
    return Sweep.of(runs)


def test_a_tally_counts_by_window_of_arrival_and_bills_its_gpus():
    lives = [
        Lifetime("prefill", "a", 0.0, 0.0, 1000.0),
        Lifetime("prefill", "b", 350.0, None, 400.0),
    ]
    run = results([50.0, 150.0, 450.0, 690.0], [0.1, 0.9, 0.1, 0.1], lives)
    found = tally(run, 0.5, 1.0, 100.0, 700.0)
    assert found.requests == (1.0, 2.0)
    assert found.attained == (0.0, 2.0)
    assert found.gpu_s == pytest.approx((2 * (300 + 50), 2 * 600))  # the drain is in the last


def test_a_tally_agrees_with_the_whole():
    rng = np.random.default_rng(1)
    lives = [Lifetime("prefill", str(i), 50.0 * i, 60.0 * i, 400.0 + 30 * i) for i in range(9)]
    run = results(np.sort(rng.uniform(0, 900, 500)), rng.uniform(0, 1, 500), lives)
    found = tally(run, 0.5, 1.0, 100.0, 900.0)
    assert sum(found.requests) == (run.arrival_s >= 100.0).sum()
    assert sum(found.gpu_s) == pytest.approx(run.gpu_seconds(100.0)["prefill"])


def test_a_run_that_a_cheaper_one_betters_is_off_the_frontier():
    found = frontier(np.array([0.9, 0.8, 0.99, 0.99]), np.array([10.0, 12.0, 15.0, 15.5]))
    assert found.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("asked", "reading"),
    [
        pytest.param(0.94, Reading(14.0), id="between-two-runs"),
        pytest.param(0.98, Reading(18.0), id="at-a-run"),
        pytest.param(0.90, Reading(10.0), id="at-the-boldest"),
        pytest.param(0.50, Reading(10.0, is_bound=True), id="below-the-boldest"),
        pytest.param(0.999, Reading(None), id="never"),
    ],
)
def test_prices_are_read_off_the_frontier(asked, reading):
    attainment, hours = np.array([0.98, 0.90, 0.97]), np.array([18.0, 10.0, 30.0])
    found = read_at(attainment, hours, asked)
    assert found.is_bound == reading.is_bound
    assert found.gpu_hours == (
        None if reading.gpu_hours is None else pytest.approx(reading.gpu_hours)
    )


def test_seeds_are_averaged():
    one, other = (Tally((10.0,), (a,), (s,)) for a, s in ((10.0, 3600.0), (8.0, 7200.0)))
    attainment, hours = Sweep.of([(1.0, [one, other])]).points()
    assert attainment.tolist() == [0.9]
    assert hours.tolist() == [1.5]


def test_knobs_are_sorted():
    one = Tally((1.0,), (1.0,), (1.0,))
    assert Sweep.of([(2.0, [one]), (1.0, [one])]).knobs == (1.0, 2.0)


def test_resampled_traces_are_made_of_half_hours():
    drawn = resampled(12, draws=50)
    assert drawn.shape == (50, 12)
    steps = np.diff(drawn[:, :6]) % 12
    assert (steps == 1).all()
    assert len({tuple(row) for row in drawn.tolist()}) > 10
    assert (resampled(12, 50) == drawn).all()


def test_alike_windows_leave_no_doubt():
    sweep = steady([0.90, 0.98, 1.0], [10.0, 18.0, 30.0])
    low, high = interval(prices(sweep, 0.99, resampled(12, 40)))
    assert low == pytest.approx(24.0)
    assert high == pytest.approx(24.0)


def test_an_episode_widens_the_interval():
    calm = Tally((100.0,) * 24, (100.0,) * 24, (3600.0,) * 24)
    hit = Tally((100.0,) * 24, (100.0,) * 20 + (40.0,) * 4, (1800.0,) * 24)
    found = interval(prices(Sweep.of([(1.0, [hit]), (2.0, [calm])]), 0.95, resampled(24, 200)))
    assert found[1] - found[0] > 1.0


def test_an_interval_that_is_mostly_unknown_is_none():
    assert interval(np.array([1.0, np.nan])) is None
    assert interval(np.array([])) is None
