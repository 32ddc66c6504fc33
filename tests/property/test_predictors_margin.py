"""What holds for the margin over any series: finite, monotone in the quantile, free of scale."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictors import Band, Forecaster, build
from predictors.kalman import BankState

LOADS = st.one_of(st.none(), st.floats(0, 1e12), st.integers(0, 3).map(float))
SERIES = st.lists(LOADS, max_size=60)
QUANTILES = st.floats(0.001, 0.999)
STEPS = st.tuples(st.integers(1, 20), st.integers(0, 20)).map(lambda s: (s[0], s[0] + s[1]))

MARGINS = pytest.mark.parametrize("adaptive", [False, True], ids=["plain", "adaptive"])
FORECASTERS: dict[bool, Forecaster[BankState]] = {
    adaptive: Forecaster(build("Kalman"), adaptive=adaptive) for adaptive in (False, True)
}


def bands(
    series: list[float | None],
    steps: tuple[int, int],
    quantiles: list[float],
    *,
    adaptive: bool = False,
) -> list[Band]:
    forecaster = FORECASTERS[adaptive]
    state = forecaster.start()
    for value in series:
        state = forecaster.update(state, value)
    return forecaster.bands(state, *steps, quantiles)


@MARGINS
@given(SERIES, STEPS, QUANTILES)
@settings(max_examples=40, deadline=None)
def test_a_band_is_finite_and_not_negative(
    adaptive: bool, series: list[float | None], steps: tuple[int, int], quantile: float
) -> None:
    (band,) = bands(series, steps, [quantile], adaptive=adaptive)
    assert np.isfinite([band.mean, band.upper, band.scale]).all()
    assert min(band.mean, band.upper, band.scale) >= 0
    assert not band.fallback


@MARGINS
@given(SERIES, STEPS, st.lists(QUANTILES, min_size=2, max_size=6))
@settings(max_examples=40, deadline=None)
def test_a_higher_quantile_is_never_lower(
    adaptive: bool, series: list[float | None], steps: tuple[int, int], quantiles: list[float]
) -> None:
    found = bands(series, steps, sorted(quantiles), adaptive=adaptive)
    uppers = [band.upper for band in found]
    assert all(low <= high * (1 + 1e-12) for low, high in pairwise(uppers))


@given(
    st.lists(st.one_of(st.none(), st.floats(0.1, 1e3)), max_size=50),
    st.sampled_from([1e-6, 0.001, 60.0, 1e9]),
)
@settings(max_examples=40, deadline=None)
def test_the_unit_does_not_matter(series: list[float | None], factor: float) -> None:
    (plain,) = bands(series, (1, 3), [0.9])
    (scaled,) = bands([v if v is None else v * factor for v in series], (1, 3), [0.9])
    assert scaled.mean / factor == pytest.approx(plain.mean, rel=1e-6)
    assert scaled.upper / factor == pytest.approx(plain.upper, rel=1e-6)


@MARGINS
@given(
    st.integers(0, 10_000),
    st.sampled_from(["normal", "exponential", "laplace"]),
    st.sampled_from([0.1, 0.3]),
    st.sampled_from([(1, 1), (2, 4)]),
)
@settings(max_examples=8, deadline=None)
def test_coverage_on_a_steady_load_is_nominal(
    adaptive: bool, seed: int, shape: str, spread: float, steps: tuple[int, int]
) -> None:
    noise = getattr(np.random.default_rng(seed), shape)(size=700)
    load = np.maximum(100 * (1 + spread * noise), 0).tolist()
    forecaster = FORECASTERS[adaptive]
    state, covered = forecaster.start(), []
    for tick, value in enumerate(load[: -steps[1]]):
        state = forecaster.update(state, value)
        upper = forecaster.forecast(state, *steps, 0.8).upper
        if tick >= 50:
            covered.append(max(load[tick + steps[0] : tick + steps[1] + 1]) <= upper)
    # Three standard errors of 650 draws are 4.7 points; overlapping windows know less each.
    assert np.mean(covered) == pytest.approx(0.8, abs=0.05 if steps == (1, 1) else 0.08)
