"""Synthetic workloads whose truth is known at every moment, and draws of them. Pure.

A workload is three curves over time, requests a second and mean lengths; a draw of it is a trace
with Poisson arrivals and lognormal lengths that its seed fixes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from planner.errors import InputError
from planner.simulation.traces import Trace, make_trace

Floats = NDArray[np.float64]
Curve = Callable[[Floats], Floats]
"""A quantity over time [s]; takes and returns float64[moment]."""

HOUR_S: Final = 3600.0
GRID_S: Final = 1.0
"""Arrival rates are constant within so long."""

LENGTH_CV: Final = 0.8
"""Coefficient of variation of lengths in synthetic_8h; public traces lie at 0.6 to 1.6."""

ISL_MAX_TOKENS: Final = 8192
OSL_MAX_TOKENS: Final = 4096
SYNTHETIC_SEED: Final = 8
"""The draw that the case `synthetic` replays."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The truth behind a trace.

    Attributes
    ----------
    name
        One word, for reports.
    duration_s
        Length [s], at least `GRID_S`.
    rate_rps
        Mean arrivals [requests/s] over time [s].
    isl_tokens, osl_tokens
        Mean lengths [tokens] over time, before the cut at `ISL_MAX_TOKENS`, `OSL_MAX_TOKENS`.
    cached_ratio
        Share of every prompt that a prefix cache holds, over time.
    burst_cv, burst_s
        Every `burst_s` [s] the rate is multiplied by a gamma factor of mean 1 and this coefficient
        of variation; 0 leaves pure Poisson arrivals.
    """

    name: str
    duration_s: float
    rate_rps: Curve
    isl_tokens: Curve
    osl_tokens: Curve
    cached_ratio: Curve
    burst_cv: float = 0.0
    burst_s: float = 10.0


def draw(workload: Workload, seed: int = 0) -> Trace:
    """Return one trace of a workload; its first arrival is moved to 0 s, as in every trace.

    Arrivals are those of a Poisson process with that rate, by inversion of its integral (Lewis and
    Shedler 1979); lengths are lognormal with CV `LENGTH_CV`, one token or more.
    """
    rng = np.random.default_rng([seed, 5])
    at_s = _arrivals(workload, rng)
    isl = _lengths(workload.isl_tokens(at_s), ISL_MAX_TOKENS, rng)
    osl = _lengths(workload.osl_tokens(at_s), OSL_MAX_TOKENS, rng)
    cached = np.floor(isl * workload.cached_ratio(at_s)).astype(np.int32)
    return make_trace(workload.name, at_s, isl, osl, cached)


def _arrivals(workload: Workload, rng: np.random.Generator) -> Floats:
    edges_s = np.arange(0.0, workload.duration_s + GRID_S, GRID_S)
    rates = np.maximum(workload.rate_rps(edges_s[:-1] + 0.5 * GRID_S), 0.0)
    if workload.burst_cv > 0.0:
        shape = workload.burst_cv**-2
        blocks = (edges_s[:-1] // workload.burst_s).astype(np.int64)
        rates *= rng.gamma(shape, 1.0 / shape, blocks[-1] + 1)[blocks]
    expected = np.concatenate([[0.0], np.cumsum(rates * GRID_S)])
    places = np.sort(rng.uniform(0.0, expected[-1], rng.poisson(expected[-1])))
    return np.asarray(np.interp(places, expected, edges_s), dtype=np.float64)


def _lengths(mean: Floats, longest: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """Return lognormal lengths [tokens]: σ² = ln(1 + cv²), µ = ln(mean) − σ²/2."""
    variance = np.log1p(LENGTH_CV**2)
    normal = rng.standard_normal(mean.shape)
    drawn = mean * np.exp(np.sqrt(variance) * normal - variance / 2.0)
    return np.asarray(np.clip(np.rint(drawn), 1, longest), dtype=np.int32)


# ── curves ───────────────────────────────────────────────────────────────────────────────────────


def level(value: float) -> Curve:
    """Return the curve that is `value` always."""
    return lambda t: np.full(t.shape, value)


def between(from_s: float, to_s: float, factor: float) -> Curve:
    """Return 1, and `factor` in [from_s, to_s)."""
    return lambda t: np.where((t >= from_s) & (t < to_s), factor, 1.0)


def after(from_s: float, factor: float) -> Curve:
    """Return 1, and `factor` from `from_s` on."""
    return between(from_s, np.inf, factor)


def rising(from_s: float, to_s: float, factor: float) -> Curve:
    """Return 1 up to `from_s`, `factor` from `to_s` on, and a straight line in between."""
    return lambda t: np.interp(t, [from_s, to_s], [1.0, factor])


def wave(share: float, period_s: float) -> Curve:
    """Return 1 − share × cos(2π t / period): lowest at 0 s."""
    return lambda t: 1.0 - share * np.cos(2.0 * np.pi * t / period_s)


def product(*curves: Curve) -> Curve:
    """Return the product of curves."""
    return lambda t: np.asarray(prod(curve(t) for curve in curves), dtype=np.float64)


# ── workloads ────────────────────────────────────────────────────────────────────────────────────

RATE_RPS: Final = 20.0
ISL_TOKENS: Final = 1000.0
OSL_TOKENS: Final = 200.0
SHIFT_S: Final = 1800.0
"""When a workload of one event has it."""


ONE: Final = level(1.0)
ZERO: Final = level(0.0)


def _workload(
    name: str,
    *rate: Curve,
    isl: Curve = ONE,
    osl: Curve = ONE,
    cached: Curve = ZERO,
    duration_s: float = HOUR_S,
    rate_rps: float = RATE_RPS,
    burst_cv: float = 0.0,
) -> Workload:
    """Return a workload from factors on the plain one."""
    return Workload(
        name,
        duration_s,
        product(level(rate_rps), *rate),
        product(level(ISL_TOKENS), isl),
        product(level(OSL_TOKENS), osl),
        cached,
        burst_cv,
    )


def _synthetic_8h() -> Workload:
    """Return eight hours in which everything happens once."""
    hours = [h * HOUR_S for h in (1.0, 3.6, 6.8)]
    return _workload(
        "synthetic-8h",
        wave(0.5, 8.0 * HOUR_S),
        between(2.0 * HOUR_S, 3.0 * HOUR_S, 2.0),
        *(between(start_s, start_s + 60.0, 3.0) for start_s in hours),
        rising(7.0 * HOUR_S, 7.0 * HOUR_S + 600.0, 2.0),
        isl=between(4.0 * HOUR_S, 5.0 * HOUR_S, 2.0),
        osl=between(5.5 * HOUR_S, 6.5 * HOUR_S, 2.0),
        duration_s=8.0 * HOUR_S,
        rate_rps=30.0,
    )


_ALL: Final = (
    _workload("constant"),
    _workload("step", after(SHIFT_S, 2.0)),
    _workload("ramp", rising(SHIFT_S, SHIFT_S + 600.0, 3.0)),
    _workload("spike", between(SHIFT_S, SHIFT_S + 60.0, 5.0)),
    _workload("diurnal", wave(0.6, 4.0 * HOUR_S), duration_s=4.0 * HOUR_S),
    _workload("isl-shift", isl=after(SHIFT_S, 2.0)),
    _workload("osl-shift", osl=after(SHIFT_S, 2.0)),
    _workload("cache-collapse", cached=product(level(0.4), after(SHIFT_S, 0.0))),
    _workload("zero-and-return", between(SHIFT_S, SHIFT_S + 900.0, 0.0)),
    _workload("bursty", burst_cv=0.5),
    _synthetic_8h(),
)

WORKLOADS: Final[Mapping[str, Workload]] = MappingProxyType({w.name: w for w in _ALL})
"""One event each, known to the second, and `synthetic-8h` with all of them."""


def workload_named(name: str) -> Workload:
    """Return the workload of that name.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in WORKLOADS:
        raise InputError(f"workload {name}: unknown; legal: {', '.join(WORKLOADS)}; choose one")
    return WORKLOADS[name]


