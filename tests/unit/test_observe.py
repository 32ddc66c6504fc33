"""Observe: what holds, and what one good interval says."""

import math
from dataclasses import replace

import pytest

from planner.decision.difference import difference
from planner.decision.observe import arrival_bins, attainment, observe
from planner.model import (
    Attainment,
    Fleet,
    Histogram,
    Hold,
    Observation,
    Pod,
    PodSample,
    PoolFleet,
    Role,
    Sample,
    Signal,
    Sla,
)
from tests.builders import (
    ISL,
    ITL_S,
    OSL,
    PREFILL_S,
    START_S,
    fleet,
    histogram,
    pod_sample,
    pool,
    sample,
    service,
)

LATER_S = START_S + 60.0


def seen(now=None, before=None, *, asked=None, cluster=None, now_s=LATER_S + 5.0):
    return observe(
        asked or service(),
        sample(START_S, 100.0) if before is None else before,
        sample(LATER_S, 700.0) if now is None else now,
        cluster or fleet(now_s),
        now_s,
    )


def good(*args, **over) -> Observation:
    found = seen(*args, **over)
    assert isinstance(found, Observation), found
    return found


def held(*args, **over):
    found = seen(*args, **over)
    assert isinstance(found, Hold), found
    return found.reason


def test_one_interval():
    found = good()
    assert found.arrivals_rps == 10.0
    assert found.finished == 600.0
    assert found.uncached_ratio == 1.0
    assert found.span_s == 60.0
    assert found.age_s == 5.0
    assert found.prompts.mean == ISL
    assert found.outputs.mean == OSL
    assert found.pools["prefill"].service_s == pytest.approx(PREFILL_S)
    assert found.pools["decode"].service_s == pytest.approx(ITL_S)
    assert found.pools["decode"].concurrency == pytest.approx(10.0 * (OSL - 1.0) * ITL_S)


# ── what holds ───────────────────────────────────────────────────────────────────────────────────


def broken(number: float, where: str) -> Sample:
    sick = sample(LATER_S, 700.0)
    (pod,) = sick.pools["decode"]
    if where == "time":
        pod = replace(pod, at_s=number)
    elif where == "counter":
        pod = replace(pod, counters={Signal.GENERATED_TOKENS: number})
    elif where == "gauge":
        pod = replace(pod, gauges={Signal.WAITING: number})
    elif where == "trail":
        pod = replace(pod, trail=((START_S, 1.0), (LATER_S, number)))
    elif where == "bucket":
        pod = replace(pod, histograms={Signal.ITL: Histogram((1.0, math.inf), (1.0, number), 1.0)})
    else:
        pod = replace(pod, histograms={Signal.ITL: Histogram((1.0, math.inf), (1.0, 2.0), number)})
    if where == "gateway":
        return replace(sick, gateway=replace(pod_sample(), counters={Signal.ARRIVALS: number}))
    return replace(sick, pools={**sick.pools, "decode": (pod,)})


@pytest.mark.parametrize("number", [math.nan, math.inf, -1.0], ids=str)
@pytest.mark.parametrize("where", ["time", "counter", "gauge", "trail", "bucket", "sum", "gateway"])
def test_what_is_not_a_number_holds(where, number):
    assert held(broken(number, where)).code == "MetricsNotFinite"


def test_the_first_sample_holds():
    assert observe(service(), None, sample(), fleet(), START_S).reason.code == "WarmingUp"


@pytest.mark.parametrize(
    ("now_s", "code"),
    [(LATER_S + 59.0, None), (LATER_S + 61.0, "MetricsStale"), (LATER_S + 3600.0, "MetricsStale")],
)
def test_old_metrics_hold_and_say_their_age(now_s, code):
    if code is None:
        good(now_s=now_s)
        return
    reason = held(now_s=now_s)
    assert reason.code == code
    assert reason.values["age_s"] == now_s - LATER_S
    assert f"{now_s - LATER_S:.0f} s old" in reason.message


def test_metrics_that_stand_still_hold():
    still = sample(START_S, 100.0)
    assert held(still, still, now_s=START_S + 30.0).code == "MetricsStale"


def test_no_pod_and_no_gateway_holds():
    empty = Sample(LATER_S, {})
    assert held(empty, cluster=fleet(prefill=0, decode=0)).code == "MetricsMissing"


@pytest.mark.parametrize(("ready", "holds"), [(1, False), (2, False), (3, True)])
def test_a_pool_of_which_too_few_pods_are_seen_holds(ready, holds):
    if not holds:
        good(cluster=fleet(decode=ready))
        return
    reason = held(cluster=fleet(decode=ready))
    assert (reason.code, reason.pool) == ("MetricsMissing", "decode")
    assert reason.values == {"seen": 1, "ready": 3}


