"""A bank of small Kalman filters, weighted by how well each forecast the recent past.

Pure, vectorised over the filters, free of scale: variances are kept in units of the observation
noise, so that multiplying a series by a constant multiplies its forecasts by it and no more.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from predictors.base import FloatArray, require_observation, require_steps

# Weight of a past error one interval later: a memory of 1 / (1 - 0.98) = 50 intervals, an hour of
# load at 60 s. 0.9 switches filters too often on load that is close to a random walk.
_DISCOUNT = 0.98

# Prior in favour of quick filters [intervals]: on two dozen intervals a slow filter wins by luck
# about as often as by right, and it is the slow one that does harm when the load moves. Chosen on
# random regimes: 3 loses more on the worst of them, 5 more on the average.
_PRIOR_INTERVALS = 4.0

# Observations at which that prior counts twice, ever less with more of them: right after a start a
# slow filter that won by luck misses a rise by a tenth; the prior costs 0.1 % of the mean error.
_DOUBT_OBSERVATIONS = 3.0

# An error counts at most this many times the typical one, and that is at least this share of what
# was seen: else one spike decides for an hour which filters are good. It takes the error of
# everything-at-once traffic from 1.02 of the last value's to 0.99, and silence a minute longer.
_MOST_ERRORS = 4.0
_LEAST_TYPICAL = 0.2

# A mean over few requests counts down to this share of an average one, and up to its inverse.
_LEAST_WEIGHT = 0.02

# Relative forecast error below which two filters are equally good (rounding on constant series).
_EQUAL_ERROR = 1e-12


class _Filters(NamedTuple):
    """Constants of the filters, each of shape (filters,); variances in units of the noise.

    State (level, second): level' = level + drift · second, second' = damping · second,
    observation = level + shown · second + noise. drift = 1 makes `second` a damped trend,
    shown = 1 a deviation that fades (AR(1)) around a moving level, both 0 a local level.
    """

    level_noise: FloatArray
    second_noise: FloatArray
    damping: FloatArray
    drift: FloatArray
    shown: FloatArray
    prior: FloatArray


def _filters() -> _Filters:
    """Return the 20 filters: 8 local levels, 4 damped trends, 8 levels with a fading deviation.

    An undamped trend costs 5-16 % at 3-5 steps ahead; with damping φ it adds at most φ / (1 - φ)
    of one step's growth. The quickest trend takes up a ramp within two intervals of its start.
    """
    levels = [(q, 0.0, 0.0) for q in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)]
    trends = [(0.3, 0.03, 0.8), (1.0, 0.3, 0.8), (3.0, 3.0, 0.7), (10.0, 30.0, 0.6)]
    fading = [(0.001, 0.3, 0.8), (0.01, 0.3, 0.8), (0.01, 1.0, 0.8), (0.1, 1.0, 0.8)]
    fading += [(0.1, 3.0, 0.8), (0.01, 10.0, 0.9), (0.1, 10.0, 0.9), (0.3, 10.0, 0.9)]
    noise, second, damping = np.array(levels + trends + fading).T
    drift, shown, prior = np.zeros((3, noise.size))
    drift[8:12] = 1.0
    shown[12:] = 1.0
    prior[:8] = _PRIOR_INTERVALS * np.log(np.arange(1, 9))
    # Trends and fading deviations start as trusted as a level of middling speed; the quickest
    # trend, which takes every spike for the foot of a ramp, half as much.
    prior[8:] = _PRIOR_INTERVALS
    prior[11] = _PRIOR_INTERVALS / 2
    return _Filters(noise, second, damping, drift, shown, prior)


_BANK = _filters()


@dataclass(frozen=True, slots=True, eq=False)
class BankState:
    """What the bank remembers; arrays are never written to.

    Parameters
    ----------
    observations : int
        Intervals with an observation so far.
    level, second : FloatArray
        Filtered state of each filter, in the unit of the series, shape (filters,).
    covariance : FloatArray
        Its variances in units of the noise, shape (3, filters): level, cross, second.
    loss : FloatArray
        Discounted sum of absolute one-step errors, none above a few typical ones, in the unit of
        the series, shape (filters,).
    loss_intervals : float
        Discounted number of errors in `loss`.
    share : FloatArray
        Share of each filter in the forecast, sums to 1, shape (filters,).
    mean_weight : float
        Running mean of the weights of the observations.
    """

    observations: int
    level: FloatArray
    second: FloatArray
    covariance: FloatArray
    loss: FloatArray
    loss_intervals: float
    share: FloatArray
    mean_weight: float


class KalmanBank:
    """A bank of 20 local-level, damped-trend and fading-deviation filters.

    Notes
    -----
    Filters: Harvey (1989), *Forecasting, Structural Time Series Models and the Kalman Filter*,
    sections 2.3 and 3.2. Shares: the likelihood of Laplace noise of unknown spread with a
    discounted memory, share ∝ prior · (sum of absolute errors)^(-number of errors); the absolute
    error, not its square, because bursts would let one interval decide for an hour.

    Examples
    --------
    >>> bank = KalmanBank()
    >>> state = bank.start()
    >>> for load_rps in (10.0, 10.0, 10.0):
    ...     state = bank.update(state, load_rps)
    >>> bank.predict(state, 3).round(6).tolist()
    [10.0, 10.0, 10.0]
    """

    name = "Kalman"

    def start(self) -> BankState:
        """Return the state that has seen nothing: it forecasts zero."""
        zeros = np.zeros(_BANK.prior.size)
        return BankState(
            observations=0,
            level=zeros,
            second=zeros,
            covariance=np.zeros((3, zeros.size)),
            loss=zeros,
            loss_intervals=0.0,
            share=_shares(zeros, 1, 0.0, 0.0),
            mean_weight=0.0,
        )

    def update(self, state: BankState, value: float | None, weight: float = 1.0) -> BankState:
        """Return the state after one interval; see `Predictor.update`."""
        if value is not None:
            require_observation(value, weight)
        if state.observations == 0:
            return state if value is None else self._first(state, value, weight)
        aged = _age(state)
        return aged if value is None else _learn(aged, value, weight)

    def _first(self, state: BankState, value: float, weight: float) -> BankState:
        """Start every filter at the first observation, the second component in equilibrium."""
        covariance = np.zeros_like(state.covariance)
        covariance[0] = 1.0
        covariance[2] = _BANK.second_noise / (1 - _BANK.damping**2)
        return BankState(
            observations=1,
            level=np.full_like(state.level, value),
            second=state.second,
            covariance=covariance,
            loss=state.loss,
            loss_intervals=0.0,
            share=state.share,
            mean_weight=weight,
        )

    def predict(self, state: BankState, steps: int) -> FloatArray:
        """Return the share-weighted mean of the filters' forecasts, never below zero."""
        require_steps(steps)
        powers = _BANK.damping ** np.arange(1, steps + 1)[:, np.newaxis]
        # Sum of the trend's steps up to each horizon: 1 + φ + … + φ^(h-1) = (1 - φ^h) / (1 - φ).
        travelled = _BANK.drift * (1 - powers) / (1 - _BANK.damping)
        forecasts = state.level + (travelled + _BANK.shown * powers) * state.second
        return np.maximum(forecasts @ state.share, 0.0)