def random_workload(seed: int, duration_s: float = 2.0 * HOUR_S) -> Workload:
    """Return a random regime: a wave, steps, spikes, bursts and shifting lengths.

    For choosing constants on traffic that no report is made on. Everything is drawn in ratios:
    rate 5 to 40 requests/s, up to three steps of ÷3 to ×3, up to three spikes of ×2 to ×5 and 20
    to 180 s, one shift each of prompt and output lengths of ÷2 to ×2.
    """
    rng = np.random.default_rng([seed, 6])

    def ratio(most: float) -> float:
        return float(most ** rng.uniform(-1.0, 1.0))

    moments = rng.uniform(0.1 * duration_s, duration_s, (2, 3))
    steps = [after(float(t), ratio(3.0)) for t in moments[0, : rng.integers(0, 4)]]
    spikes = [
        between(float(t), float(t + rng.uniform(20.0, 180.0)), float(rng.uniform(2.0, 5.0)))
        for t in moments[1, : rng.integers(0, 4)]
    ]
    return _workload(
        f"random-{seed}",
        wave(float(rng.uniform(0.0, 0.6)), duration_s * float(rng.uniform(0.5, 2.0))),
        *steps,
        *spikes,
        isl=product(level(ratio(2.0)), after(float(rng.uniform(0.0, duration_s)), ratio(2.0))),
        osl=product(level(ratio(2.0)), after(float(rng.uniform(0.0, duration_s)), ratio(2.0))),
        duration_s=duration_s,
        rate_rps=float(5.0 * 8.0 ** rng.uniform(0.0, 1.0)),
        burst_cv=float(rng.choice([0.0, 0.2, 0.5])),
    )