def test_pods_that_are_not_ready_need_not_be_seen():
    starting = PoolFleet(9, (Pod("decode-0", 0.0, 1.0), *[Pod(f"p-{i}", 0.0) for i in range(8)]))
    good(cluster=Fleet(START_S, {"prefill": PoolFleet(1), "decode": starting}))


def test_replicas_of_several_pods_are_counted_in_pods():
    asked = service(pools=(pool(), pool(Role.DECODE, pods_per_replica=4)))
    good(asked=asked, cluster=fleet(decode=2))
    assert held(asked=asked, cluster=fleet(decode=4)).values == {"seen": 1, "ready": 4}


# ── arrivals ─────────────────────────────────────────────────────────────────────────────────────


def with_prefill(at_s: float, *pods: PodSample, **over) -> Sample:
    given = sample(at_s, 700.0 if at_s > START_S else 100.0)
    return replace(given, pools={**given.pools, "prefill": pods}, **over)


def test_what_queues_up_has_arrived():
    before = with_prefill(START_S, pod_sample("p", START_S, 0.0, running=1.0, waiting=5.0))
    now = with_prefill(LATER_S, pod_sample("p", LATER_S, 600.0, running=2.0, waiting=64.0))
    found = good(now, before)
    assert found.arrivals_rps == 11.0
    assert found.pools["prefill"].waiting == 64.0


def test_what_drains_did_not_arrive():
    before = with_prefill(START_S, pod_sample("p", START_S, 0.0, waiting=300.0))
    assert good(with_prefill(LATER_S, pod_sample("p", LATER_S, 600.0)), before).arrivals_rps == 5.0
    assert good(with_prefill(LATER_S, pod_sample("p", LATER_S, 60.0)), before).arrivals_rps == 0.0


def gateway(at_s: float, arrivals: float, **over) -> PodSample:
    return PodSample("gateway", at_s, {Signal.ARRIVALS: arrivals}, **over)


def test_a_gateway_knows_arrivals_and_the_clients_latencies():
    client = {Signal.TTFT: histogram(0.2, 50.0), Signal.ITL: histogram(0.02, 50.0)}
    before = replace(sample(START_S, 100.0), gateway=gateway(START_S, 1000.0))
    now = replace(sample(LATER_S, 700.0), gateway=gateway(LATER_S, 1900.0, histograms=client))
    found = good(now, before)
    assert found.arrivals_rps == 15.0
    assert found.ttft_mean_s == pytest.approx(0.2)
    assert found.itl_mean_s == pytest.approx(0.02)


def test_a_gateway_that_is_new_is_not_asked_yet():
    now = replace(sample(LATER_S, 700.0), gateway=gateway(LATER_S, 1900.0))
    assert good(now).arrivals_rps == 10.0


def test_a_pool_without_a_span_adds_nothing():
    """A prefill pool whose pods all died shows the same scrape twice."""
    dead = with_prefill(LATER_S, pod_sample("prefill-0", START_S, 100.0))
    found = good(dead, sample(START_S, 100.0))
    assert found.arrivals_rps == 0.0


# ── latencies and tokens ─────────────────────────────────────────────────────────────────────────


def test_handover_is_added_to_a_prefill_pods_ttft():
    found = good()
    assert found.handover_s == pytest.approx(0.02)
    assert found.ttft_mean_s == pytest.approx(PREFILL_S + 0.02)
    assert found.ttft == Attainment(1.0, 1.0, 600.0)


def test_handover_leaves_the_less_of_the_ttft_target():
    """35 ms in the bucket from 30 to 50 ms may be within 45 ms, but not within 45 less 20 ms."""
    strict = service(sla=Sla(ttft_s=0.045, itl_s=0.03))
    assert good(asked=strict).ttft == Attainment(0.0, 0.0, 600.0)


@pytest.mark.parametrize(
    ("computed", "expected"),
    [(None, 1.0), (300_000.0, 0.5), (9e9, 1.0)],
    ids=["not told", "half is cached", "more than asked"],
)
def test_uncached_share(computed, expected):
    def pods(at_s, finished, tokens):
        counters = {} if tokens is None else {Signal.COMPUTED_TOKENS: tokens}
        return pod_sample("prefill-0", at_s, finished, counters=counters)

    now = with_prefill(LATER_S, pods(LATER_S, 700.0, computed))
    before = with_prefill(START_S, pods(START_S, 100.0, None if computed is None else 0.0))
    assert good(now, before).uncached_ratio == expected


def test_missing_latencies_are_none_not_zero():
    bare = {
        "prefill": (pod_sample("prefill-0", LATER_S, histograms={}),),
        "decode": (pod_sample("decode-0", LATER_S, role=Role.DECODE, histograms={}),),
    }
    found = good(replace(sample(LATER_S), pools=bare))
    assert found.pools["decode"].service_s is None
    assert (found.ttft, found.itl, found.ttft_mean_s, found.prompts) == (None, None, None, None)


