"""Corrections: how quickly they learn, when they don't, and how they fade."""

from dataclasses import replace

import pytest

from planner.decision.correct import MIN_REQUESTS, CorrectMemory, correct
from planner.decision.lengths import points
from planner.model import PoolObservation, Sla, Statistic
from tests.builders import ISL, LENGTHS, OSL, histogram, observation, service, surfaces

PREFILL, DECODE = surfaces()


def seen(prefill_ratio=1.0, decode_ratio=1.0, concurrency=24.0, requests=600.0, **over):
    """Return an interval in which each pool takes so many times what its profile says."""
    prompts = histogram(ISL, requests, LENGTHS)
    given = {
        "pools": {
            "prefill": PoolObservation(
                1, prefill_ratio * expected_prefill_s(), 0.3, 0.0, changed=False
            ),
            "decode": PoolObservation(
                1, decode_ratio * expected_itl_s(concurrency), concurrency, 0.0, changed=False
            ),
        },
        "prompts": prompts,
        "outputs": histogram(OSL, requests, LENGTHS),
    }
    return observation(**(given | over))


def expected_prefill_s():
    isl, weights = points(histogram(ISL, 600.0, LENGTHS))
    return float(PREFILL.service_s(isl) @ weights)


def expected_itl_s(concurrency):
    osl, weights = points(histogram(OSL, 600.0, LENGTHS))
    return float(DECODE.itl_s(concurrency, ISL + 0.5 * (osl**2 @ weights) / OSL))


def learn(intervals, who=None):
    memory, factors = CorrectMemory(), None
    for interval in intervals:
        memory, factors = correct(who or service(), memory, interval)
    return factors


@pytest.mark.parametrize("ratio", [0.8, 1.0, 1.2, 1.5])
def test_a_wrong_profile_is_learnt_in_ten_minutes(ratio):
    factors = learn([seen(prefill_ratio=ratio)] * 10)
    assert factors.of("prefill").level == pytest.approx(ratio, abs=0.06)
    assert factors.of("prefill").slope == 0.0


@pytest.mark.parametrize("ratio", [0.8, 1.2])
def test_decode_is_learnt_at_the_batch_it_runs(ratio):
    factors = learn([seen(decode_ratio=ratio)] * 10)
    fill = expected_itl_s(24.0) / 0.03
    assert factors.of("decode").at(fill) == pytest.approx(ratio, abs=0.06)


def test_level_and_slope_are_told_apart_by_batches_that_differ():
    def at(concurrency):
        fill = expected_itl_s(concurrency) / 0.03
        return seen(decode_ratio=0.9 + 0.4 * fill, concurrency=concurrency)

    factor = learn([at(n) for n in (10.0, 300.0) * 60]).of("decode")
    assert factor.level == pytest.approx(0.9, abs=0.06)
    assert factor.slope == pytest.approx(0.4, abs=0.12)


def test_one_odd_interval_moves_less_once_the_profile_is_known():
    """The covariance has shrunk, but is bounded from below: ten minutes make it new."""
    odd = seen(prefill_ratio=2.0)
    first = learn([odd]).of("prefill").level - 1.0
    later = learn([*[seen()] * 20, odd]).of("prefill").level - 1.0
    assert later < 0.75 * first


def test_what_is_measured_is_bounded():
    assert learn([seen(prefill_ratio=900.0)] * 60).of("prefill").at(0.0) == 2.0
    assert learn([seen(prefill_ratio=1e-6)] * 60).of("prefill").at(0.0) == 0.5


def changed(interval, name):
    pools = {**interval.pools, name: replace(interval.pools[name], changed=True)}
    return replace(interval, pools=pools)


def test_a_pool_whose_pods_come_or_go_is_frozen():
    slow = seen(prefill_ratio=1.5)
    factors = learn([*[slow] * 10, *[changed(seen(prefill_ratio=0.5), "prefill")] * 10])
    assert factors.frozen == ("prefill",)
    assert factors.of("prefill").level == learn([slow] * 10).of("prefill").level


@pytest.mark.parametrize(
    "silence",
    [
        pytest.param({"requests": MIN_REQUESTS - 1.0}, id="few requests"),
        pytest.param({"prompts": None}, id="no lengths"),
        pytest.param({"outputs": None, "prompts": None}, id="nothing"),
        pytest.param({"pools": {
            "prefill": PoolObservation(1, None, 0.0, 0.0, changed=False),
            "decode": PoolObservation(1, None, 0.0, 0.0, changed=False)}}, id="no latency"),
    ],
)  # fmt: skip
def test_without_evidence_a_factor_fades_towards_the_profile(silence):
    slow = [seen(1.4, 1.4)] * 15
    before = learn(slow)
    after = learn([*slow, *[seen(1.4, 1.4, **silence)] * 60])
    for name in ("prefill", "decode"):
        assert after.frozen == ()
        assert 1.0 < after.of(name).at(0.2) < before.of(name).at(0.2)
    expected = 1.0 + (before.of("prefill").level - 1.0) * 2.718281828**-1.0
    assert after.of("prefill").level == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "over", [{"outputs": None}, {"outputs": histogram(OSL, 5.0, LENGTHS)}, {"concurrency": 0.0}],
    ids=["no outputs", "few outputs", "idle"],
)  # fmt: skip
def test_decode_needs_outputs_and_work(over):
    factors = learn([seen(1.0, 1.4, **over)] * 10)
    assert factors.of("decode").level == 1.0


MEAN = service(sla=Sla(0.5, 0.03, statistic=Statistic.MEAN))


def test_the_classic_factor_is_the_last_interval_alone():
    expected_s = float(PREFILL.service_s(ISL))
    itl_s = float(DECODE.itl_s(24.0, ISL + 0.5 * OSL))
    interval = seen(ttft_mean_s=1.7 * expected_s, itl_mean_s=1.3 * itl_s)
    factors = learn([seen(ttft_mean_s=9.0), interval], MEAN)
    assert factors.of("prefill").level == pytest.approx(1.7)
    assert factors.of("decode").level == pytest.approx(1.3)


@pytest.mark.parametrize(
    "over",
    [{"prompts": None}, {"ttft_mean_s": None, "itl_mean_s": None}],
    ids=["no lengths", "no latencies"],
)
def test_the_classic_factor_stays_without_evidence(over):
    first = seen(ttft_mean_s=0.07, itl_mean_s=0.01)
    assert learn([first, replace(first, **over)], MEAN) == learn([first], MEAN)


def test_the_classic_factor_of_decode_knows_no_outputs():
    interval = seen(itl_mean_s=float(DECODE.itl_s(24.0, ISL)), outputs=None)
    assert learn([interval], MEAN).of("decode").level == pytest.approx(1.0)
