"""ARIMA on the statsmodels library, with the order chosen again as data comes in.

Pure. statsmodels estimates, one candidate order a tick at most; between estimates a plain Kalman
step over the fitted matrices takes in each new point. An estimate that fails is not used.
"""

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from predictors.base import FloatArray, require_observation, require_steps
from predictors.errors import PredictorError

# Orders (p, d, q) in the race, from exponential smoothing to a damped trend. All with d = 1: a load
# has no mean to return to, and orders with d = 0 cost up to 2.5 times the error of the last value
# when a regime changed. No drift: undamped trends run away within a few steps.
_ORDERS = ((0, 1, 1), (1, 1, 1), (0, 1, 2), (1, 1, 2))

# Below 30 points an information criterion picks orders by luck (white noise in most series at 5
# points, twice the error of the last value): a local level does better.
_LEAST_POINTS = 30

# Intervals from one choice of the order to the next, and points that count: at 60 s a quarter of an
# hour and four hours.
_CHOOSE_EVERY = 15
_HISTORY = 240

# Weight of a past error one interval later, when the fitted model is held against the local level.
_DISCOUNT = 0.95

# Steps of the optimiser; three parameters on a scaled series seldom need more.
_ITERATIONS = 20
_EVALUATIONS = 60

# Points whose likelihood depends on the diffuse start: the largest number of states of `_ORDERS`.
_BURN = 4


@dataclass(frozen=True, slots=True, eq=False)
class _Model:
    """A fitted state-space form and its state before the next interval.

    The series enters as value / scale - shift. Shapes with k states: design (k,), transition and
    disturbance (k, k), mean (k,), covariance (k, k). `score` is the information criterion, `loss`
    the discounted sum of absolute one-step errors in the unit of the series.
    """

    order: tuple[int, int, int]
    score: float
    loss: float
    scale: float
    shift: float
    noise: float
    design: FloatArray
    transition: FloatArray
    disturbance: FloatArray
    mean: FloatArray
    covariance: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class ArimaState:
    """What the predictor remembers; arrays are never written to.

    Parameters
    ----------
    history : FloatArray
        The last values, NaN for intervals without one, shape (≤ 240,).
    level : _Model or None
        A local level, always at hand; None before the first observation.
    fitted : _Model or None
        The winner of the last race; None before the first.
    rivals : tuple[_Model or None, ...]
        Fitted so far in the present race, None where an estimate failed.
    since_choice : int
        Observations since the last choice of the order.
    """

    history: FloatArray
    level: _Model | None = None
    fitted: _Model | None = None
    rivals: tuple[_Model | None, ...] = ()
    since_choice: int = 0

    @property
    def model(self) -> _Model | None:
        """The model in use: what was fitted, unless the local level did better of late."""
        if self.fitted and self.level and self.fitted.loss <= self.level.loss:
            return self.fitted
        return self.level

    @property
    def order(self) -> tuple[int, int, int] | None:
        """The order (p, d, q) in use; None before the first observation."""
        return self.model.order if self.model else None


class Arima:
    """ARIMA(p, d, q), p + q ≤ 2, by maximum likelihood; a local level below 30 points.

    Weights are not used: the likelihood of statsmodels has one variance for all points.

    Notes
    -----
    Every 15 observations the orders race: each is fitted to the last 240 points, one a tick so that
    no tick pays for all, and the least AICc (Hurvich and Tsai, 1989) wins. Parameters fitted across
    a change of regime can be wrong for hours: while a plain local level errs less, it forecasts.

    Examples
    --------
    >>> arima = Arima()
    >>> state = arima.start()
    >>> for load_rps in (10.0, 10.0, 10.0):
    ...     state = arima.update(state, load_rps)
    >>> state.order, arima.predict(state, 2).tolist()
    ((0, 1, 1), [10.0, 10.0])
    """

    name = "Arima"

    def start(self) -> ArimaState:
        """Return the state that has seen nothing.

        Raises
        ------
        PredictorError
            If statsmodels is not installed.
        """
        # Here and not at the first fit: its import takes seconds, and a tick has none to spare.
        try:
            import statsmodels.tsa.statespace.sarimax  # noqa: F401
        except ImportError as error:
            raise PredictorError(
                "Arima needs statsmodels, which cannot be imported; pip install statsmodels"
            ) from error
        return ArimaState(history=np.empty(0))

    def update(self, state: ArimaState, value: float | None, weight: float = 1.0) -> ArimaState:
        """Return the state after one interval; `weight` is checked and not used."""
        if value is not None:
            require_observation(value, weight)
        if state.level is None:
            return state if value is None else _first(value)
        history = np.append(state.history, np.nan if value is None else value)[-_HISTORY:]
        moved = replace(
            state,
            history=history,
            level=_advance(state.level, value),
            fitted=state.fitted and _advance(state.fitted, value),
            rivals=tuple(rival and _advance(rival, value) for rival in state.rivals),
            since_choice=state.since_choice + (value is not None),
        )
        return moved if value is None else _race(moved)

    def predict(self, state: ArimaState, steps: int) -> FloatArray:
        """Return the model's means, never below zero; zeros before the first observation."""
        require_steps(steps)
        model = state.model
        if model is None:
            return np.zeros(steps)
        means = np.empty(steps)
        position = model.mean
        for step in range(steps):
            means[step] = model.design @ position
            position = model.transition @ position
        return np.maximum((means + model.shift) * model.scale, 0.0)