def _age(state: BankState) -> BankState:
    """Carry every filter one interval on without looking (Kalman time update)."""
    bank = _BANK
    level, cross, second = state.covariance
    carried = bank.drift * second
    covariance = np.stack((
        level + 2 * bank.drift * cross + bank.drift * carried + bank.level_noise,
        bank.damping * (cross + carried),
        bank.damping**2 * second + bank.second_noise,
    ))
    return BankState(
        observations=state.observations,
        level=state.level + bank.drift * state.second,
        second=bank.damping * state.second,
        covariance=covariance,
        loss=state.loss,
        loss_intervals=state.loss_intervals,
        share=state.share,
        mean_weight=state.mean_weight,
    )


def _learn(aged: BankState, value: float, weight: float) -> BankState:
    """Correct every filter by what was seen (Kalman measurement update) and weigh them anew."""
    pace = max(1 - _DISCOUNT, 1 / (aged.observations + 1))
    mean_weight = aged.mean_weight + pace * (weight - aged.mean_weight)
    noise = min(max(mean_weight / weight, _LEAST_WEIGHT), 1 / _LEAST_WEIGHT)
    level, cross, second = aged.covariance
    shown = _BANK.shown
    to_level, to_second = level + shown * cross, cross + shown * second
    spread = to_level + shown * to_second + noise
    error = value - aged.level - shown * aged.second
    counted = np.minimum(np.abs(error) / np.sqrt(noise), _most(aged, value))
    loss = _DISCOUNT * aged.loss + counted
    loss_intervals = _DISCOUNT * aged.loss_intervals + 1
    covariance = aged.covariance - np.stack((to_level**2, to_level * to_second, to_second**2)) / (
        spread
    )
    return BankState(
        observations=aged.observations + 1,
        level=aged.level + to_level / spread * error,
        second=aged.second + to_second / spread * error,
        covariance=covariance,
        loss=loss,
        loss_intervals=loss_intervals,
        share=_shares(loss, aged.observations + 1, loss_intervals, value),
        mean_weight=mean_weight,
    )


def _most(aged: BankState, value: float) -> float:
    """Return the largest error that counts; without a scale to judge by, any does."""
    typical = float(aged.loss.min()) / max(aged.loss_intervals, 1.0)
    most = _MOST_ERRORS * max(typical, _LEAST_TYPICAL * value)
    return most if most > 0 else np.inf


def _shares(loss: FloatArray, observations: int, intervals: float, value: float) -> FloatArray:
    """Return the filters' shares, shape (filters,), from their discounted absolute errors."""
    equal = _EQUAL_ERROR * value + np.finfo(float).tiny
    prior = _BANK.prior * (1 + _DOUBT_OBSERVATIONS / observations)
    score = prior - intervals * np.log(loss + equal)
    likelihood = np.exp(score - score.max())
    share: FloatArray = likelihood / likelihood.sum()
    return share
