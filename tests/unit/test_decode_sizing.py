"""Decode: batch limits, the occupancy chain and its tail, block merging, dispersion."""

from dataclasses import replace

import numpy as np
import pytest

from planner.model import Factor, LengthMix, Role
from planner.sizing import decode
from planner.sizing.decode import (
    DecodeLoad,
    batch_limit,
    decode_load,
    failure_shares,
    kv_limit,
    pool_occupancy,
    throughput_tps,
)
from planner.sizing.queueing import Floats, occupancy
from tests.builders import ITL_S, OSL, load, pool

N_MAX = 400


def batches(output_tps=4000.0, **over) -> DecodeLoad:
    """A replica whose ITL rises by 50 µs a sequence from 5 ms; 20 ms is n* = 300."""
    given = {
        "output_tps": output_tps,
        "itl_s": 0.005 + 5e-5 * np.maximum(np.arange(N_MAX + 1), 1),
        "target_s": 0.02 + 1e-9,
        "kv_capacity_tokens": None,
        "context_tokens": 1000.0,
        "profiled_limit": N_MAX,
    }
    return DecodeLoad(**(given | over))


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        pytest.param({}, 300, id="target"),
        pytest.param({"target_s": 0.001}, 0, id="target below one sequence"),
        pytest.param({"target_s": 9.0}, N_MAX, id="everything"),
        pytest.param({"kv_capacity_tokens": 120_000.0}, 120, id="KV of equal contexts"),
        pytest.param({"kv_capacity_tokens": 900.0}, 0, id="KV below one context"),
        pytest.param({"profiled_limit": 64}, 64, id="end of the profile"),
    ],
)
def test_batch_limit_is_the_tightest_of_target_kv_and_profile(over, expected):
    assert batch_limit(batches(**over)) == expected


def test_kv_limit_leaves_one_percent_of_normal_batches_over():
    found = kv_limit(batches(kv_capacity_tokens=120_000.0, context_sd_tokens=700.0))
    rng = np.random.default_rng(1)

    def spilled(n):
        return np.mean(rng.normal(1000.0 * n, 700.0 * np.sqrt(n), 200_000) > 120_000.0)

    assert spilled(found) <= 0.0105
    assert spilled(found + 1) > 0.009
    assert found < 120


def exact_tail(sizes: DecodeLoad, replicas: int) -> float:
    """Share of sequences on a replica above n*, batches equal up to one: the chain, unmerged."""
    most = 2 * batch_limit(sizes) + 16
    n = np.arange(1, replicas * min(most, N_MAX) + 1)
    itl_s = np.interp(n / replicas, np.arange(sizes.itl_s.size), sizes.itl_s)
    pi = occupancy(sizes.output_tps * itl_s / n)
    levels = np.arange(pi.size)
    overfull = np.clip(levels / replicas - batch_limit(sizes), 0.0, 1.0)
    return float((pi * levels) @ overfull / (pi @ levels))


