"""The naive predictor: what was seen last stays. The yardstick (MASE 1) and the fallback. Pure."""

from dataclasses import dataclass

import numpy as np

from predictors.base import FloatArray, require_observation, require_steps


@dataclass(frozen=True, slots=True)
class LastValueState:
    """The last observed value, in the unit of the series; None before the first."""

    value: float | None = None


class LastValue:
    """Repeats the last observed value.

    Examples
    --------
    >>> naive = LastValue()
    >>> naive.predict(naive.update(naive.start(), 3.0), 2).tolist()
    [3.0, 3.0]
    """

    name = "LastValue"

    def start(self) -> LastValueState:
        """Return the state that has seen nothing."""
        return LastValueState()

    def update(
        self, state: LastValueState, value: float | None, weight: float = 1.0
    ) -> LastValueState:
        """Return the state after one interval; without an observation it is unchanged."""
        if value is None:
            return state
        require_observation(value, weight)
        return LastValueState(value)

    def predict(self, state: LastValueState, steps: int) -> FloatArray:
        """Return the last value `steps` times; zeros before the first observation."""
        require_steps(steps)
        return np.full(steps, state.value or 0.0)
