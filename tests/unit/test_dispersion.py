"""The index of dispersion on seeded arrivals whose index is known."""

import numpy as np
import pytest

from planner.sizing.dispersion import SCALES_S, SMOOTHED, dispersion_curve

AT_16_S = SCALES_S.index(16.0)


def intervals(rate_rps, *, batch=1, many=2000, seed=7):
    """Intervals of four scrapes; `rate_rps` is a number or one an interval and scrape."""
    rng = np.random.default_rng(seed)
    expected = np.broadcast_to(np.asarray(rate_rps, float), (many, 4)) * 15.0 / batch
    return [(15.0, tuple(row)) for row in (batch * rng.poisson(expected)).astype(float)]


@pytest.mark.parametrize("rate_rps", [0.02, 0.1, 0.2, 0.5, 5.0, 200.0])
def test_poisson_is_one_at_every_scale(rate_rps):
    assert dispersion_curve(intervals(rate_rps)) == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("batch", [2, 5, 20])
def test_batches_of_b_are_b_at_what_scrapes_resolve_and_burstier_before_service(batch):
    curve = dispersion_curve(intervals(100.0, batch=batch))
    assert curve[AT_16_S:] == pytest.approx(1.0 + SMOOTHED * (batch - 1.0), rel=0.15)
    assert curve[0] == 1.0
    assert np.all(np.diff(curve[: AT_16_S + 1]) > 0.0)


def test_a_linear_trend_is_no_dispersion():
    """Up and down between 10 and 30 requests/s in two hours each way, for a day and more."""
    rising = np.linspace(10.0, 30.0, 480)
    days = np.tile(np.concatenate((rising, rising[::-1])), 10).reshape(-1, 4)
    assert dispersion_curve(intervals(days, many=2400)) == pytest.approx(1.0, abs=0.12)


def test_a_step_between_intervals_is_no_dispersion():
    steps = np.where(np.arange(2000)[:, None] % 2 == 0, 5.0, 25.0)
    assert dispersion_curve(intervals(steps)) == pytest.approx(1.0, abs=0.12)


def test_a_step_inside_each_tenth_interval_is_no_dispersion():
    steps = np.full((2000, 4), 10.0)
    steps[::10, 2:] = 30.0
    assert dispersion_curve(intervals(steps)) == pytest.approx(1.0, abs=0.2)


def test_few_bins_lean_on_poisson():
    few, many = (dispersion_curve([(15.0, (0.0, 200.0))] * n)[AT_16_S] for n in (1, 500))
    assert 1.0 < few < 0.25 * many
    # (a − b)² / (a + b) = 200 in every pair.
    assert many == pytest.approx(1.0 + SMOOTHED * 199.0, rel=0.05)


def test_bursts_that_last_longer_than_a_scrape_are_seen_at_their_own_scale():
    """The rate changes every two scrapes: pairs of scrapes tell more of it than single ones."""
    rng = np.random.default_rng(3)
    rates = np.repeat(rng.gamma(4.0, 5.0, (2000, 2)), 2, axis=1)
    curve = dispersion_curve(intervals(rates))
    assert curve[SCALES_S.index(32.0)] > 1.3 * curve[AT_16_S]


@pytest.mark.parametrize(
    "given",
    [
        pytest.param([], id="nothing"),
        pytest.param([(15.0, (300.0,))] * 9, id="one scrape an interval"),
        pytest.param([(15.0, (0.0, 0.0, 0.0, 0.0))] * 9, id="silence"),
        pytest.param([(15.0, (50.0, 50.0, 50.0, 50.0))] * 9, id="a metronome"),
    ],
)
def test_what_says_nothing_is_poisson(given):
    assert dispersion_curve(given).tolist() == [1.0] * len(SCALES_S)


def test_intervals_of_unequal_scrapes_are_one_measurement():
    ragged = [(15.0, counts[: 2 + n % 3]) for n, (_, counts) in enumerate(intervals(90.0, batch=5))]
    assert dispersion_curve(ragged)[AT_16_S] == pytest.approx(1.0 + SMOOTHED * 4.0, rel=0.15)


def test_scrapes_quicker_than_the_finest_scale_still_give_a_curve():
    quick = [(0.25, counts) for _, counts in intervals(20.0, batch=5)]
    curve = dispersion_curve(quick)
    assert np.all(np.isfinite(curve))
    assert np.all(np.diff(curve) >= 0.0)
