"""The bank of Kalman filters: gains, shares, weights and trends against known truths."""

import dataclasses

import numpy as np
import pytest

from predictors.backtest import backtest
from predictors.kalman import _BANK, BankState, KalmanBank

GOLDEN_GAIN = (np.sqrt(5) - 1) / 2  # steady gain of a local level with equal noises


def replay(series: list[float | None], weights: list[float] | None = None) -> BankState:
    bank = KalmanBank()
    state = bank.start()
    for tick, value in enumerate(series):
        state = bank.update(state, value, 1.0 if weights is None else weights[tick])
    return state


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_local_level_has_the_textbook_gain() -> None:
    equal_noises = int(np.flatnonzero((_BANK.level_noise == 1) & (_BANK.second_noise == 0))[0])
    state = replay([10.0] * 30)
    moved = KalmanBank().update(state, 20.0)
    assert moved.level[equal_noises] == pytest.approx(10 + 10 * GOLDEN_GAIN, rel=1e-6)


def test_covariances_stay_positive() -> None:
    state = replay([*rng().uniform(0, 100, 500)])
    level, cross, second = state.covariance
    assert (level > 0).all()
    assert (second >= 0).all()
    assert (cross**2 <= level * second + 1e-12).all()


def test_shares_sum_to_one_and_follow_the_noise() -> None:
    noise = replay((100 + rng().normal(0, 10, 200)).tolist())
    walk = replay((1000 + np.cumsum(rng().normal(0, 10, 200))).tolist())
    speed = np.arange(8)
    assert noise.share.sum() == pytest.approx(1.0)
    slow = noise.share[:8] @ speed / noise.share[:8].sum()
    quick = walk.share[:8] @ speed / walk.share[:8].sum()
    assert slow < 2.5
    assert quick > 5


@pytest.mark.parametrize(
    ("series", "ceiling"),
    [
        # The last value has sqrt(2) times the error of the known mean: 0.71 is perfect.
        (100 + rng(2).normal(0, 10, 600), 0.78),
        # Nothing beats the last value on a random walk.
        (10_000 + np.cumsum(rng(3).normal(0, 10, 600)), 1.02),
        # Equal noises: variance 2.62 at the best gain against 3, sqrt(2.62 / 3) = 0.93.
        (10_000 + np.cumsum(rng(4).normal(0, 10, 600)) + rng(5).normal(0, 10, 600), 0.97),
    ],
    ids=["white_noise", "random_walk", "local_level"],
)
def test_error_is_near_the_best_possible(series: np.ndarray, ceiling: float) -> None:
    assert backtest(series.tolist(), KalmanBank(), 1, 1, 0.9).mase <= ceiling


def test_a_ramp_is_foreseen_in_part() -> None:
    ramp = (100 + 10 * np.arange(40.0) + rng().normal(0, 1, 40)).tolist()
    ahead = KalmanBank().predict(replay(ramp), 3)
    assert ramp[-1] + 5 < ahead[2] <= ramp[-1] + 35


@pytest.mark.parametrize("calm", [1, 2, 4, 8, 12, 15])
def test_a_rise_right_after_a_start_is_followed(calm: int) -> None:
    for seed in range(5):
        series = (10 + rng(seed).normal(0, 0.5, calm)).tolist()
        for load_rps, least in ((40.0, 0.88), (70.0, 0.96), (100.0, 0.975)):
            series.append(load_rps)
            ahead = KalmanBank().predict(replay(series), 4)
            assert ahead.min() >= least * load_rps


def test_a_ramp_that_goes_on_is_foreseen_at_its_third_step() -> None:
    ramp = [*(100 + rng().normal(0, 2, 30)).tolist(), 200.0, 300.0, 400.0]
    assert KalmanBank().predict(replay(ramp), 1)[0] > 400


def test_a_huge_error_counts_no_more_than_a_large_one() -> None:
    calm = (100 + rng().normal(0, 3, 60)).tolist()
    large, huge = (replay([*calm, 100.0 * times]).loss for times in (20, 2000))
    # Four times 0.2 of what was seen: 0.8 of it for every filter, whatever each foretold.
    assert np.ptp(large) == pytest.approx(np.ptp(huge), rel=1e-6)


@pytest.mark.parametrize("spread", [0.0, 0.1, 10.0], ids=["constant", "quiet", "noisy"])
def test_silence_is_believed(spread: float) -> None:
    load = (100 + rng().normal(0, 1, 60) * spread).tolist()
    assert KalmanBank().predict(replay([*load, *[0.0] * 5]), 3).max() < 3


def test_a_damped_trend_adds_a_bounded_amount() -> None:
    ramp = (100 + 10 * np.arange(40.0)).tolist()
    ahead = KalmanBank().predict(replay(ramp), 200)
    # Damping 0.8 lets 10 a step grow to at most 0.8 / 0.2 steps, plus the one in flight.
    assert ahead[-1] <= ramp[-1] + 10 * (4 + 1)
    assert ahead[-1] == pytest.approx(ahead[-50], rel=1e-6)


def test_a_mean_over_many_requests_moves_the_forecast_more() -> None:
    history = (100 + rng().normal(0, 10, 50)).tolist()
    weights = [20.0] * 50
    forecasts = [
        KalmanBank().predict(replay([*history, 200.0], [*weights, weight]), 1)[0]
        for weight in (1.0, 20.0, 400.0)
    ]
    assert forecasts[0] + 2 < forecasts[1] < forecasts[2] - 2


def test_only_the_ratio_of_weights_counts() -> None:
    series = rng().uniform(50, 150, 60).tolist()
    weights = rng(2).uniform(1, 40, 60)
    one = KalmanBank().predict(replay(series, weights.tolist()), 3)
    thousand = KalmanBank().predict(replay(series, (1000 * weights).tolist()), 3)
    assert one == pytest.approx(thousand, rel=1e-9)


def test_uncertainty_grows_in_a_gap_and_the_next_value_counts_more() -> None:
    history: list[float | None] = [*(100 + rng().normal(0, 10, 100))]
    at_once = KalmanBank().predict(replay([*history, 200.0]), 1)[0]
    after_gap = KalmanBank().predict(replay([*history, *[None] * 20, 200.0]), 1)[0]
    assert after_gap > at_once


def test_the_state_is_small() -> None:
    state = replay([1.0, 2.0])
    arrays = [getattr(state, field.name) for field in dataclasses.fields(state)]
    assert sum(a.nbytes for a in arrays if isinstance(a, np.ndarray)) < 2_000
