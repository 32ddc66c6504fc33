"""What every predictor is: a pure machine over an immutable state, one call per interval.

Same state and same input give the same output, so that replaying a history rebuilds the state.
"""

import math
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from predictors.errors import PredictorError

StateT = TypeVar("StateT")
FloatArray = NDArray[np.float64]


class Predictor(Protocol[StateT]):
    """Forecasts one non-negative series (a load or a mean length) some intervals ahead.

    A state is a value: its arrays are never written to after it was returned.
    """

    @property
    def name(self) -> str:
        """The name under which `predictors.build` makes it."""
        ...

    def start(self) -> StateT:
        """Return the state before the first interval."""
        ...

    def update(self, state: StateT, value: float | None, weight: float = 1.0) -> StateT:
        """Return the state after one more interval.

        Parameters
        ----------
        state : StateT
            State after the interval before.
        value : float or None
            What was observed, finite and ≥ 0; None for an interval without an observation (a
            scrape gap, no request to take a mean length of): the state ages and learns nothing.
        weight : float
            Number of requests behind a mean, > 0: its noise variance is taken as ∝ 1 / weight.
            Only its ratio to the other weights of the series counts.
        """
        ...

    def predict(self, state: StateT, steps: int) -> FloatArray:
        """Return the means expected 1 … `steps` intervals ahead: shape (steps,), finite, ≥ 0."""
        ...


def require_observation(value: float, weight: float) -> None:
    """Refuse what is not an observation; an unknown value is None, never NaN.

    Raises
    ------
    PredictorError
        If `value` is not finite or negative, or `weight` is not finite or not positive.
    """
    if not (math.isfinite(value) and value >= 0):
        raise PredictorError(
            f"update: value is {value}; legal is finite and >= 0, or None when nothing was seen"
        )
    if not (math.isfinite(weight) and weight > 0):
        raise PredictorError(
            f"update: weight is {weight}; legal is a finite number > 0 (requests behind the mean)"
        )


def require_steps(steps: int) -> None:
    """Refuse a horizon of less than one interval.

    Raises
    ------
    PredictorError
        If `steps` is below 1.
    """
    if steps < 1:
        raise PredictorError(f"predict: steps is {steps}; legal is 1 or more intervals")
