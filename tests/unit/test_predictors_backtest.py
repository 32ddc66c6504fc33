"""Scores against numbers worked out by hand."""

import itertools
import math
from dataclasses import replace

import pytest

from predictors import Forecaster, PredictorError, build
from predictors.backtest import backtest, backtest_forecaster
from predictors.base import FloatArray
from predictors.last_value import LastValue, LastValueState


class Ten(LastValue):
    """Always foresees ten."""

    def predict(self, state: LastValueState, steps: int) -> FloatArray:
        return super().predict(replace(state, value=10.0), steps)


def test_scores_by_hand() -> None:
    # Realised 8, 12, 6, 10 from tick 0 on; Ten errs 2, 2, 4, 0; the last value 2, 4, 6, 4.
    scores = backtest([10.0, 8.0, 12.0, 6.0, 10.0], Ten(), 1, 1, 0.9, warm_up=0)
    assert scores.n == 4
    assert scores.wape == pytest.approx(8 / 36)
    assert scores.mase == pytest.approx(8 / 16)
    # Without measured errors the margin is the 0.9 quantile of 24 normal points, 0.27 of 10.
    assert scores.coverage == 1.0
    upper = 10 * (1 + 0.2 * 1.3949)
    assert scores.pinball == pytest.approx(0.1 * sum(upper - r for r in (8, 12, 6, 10)) / 36, 0.02)


def test_a_miss_costs_the_quantile() -> None:
    scores = backtest([10.0, 110.0], Ten(), 1, 1, 0.9, warm_up=0)
    assert scores.coverage == 0.0
    upper = 10 * (1 + 0.2 * 1.3949)
    assert scores.pinball == pytest.approx(0.9 * (110 - upper) / 110, 0.01)


def test_windows_score_the_maximum() -> None:
    # Windows 2..3 from tick 0 and 1: max(12, 6), max(6, 10); the last value 10 and 8.
    scores = backtest([10.0, 8.0, 12.0, 6.0, 10.0], Ten(), 2, 3, 0.9, warm_up=0)
    assert scores.n == 2
    assert scores.mase == pytest.approx((2 + 0) / (2 + 2))


@pytest.mark.parametrize("steps", [(1, 1), (3, 3), (2, 4)], ids=str)
def test_the_last_value_scores_one(steps: tuple[int, int]) -> None:
    series = [float(7 * tick % 11) for tick in range(60)]
    assert backtest(series, build("LastValue"), *steps, 0.9).mase == 1.0


def test_gaps_are_neither_scored_nor_counted_against_the_naive() -> None:
    # At tick 1 (a gap) the naive still repeats 10; nothing is realised there to score tick 0.
    scores = backtest([10.0, None, 12.0, 8.0], Ten(), 1, 1, 0.9, warm_up=0)
    assert scores.n == 2
    assert scores.mase == pytest.approx((2 + 2) / (2 + 4))


def test_the_warm_up_is_learnt_and_not_scored() -> None:
    assert backtest([5.0] * 30, LastValue(), 1, 2, 0.9, warm_up=12).n == 30 - 12 - 2


def test_a_flat_series_scores_as_the_naive() -> None:
    scores = backtest([5.0] * 30, LastValue(), 1, 1, 0.9)
    assert (scores.mase, scores.wape, scores.coverage) == (1.0, 0.0, 1.0)
    assert math.isinf(backtest([5.0] * 30, Ten(), 1, 1, 0.9).mase)


def test_times_come_from_the_given_clock() -> None:
    clock_s = itertools.chain([0.0, 0.002], itertools.count(1.0, 0.004))
    scores = backtest([5.0] * 12, LastValue(), 1, 1, 0.9, lambda: next(clock_s))
    assert scores.ms_per_tick_mean == pytest.approx((2 + 11 * 4) / 12)
    assert scores.ms_per_tick_p99 == pytest.approx(4.0)


def test_without_a_clock_there_are_no_times() -> None:
    scores = backtest([5.0] * 12, LastValue(), 1, 1, 0.9)
    assert (scores.ms_per_tick_mean, scores.ms_per_tick_p99) == (None, None)


def test_weights_reach_the_predictor() -> None:
    series = [100.0 + (50 if tick % 5 == 0 else tick % 3) for tick in range(80)]
    light = [1.0 if tick % 5 == 0 else 100.0 for tick in range(80)]
    plain = backtest(series, build("Kalman"), 1, 1, 0.9)
    assert backtest(series, build("Kalman"), 1, 1, 0.9, weights=light) != plain


@pytest.mark.parametrize(
    "series",
    [[], [1.0] * 11, [1.0] * 10 + [None] * 20],
    ids=["empty", "short", "unobserved"],
)
def test_nothing_to_score_is_refused(series: list[float | None]) -> None:
    with pytest.raises(PredictorError, match="nothing to score"):
        backtest(series, LastValue(), 1, 1, 0.9)


def test_several_quantiles_of_one_replay_score_as_each_alone() -> None:
    series = [float(10 + 7 * tick % 11) for tick in range(60)]
    together = backtest_forecaster(series, Forecaster(LastValue()), (2, 4), (0.75, 0.9))
    assert together == tuple(backtest(series, LastValue(), 2, 4, q) for q in (0.75, 0.9))


def test_any_forecaster_is_scored() -> None:
    series = [float(10 + 7 * tick % 11) for tick in range(60)]
    plain, adaptive = (
        backtest_forecaster(series, Forecaster(LastValue(), adaptive=chosen), (2, 4), (0.9,))[0]
        for chosen in (False, True)
    )
    assert plain.mase == adaptive.mase
    assert plain.pinball != adaptive.pinball
