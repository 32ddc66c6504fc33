"""ARIMA: when orders race, that filtering agrees with statsmodels, that failures stay inside."""

import warnings
from collections.abc import Iterable

import numpy as np
import pytest
from statsmodels.tsa.statespace.sarimax import SARIMAX

from predictors import arima
from predictors.arima import _ORDERS, Arima, ArimaState, _advance, _fit


def replay(series: Iterable[float | None]) -> ArimaState:
    predictor = Arima()
    state = predictor.start()
    for value in series:
        state = predictor.update(state, value)
    return state


def noisy_walk(length: int, seed: int = 1) -> np.ndarray:
    steps = np.random.default_rng(seed).normal(0.0, 3.0, (2, length))
    return 500 + np.cumsum(steps[0]) + 3 * steps[1]


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Length of the history of every estimate made."""
    made: list[int] = []

    def counted(history: np.ndarray, scale: float, order: tuple[int, int, int]) -> object:
        made.append(history.size)
        return _fit(history, scale, order)

    monkeypatch.setattr(arima, "_fit", counted)
    return made


def test_no_order_is_chosen_below_thirty_points(fits: list[int]) -> None:
    state = replay(noisy_walk(29))
    assert fits == []
    assert (state.fitted, state.order) == (None, (0, 1, 1))


def test_one_candidate_a_tick_and_again_as_data_grows(fits: list[int]) -> None:
    replay(noisy_walk(70))
    first, second = [30, 31, 32, 33], [48, 49, 50, 51]
    assert fits == [*first, *second, 66, 67, 68, 69]


def test_history_is_capped() -> None:
    assert replay(noisy_walk(260)).history.size == 240


def test_gaps_do_not_count_as_points(fits: list[int]) -> None:
    series: list[float | None] = [*noisy_walk(29), *[None] * 20]
    replay(series)
    assert fits == []


@pytest.mark.parametrize("order", _ORDERS, ids=str)
@pytest.mark.parametrize("gap", [False, True], ids=["no_gap", "gap"])
def test_filtering_new_points_agrees_with_statsmodels(
    order: tuple[int, int, int], gap: bool
) -> None:
    series = noisy_walk(130)
    past, new = series[:120], series[120:].copy()
    if gap:
        new[[0, 1, 4]] = np.nan
    scale = float(past.mean())
    model = _fit(past, scale, order)
    assert model is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        form = SARIMAX(past / scale - 1, order=order, concentrate_scale=True)
        form.initialize_approximate_diffuse()
        result = form.fit(disp=0, maxiter=20, maxfun=60, cov_type="none")
    expected = (result.append(new / scale - 1).forecast(4) + 1) * scale
    for value in new:
        model = _advance(model, None if np.isnan(value) else float(value))
    state = ArimaState(history=past, fitted=model, level=model)
    assert Arima().predict(state, 4) == pytest.approx(expected, rel=1e-5)


def test_the_least_information_criterion_wins() -> None:
    state = replay(noisy_walk(33))
    scores = {}
    for entered, order in enumerate(_ORDERS):
        history = noisy_walk(33)[: 30 + entered]
        model = _fit(history, float(history.mean()), order)
        assert model is not None
        scores[order] = model.score
    assert state.fitted is not None
    assert state.fitted.order == min(scores, key=scores.__getitem__)


@pytest.mark.parametrize("failure", [ValueError, np.linalg.LinAlgError, ZeroDivisionError])
def test_a_failed_estimate_leaves_the_local_level(
    monkeypatch: pytest.MonkeyPatch, failure: type[Exception]
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise failure("no fit")

    monkeypatch.setattr(SARIMAX, "fit", fails)
    state = replay(noisy_walk(60))
    assert state.fitted is None
    assert Arima().predict(state, 3) == pytest.approx(np.full(3, 500.0), rel=0.2)


def test_the_local_level_forecasts_while_it_errs_less() -> None:
    calm = 500 + np.random.default_rng(7).normal(0.0, 5.0, 150)
    state = replay(calm)
    assert state.model is state.fitted
    steep = replay([*calm, *np.linspace(500, 2000, 12)])
    assert steep.model is steep.level


def test_a_constant_ends_the_model_of_an_earlier_time() -> None:
    state = replay([*noisy_walk(60), *[80.0] * 260])
    assert state.fitted is None
    assert Arima().predict(state, 2) == pytest.approx([80.0, 80.0])
