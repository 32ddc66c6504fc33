"""Prefill: slack, handover, infeasible prompts, overload."""

import numpy as np
import pytest

from planner.model import Factor, LengthMix, Role, Sla, Transfer
from planner.sizing.prefill import NO_TARGET_S, PrefillLoad, failure_shares, prefill_load
from planner.sizing.queueing import erlang_c
from tests.builders import ISL, load, pool, service

SCALES = (0.5, 64.0)
PERFECT = Factor()
# One decode step of a sequence alone: what a handover takes beyond the transfer until measured.
ALONE_S = float(service().pool("decode").decode.itl_s(1.0, load().lengths.context_tokens))


def prompts(arrivals_rps=20.0, **over) -> PrefillLoad:
    """Prompts of 0.1 s that may wait 0.4 s."""
    given = {
        "arrivals_rps": arrivals_rps,
        "service_s": np.array([0.1, 0.1]),
        "weights": np.array([0.5, 0.5]),
        "slack_s": np.array([0.4, 0.4]),
        "scales_s": SCALES,
        "dispersion": (1.0, 1.0),
    }
    return PrefillLoad(**(given | over))


def test_failures_of_poisson_and_fixed_service_are_the_gi_g_c_tail():
    servers = np.array([3.0, 4.0])
    expected = erlang_c(servers, 2.0) * np.exp(-2.0 * (servers - 2.0) * 0.4 / 0.1)
    assert failure_shares(prompts(), servers) == pytest.approx(expected, rel=1e-6)


def test_each_class_has_its_own_slack():
    mixed = prompts(slack_s=np.array([0.4, 0.05]))
    loose, tight = prompts(), prompts(slack_s=np.array([0.05, 0.05]))
    servers = np.array([3.0])
    parts = (failure_shares(loose, servers), failure_shares(tight, servers))
    assert failure_shares(mixed, servers) == pytest.approx(0.5 * sum(parts))


def test_prompts_that_can_never_pass_are_left_out_and_counted_once():
    hopeless = prompts(slack_s=np.array([0.4, -0.1]))
    assert hopeless.infeasible_share == 0.5
    assert failure_shares(hopeless, np.array([90.0]))[0] == pytest.approx(0.0, abs=1e-9)
    assert failure_shares(hopeless, np.array([0.0]))[0] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        pytest.param({"arrivals_rps": 0.0}, [0.0, 0.0], id="no load"),
        pytest.param({"slack_s": np.array([-1.0, -1.0])}, [1.0, 0.0], id="no feasible prompt"),
    ],
)
def test_edges_of_the_failures(over, expected):
    assert failure_shares(prompts(**over), np.array([0.0, 3.0])).tolist() == expected


def test_overload_still_prefers_every_further_replica():
    shares = failure_shares(prompts(arrivals_rps=200.0), np.arange(0.0, 20.0))
    assert np.all(np.diff(shares) < 0.0)
    assert shares[19] > 0.98


def test_failures_never_rise_with_replicas_under_any_dispersion():
    bursty = prompts(arrivals_rps=90.0, scales_s=(0.5, 1.0, 64.0), dispersion=(1.0, 30.0, 31.0))
    assert np.all(np.diff(failure_shares(bursty, np.arange(0.0, 40.0, 0.25))) <= 0.0)


def test_backlog_is_work_on_top():
    queued = prompts(backlog_work_s=60.0, drain_s=120.0)
    assert queued.offered == pytest.approx(prompts().offered + 0.5)
    servers = np.array([3.0])
    assert failure_shares(queued, servers)[0] > failure_shares(prompts(), servers)[0]


def test_moments_of_service():
    mixed = prompts(service_s=np.array([0.1, 0.3]))
    assert mixed.service_mean_s == pytest.approx(0.2)
    assert mixed.service_cv2 == pytest.approx(0.25)
    assert prompts().service_cv2 == 0.0


@pytest.mark.parametrize(
    ("budget", "expected"),
    [(0.0, 0.5), (0.1, 0.5), (0.25, 0.2), (0.6, 0.1)],
    ids=lambda value: f"{value:g}",
)
def test_best_ttft_is_what_all_but_the_budget_reach_unqueued(budget, expected):
    classes = prompts(
        service_s=np.array([0.5, 0.1, 0.2]),
        weights=np.array([0.25, 0.5, 0.25]),
        slack_s=1.0 - np.array([0.5, 0.1, 0.2]),
    )
    assert classes.best_ttft_s(1.0, budget) == pytest.approx(expected)


def made(asked=None, factor=PERFECT, rps=10.0, pool_over=None, **over) -> PrefillLoad:
    who = asked or service()
    return prefill_load(
        pool(**(pool_over or {})), who, load(rps, **over), factor, rps * ISL, who.sla.ttft_s, 60.0
    )


def test_prefill_load_keeps_rate_and_applies_the_factor():
    plain, slower = made(), made(factor=Factor(1.3))
    assert plain.arrivals_rps == pytest.approx(10.0)
    assert slower.service_s == pytest.approx(1.3 * plain.service_s)
    assert np.all(slower.slack_s < plain.slack_s)


def test_cached_tokens_are_not_work():
    half = prefill_load(
        pool(), service(), load(uncached_ratio=0.5), Factor(), 10.0 * 0.5 * ISL, 0.5, 60.0
    )
    assert half.arrivals_rps == pytest.approx(10.0)
    assert half.service_mean_s < made().service_mean_s


def test_prompts_beyond_the_scope_are_promised_nothing():
    scoped = service(sla=Sla(ttft_s=0.5, itl_s=0.03, max_input_tokens=1000))
    slack_s = made(scoped).slack_s
    assert [slack == NO_TARGET_S for slack in slack_s] == [False, False, True, True]


@pytest.mark.parametrize(
    ("handover_s", "expected_s"),
    [
        pytest.param(None, [0.005 + 0.01 * k + ALONE_S for k in (1, 2, 5, 8)], id="computed"),
        pytest.param(0.1, [0.1 + 0.01 * (k - 4) for k in (1, 2, 5, 8)], id="slower: even"),
        pytest.param(0.0225, [0.5 * (0.005 + 0.01 * k) for k in (1, 2, 5, 8)], id="quicker"),
        pytest.param(
            0.6, [0.005 + 0.01 * k + 0.09 for k in (1, 2, 5, 8)], id="waiting for admission"
        ),
    ],
)
def test_handover_is_what_was_measured_spread_by_length(handover_s, expected_s):
    """100 kB a token at 2.5 GB/s: 10 ms each 250 tokens; the mean prompt has 1,000."""
    asked = service(transfer=Transfer(bandwidth_bytes_per_s=2.5e9, latency_s=0.005))
    found = made(asked, pool_over={"kv_bytes_per_token": 1e5}, handover_s=handover_s)
    assert 0.5 - found.service_s - found.slack_s == pytest.approx(expected_s)


def test_transfer_time_is_bytes_over_bandwidth_and_latency():
    assert Transfer(1e9, 0.002).time_s(1000.0, 1e5) == pytest.approx(0.102)


def test_lengths_beyond_the_profile_are_clamped():
    longest = pool().prefill.isl_max_tokens
    clamped = made(lengths=LengthMix((longest, 10.0 * longest), (0.5, 0.5), 100.0, 0.0))
    assert clamped.service_s[0] == clamped.service_s[1]
    assert pool().role is Role.PREFILL