def _first(value: float) -> ArimaState:
    return ArimaState(history=np.array([value]), level=_local_level(value))


def _local_level(value: float) -> _Model:
    """Return a local level at `value` with equal noise in level and observation.

    That is ARIMA(0, 1, 1) with gain (√5 - 1) / 2 = 0.62: it needs no estimate and no scale.
    """
    one = np.ones((1, 1))
    return _Model(
        order=(0, 1, 1),
        score=np.inf,
        loss=0.0,
        scale=1.0,
        shift=0.0,
        noise=1.0,
        design=np.ones(1),
        transition=one,
        disturbance=one,
        mean=np.array([value]),
        covariance=2 * one,
    )


def _advance(model: _Model, value: float | None) -> _Model:
    """Take in one interval: the Kalman filter in prediction form (Durbin and Koopman, 2012, 4.3).

    Without a value only time passes.
    """
    loss = model.loss
    mean = model.transition @ model.mean
    covariance = model.transition @ model.covariance @ model.transition.T + model.disturbance
    if value is not None:
        shown = model.covariance @ model.design
        spread = model.design @ shown + model.noise
        gain = model.transition @ shown / spread
        error = value / model.scale - model.shift - model.design @ model.mean
        mean = mean + gain * error
        covariance = covariance - spread * np.outer(gain, gain)
        loss = _DISCOUNT * loss + abs(float(error)) * model.scale
    return replace(model, mean=mean, covariance=covariance, loss=loss)


def _race(state: ArimaState) -> ArimaState:
    """Fit the next order of the race, if one is due, and let the best win after the last."""
    entered = len(state.rivals)
    due = entered or state.since_choice >= _CHOOSE_EVERY
    if not due or np.count_nonzero(~np.isnan(state.history)) < _LEAST_POINTS:
        return state
    scale = float(np.nanmean(state.history))
    if not np.nanmax(state.history) - np.nanmin(state.history) > 1e-9 * scale:
        # Nothing to estimate from a constant; a model of an earlier time would pull away from it.
        return replace(state, fitted=None, rivals=(), since_choice=0)
    rivals = (*state.rivals, _fit(state.history, scale, _ORDERS[entered]))
    if len(rivals) < len(_ORDERS):
        return replace(state, rivals=rivals)
    fitted = [rival for rival in rivals if rival is not None]
    best = min(fitted, key=lambda rival: rival.score, default=None)
    if best and state.fitted:
        best = replace(best, loss=state.fitted.loss)
    return replace(state, fitted=best, rivals=(), since_choice=0)


def _fit(history: FloatArray, scale: float, order: tuple[int, int, int]) -> _Model | None:
    """Return the model of one order, or None where the estimate failed."""
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    seen = np.flatnonzero(~np.isnan(history))
    relative = history[seen[0] :] / scale - 1.0
    try:
        with warnings.catch_warnings():
            # Starting values and slow convergence are its daily bread; the score judges the result.
            warnings.simplefilter("ignore")
            form = SARIMAX(relative, order=order, concentrate_scale=True)
            # The stationary start solves a Lyapunov equation at every step of the optimiser; where
            # threads compete for cores, that takes ten times as long as all the rest.
            form.initialize_approximate_diffuse()
            fitted = form.fit(disp=0, maxiter=_ITERATIONS, maxfun=_EVALUATIONS, cov_type="none")
        model = _model(fitted, order, scale, seen.size)
    except (ValueError, ArithmeticError, np.linalg.LinAlgError):
        return None
    sane = np.isfinite(model.score) and np.isfinite(model.mean).all()
    return model if sane and np.isfinite(model.covariance).all() else None


def _model(fitted: Any, order: tuple[int, int, int], scale: float, points: int) -> _Model:
    """Copy out of a statsmodels result what filtering needs."""
    space, filtered = fitted.model.ssm, fitted.filter_results
    selection = space["selection"]
    parameters = len(fitted.params) + 1  # and σ², which drops out of the optimisation
    likelihood = float(fitted.llf_obs[_BURN:].sum())
    correction = 2 * parameters * (parameters + 1) / (points - _BURN - parameters - 1)
    return _Model(
        order=order,
        score=2 * parameters - 2 * likelihood + correction,
        loss=0.0,
        scale=scale,
        shift=1.0,
        noise=float(space["obs_cov"].item()),
        design=space["design"][0].copy(),
        transition=space["transition"].copy(),
        disturbance=selection @ space["state_cov"] @ selection.T,
        mean=filtered.predicted_state[:, -1].copy(),
        covariance=filtered.predicted_state_cov[:, :, -1] / fitted.scale,
    )
