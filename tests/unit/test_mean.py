"""The classic formula, number by number."""

import math

import pytest

from planner.sizing.mean import decode_replicas, prefill_replicas
from tests.builders import surfaces

PREFILL, DECODE = surfaces()


@pytest.mark.parametrize(
    ("replicas", "factor", "expected"),
    [(2.5, 1.0, 3), (2.0, 1.0, 2), (2.5, 0.5, 2), (2.5, 9.0, 3), (0.0, 1.0, 0)],
    ids=["rounded up", "whole", "correction lowers", "correction never raises", "no load"],
)
def test_prefill_is_load_over_throughput(replicas, factor, expected):
    load_tps = replicas * float(PREFILL.throughput_tps(1000.0))
    assert prefill_replicas(load_tps, 1000.0, factor, PREFILL) == expected


@pytest.mark.parametrize("factor", [1.0, 1.25], ids=["as profiled", "slower than profiled"])
def test_decode_is_load_over_the_best_throughput_on_target(factor):
    point = DECODE.best_throughput(0.02 / factor, 1500.0)
    assert decode_replicas(2.5 * point.throughput_tps, 1500.0, 0.02, factor, DECODE) == (3, True)
    assert decode_replicas(2.0 * point.throughput_tps, 1500.0, 0.02, factor, DECODE) == (2, True)


def test_decode_without_a_factor_takes_the_target_as_it_is():
    point = DECODE.best_throughput(0.02, 1500.0)
    assert decode_replicas(2.5 * point.throughput_tps, 1500.0, 0.02, 0.0, DECODE) == (3, True)


def test_an_itl_below_the_profile_is_reported_and_sized_one_sequence_a_replica():
    alone_tps = 1.0 / float(DECODE.itl_s(1.0, 1500.0))
    replicas, reachable = decode_replicas(1000.0, 1500.0, 0.0001, 1.0, DECODE)
    assert (replicas, reachable) == (math.ceil(1000.0 / alone_tps), False)
