"""The margin: residuals by hand, the prior, what is not learnt, and the fallback."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from predictors import Forecaster, ForecasterState, PredictorError, build
from predictors.base import FloatArray
from predictors.last_value import LastValue, LastValueState

PRIOR = 24


class Broken(LastValue):
    """Repeats the last value times `factor`; NaN is a predictor gone wrong."""

    name = "Broken"

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def predict(self, state: LastValueState, steps: int) -> FloatArray:
        return super().predict(state, steps) * self.factor


class Failing(LastValue):
    """Cannot take in values above a threshold."""

    name = "Failing"

    def update(
        self, state: LastValueState, value: float | None, weight: float = 1.0
    ) -> LastValueState:
        if value is not None and value > 100:
            raise PredictorError("too much for me")
        return super().update(state, value, weight)


def replay(forecaster: Forecaster[Any], series: list[float | None]) -> ForecasterState[Any]:
    state = forecaster.start()
    for value in series:
        state = forecaster.update(state, value)
    return state


def measured(series: list[float | None], first: int, last: int) -> list[float]:
    """Residuals of the last value without the prior, which is symmetric around their median."""
    forecaster = Forecaster(LastValue(), max_steps=4, window=20)
    state = replay(forecaster, series)
    band = forecaster.forecast(state, first, last, 0.5)
    every = forecaster.residuals(state, first, last)
    assert every.size == band.coverage_samples + PRIOR
    return every.tolist()


def contains(points: list[float], expected: list[float]) -> bool:
    return all(np.isclose(points, value, rtol=1e-9).any() for value in expected)


def test_nothing_seen_is_a_band_of_zero() -> None:
    forecaster = Forecaster(LastValue())
    band = forecaster.forecast(forecaster.start(), 1, 3, 0.9)
    assert (band.mean, band.upper, band.coverage_samples, band.fallback) == (0, 0, 0, False)


@pytest.mark.parametrize("warm_up", [0, 3, 4, 5, 10])
def test_the_first_four_intervals_teach_no_error(warm_up: int) -> None:
    forecaster = Forecaster(LastValue())
    state = replay(forecaster, [10.0] * warm_up)
    # The forecast made at the fifth value meets the sixth.
    assert forecaster.forecast(state, 1, 1, 0.9).coverage_samples == max(warm_up - 5, 0)


def test_gaps_are_not_counted_as_first_intervals() -> None:
    forecaster = Forecaster(LastValue())
    state = replay(forecaster, [*[None] * 10, *[10.0] * 5])
    assert forecaster.forecast(state, 1, 1, 0.9).coverage_samples == 0


def test_one_step_residuals_by_hand() -> None:
    # Load-weighted mean (4·16 + 16 + 64 + 16) / (4·4 + 4 + 8 + 4) = 5; forecasts 4, 8 -> 8, 4.
    points = measured([4.0] * 5 + [8.0, 4.0], 1, 1)
    assert len(points) == 2 + PRIOR
    assert contains(points, [(8 - 4) / 5, (4 - 8) / 8])


def test_window_residuals_are_of_the_maximum() -> None:
    series: list[float | None] = [*[4.0] * 5, 8.0, 2.0, 4.0]
    floor = (5 * 16 + 64 + 4 + 16) / (20 + 8 + 2 + 4)
    points = measured(series, 2, 3)
    # Only the forecast made at the fifth value has seen its whole window: max(2, 4) against 4.
    assert len(points) == 1 + PRIOR
    assert contains(points, [(4 - 4) / floor])
    assert contains(measured(series, 1, 2), [(8 - 4) / floor, (4 - 8) / 8])


def test_an_interval_without_observation_leaves_both_maxima() -> None:
    series: list[float | None] = [*[4.0] * 5, 8.0, None, 6.0]
    floor = (5 * 16 + 64 + 36) / (20 + 8 + 6)
    points = measured(series, 1, 2)
    assert contains(points, [(8 - 4) / floor, (6 - 8) / 8])
    assert len(points) == 2 + PRIOR


@pytest.mark.parametrize("adaptive", [False, True], ids=["plain", "adaptive"])
def test_the_upper_bound_is_the_quantile_of_the_scaled_residuals(adaptive: bool) -> None:
    forecaster = Forecaster(LastValue(), adaptive=adaptive)
    series = np.random.default_rng(1).uniform(50, 150, 300).tolist()
    state = replay(forecaster, series)
    band = forecaster.forecast(state, 2, 4, 0.8)
    residuals = forecaster.residuals(state, 2, 4)
    assert (np.diff(residuals) >= 0).all()
    expected = band.mean + band.scale * np.quantile(residuals, 0.8, method="weibull")
    assert band.upper == pytest.approx(expected)
    assert band.coverage_samples == 240 - 4


@pytest.mark.parametrize("adaptive", [False, True], ids=["plain", "adaptive"])
def test_bands_are_forecasts_at_each_quantile(adaptive: bool) -> None:
    forecaster = Forecaster(LastValue(), adaptive=adaptive)
    state = replay(forecaster, np.random.default_rng(1).uniform(50, 150, 60).tolist())
    several = forecaster.bands(state, 2, 4, (0.9, 0.5))
    assert several == [forecaster.forecast(state, 2, 4, quantile) for quantile in (0.9, 0.5)]


def test_the_mean_is_the_largest_of_the_window() -> None:
    forecaster = Forecaster(build("Kalman"))
    ramp = np.linspace(10, 100, 40).tolist()
    state = replay(forecaster, ramp)
    ahead = forecaster.predictor.predict(state.inner, 16)
    assert forecaster.forecast(state, 2, 5, 0.5).mean == pytest.approx(ahead[1:5].max())
    assert forecaster.forecast(state, 3, 3, 0.5).mean == pytest.approx(ahead[2])


def test_steps_beyond_the_horizon_clamp_to_it() -> None:
    forecaster = Forecaster(build("Kalman"), max_steps=4)
    state = replay(forecaster, np.linspace(10, 100, 40).tolist())
    assert forecaster.forecast(state, 9, 30, 0.9) == forecaster.forecast(state, 4, 4, 0.9)
    assert forecaster.forecast(state, 2, 30, 0.9) == forecaster.forecast(state, 2, 4, 0.9)


def test_few_errors_do_not_make_an_absurd_margin() -> None:
    forecaster = Forecaster(LastValue())
    state = replay(forecaster, [*[10.0] * 6, 100.0])
    band = forecaster.forecast(state, 1, 1, 0.9)
    assert band.coverage_samples == 2
    assert 110 < band.upper < 300


def test_the_first_load_after_silence_has_a_sane_margin() -> None:
    forecaster = Forecaster(LastValue())
    state = replay(forecaster, [*[0.0] * 239, 100.0])
    assert forecaster.residuals(state, 1, 1).max() <= 1.0 + 1e-9
    assert 100 <= forecaster.forecast(state, 1, 1, 0.9).upper <= 150


def test_silence_foretold_has_no_margin() -> None:
    forecaster = Forecaster(build("Kalman"))
    band = forecaster.forecast(replay(forecaster, [0.0] * 50), 1, 3, 0.99)
    assert (band.mean, band.upper) == (0.0, 0.0)


@pytest.mark.parametrize(
    "predictor",
    [Broken(np.nan), Broken(np.inf), Broken(-1.0), Broken(50.0), Failing()],
    ids=["nan", "inf", "negative", "runaway", "raises"],
)
def test_a_failing_predictor_is_replaced_by_the_last_value(predictor: LastValue) -> None:
    series: list[float | None] = [*np.random.default_rng(1).uniform(110, 130, 60)]
    forecaster, naive = Forecaster(predictor), Forecaster(LastValue())
    band = forecaster.forecast(replay(forecaster, series), 1, 3, 0.9)
    expected = naive.forecast(replay(naive, series), 1, 3, 0.9)
    assert band == dataclasses.replace(expected, fallback=True)


def test_a_predictor_that_recovers_is_used_again() -> None:
    forecaster = Forecaster(Failing())
    state = replay(forecaster, [50.0, 200.0])
    assert state.fallback
    assert forecaster.forecast(state, 1, 1, 0.5).mean == 200.0
    assert not forecaster.update(state, 60.0).fallback


def test_the_last_value_bridges_a_gap() -> None:
    forecaster = Forecaster(Broken(np.nan))
    state = replay(forecaster, [50.0, None, None])
    assert forecaster.forecast(state, 1, 1, 0.5).mean == 50.0


def test_a_state_is_a_value() -> None:
    forecaster = Forecaster(build("Kalman"))
    state = replay(forecaster, [*np.linspace(1, 50, 50)])
    before = forecaster.forecast(state, 1, 4, 0.9)
    forecaster.update(forecaster.update(state, 1000.0), None)
    assert forecaster.forecast(state, 1, 4, 0.9) == before


def test_a_state_is_at_most_forty_kilobytes() -> None:
    state = replay(Forecaster(build("Kalman")), [1.0] * 10)
    arrays = [
        getattr(part, field.name)
        for part in (state, state.inner)
        for field in dataclasses.fields(part)
    ]
    assert sum(a.nbytes for a in arrays if isinstance(a, np.ndarray)) <= 40_000


@pytest.mark.parametrize(
    ("first", "last", "quantile", "named"),
    [
        (0, 1, 0.9, r"steps are 0\.\.1"),
        (3, 2, 0.9, r"steps are 3\.\.2"),
        (1, 1, 0.0, "quantile is 0.0"),
        (1, 1, 1.0, "quantile is 1.0"),
        (1, 1, float("nan"), "quantile is nan"),
    ],
)
def test_an_illegal_question_is_refused(first: int, last: int, quantile: float, named: str) -> None:
    forecaster = Forecaster(LastValue())
    with pytest.raises(PredictorError, match=named):
        forecaster.forecast(forecaster.start(), first, last, quantile)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_an_illegal_value_is_refused_and_not_taken_for_a_failing_predictor(value: float) -> None:
    forecaster = Forecaster(LastValue())
    with pytest.raises(PredictorError, match="value is"):
        forecaster.update(forecaster.start(), value)


@pytest.mark.parametrize(("max_steps", "window"), [(0, 240), (16, 16), (16, 5)])
def test_an_illegal_size_is_refused(max_steps: int, window: int) -> None:
    with pytest.raises(PredictorError, match="max_steps < window"):
        Forecaster(LastValue(), max_steps, window)


@pytest.mark.parametrize("adaptive", [False, True], ids=["plain", "adaptive"])
@pytest.mark.parametrize("quantile", [0.75, 0.9])
@pytest.mark.parametrize("steps", [(1, 1), (2, 4)], ids=["next", "window"])
def test_coverage_on_random_walks_is_nominal(
    quantile: float, steps: tuple[int, int], adaptive: bool
) -> None:
    forecaster = Forecaster(LastValue(), adaptive=adaptive)
    covered: list[bool] = []
    for seed in range(4):
        jumps = np.random.default_rng(seed).standard_t(4, 700)
        walk = (1000 + 3 * np.cumsum(jumps)).tolist()
        state = forecaster.start()
        for tick, value in enumerate(walk[: -steps[1]]):
            state = forecaster.update(state, value)
            upper = forecaster.forecast(state, *steps, quantile).upper
            realised = max(walk[tick + steps[0] : tick + steps[1] + 1])
            if tick >= 20:
                covered.append(realised <= upper)
    assert np.mean(covered) == pytest.approx(quantile, abs=0.03)
