"""An interpolating planner: forecast means, correct by measured latency, divide by throughput.

Source: NVIDIA Dynamo SLA planner up to 1.0, whose formulas these are: requests, ISL and OSL are
forecast one interval ahead; ``p = observed TTFT / interpolated TTFT``, ``d = observed ITL /
interpolated ITL``; prefill ``⌈n·isl/T · min(1, p) / tokens/s⌉``, decode ``⌈n·osl/T / best
tokens/s at ITL target / d⌉``. `headroom` multiplies the load; it has none as shipped.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from planner.model import Role
from planner.simulation.policies.base import Capacity, View, Wanted
from predictors.base import Predictor


class LineState(NamedTuple):
    """Level and slope of a local linear trend, and the variance of both."""

    level: float = 0.0
    slope: float = 0.0
    level_variance: float = 1e3
    cross: float = 0.0
    slope_variance: float = 1e3


class LinearTrend:
    """A Kalman filter of level and slope with the noise that Dynamo sets: 1, 0.1 and 10."""

    name = "LinearTrend"
    noise = (1.0, 0.1, 10.0)

    def start(self) -> LineState:
        """Return a filter that has seen nothing."""
        return LineState()

    def update(self, state: LineState, value: float | None, weight: float = 1.0) -> LineState:  # noqa: ARG002
        """Return the filter one interval later."""
        level_noise, slope_noise, noise = self.noise
        level = state.level + state.slope
        p00 = state.level_variance + 2.0 * state.cross + state.slope_variance + level_noise
        p01 = state.cross + state.slope_variance
        p11 = state.slope_variance + slope_noise
        if value is None:
            return LineState(level, state.slope, p00, p01, p11)
        k0, k1 = p00 / (p00 + noise), p01 / (p00 + noise)
        error = value - level
        return LineState(
            level + k0 * error,
            state.slope + k1 * error,
            p00 * (1.0 - k0),
            p01 * (1.0 - k0),
            p11 - k1 * p01,
        )

    def predict(self, state: LineState, steps: int) -> list[float]:
        """Return 1 … `steps` intervals ahead, at least 0."""
        return [max(state.level + k * state.slope, 0.0) for k in range(1, steps + 1)]


class Series(NamedTuple):
    """States of the three forecasts: requests, ISL and OSL."""

    requests: Any
    isl: Any
    osl: Any


Forecast = Callable[[Any], float]


@dataclass(frozen=True, slots=True)
class Interpolating:
    """Decides every `interval_s` [s] with the forecasts of `predictor`."""

    capacity: Capacity
    predictor: "Predictor[Any] | LinearTrend"
    headroom: float = 1.0
    interval_s: float = 180.0

    def start(self) -> Series:
        """Return three forecasts without a past."""
        return Series(self.predictor.start(), self.predictor.start(), self.predictor.start())

    def decide(self, view: View, state: Series) -> tuple[Series, Wanted]:
        """Return the replicas for the next interval's mean load."""
        seen = Series(view.requests, view.isl_tokens, view.osl_tokens)
        update: Any = self.predictor.update
        learnt = Series(*(update(s, v) for s, v in zip(state, seen, strict=True)))
        requests, isl, osl = (float(self.predictor.predict(s, 1)[0]) for s in learnt)
        isl, osl = max(isl, 1.0), max(osl, 1.0)
        prefill_factor, decode_factor = corrections(self.capacity, view)
        rps = self.headroom * requests / view.span_s
        prefill = rps * isl * min(1.0, prefill_factor) / self.capacity.prefill_tps(isl)
        best_tps, _ = self.capacity.decode_best(
            self.capacity.itl_s / decode_factor, isl + 0.5 * osl
        )
        return learnt, {
            Role.PREFILL: max(math.ceil(prefill), 1),
            Role.DECODE: max(math.ceil(rps * osl / best_tps), 1),
        }


def corrections(capacity: Capacity, view: View) -> tuple[float, float]:
    """Return observed over interpolated latency of prefill and decode; 1 where nothing was seen.

    Notes
    -----
    Decode is interpolated at Little's concurrency, requests / replicas × duration / interval.
    """
    if view.ttft_s is None or view.itl_s is None:
        return 1.0, 1.0
    duration_s = view.ttft_s + view.itl_s * view.osl_tokens
    replicas = max(view.roles[Role.DECODE].ready, 1)
    concurrency = max(view.rps * duration_s / replicas, 1.0)
    decode = view.itl_s / capacity.decode_itl_s(concurrency, view.context_tokens)
    prefill = view.ttft_s / capacity.prefill_s(view.isl_tokens)
    return prefill, decode if decode > 0.0 else 1.0
