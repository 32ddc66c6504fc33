"""The adaptive margin: levels by hand, what is known when, and honesty where errors change."""

import numpy as np
import pytest

from predictors import Forecaster, build
from predictors.adaptive import _follow, _rank_log_odds, adapted
from predictors.last_value import LastValue
from predictors.residuals import prior_points, with_prior

PRIOR = 24


def coverage(series: np.ndarray, quantile: float, steps: tuple[int, int], *, adaptive: bool, since):
    forecaster = Forecaster(build("Kalman"), adaptive=adaptive)
    state, covered = forecaster.start(), []
    for tick, value in enumerate(series[: -steps[1]].tolist()):
        state = forecaster.update(state, value)
        upper = forecaster.forecast(state, *steps, quantile).upper
        if tick >= since:
            covered.append(series[tick + steps[0] : tick + steps[1] + 1].max() <= upper)
    return float(np.mean(covered))


def noise(seed: int, length: int, spread: float) -> np.ndarray:
    return 100 * (1 + spread * np.random.default_rng(seed).normal(size=length))


def test_it_is_off_by_default():
    assert not Forecaster(LastValue()).adaptive
    assert Forecaster(LastValue(), adaptive=True).adaptive


def test_without_errors_the_prior_is_as_it_was():
    assert adapted(np.empty(0), 1, 1) == pytest.approx(with_prior(np.empty(0)), abs=1e-9)


def test_the_maximum_of_several_intervals_is_expected_above_the_mean():
    one, three = prior_points(np.empty(0), 1), prior_points(np.empty(0), 3)
    # The median of the largest of three: Φ⁻¹(0.5^(1/3)) = 0.819 of a spread of 0.2.
    assert np.median(one) == pytest.approx(0.0, abs=1e-12)
    assert np.median(three) == pytest.approx(0.819 * 0.2, rel=0.01)


@pytest.mark.parametrize(
    ("seen", "odds"),
    [
        ([], np.log(9)),
        # A miss weighs nine times a hit: 0.02 / 0.1 against 0.02 / 0.9.
        ([9.0], np.log(9) + 0.2),
        ([-9.0], np.log(9) - 0.02 / 0.9),
        ([9.0, *[-9.0] * 9], np.log(9)),
        ([50.0] * 99, np.log(9) + 3.0),
        ([-50.0] * 999, np.log(9) - 3.0),
    ],
    ids=["nothing", "miss", "hit", "as_promised", "ceiling", "floor"],
)
def test_a_level_follows_its_hits_and_misses(seen, odds):
    assert _follow(seen, 0.9) == pytest.approx(odds)


def test_an_error_is_ranked_among_those_known_when_it_was_foretold():
    prior = np.array([-1.0, 1.0])
    ranks = 1 / (1 + np.exp(-np.array(_rank_log_odds(np.array([5.0, 6.0, 5.5]), prior, 2))))
    # The first two are above both points of the prior; the third has come to know the first.
    assert ranks == pytest.approx([5 / 6, 5 / 6, 7 / 8])


def test_equal_errors_rank_in_the_middle_whatever_rounding_makes_of_them():
    prior = np.array([-1.0, 1.0])
    errors = np.array([0.3, 0.1 + 0.2, 0.3 - 1e-12, 0.3])
    assert _rank_log_odds(errors, prior, 1) == pytest.approx([0.0] * 4)


def test_points_stay_within_the_errors_and_in_order():
    errors = np.random.default_rng(1).standard_t(2, 236)
    points = adapted(errors, 1, 4)
    assert points.size == errors.size + PRIOR
    assert (np.diff(points) >= 0).all()
    plain = np.sort(np.concatenate((errors, prior_points(errors, 4))))
    assert plain[0] <= points[0]
    assert points[-1] <= plain[-1]


def test_misses_widen_and_hits_narrow():
    calm = np.random.default_rng(2).normal(0, 0.1, 200)
    missed, hit = calm.copy(), calm.copy()
    missed[-20:], hit[-20:] = np.abs(missed[-20:]) + 0.15, -np.abs(hit[-20:])
    upper = {
        name: float(np.quantile(adapted(errors, 1, 1), 0.8, method="weibull"))
        for name, errors in (("calm", calm), ("missed", missed), ("hit", hit))
    }
    plain = float(np.quantile(with_prior(missed), 0.8, method="weibull"))
    assert upper["hit"] < upper["calm"] < plain < upper["missed"]


@pytest.mark.parametrize("steps", [(1, 1), (2, 4)], ids=str)
@pytest.mark.parametrize(
    ("before", "after"), [(0.03, 0.15), (0.15, 0.03)], ids=["wilder", "calmer"]
)
def test_coverage_is_regained_where_errors_change_their_spread(before, after, steps):
    load = np.concatenate((noise(1, 200, before), noise(10, 150, after)))
    plain, adaptive = (
        abs(coverage(load, 0.8, steps, adaptive=chosen, since=210) - 0.8)
        for chosen in (False, True)
    )
    assert adaptive < 0.12
    assert adaptive < 0.6 * plain


@pytest.mark.parametrize("seed", [1, 5])
def test_coverage_holds_on_both_sides_of_a_daily_wave(seed):
    wave = 1 - 0.6 * np.cos(2 * np.pi * np.arange(480) / 480)
    load = wave * noise(seed, 480, 0.03)
    assert coverage(load, 0.75, (1, 1), adaptive=True, since=10) == pytest.approx(0.75, abs=0.03)
    assert coverage(load, 0.75, (1, 1), adaptive=False, since=10) > 0.78