def occupied(sizes: DecodeLoad, replicas: float) -> tuple[Floats, Floats]:
    """Levels of one pool and their probabilities."""
    found = pool_occupancy(sizes, np.array([sizes.output_tps]), np.array([float(replicas)]), N_MAX)
    return found[0][0], found[1][0]


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("fill", [0.85, 0.92, 0.97, 1.05])
def test_poisson_failures_are_the_exact_chains_tail(replicas, fill):
    """Few enough levels (under 512) that nothing is merged."""
    small = batches(target_s=0.0105 + 1e-9)  # n* = 110
    sizes = replace(small, output_tps=fill * replicas * throughput_tps(small))
    found = failure_shares(sizes, np.array([float(replicas)]))[0]
    assert found == pytest.approx(exact_tail(sizes, replicas), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("replicas", [2, 3, 6, 20, 60])
@pytest.mark.parametrize("fill", [0.9, 0.95, 0.98])
def test_merging_levels_into_blocks_costs_under_three_percent(replicas, fill):
    sizes = batches()
    sizes = replace(sizes, output_tps=fill * replicas * throughput_tps(sizes))
    levels, _ = occupied(sizes, replicas)
    assert levels.size <= decode.GRID + 1 < replicas * N_MAX
    exact = exact_tail(sizes, replicas)
    found = failure_shares(sizes, np.array([float(replicas)]))[0]
    assert found == pytest.approx(exact, rel=0.03, abs=1e-6)


@pytest.mark.parametrize("fill", [0.9, 1.0, 8.0])
def test_very_large_pools_stay_finite(fill):
    """Levels merged by the hundred must not be multiplied up: 2,000 sequences to the power 150."""
    sizes = batches()
    sizes = replace(sizes, output_tps=fill * 500.0 * throughput_tps(sizes))
    shares = failure_shares(sizes, np.array([250.0, 500.0, 1000.0]))
    assert np.all((shares >= 0.0) & (shares <= 1.0))
    # An overloaded pool is scored just below 1, so that a search has a slope to follow.
    assert shares[2] == pytest.approx(0.0 if fill < 2.0 else 1.0, abs=0.01)


def test_occupancy_of_constant_itl_is_poisson():
    """M/G/∞: what is in flight at a constant ITL has mean and variance λ E[OSL] ITL."""
    sizes = batches(itl_s=np.full(N_MAX + 1, 0.01), output_tps=5000.0)
    levels, pi = occupied(sizes, 1.0)
    mean = levels @ pi
    assert mean == pytest.approx(50.0, rel=1e-6)
    assert (levels - mean) ** 2 @ pi == pytest.approx(50.0, rel=1e-6)


def test_a_surge_slows_itself():
    """Rising ITL widens occupancy to about L / (1 − s), s = n ITL′ / ITL at the mean."""
    sizes = batches(output_tps=14_000.0)
    levels, pi = occupied(sizes, 1.0)
    mean = levels @ pi
    variance = (levels - mean) ** 2 @ pi
    slope = 5e-5 * mean / np.interp(mean, np.arange(N_MAX + 1), sizes.itl_s)
    assert variance == pytest.approx(mean / (1.0 - slope), rel=0.15)


@pytest.mark.parametrize(
    "worse",
    [{"dispersion": 4.0}, {"target_s": 0.018}, {"output_tps": 82_000.0}],
    ids=lambda over: next(iter(over)),
)
def test_what_makes_it_worse_raises_the_failures(worse):
    sizes = batches(output_tps=78_000.0)
    replicas = np.array([6.0])
    before, after = failure_shares(sizes, replicas), failure_shares(batches(**({
        "output_tps": 78_000.0} | worse)), replicas)  # fmt: skip
    assert 0.0 < before[0] < after[0] < 1.0


def test_failures_fall_with_replicas_from_all_to_none():
    shares = failure_shares(batches(output_tps=78_000.0), np.arange(0.0, 30.0, 0.5))
    assert shares[0] == 1.0
    assert np.all(np.diff(shares) <= 0.0)
    assert shares[-1] < 1e-9


@pytest.mark.parametrize(
    ("over", "expected"),
    [({"output_tps": 0.0}, 0.0), ({"target_s": 0.001}, 1.0)],
    ids=["no load", "target below one sequence"],
)
def test_edges_of_the_failures(over, expected):
    assert failure_shares(batches(**over), np.array([0.0, 3.0])) == pytest.approx(expected)


def test_throughput_is_a_full_batch_over_its_itl():
    assert throughput_tps(batches()) == pytest.approx(300 / 0.02)
    assert throughput_tps(batches(target_s=0.001)) == 0.0


def test_best_itl_is_one_sequence_alone():
    assert batches().best_itl_s == pytest.approx(0.00505)
    assert batches().is_feasible
    assert not batches(target_s=0.005).is_feasible


def test_decode_load_takes_its_shape_from_profile_lengths_and_factor():
    asked, traffic = pool(Role.DECODE), load()
    plain = decode_load(asked, traffic, Factor(), 2000.0, 0.03)
    slower = decode_load(asked, traffic, Factor(level=1.2), 2000.0, 0.03)
    assert plain.context_tokens == traffic.lengths.context_tokens
    assert slower.itl_s == pytest.approx(1.2 * plain.itl_s)
    assert batch_limit(slower) < batch_limit(plain)
    assert np.all(np.diff(plain.itl_s) >= 0.0)


def test_decode_load_reads_dispersion_at_the_residence_time():
    asked = pool(Role.DECODE)
    curve = (1.0, 1.0, 1.0, 1.0, 2.0, 4.0, 8.0, 16.0)
    short, long = (
        decode_load(
            asked,
            load(dispersion=curve, lengths=LengthMix((1000.0,), (1.0,), osl, 0.0)),
            Factor(),
            2000.0,
            0.03,
        )
        for osl in (20.0, 1000.0)
    )
    assert short.dispersion == pytest.approx(1.0)
    residence_s = 1000.0 * long.itl_s[batch_limit(long)]
    assert 16.0 < residence_s < 32.0
    # Half of what is above Poisson: who came in one burst leaves one by one.
    assert 2.5 < long.dispersion < 4.5


def test_slope_of_the_factor_grows_with_the_fill():
    plain, sloped = (
        decode_load(pool(Role.DECODE), load(), factor, 2000.0, 0.03)
        for factor in (Factor(), Factor(1.0, 0.4))
    )
    ratio = sloped.itl_s / plain.itl_s
    assert ratio[1] < 1.1 < ratio[300]
    assert OSL * ITL_S > 0.0
