"""The formulas against textbooks: exact sums, closed forms, and stated tolerances."""

import math

import numpy as np
import pytest

from planner.sizing.queueing import (
    effective_variability,
    erlang_b,
    erlang_c,
    occupancy,
    wait_tail,
)

SCALES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


def erlang_b_exact(servers: int, offered: float) -> float:
    """B(0) = 1, B(k) = a B(k − 1) / (k + a B(k − 1)): the textbook's recursion, exact."""
    blocking = 1.0
    for k in range(1, servers + 1):
        blocking = offered * blocking / (k + offered * blocking)
    return blocking


def erlang_c_exact(servers: int, offered: float) -> float:
    blocking = erlang_b_exact(servers, offered)
    return servers * blocking / (servers - offered * (1.0 - blocking))


@pytest.mark.parametrize("servers", [0, 1, 2, 5, 20, 150, 1000])
@pytest.mark.parametrize("load", [0.05, 0.5, 0.9, 0.99, 1.0, 1.2, 3.0])
def test_erlang_b_is_the_exact_sum(servers, load):
    offered = load * max(servers, 1)
    expected = erlang_b_exact(servers, offered)
    assert float(erlang_b(servers, offered)) == pytest.approx(expected, rel=1e-4, abs=1e-280)


@pytest.mark.parametrize("servers", [1, 2, 5, 20, 150, 1000])
@pytest.mark.parametrize("load", [0.05, 0.5, 0.9, 0.99])
def test_erlang_c_is_the_exact_sum(servers, load):
    expected = erlang_c_exact(servers, load * servers)
    assert float(erlang_c(servers, load * servers)) == pytest.approx(expected, rel=1e-6, abs=1e-280)


@pytest.mark.parametrize(
    ("servers", "offered", "expected"),
    [
        pytest.param(1.0, 0.5, 0.5, id="M/M/1: ρ"),
        pytest.param(2.0, 1.0, 1.0 / 3.0, id="M/M/2 at ρ = 1/2: 2ρ² / (1 + ρ)"),
        pytest.param(3.0, 3.0, 1.0, id="critical"),
        pytest.param(3.0, 9.0, 1.0, id="overloaded"),
        pytest.param(3.0, 0.0, 0.0, id="idle"),
    ],
)
def test_erlang_c_closed_forms(servers, offered, expected):
    assert float(erlang_c(servers, offered)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    "servers", [0.0, 0.01, 1.0, 100.0, 9_990.0, 10_000.0, 10_400.0, 1e5], ids=lambda c: f"c={c:g}"
)
@pytest.mark.parametrize("offered", [1e-9, 0.3, 40.0, 700.0, 1e4], ids=lambda a: f"a={a:g}")
def test_erlang_stays_a_probability_at_the_extremes(servers, offered):
    blocking, waiting = float(erlang_b(servers, offered)), float(erlang_c(servers, offered))
    assert 0.0 <= blocking <= 1.0
    assert 0.0 <= waiting <= 1.0
    assert blocking <= waiting + 1e-12


def test_far_above_capacity_erlang_b_joins_its_limit():
    """Where the incomplete gamma underflows the branch changes; the value must not jump."""
    below, above = erlang_b(400.0, [1700.0, 2400.0])
    assert erlang_b_exact(400, 1700.0) == pytest.approx(below, rel=1e-3)
    assert erlang_b_exact(400, 2400.0) == pytest.approx(above, rel=1e-3)


def test_erlang_c_falls_with_servers_between_whole_ones():
    waiting = erlang_c(np.linspace(4.01, 12.0, 300), 4.0)
    assert np.all(np.diff(waiting) < 0.0)


def tail(servers, offered, waits_s, cs2=1.0, ca2=1.0, mean_s=0.5):
    index = np.full(len(SCALES), ca2)
    return wait_tail(
        np.array(servers, float), offered, np.array(waits_s), mean_s, cs2, SCALES, index
    )


