"""A predictor with an honest margin: quantiles from its own past errors (conformal prediction).

Pure: a state goes in and comes out. A predictor that fails or is absurd is replaced, for that
interval, by the last value with the same margin, and the band says so.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Generic

import numpy as np

from predictors.base import FloatArray, Predictor, StateT, require_observation
from predictors.errors import PredictorError

# The first intervals show how a predictor starts, not how it errs; more than 4 would hide a whole
# episode of load.
_UNLEARNT_INTERVALS = 4

# A prior that stays: this many normal points beside the measured errors, so that the largest of a
# few errors does not rule a high quantile. Its relative spread before there is data: 0.2, the
# middle of the one-minute errors of public traces.
_PRIOR_POINTS = 24
_PRIOR_SPREAD = 0.2
_NORMAL = np.array([
    NormalDist().inv_cdf((point + 0.5) / _PRIOR_POINTS) for point in range(_PRIOR_POINTS)
])

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
        self, predictor: Predictor[StateT], max_steps: int = 16, window: int = 240
    ) -> None:
        if not 1 <= max_steps < window:
            raise PredictorError(
                f"Forecaster: max_steps is {max_steps} and window is {window}; "
                "legal is 1 <= max_steps < window"
            )
        self.predictor = predictor
        self.max_steps = max_steps
        self.window = window

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
        """
        if not 0 < quantile < 1:
            raise PredictorError(f"forecast: quantile is {quantile}; legal is 0 < quantile < 1")
        first, last = self._window_ahead(first_step, last_step)
        mean = float(state.ahead[first - 1 : last].max())
        scale = max(mean, _mean_load(state.realised))
        measured = _measured(state, first, last)
        margin = _quantile(_with_prior(measured), quantile) * scale
        return Band(mean, max(mean + margin, 0.0), scale, measured.size, state.fallback)

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
        return _with_prior(_measured(state, *self._window_ahead(first_step, last_step)))

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


def _mean_load(realised: FloatArray) -> float:
    """Return the load an average request saw, Σx² / Σx over the window; zero if all is silent.

    Silence has no requests and so no say: after a night at zero the first load is its own scale.
    Taken relative to the largest value, or squares of huge loads would overflow.

    Examples
    --------
    >>> float(_mean_load(np.array([0.0, 0.0, 8.0, np.nan])))
    8.0
    """
    peak = np.fmax.reduce(realised)
    if not peak > 0:
        return 0.0
    relative = np.where(np.isnan(realised), 0.0, realised / peak)
    return float(peak * (relative @ relative) / relative.sum())


def _measured(state: ForecasterState[StateT], first: int, last: int) -> FloatArray:
    """Return the scaled errors of the maximum over steps first … last, in order of time.

    An interval without an observation is left out of the maximum on both sides.
    """
    origins = state.realised.size - last
    highest = np.full(origins, np.nan)
    predicted = highest
    for step in range(first, last + 1):
        realised = state.realised[step : step + origins]
        issued = np.where(np.isnan(realised), np.nan, state.issued[:origins, step - 1])
        highest = np.fmax(highest, realised)
        predicted = np.fmax(predicted, issued)
    scale = np.maximum(predicted, _mean_load(state.realised))
    known = scale >= 0
    # Silence foretold and seen: no error, on any scale.
    scale[scale == 0] = 1.0
    errors: FloatArray = (highest[known] - predicted[known]) / scale[known]
    return errors


def _with_prior(measured: FloatArray) -> FloatArray:
    """Add the normal points, centre and spread shrunk towards the measured errors; sorted.

    Centre is the median and spread √(π/2) times the mean absolute deviation, the standard deviation
    if errors are normal: one burst in the window must not widen the whole prior. Spreads are shrunk
    as logarithms, since loads err by 0.5 % or by 50 %; n equal errors prove no less than the prior
    spread / (n + 1).
    """
    samples = measured.size
    trust = samples / (samples + _PRIOR_POINTS)
    centre = deviation = 0.0
    if samples:
        centre = np.sort(measured)[samples // 2]
        deviation = math.sqrt(math.pi / 2) * np.abs(measured - centre).mean()
    deviation = max(deviation, _PRIOR_SPREAD / (samples + 1))
    spread = deviation**trust * _PRIOR_SPREAD ** (1 - trust)
    return np.sort(np.concatenate((measured, trust * centre + spread * _NORMAL)))


def _quantile(ascending: FloatArray, quantile: float) -> float:
    """Return the conformal quantile: rank (n + 1) · quantile, interpolated, within the sample.

    Examples
    --------
    >>> _quantile(np.array([1.0, 2.0, 3.0]), 0.5), _quantile(np.array([1.0, 2.0, 3.0]), 0.99)
    (2.0, 3.0)
    """
    rank = min(max((ascending.size + 1) * quantile - 1, 0.0), ascending.size - 1.0)
    below = int(rank)
    above = min(below + 1, ascending.size - 1)
    part = rank - below
    return float((1 - part) * ascending[below] + part * ascending[above])
