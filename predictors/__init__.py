"""Forecasting: pure predictors of one series, their honest margin, and a backtest.

Heavy libraries are imported by the predictor that needs them, when it starts.
"""

from typing import Any

from predictors.base import Predictor
from predictors.conformal import Band, Forecaster, ForecasterState
from predictors.errors import PredictorError

NAMES = ("Kalman", "Arima", "LastValue", "Prophet")

__all__ = [
    "NAMES",
    "Band",
    "Forecaster",
    "ForecasterState",
    "Predictor",
    "PredictorError",
    "build",
]


def build(name: str) -> Predictor[Any]:
    """Return the predictor of a name, with its defaults.

    Parameters
    ----------
    name : str
        One of `NAMES`.

    Returns
    -------
    Predictor[Any]
        Its state type is its own; hand back what it returned.

    Raises
    ------
    PredictorError
        If the name is unknown. A missing library is reported by `start()`.

    Examples
    --------
    >>> build("LastValue").name
    'LastValue'
    """
    if name == "Kalman":
        from predictors.kalman import KalmanBank

        return KalmanBank()
    if name == "Arima":
        from predictors.arima import Arima

        return Arima()
    if name == "LastValue":
        from predictors.last_value import LastValue

        return LastValue()
    if name == "Prophet":
        from predictors.prophet import Prophet

        return Prophet()
    raise PredictorError(f"predictor is {name!r}; legal is one of {', '.join(NAMES)}")
