"""Replay a known series through a predictor and score its forecasts. Pure; time comes from outside.

Forecasts are scored as they are used: the maximum over a window of steps, with its margin.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from predictors.base import Predictor
from predictors.conformal import Forecaster
from predictors.errors import PredictorError

Timer = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Scores:
    """How good the forecasts of one series were.

    Parameters
    ----------
    wape : float
        Weighted absolute percentage error, Σ|realised - mean| / Σ realised (a ratio).
    mase : float
        Σ|realised - mean| over the same sum for the last value, at the same steps: 1 is naive.
        (Hyndman and Koehler, 2006, scaled out of sample at the horizon in use.)
    pinball : float
        Mean pinball loss of `upper` at the quantile, relative to the mean realised value.
    coverage : float
        Share of realised values at or below `upper`; honest when it equals the quantile.
    ms_per_tick_mean, ms_per_tick_p99 : float or None
        Wall time of one update and one forecast [ms]; None without a timer.
    n : int
        Forecasts scored.
    """

    wape: float
    mase: float
    pinball: float
    coverage: float
    ms_per_tick_mean: float | None
    ms_per_tick_p99: float | None
    n: int


@dataclass(frozen=True, slots=True)
class _Scored:
    realised: float
    mean: float
    uppers: tuple[float, ...]
    naive: float


def backtest(
    series: Sequence[float | None],
    predictor: Predictor[Any],
    first_step: int,
    last_step: int,
    quantile: float,
    timer: Timer | None = None,
    *,
    weights: Sequence[float] | None = None,
    warm_up: int = 10,
) -> Scores:
    """Return the scores of a predictor with its plain margin over one series.

    Parameters
    ----------
    series : Sequence[float or None]
        One value an interval, in any unit; None where nothing was observed.
    predictor : Predictor[Any]
        What to score.
    first_step, last_step : int
        Window ahead [intervals] whose maximum is forecast.
    quantile : float
        Quantile of the margin, in (0, 1).
    timer : Callable[[], float], optional
        Reads a clock [s]; without it the times are None.
    weights : Sequence[float], optional
        Requests behind each value, as for `Predictor.update`; 1 where left out.
    warm_up : int
        First intervals that are learnt from but not scored.

    Returns
    -------
    Scores
        Over all intervals whose window was observed at least in part.

    Raises
    ------
    PredictorError
        If no interval can be scored, or the predictor refuses the input.

    Examples
    --------
    >>> from predictors.last_value import LastValue
    >>> scores = backtest([2.0, 4.0, 2.0, 4.0], LastValue(), 1, 1, 0.9, warm_up=0)
    >>> scores.mase, scores.wape, scores.n
    (1.0, 0.6, 3)
    """  # noqa: DOC502 (raised by backtest_forecaster)
    (scores,) = backtest_forecaster(
        series,
        Forecaster(predictor),
        (first_step, last_step),
        (quantile,),
        timer,
        weights=weights,
        warm_up=warm_up,
    )
    return scores


def backtest_forecaster(
    series: Sequence[float | None],
    forecaster: Forecaster[Any],
    steps: tuple[int, int],
    quantiles: Sequence[float],
    timer: Timer | None = None,
    *,
    weights: Sequence[float] | None = None,
    warm_up: int = 10,
) -> tuple[Scores, ...]:
    """Return one score a quantile, all from one replay, of any forecaster; see `backtest`.

    Raises
    ------
    PredictorError
        If no interval can be scored, or the predictor refuses the input.
    """
    state = forecaster.start()
    scored: list[_Scored] = []
    times_s: list[float] = []
    clock = timer or (lambda: math.nan)
    for tick, value in enumerate(series):
        weight = 1.0 if weights is None or value is None else weights[tick]
        begun_s = clock()
        state = forecaster.update(state, value, weight)
        bands = forecaster.bands(state, *steps, quantiles)
        times_s.append(clock() - begun_s)
        seen = _window(series, tick + steps[0], tick + steps[1])
        if tick >= warm_up and seen:
            uppers = tuple(band.upper for band in bands)
            scored.append(_Scored(max(seen), bands[0].mean, uppers, state.last))
    if not scored:
        raise PredictorError(
            f"backtest: nothing to score in {len(series)} intervals; "
            f"legal is more than warm_up + last_step = {warm_up + steps[1]}"
        )
    measured_s = times_s if timer else []
    return tuple(_scores(scored, place, q, measured_s) for place, q in enumerate(quantiles))


def _window(series: Sequence[float | None], first: int, last: int) -> list[float]:
    """Return what was observed from `first` to `last`; empty where the series ends before."""
    if last >= len(series):
        return []
    return [value for value in series[first : last + 1] if value is not None]


def _scores(
    scored: Sequence[_Scored], place: int, quantile: float, times_s: Sequence[float]
) -> Scores:
    """Sum up one quantile; both sides of every ratio run over the same intervals."""
    realised = np.array([s.realised for s in scored])
    missed = realised - np.array([s.uppers[place] for s in scored])
    error = float(np.abs(realised - np.array([s.mean for s in scored])).sum())
    naive_error = float(np.abs(realised - np.array([s.naive for s in scored])).sum())
    pinball = np.maximum(quantile * missed, (quantile - 1) * missed)
    times_ms = 1000 * np.array(times_s)
    return Scores(
        wape=_ratio(error, float(realised.sum())),
        mase=_ratio(error, naive_error),
        pinball=_ratio(float(pinball.sum()), float(realised.sum())),
        coverage=float((missed <= 0).mean()),
        ms_per_tick_mean=float(times_ms.mean()) if times_ms.size else None,
        ms_per_tick_p99=float(np.quantile(times_ms, 0.99)) if times_ms.size else None,
        n=len(scored),
    )


def _ratio(error: float, reference: float) -> float:
    """Return error / reference; no error against nothing is as good as the reference: 1.

    Examples
    --------
    >>> _ratio(1.0, 4.0), _ratio(0.0, 0.0), _ratio(1.0, 0.0)
    (0.25, 1.0, inf)
    """
    if reference > 0:
        return error / reference
    return math.inf if error > 0 else 1.0
