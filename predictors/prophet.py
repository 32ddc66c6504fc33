"""Prophet (the extra `prophet`): a piecewise-linear trend, with seasons where history covers them.

Pure towards its caller; the library itself runs its optimiser as a process. It is imported on use
only. A fit that fails is a `PredictorError`.
"""

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from predictors.base import FloatArray, require_observation, require_steps
from predictors.errors import PredictorError

# A fit takes about a tenth of a second: every fifth observation, over at most a day at 60 s.
_FIT_EVERY = 5
_HISTORY = 1440
_LEAST_POINTS = 20

# Intervals ahead that one fit foresees: a horizon of 16 from the last tick before the next fit, and
# some without observations; beyond it the last value of the path stays.
_FORESEEN = 64

_DAY_S = 86_400


@dataclass(frozen=True, slots=True, eq=False)
class ProphetState:
    """What the predictor remembers; arrays are never written to.

    Parameters
    ----------
    history : FloatArray
        The last values, NaN for intervals without one, shape (≤ 1440,).
    last : float
        Last observed value.
    path : FloatArray or None
        Means from the next interval on, shape (≤ 64,); None before the first fit.
    since_fit : int
        Observations since the last fit.
    """

    history: FloatArray
    last: float = 0.0
    path: FloatArray | None = None
    since_fit: int = 0


class Prophet:
    """Prophet, fitted again every fifth observation; the last value below 20 points.

    Weights are not used: Prophet has one variance for all points. A fit takes about a tenth of a
    second, and on loads without seasons it foresees less than the last value does: meant for
    comparison and for long intervals, not as a default.

    Parameters
    ----------
    interval_s : float
        Length of an interval [s], > 0: tells it how long a day is.

    Raises
    ------
    PredictorError
        If `interval_s` is not positive.

    Notes
    -----
    Taylor and Letham (2018), *Forecasting at scale*. A daily season needs two days of history.
    """

    name = "Prophet"

    def __init__(self, interval_s: float = 60.0) -> None:
        if not interval_s > 0:
            raise PredictorError(f"Prophet: interval_s is {interval_s}; legal is > 0 seconds")
        self.interval_s = interval_s

    def start(self) -> ProphetState:
        """Return the state that has seen nothing.

        Raises
        ------
        PredictorError
            If the extra is not installed.
        """  # noqa: DOC502 (raised by _library)
        _library()
        return ProphetState(history=np.empty(0))

    def update(self, state: ProphetState, value: float | None, weight: float = 1.0) -> ProphetState:
        """Return the state after one interval; `weight` is checked and not used.

        Raises
        ------
        PredictorError
            If the observation is illegal, or Prophet finds no fit.
        """  # noqa: DOC502 (raised by require_observation and _fit)
        if value is not None:
            require_observation(value, weight)
        moved = ProphetState(
            history=np.append(state.history, np.nan if value is None else value)[-_HISTORY:],
            last=state.last if value is None else value,
            path=state.path if state.path is None else _pass(state.path, value),
            since_fit=state.since_fit + (value is not None),
        )
        few = np.count_nonzero(~np.isnan(moved.history)) < _LEAST_POINTS
        if value is None or few or moved.since_fit < _FIT_EVERY:
            return moved
        return replace(moved, path=_fit(moved.history, self.interval_s), since_fit=0)

    def predict(self, state: ProphetState, steps: int) -> FloatArray:
        """Return the path of the last fit, never below zero."""
        require_steps(steps)
        path = np.array([state.last]) if state.path is None else state.path
        ahead: FloatArray = np.maximum(path, 0.0)
        return ahead[np.minimum(np.arange(steps), path.size - 1)]


def _pass(path: FloatArray, value: float | None) -> FloatArray:
    """Drop the interval that has passed, and move the rest by half of what it missed.

    The end of the path stays.
    """
    missed = 0.0 if value is None else value - float(path[0])
    return path[min(1, path.size - 1) :] + 0.5 * missed


def _library() -> Any:
    """Return the class of the library.

    Raises
    ------
    PredictorError
        If the extra is not installed.
    """
    import logging

    # On import it tells of a missing plotly, and its optimiser of every fit: unless that finds a
    # handler on its first word, it installs its own.
    for talker in map(logging.getLogger, ("prophet.plot", "cmdstanpy")):
        if not talker.handlers:
            talker.addHandler(logging.NullHandler())
        talker.setLevel(logging.CRITICAL)
    try:
        from prophet import Prophet as Library
    except ImportError as error:
        raise PredictorError(
            "Prophet is not installed; pip install 'pd-planner[prophet]', or choose Kalman"
        ) from error
    return Library


def _fit(history: FloatArray, interval_s: float) -> FloatArray:
    """Return the means of the intervals after `history`, shape (64,).

    Prophet's trend gives the shape, the last three intervals the level: alone it lags by the
    distance between its change points.

    Raises
    ------
    PredictorError
        If Prophet finds no fit.
    """
    import pandas as pd

    highest = float(np.nanmax(history))
    if highest == np.nanmin(history):
        return np.full(_FORESEEN, highest)
    # Prophet knows time only as dates; which day it is does not matter.
    ticks = np.arange(history.size + _FORESEEN) * interval_s
    dates = pd.Timestamp(2000, 1, 1) + pd.to_timedelta(ticks, unit="s")
    frame = pd.DataFrame({"ds": dates[: history.size], "y": history / highest})
    model = _library()(
        daily_seasonality=history.size * interval_s >= 2 * _DAY_S,
        weekly_seasonality=False,
        yearly_seasonality=False,
        uncertainty_samples=0,
    )
    try:
        with warnings.catch_warnings():
            # Prophet uses what pandas and numpy have deprecated; nothing a caller could mend.
            warnings.simplefilter("ignore")
            fitted = model.fit(frame)
            foreseen = fitted.predict(pd.DataFrame({"ds": dates}))["yhat"].to_numpy()
    except (RuntimeError, ValueError) as error:
        raise PredictorError(
            f"Prophet found no fit to {history.size} intervals ({error}); choose Kalman"
        ) from error
    seen = np.flatnonzero(~np.isnan(history))[-3:]
    level = float((history[seen] / highest - foreseen[seen]).mean())
    return np.asarray(foreseen[history.size :] + level, dtype=np.float64) * highest