def test_buckets_that_fall_hold():
    assert held(broken(0.5, "bucket")).code == "MetricsNotFinite"


def test_requests_without_tokens_have_no_lengths():
    tokenless = Histogram((1.0, math.inf), (700.0, 700.0), 0.0)
    pod = pod_sample("prefill-0", LATER_S, histograms={Signal.PROMPT_TOKENS: tokenless})
    found = good(with_prefill(LATER_S, pod))
    assert found.prompts is None
    assert found.finished == 700.0


@pytest.mark.parametrize(
    ("running", "expected"),
    [((5, 5), None), ((5, 5, 5), 0.0), ((0, 0, 0), None), ((2, 4, 6), 1.0)],
    ids=["too few pods", "even", "idle", "uneven"],
)
def test_spread_over_pods(running, expected):
    def at(at_s, finished):
        decode = tuple(
            pod_sample(f"d-{i}", at_s, finished, Role.DECODE, running=float(n))
            for i, n in enumerate(running)
        )
        return replace(sample(at_s, finished), pools={**sample(at_s, finished).pools,
                                                      "decode": decode})  # fmt: skip

    assert good(at(LATER_S, 700.0), at(START_S, 100.0)).pools["decode"].concurrency_spread == (
        expected
    )


@pytest.mark.parametrize(
    ("target_s", "lower", "upper"),
    [(0.25, 0.8, 0.8), (0.3, 0.8, 0.99), (0.1, 0.0, 0.8), (9.0, 0.99, 1.0), (-1.0, 0.0, 0.8)],
    ids=["at a bound", "between bounds", "below all", "above all", "used up"],
)
def test_attainment_lies_between_buckets(target_s, lower, upper):
    latencies = Histogram((0.25, 0.5, math.inf), (80.0, 99.0, 100.0), 20.0)
    assert attainment(latencies, target_s) == Attainment(lower, upper, 100.0)


@pytest.mark.parametrize(
    "latencies",
    [None, Histogram((0.25, math.inf), (0.0, 0.0), 0.0), Histogram((math.inf,), (9.0,), 2.0)],
    ids=["none", "empty", "a summary"],
)
def test_no_attainment_without_buckets(latencies):
    assert attainment(latencies, 0.5) is None


# ── the view below the interval ──────────────────────────────────────────────────────────────────


def trailed(name: str, phase_s: float, counts, *, first_s=START_S) -> PodSample:
    """Return a pod that was scraped every 15 s from `first_s + phase_s` on."""
    trail = tuple((first_s + phase_s + 15.0 * k, float(n)) for k, n in enumerate(counts))
    return pod_sample(name, trail[-1][0], trail=trail)


def bins(before, now):
    return arrival_bins([difference(before, now)])


def test_bins_are_what_came_between_scrapes():
    before, now = trailed("a", 0.0, [0, 100]), trailed("a", 15.0, [100, 110, 130, 160, 200])
    assert bins([before], [now]) == (15.0, (10.0, 20.0, 30.0, 40.0))


def test_pods_scraped_at_other_moments_fill_the_same_bins():
    """Else the first and the last bin lack some of the pods, and Poisson looks like a burst."""
    phases_s = {"a": 0.0, "b": 4.0, "c": 7.5, "d": 8.0, "e": 14.9}
    before = [trailed(name, phase_s, [100]) for name, phase_s in phases_s.items()]
    now = [
        trailed(name, phase_s, [110, 120, 130, 140], first_s=START_S + 15.0)
        for name, phase_s in phases_s.items()
    ]
    assert bins(before, now) == (15.0, (50.0, 50.0, 50.0, 50.0))


def test_a_missed_scrape_is_spread_over_its_time():
    before = trailed("a", 0.0, [0])
    now = pod_sample("a", START_S + 60.0, trail=(
        (START_S + 15.0, 10.0), (START_S + 45.0, 30.0), (START_S + 60.0, 40.0)))  # fmt: skip
    assert bins([before], [now]) == (15.0, (10.0, 10.0, 10.0, 10.0))


def test_scrapes_that_were_counted_before_are_not_counted_again():
    before = trailed("a", 0.0, [0, 10, 20])
    now = trailed("a", 0.0, [0, 10, 20, 30, 40])
    assert bins([before], [now]) == (15.0, (10.0, 10.0))


def test_a_reset_counter_is_no_negative_bin():
    before, now = trailed("a", 0.0, [100]), trailed("a", 15.0, [110, 5, 15])
    assert bins([before], [now]) == (15.0, (10.0, 0.0, 10.0))


@pytest.mark.parametrize(
    ("before", "now"),
    [
        pytest.param([pod_sample("a", START_S)], [pod_sample("a", LATER_S)], id="no trail"),
        pytest.param([trailed("a", 0.0, [5])], [trailed("b", 60.0, [1, 2])], id="pods changed"),
    ],
)
def test_no_bins(before, now):
    assert bins(before, now) == (0.0, ())