@pytest.mark.parametrize("servers", [1, 3, 12])
@pytest.mark.parametrize("rho", [0.3, 0.8, 0.97])
def test_wait_tail_is_exact_for_mmc(servers, rho):
    waits_s = np.array([0.0, 0.1, 0.5, 2.0])
    expected = erlang_c_exact(servers, rho * servers) * np.exp(
        -servers * (1.0 - rho) * waits_s / 0.5
    )
    assert tail([servers], rho * servers, waits_s)[0] == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("cs2", [0.0, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("rho", [0.2, 0.7, 0.95])
def test_wait_tail_integrates_to_pollaczek_khinchine(rho, cs2):
    mean_s = 0.5
    waits_s = np.linspace(0.0, 60.0 * mean_s * (1.0 + cs2) / (1.0 - rho), 20_001)
    mean_wait_s = np.trapezoid(tail([1], rho, waits_s, cs2)[0], waits_s)
    expected_s = rho * mean_s * (1.0 + cs2) / (2.0 * (1.0 - rho))
    assert mean_wait_s == pytest.approx(expected_s, rel=0.01)


def test_wait_tail_is_one_where_the_queue_is_not_stable():
    assert tail([1, 2, 3], 2.0, [0.0, 9.0]).tolist()[:2] == [[1.0, 1.0], [1.0, 1.0]]
    assert tail([3], 2.0, [9.0])[0, 0] < 1.0


def test_burstier_arrivals_wait_more_by_haywards_prefactor():
    poisson, bursty = (tail([10], 7.0, [0.0], ca2=ca2)[0, 0] for ca2 in (1.0, 4.0))
    assert poisson == pytest.approx(0.22, abs=0.01)
    assert bursty == pytest.approx(0.43, abs=0.02)


def test_a_long_wait_looks_at_the_longer_scale_of_burstiness():
    """A short wait sees calm traffic, a long one that of the scale which can bring it about."""
    scales, waits_s = (1.0, 10.0), np.array([0.02, 4.0])
    calm, rising, bursty = (
        wait_tail(np.array([5.0]), 3.5, waits_s, 0.2, 1.0, scales, index)[0]
        for index in ((1.0, 1.0), (1.0, 9.0), (9.0, 9.0))
    )
    assert rising[0] == pytest.approx(calm[0], rel=0.2)
    # Beyond 10 s, which the wait of 4 s looks at, both are as bursty: they differ by the prefactor.
    assert calm[1] < 1e-4 * bursty[1]
    assert 0.1 * bursty[1] < rising[1] < bursty[1]


@pytest.mark.parametrize("index", [1.0, 2.5, 20.0])
@pytest.mark.parametrize("rho", [0.3, 0.8, 0.95])
@pytest.mark.parametrize("servers", [1.0, 8.0])
def test_robust_queueing_gives_a_constant_dispersion_back(servers, rho, index):
    # The outer scales differ, so that clamping to the curve's range can't hide an error.
    scales = (1e-9, 1e-8, *SCALES, 1e8, 1e9)
    curve = (0.01, *[index] * 10, 1e4)
    found = effective_variability(np.array([servers]), np.array([rho]), 0.05, 0.5, scales, curve)
    assert found[0] == pytest.approx(index, rel=0.02)


def test_robust_queueing_looks_at_longer_scales_the_fuller_the_pool():
    rho = np.array([0.3, 0.6, 0.9, 0.99, 0.999, 0.99999, 1.0 - 1e-9])
    found = effective_variability(
        np.full(rho.size, 4.0), rho, 0.1, 0.5, SCALES, (1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
    )
    assert np.all(np.diff(found) >= -1e-9)
    assert found[0] == pytest.approx(1.0, abs=0.1)
    assert found[-3:] == pytest.approx(8.0, rel=0.02)


def test_occupancy_of_mm_c_k_is_the_closed_form():
    offered, servers, room = 3.0, 4, 9
    levels = np.arange(1, room + 1)
    expected = np.array([
        offered**n / math.factorial(n)
        if n <= servers
        else offered**n / (math.factorial(servers) * servers ** (n - servers))
        for n in range(room + 1)
    ])
    pi = occupancy(offered / np.minimum(levels, servers))
    assert pi == pytest.approx(expected / expected.sum(), rel=1e-12)


def test_occupancy_of_mg_infinity_is_poisson():
    offered = 20.0
    pi = occupancy(offered / np.arange(1, 200))
    n = np.arange(200)
    expected = np.exp(n * np.log(offered) - offered - np.cumsum(np.log(np.maximum(n, 1))))
    assert pi == pytest.approx(expected, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("rate", [0.0, 1e-300, 1e6], ids=["never", "hardly", "flooded"])
def test_occupancy_stays_a_distribution(rate):
    pi = occupancy(np.full(2000, rate))
    assert np.all(np.isfinite(pi))
    assert pi.sum() == pytest.approx(1.0)
