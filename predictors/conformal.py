"""A predictor with an honest margin: quantiles from its own past errors (conformal prediction).

Pure: a state goes in and comes out. A predictor that fails or is absurd is replaced, for that
interval, by the last value with the same margin, and the band says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

import numpy as np

from predictors.adaptive import adapted
from predictors.analogs import analogs, weighted_quantiles
from predictors.base import FloatArray, Predictor, StateT, require_observation
from predictors.errors import PredictorError
from predictors.residuals import (
    PRIOR_POINTS,
    conformal_quantile,
    mean_load,
    residuals_by_level,
    scaled_residuals,
    with_prior,
)

# The first intervals show how a predictor starts, not how it errs; more than 4 would hide a whole
# episode of load.
_UNLEARNT_INTERVALS = 4

# A forecast above this multiple of the largest value ever seen is a predictor run away.
_ABSURD_RATIO = 10.0


@dataclass(frozen=True, slots=True)
class Band:
    """A forecast of the highest value over a window of intervals, in the unit of the series.

    Parameters
    ----------
    mean : float
        Largest of the predicted means over the window.
    upper : float
        The quantile asked for, ≥ 0.
    scale : float
        What one unit of a scaled residual is worth: `mean + residual * scale` is one point of the
        predictive distribution.
    coverage_samples : int
        Measured errors behind the margin, without the prior.
    fallback : bool
        Whether the predictor failed and the last value stands in for it.
    """

    mean: float
    upper: float
    scale: float
    coverage_samples: int
    fallback: bool


@dataclass(frozen=True, slots=True, eq=False)
class ForecasterState(Generic[StateT]):
    """What a `Forecaster` remembers; arrays are never written to.

    Parameters
    ----------
    inner : StateT
        State of the predictor.
    ahead : FloatArray
        Its forecast for the next intervals, shape (max_steps,).
    issued : FloatArray
        Forecasts of the last intervals, oldest first, shape (window, max_steps); NaN where there
        is nothing to learn from.
    realised : FloatArray
        Values of the same intervals, shape (window,); NaN where nothing was observed.
    observations : int
        Intervals with an observation so far.
    last : float
        Last observed value.
    peak : float
        Largest value observed so far.
    fallback : bool
        Whether `ahead` is the last value instead of a forecast.
    """

    inner: StateT
    ahead: FloatArray
    issued: FloatArray
    realised: FloatArray
    observations: int
    last: float
    peak: float
    fallback: bool


class Forecaster(Generic[StateT]):
    """A predictor with one conformal margin for the maximum over any window of intervals.

    Parameters
    ----------
    predictor : Predictor[StateT]
        Gives the means.
    max_steps : int
        Longest horizon [intervals]; later steps are taken as this one.
    window : int
        Past intervals whose errors count.
    adaptive : bool
        Whether quantiles follow what they covered of late (`predictors.adaptive`), besides resting
        on past errors.

    Raises
    ------
    PredictorError
        If `max_steps` is below 1 or `window` not above `max_steps`.

    Notes
    -----
    Split conformal prediction (Vovk, Gammerman and Shafer, 2005; Lei et al., 2018) on scaled
    residuals (highest realised - highest predicted) / max(highest predicted, mean load). The
    residual of the maximum itself is used, so that errors that move together over a window need
    no assumption. Relative residuals alone explode after silence, hence the mean load.

    Examples
    --------
    >>> from predictors.last_value import LastValue
    >>> forecaster = Forecaster(LastValue())
    >>> state = forecaster.start()
    >>> for load_rps in (10.0, 12.0, 10.0, 12.0):
    ...     state = forecaster.update(state, load_rps)
    >>> band = forecaster.forecast(state, first_step=1, last_step=3, quantile=0.9)
    >>> band.mean, round(band.upper, 2), band.coverage_samples
    (12.0, 15.35, 0)
    """

    def __init__(
        self,
        predictor: Predictor[StateT],
        max_steps: int = 16,
        window: int = 240,
        *,
        adaptive: bool = False,
    ) -> None:
        if not 1 <= max_steps < window:
            raise PredictorError(
                f"Forecaster: max_steps is {max_steps} and window is {window}; "
                "legal is 1 <= max_steps < window"
            )
        self.predictor = predictor
        self.max_steps = max_steps
        self.window = window
        self.adaptive = adaptive

    def start(self) -> ForecasterState[StateT]:
        """Return the state that has seen nothing: its band is zero."""
        return ForecasterState(
            inner=self.predictor.start(),
            ahead=np.zeros(self.max_steps),
            issued=np.full((self.window, self.max_steps), np.nan),
            realised=np.full(self.window, np.nan),
            observations=0,
            last=0.0,
            peak=0.0,
            fallback=False,
        )

    def update(
        self, state: ForecasterState[StateT], value: float | None, weight: float = 1.0
    ) -> ForecasterState[StateT]:
        """Return the state after one interval; see `Predictor.update`.

        Raises
        ------
        PredictorError
            If `value` or `weight` is no observation. A predictor's own failure is not raised.
        """  # noqa: DOC502 (raised by require_observation)
        if value is not None:
            require_observation(value, weight)
        seen = value is not None
        last = state.last if value is None else value
        observations = state.observations + seen
        peak = max(state.peak, last)
        inner, forecast = self._consult(state.inner, value, weight, peak)
        ahead = np.full(self.max_steps, last) if forecast is None else forecast
        learnt = ahead if observations > _UNLEARNT_INTERVALS else np.full(self.max_steps, np.nan)
        return ForecasterState(
            inner=inner,
            ahead=ahead,
            issued=np.concatenate((state.issued[1:], learnt[np.newaxis])),
            realised=np.append(state.realised[1:], np.nan if value is None else value),
            observations=observations,
            last=last,
            peak=peak,
            fallback=forecast is None,
        )

    def _consult(
        self, inner: StateT, value: float | None, weight: float, peak: float
    ) -> tuple[StateT, FloatArray | None]:
        """Ask the predictor; None instead of a forecast that failed or is absurd."""
        try:
            moved = self.predictor.update(inner, value, weight)
            ahead = self.predictor.predict(moved, self.max_steps)
        except PredictorError:
            return inner, None
        # Written so that NaN fails it too.
        sane = ahead.min() >= 0 and ahead.max() <= _ABSURD_RATIO * peak
        return moved, ahead if sane else None

    def forecast(
        self, state: ForecasterState[StateT], first_step: int, last_step: int, quantile: float
    ) -> Band:
        """Return the highest value expected over the steps `first_step` … `last_step`.

        Parameters
        ----------
        state : ForecasterState[StateT]
            State after the last interval.
        first_step, last_step : int
            Window ahead [intervals], 1 ≤ first ≤ last; steps beyond `max_steps` clamp to it.
        quantile : float
            Probability with which the realised maximum stays at or below `upper`, in (0, 1).

        Returns
        -------
        Band
            Mean, quantile and what they rest on.

        Raises
        ------
        PredictorError
            If the window or the quantile is out of range.
        """  # noqa: DOC502 (raised by bands)
        return self.bands(state, first_step, last_step, (quantile,))[0]

    def bands(
        self,
        state: ForecasterState[StateT],
        first_step: int,
        last_step: int,
        quantiles: Sequence[float],
    ) -> list[Band]:
        """Return `forecast` at several quantiles, for little more than the price of one.

        Raises
        ------
        PredictorError
            If the window or a quantile is out of range.
        """
        for quantile in quantiles:
            if not 0 < quantile < 1:
                raise PredictorError(f"forecast: quantile is {quantile}; legal is 0 < quantile < 1")
        first, last = self._window_ahead(first_step, last_step)
        mean = float(state.ahead[first - 1 : last].max())
        scale = max(mean, mean_load(state.realised))
        points = self.residuals(state, first, last)
        samples = points.size - PRIOR_POINTS
        uppers = [mean + conformal_quantile(points, quantile) * scale for quantile in quantiles]
        return [Band(mean, max(upper, 0.0), scale, samples, state.fallback) for upper in uppers]

    def residuals(
        self, state: ForecasterState[StateT], first_step: int, last_step: int
    ) -> FloatArray:
        """Return the scaled residuals of the maximum over a window, prior included.

        Parameters
        ----------
        state : ForecasterState[StateT]
            State after the last interval.
        first_step, last_step : int
            Window ahead [intervals], as for `forecast`.

        Returns
        -------
        FloatArray
            Equally likely points, ascending, shape (coverage_samples + 24,): multiply by
            `Band.scale` and add to `Band.mean` for the predictive distribution.
        """
        first, last = self._window_ahead(first_step, last_step)
        measured = scaled_residuals(state.issued, state.realised, first, last)
        return adapted(measured, first, last) if self.adaptive else with_prior(measured)

    def points(
        self, state: ForecasterState[StateT], first_step: int, last_step: int, levels: FloatArray
    ) -> FloatArray:
        """Return quantiles of the highest value over a window, given the level of the forecast.

        Parameters
        ----------
        state : ForecasterState[StateT]
            State after the last interval.
        first_step, last_step : int
            Window ahead [intervals], as for `forecast`.
        levels : FloatArray
            Probabilities, ascending.

        Returns
        -------
        FloatArray
            In the unit of the series, ≥ 0, ascending, shape of `levels`; see `analogs`.
        """
        first, last = self._window_ahead(first_step, last_step)
        mean = float(state.ahead[first - 1 : last].max())
        scale = max(mean, mean_load(state.realised))
        measured, predicted = residuals_by_level(state.issued, state.realised, first, last)
        errors, weights = analogs(measured, predicted, mean)
        found: FloatArray = mean + weighted_quantiles(errors, weights, levels) * scale
        return np.maximum(found, 0.0)

    def _window_ahead(self, first_step: int, last_step: int) -> tuple[int, int]:
        """Clamp a window of steps to the longest horizon.

        Raises
        ------
        PredictorError
            If the window is empty or starts before the next interval.
        """
        if not 1 <= first_step <= last_step:
            raise PredictorError(
                f"forecast: steps are {first_step}..{last_step}; legal is 1 <= first <= last"
            )
        return min(first_step, self.max_steps), min(last_step, self.max_steps)
