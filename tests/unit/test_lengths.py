"""Points that stand for a histogram keep its count and its mean."""

import math

import numpy as np
import pytest

from planner.decision.lengths import length_mix, points
from planner.model import Histogram

BOUNDS = (128.0, 512.0, 2048.0, math.inf)


@pytest.mark.parametrize(
    ("cumulative", "total"),
    [
        pytest.param((10.0, 10.0, 10.0, 10.0), 900.0, id="first bucket"),
        pytest.param((0.0, 0.0, 0.0, 10.0), 50_000.0, id="open bucket"),
        pytest.param((0.0, 0.0, 0.0, 10.0), 9_000.0, id="open bucket, sum says less"),
        pytest.param((2.0, 5.0, 9.0, 10.0), 9_000.0, id="all buckets"),
        pytest.param((0.0, 4.0, 4.0, 10.0), 40_000.0, id="an empty bucket between"),
    ],
)
def test_points_keep_count_and_mean(cumulative, total):
    values, shares = points(Histogram(BOUNDS, cumulative, total))
    assert shares.sum() == pytest.approx(1.0)
    assert values @ shares == pytest.approx(total / 10.0)
    assert np.all(values > 0.0)


def test_a_summary_without_buckets_is_one_point():
    values, shares = points(Histogram((math.inf,), (4.0,), 600.0))
    assert (values.tolist(), shares.tolist()) == ([150.0], [1.0])


def test_spread_of_lengths_comes_through():
    """Lognormal lengths: the mix's second moment is that of the sample within 15 %."""
    rng = np.random.default_rng(3)
    lengths = rng.lognormal(6.0, 0.9, 200_000)
    bounds = (*(2.0**k for k in range(3, 16)), math.inf)
    counts = tuple(float(np.sum(lengths <= bound)) for bound in bounds)
    histogram = Histogram(bounds, counts, float(lengths.sum()))
    mix = length_mix(histogram, histogram)
    assert mix.isl_mean_tokens == pytest.approx(lengths.mean())
    assert mix.osl_mean_tokens == pytest.approx(lengths.mean())
    assert mix.osl_cv2 == pytest.approx(lengths.var() / lengths.mean() ** 2, rel=0.15)
