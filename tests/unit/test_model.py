"""The little that values compute."""

import math

import pytest

from planner.model import (
    Factor,
    Factors,
    Histogram,
    LengthMix,
    Pod,
    PoolFleet,
    Role,
    ServiceKey,
    Sla,
)
from tests.builders import pool, service

BOUNDS = (1.0, 2.0, math.inf)


def test_histograms_of_other_bounds_add_up_to_sum_and_count():
    one, other = Histogram(BOUNDS, (1.0, 2.0, 3.0), 5.0), Histogram((9.0,), (4.0,), 7.0)
    assert one.plus(other) == Histogram((math.inf,), (7.0,), 12.0)
    assert one.plus(one) == one.times(2.0)


@pytest.mark.parametrize(
    ("histogram", "count", "mean"),
    [
        (Histogram(BOUNDS, (1.0, 2.0, 4.0), 6.0), 4.0, 1.5),
        (Histogram(BOUNDS, (0.0, 0.0, 0.0), 0.0), 0.0, None),
        (Histogram((), (), 0.0), 0.0, None),
    ],
    ids=["some", "none", "without buckets"],
)
def test_histogram_count_and_mean(histogram, count, mean):
    assert (histogram.count, histogram.mean) == (count, mean)


READY = Pod("a", 0.0, 60.0)
STARTING = Pod("b", 0.0)
LEAVING = Pod("c", 0.0, 60.0, terminating=True)


@pytest.mark.parametrize(
    ("fleet", "pods_per_replica", "expected"),
    [
        pytest.param(PoolFleet(3, (READY, STARTING, LEAVING)), 1, 1, id="serving pods"),
        pytest.param(PoolFleet(4, (READY, READY, READY)), 2, 1, id="whole replicas"),
        pytest.param(PoolFleet(3), 1, 3, id="no list: as asked"),
        pytest.param(PoolFleet(4), 2, 2, id="no list: asked for in pods"),
    ],
)
def test_ready_replicas(fleet, pods_per_replica, expected):
    assert fleet.ready(pods_per_replica) == expected


def test_context_in_flight_is_length_biased():
    """Half the outputs of 100, half of 300: a token belongs to a long one three times in four."""
    mix = LengthMix((1000.0,), (1.0,), 200.0, 0.25)
    assert mix.context_tokens == pytest.approx(1000.0 + 0.25 * 50.0 + 0.75 * 150.0)


def test_context_deviation_of_equal_outputs_is_that_of_a_uniform():
    assert LengthMix((1000.0,), (1.0,), 120.0, 0.0).context_sd_tokens == pytest.approx(
        120.0 / math.sqrt(12.0)
    )
    assert LengthMix((500.0, 1500.0), (0.5, 0.5), 1e-9, 0.0).context_sd_tokens == pytest.approx(500)


@pytest.mark.parametrize(
    ("factor", "fill", "expected"),
    [(Factor(), 1.0, 1.0), (Factor(1.1, 0.2), 0.5, 1.2), (Factor(9.0), 0.0, 2.0),
     (Factor(0.1), 0.0, 0.5)],
    ids=["perfect", "sloped", "ceiling", "floor"],
)  # fmt: skip
def test_factor_stays_in_range(factor, fill, expected):
    assert factor.at(fill) == pytest.approx(expected)


def test_factors_are_one_until_something_was_seen():
    assert Factors({"a": Factor(1.2)}).of("a").level == 1.2
    assert Factors().of("a") == Factor()


def test_service_finds_its_pools():
    asked = service()
    assert asked.pool("decode").role is Role.DECODE
    assert [p.name for p in asked.pools_of(Role.PREFILL)] == ["prefill"]
    assert str(ServiceKey("inference", "llama")) == "inference/llama"


@pytest.mark.parametrize(
    ("price", "expected"), [(None, 4.0), (2.5, 10.0), (0.0, 0.0)], ids=["none", "given", "free"]
)
def test_price_counts_gpus_where_none_is_given(price, expected):
    assert pool(gpus_per_replica=4, gpu_hour_price=price).price_per_replica == expected


def test_failure_budget_is_what_attainment_leaves():
    assert Sla(0.5, 0.03, attainment_ratio=0.95).failure_budget == pytest.approx(0.05)


def test_a_list_without_a_pod_has_nobody_ready_and_no_list_counts_what_is_asked_for():
    assert PoolFleet(4, is_listed=True).ready() == 0
    assert PoolFleet(4).ready() == 4
