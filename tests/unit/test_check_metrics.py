"""`check` of the metrics: what is missing, stale, too coarse or outside the profiles."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from planner.check.finding import Finding, Level
from planner.check.metrics import WITHOUT, metrics_findings
from planner.check.rules import Rule
from planner.errors import ClusterError, MetricsError
from planner.model import (
    Histogram,
    PodSample,
    Role,
    Sample,
    Service,
    Signal,
    Sla,
)
from tests import builders
from tests.builders import LATENCIES, LENGTHS, START_S, histogram

AT_S = START_S + 10.0
SLA = Sla(ttft_s=0.5, itl_s=0.03)


def service(**over: Any) -> Service:
    return builders.service(**({"sla": SLA} | over))


def pods(role: Role, **over: Any) -> tuple[PodSample, ...]:
    """Return three pods, scraped every 15 s, after 1000 requests each."""
    trail = tuple((START_S - 15.0 * back, 100.0 - back) for back in (3, 2, 1, 0))
    return tuple(
        replace(builders.pod_sample(f"{role}-{i}", START_S, 1000.0, role, running=2.0),
                trail=trail, **over)
        for i in range(3)
    )  # fmt: skip


def sample(**pools: tuple[PodSample, ...]) -> Sample:
    return Sample(AT_S, {"prefill": pods(Role.PREFILL), "decode": pods(Role.DECODE)} | pools)


def found(read: Sample | MetricsError, asked: Service | None = None, **over: Any) -> list[Finding]:
    given = {
        "fleet": builders.fleet(prefill=3, decode=3),
        "at_s": AT_S,
        "took_s": 0.2,
        "scrape_interval_s": 15.0,
    }
    return list(metrics_findings(asked or service(), read, **(given | over)))


def not_ok(*args: Any, **over: Any) -> list[Finding]:
    return [finding for finding in found(*args, **over) if finding.level is not Level.OK]


def test_metrics_that_are_as_they_should_be_are_ok_on_every_topic():
    told = found(sample())
    assert [finding.line for finding in told if finding.level is not Level.OK] == []
    assert [finding.line for finding in told] == [
        "metrics: answered in 200ms",
        "pool prefill: metrics: 3 pods are scraped",
        "pool decode: metrics: 3 pods are scraped",
        "metrics: the oldest is 10 s old",
        "metrics: scrapes: every 15s",
        "sla.ttft: 500ms is a bound of the prefill pods' histogram: attainment is measured",
        "sla.itl: 30ms is a bound of the decode pods' histogram: attainment is measured",
        (
            "pool prefill: traffic: prompts seen have 1000 tokens in the mean, the profile goes "
            "from 100 to 16372"
        ),
        (
            "pool decode: traffic: contexts seen have 1100 tokens in the mean, the profile goes "
            "from 350 to 13585"
        ),
    ]


def test_a_source_that_does_not_answer_is_one_error_in_its_words():
    (one,) = found(MetricsError("Prometheus http://p:9090: connection refused"))
    assert (one.level, one.rule) == (Level.ERROR, Rule.METRICS)
    assert "connection refused" in one.what


def without(signal: Signal, among: tuple[PodSample, ...], which: int = 3) -> tuple[PodSample, ...]:
    """Return the pods; the first `which` of them do not expose the signal."""
    bare = [
        replace(
            pod,
            histograms={s: h for s, h in pod.histograms.items() if s is not signal},
            counters={s: c for s, c in pod.counters.items() if s is not signal},
            gauges={s: g for s, g in pod.gauges.items() if s is not signal},
        )
        for pod in among[:which]
    ]
    return (*bare, *among[which:])


@pytest.mark.parametrize(("role", "signal"), [pair for pair in WITHOUT if pair[0] is not None])
def test_a_missing_metric_says_what_the_planner_can_not_do(role: Role, signal: Signal):
    told = not_ok(sample(**{str(role): without(signal, pods(role))}))
    (one,) = [finding for finding in told if finding.rule is Rule.METRIC_MISSING]
    assert one.where == f"pool {role}: metrics"
    assert one.what.startswith("no pod exposes vllm:")
    assert one.what.endswith(WITHOUT[role, signal])
    is_length = signal in {Signal.PROMPT_TOKENS, Signal.OUTPUT_TOKENS}
    assert one.level is (Level.ERROR if is_length else Level.WARNING)


def test_a_metric_that_one_pod_lacks_names_the_pod():
    (one,) = not_ok(sample(prefill=without(Signal.PROMPT_TOKENS, pods(Role.PREFILL), which=1)))
    assert one.what.startswith("prefill-0 does not expose vllm:request_prompt_tokens")
    assert one.level is Level.WARNING


def older(by_s: float, among: tuple[PodSample, ...], which: int = 3) -> tuple[PodSample, ...]:
    aged = [replace(pod, at_s=pod.at_s - by_s) for pod in among[:which]]
    return (*aged, *among[which:])


RED: dict[str, tuple[list[Finding], Rule, Level, str]] = {
    "slow answer": (not_ok(sample(), took_s=7.0), Rule.PROMETHEUS_LATENCY, Level.WARNING,
                    "took 7s, more than a tenth of the interval of 1m"),
    "pods not scraped": (not_ok(sample(prefill=pods(Role.PREFILL)[:1])), Rule.PODS_SCRAPED,
                         Level.ERROR, "metrics of 1 pods of 3 ready ones: every decision holds"),
    "some pods not scraped": (not_ok(sample(prefill=pods(Role.PREFILL)[:2])), Rule.PODS_SCRAPED,
                              Level.WARNING, "metrics of 2 of 3 ready pods"),
    "one stale pod": (not_ok(sample(decode=older(90.0, pods(Role.DECODE), 1))), Rule.METRIC_STALE,
                      Level.WARNING, "of decode-0 are older than 1m"),
    "everything stale": (not_ok(sample(), at_s=AT_S + 100.0), Rule.METRIC_STALE, Level.ERROR,
                         "the newest is 110 s old: every decision holds"),
    "scraped too seldom": (not_ok(sample(), service(interval_s=20.0), took_s=0.1),
                           Rule.SCRAPE_INTERVAL, Level.WARNING, "holds fewer than two scrapes"),
    "scraped more seldom than told": (not_ok(sample(), scrape_interval_s=5.0),
                                      Rule.SCRAPE_INTERVAL, Level.WARNING,
                                      "every 15s, and the planner counts on 5s"),
    "target inside a bucket": (not_ok(sample(), service(sla=replace(SLA, ttft_s=0.3))),
                               Rule.SLA_BOUNDS, Level.WARNING,
                               ("300ms is no bound of the prefill pods' histogram (next: 250ms, "
                               "500ms)")),
}  # fmt: skip


@pytest.mark.parametrize(("told", "rule", "level", "what"), RED.values(), ids=RED)
def test_a_fault_is_the_only_thing_told(told: list[Finding], rule: Rule, level: Level, what: str):
    (one,) = told
    assert (one.rule, one.level) == (rule, level)
    assert what in one.what


def test_pods_that_do_not_run_are_not_missed_as_an_error():
    empty = sample(prefill=())
    (one,) = not_ok(empty, fleet=builders.fleet(prefill=0, decode=3))
    assert (one.level, one.what) == (Level.WARNING, "no pod is ready yet, so none can be seen")


def test_without_a_fleet_pods_that_are_not_seen_are_still_missed():
    told = not_ok(sample(prefill=()), fleet=ClusterError("away"))
    assert [finding.what for finding in told] == ["metrics of 0 pods: every decision holds"]


def lengths(tokens: float, role: Role, signal: Signal) -> tuple[PodSample, ...]:
    made = histogram(tokens, 1000.0, (*LENGTHS[:-1], 32768.0, math.inf))
    return tuple(replace(p, histograms={**p.histograms, signal: made}) for p in pods(role))


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        (30_000.0, {"pool prefill: traffic": "are longer and count as 16372",
                    "pool decode: traffic": "are longer and count as 13585"}),
        (40.0, {"pool prefill: traffic": "shorter ones count as 100",
                "pool decode: traffic": "shorter ones count as 350"}),
        (1000.0, {}),
    ],
    ids=["longer than the profile", "shorter than the profile", "within the profile"],
)  # fmt: skip
def test_traffic_outside_the_profile_is_told(tokens: float, told: dict[str, str]):
    read = sample(prefill=lengths(tokens, Role.PREFILL, Signal.PROMPT_TOKENS),
                  decode=lengths(10.0, Role.DECODE, Signal.OUTPUT_TOKENS))  # fmt: skip
    seen = {finding.where: finding for finding in not_ok(read)}
    assert seen.keys() == told.keys()
    for where, what in told.items():
        assert what in seen[where].what
        assert seen[where].rule is Rule.TRAFFIC_RANGE


def test_before_the_first_request_lengths_are_not_known_and_that_is_no_fault():
    idle = {str(role): tuple(builders.pod_sample(f"{role}-{i}", START_S, 0.0, role)
                             for i in range(3)) for role in Role}  # fmt: skip
    (one,) = [finding for finding in found(sample(**idle)) if finding.where == "traffic"]
    assert (one.level, one.what) == (
        Level.OK, "no request has finished yet: lengths are not known")  # fmt: skip


def test_pods_with_different_buckets_measure_no_share():
    odd = histogram(0.1, 1000.0, (0.1, 0.2, math.inf))
    mixed = list(pods(Role.PREFILL))
    mixed[0] = replace(mixed[0], histograms={**mixed[0].histograms, Signal.TTFT: odd})
    (one,) = not_ok(sample(prefill=tuple(mixed)))
    assert one.rule is Rule.SLA_BOUNDS
    assert "have different bounds" in one.what


def gateway(**over: Any) -> PodSample:
    histograms: dict[Signal, Histogram] = {
        Signal.TTFT: histogram(0.1, 9.0, (*LATENCIES[:-1], 0.5, math.inf)),
        Signal.ITL: histogram(0.01, 9.0),
    }
    given: dict[str, Any] = {"counters": {Signal.ARRIVALS: 9.0}, "histograms": histograms}
    return PodSample("epp", START_S, **(given | over))


def of_gateway(told: list[Finding]) -> Iterator[Finding]:
    return (finding for finding in told if finding.where == "gateway: metrics")


def test_a_gateway_that_is_not_scraped_is_an_error():
    (one,) = of_gateway(not_ok(sample(), service(source="vllm-gateway")))
    assert (one.level, one.rule) == (Level.ERROR, Rule.METRIC_MISSING)
    assert "none is scraped" in one.what


def test_a_gateway_without_arrivals_is_told_and_its_buckets_are_those_that_count():
    told = not_ok(
        replace(sample(), gateway=gateway(counters={})),
        service(source="vllm-gateway", sla=replace(SLA, itl_s=0.04)),
    )
    (one,) = of_gateway(told)
    assert one.what.endswith("requests count only once a pod has them")
    assert any("is no bound of the gateway's histogram" in finding.what for finding in told)


def test_everything_not_ok_says_its_mend_in_one_line():
    faults = [*not_ok(sample(prefill=())), *(f for told, *_ in RED.values() for f in told)]
    assert all(f.mend and f.rule and "\n" not in f.line for f in faults)


def test_a_service_of_which_nothing_is_scraped_is_told_so_once_a_pool():
    told = not_ok(sample(prefill=(), decode=()))
    assert [finding.rule for finding in told] == [Rule.PODS_SCRAPED, Rule.PODS_SCRAPED]
