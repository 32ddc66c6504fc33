"""The exported metrics: what they say of a tick, what stays when evidence is missing, what ends."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from planner.adapters.metrics_export import IDENTITY, MetricsExport
from planner.adapters.metrics_table import METRICS, TICK_BUCKETS_S
from planner.errors import ClusterError, MetricsError
from planner.model import Attainment, Factor, Factors, PoolDecision, Reason, Role, ServiceKey
from planner.record import TickRecord
from tests.builders import Drive, pool, service

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
OTHER = ServiceKey("chat", "qwen")


def exported(*decisions, asked=None):
    asked = asked or service()
    export = MetricsExport([asked])
    for decision in decisions:
        export.record(TickRecord(asked.key, decision))
    return export


def series(export, accept=""):
    """Return value by name and labels, those of the service left out."""
    text = export.exposition(accept)[0].decode()
    parse = openmetrics if accept else plain_text
    return {
        (s.name, *sorted(v for k, v in s.labels.items() if k not in IDENTITY)): s.value
        for family in parse(text)
        for s in family.samples
        if s.name.startswith("pd_planner_")
    }


def values(export, name):
    prefix = f"pd_planner_{name}"
    return {key[1:]: v for key, v in series(export).items() if key[0] == prefix}


@pytest.fixture
def decision():
    """Return a decision after five good intervals, with two pools that are to grow."""
    decided = Drive(service()).run(5, rps=60.0)
    pools = {
        "prefill": PoolDecision(recommended=6, desired=5, current=4, ready=3, lead_s=84.0),
        "decode": PoolDecision(recommended=2, desired=2, current=2, ready=2, lead_s=61.0),
    }
    return replace(decided, pools=pools)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("recommended_replicas", {("prefill", "prefill"): 6, ("decode", "decode"): 2}),
        ("desired_replicas", {("prefill", "prefill"): 5, ("decode", "decode"): 2}),
        ("current_replicas", {("prefill", "prefill"): 4, ("decode", "decode"): 2}),
        ("ready_replicas", {("prefill", "prefill"): 3, ("decode", "decode"): 2}),
        ("lead_time_seconds", {("prefill",): 84.0, ("decode",): 61.0}),
        ("input_age_seconds", {(): 5.0}),
        ("is_leader", {(): 1.0}),
        ("shortage_gpus", {("prefill",): 0.0, ("decode",): 0.0}),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_a_tick_is_told(decision, name, expected):
    assert values(exported(decision), name) == expected


def test_attainment_is_told_by_target_with_the_bounds_on_both(decision):
    shares = {"ttft": Attainment(0.98, 0.995, 100), "itl": Attainment(0.99, 1.0, 100)}
    seen = replace(decision.observation, **shares)
    told = values(exported(replace(decision, observation=seen)), "attainment_ratio")
    assert told == pytest.approx({
        ("lower", "ttft"): 0.98, ("ttft", "upper"): 0.995,
        ("itl", "lower"): 0.99, ("itl", "upper"): 1.0,
        ("both", "lower"): 0.97, ("both", "upper"): 0.995,
    })  # fmt: skip


def test_attainment_is_absent_when_nothing_finished(decision):
    seen = replace(decision.observation, ttft=None)
    told = values(exported(replace(decision, observation=seen)), "attainment_ratio")
    assert {sla for key in told for sla in key} == {"itl", "lower", "upper"}


def test_the_forecast_is_told_at_its_quantile(decision):
    told = values(exported(decision), "forecast_tokens_per_second")
    assert told == {("0.9", role): decision.load.tokens[role].up_tps for role in Role}


def test_the_correction_of_a_role_is_that_of_its_worst_pool(decision):
    pools = (pool(name="a"), pool(name="b"), pool(Role.DECODE))
    factors = Factors({"a": Factor(0.9), "b": Factor(1.1, 0.2), "decode": Factor(1.0)})
    export = exported(replace(decision, factors=factors), asked=service(pools=pools))
    told = values(export, "correction_factor")
    assert told == {("prefill",): pytest.approx(1.3), ("decode",): 1.0}


def test_headroom_is_what_serves_over_what_is_needed(decision):
    wanted = decision.plan.pools["prefill"].wanted
    assert values(exported(decision), "headroom_ratio")["prefill",] == 3 / wanted


@pytest.mark.parametrize(
    ("numbers", "missing"),
    [
        pytest.param({"wanted": 7, "capped": 5}, 4.0, id="replicas of two GPUs"),
        pytest.param({"wanted": 7, "planned": 5, "shortage_gpus": 4}, 4.0, id="said in GPUs"),
    ],
)
def test_a_shortage_is_counted_in_gpus(decision, numbers, missing):
    asked = service(pools=(pool(gpus_per_replica=2), pool(Role.DECODE)))
    reason = Reason("CapacityShortage", "only 5 fit", "prefill", numbers)
    export = exported(replace(decision, reasons=(reason,)), asked=asked)
    assert values(export, "shortage_gpus") == {("prefill",): missing, ("decode",): 0.0}


def test_a_hold_asks_for_what_runs():
    drive = Drive(service(), prefill=3, decode=2)
    drive.run(3)
    export = exported(drive.tick(read=MetricsError("connection refused")))
    assert values(export, "desired_replicas") == values(export, "current_replicas")
    assert values(export, "desired_replicas")["prefill", "prefill"] == 3
    # Unknown is absent and not zero.
    assert not values(export, "headroom_ratio")
    assert not values(export, "shortage_gpus")


def test_replicas_that_cannot_be_read_keep_their_last_values(decision):
    held = Drive(service()).tick(cluster=ClusterError("connection refused"))
    export = exported(decision, held)
    assert held.pools == {}
    assert values(export, "desired_replicas") == {
        ("prefill", "prefill"): 5,
        ("decode", "decode"): 2,
    }
    assert values(export, "holds_total")["ClusterUnavailable",] == 1


def test_before_the_first_evidence_there_is_no_series_to_scale_by():
    held = Drive(service()).tick(cluster=ClusterError("connection refused"))
    for export in (exported(), exported(held)):
        assert not values(export, "desired_replicas")
        assert not values(export, "input_age_seconds")


def test_the_age_of_the_input_grows_through_a_hold():
    drive = Drive(service())
    good, held = drive.run(2), drive.tick(read=MetricsError("connection refused"))
    assert values(exported(good, held), "input_age_seconds") == {(): 65.0}


def test_holds_and_caps_are_counted_apart(decision):
    drive = Drive(service())
    drive.run(2)
    held = [drive.tick(read=MetricsError("away")) for _ in range(2)]
    cap = Reason("TooManyReplicas", "capped", "prefill")
    twice = replace(decision, reasons=(cap, replace(cap, pool="decode")))
    export = exported(twice, *held)
    assert values(export, "holds_total")["MetricsUnavailable",] == 2
    # Two pools on one tick are one tick.
    assert values(export, "caps_total") == {("TooManyReplicas",): 1}


def test_counters_of_alerts_stand_at_zero_before_their_first_hold():
    assert values(exported(), "holds_total")["MetricsUnavailable",] == 0


def test_ticks_are_a_histogram():
    export = exported()
    for duration_s in (0.004, 0.05, 0.3, 100.0):
        export.took([service().key, OTHER], duration_s)
    told = values(export, "tick_seconds_bucket")
    assert [told["0.01",], told["0.05",], told["0.1",], told["60.0",], told["+Inf",]] == [
        1,
        2,
        2,
        3,
        4,
    ]
    assert values(export, "tick_seconds_sum") == {(): pytest.approx(100.354)}
    assert len(told) == len(TICK_BUCKETS_S) + 1


def test_a_service_that_is_gone_takes_its_series_with_it(decision):
    asked, other = service(), service(key=OTHER)
    export = MetricsExport([asked, other])
    export.record(TickRecord(asked.key, decision))
    export.record(TickRecord(OTHER, decision))
    export.follow([other])
    text = export.exposition()[0].decode()
    assert asked.key.name not in text
    assert 'pd_planner_desired_replicas{pda="qwen",pda_namespace="chat",pool="prefill"' in text
    # Its last tick may come in after that.
    export.record(TickRecord(asked.key, decision))
    export.took([asked.key], 0.1)
    assert asked.key.name not in export.exposition()[0].decode()


def test_a_changed_service_keeps_its_counts(decision):
    held = Drive(service()).tick(cluster=ClusterError("away"))
    export = exported(decision, held)
    spare = replace(service().pool("decode"), name="spare")
    export.follow([service(pools=(*service().pools, spare))])
    assert values(export, "holds_total")["ClusterUnavailable",] == 1
    export.record(TickRecord(service().key, decision))
    assert ("spare",) in values(export, "shortage_gpus")


def test_leadership_is_told_of_every_service():
    export = exported()
    export.lead(is_leader=False)
    export.follow([service(), service(key=OTHER)])
    text = export.exposition()[0].decode()
    assert re.findall(r"pd_planner_is_leader\{.*\} (\S+)", text) == ["0.0", "0.0"]


def test_every_series_of_the_planner_names_its_service(decision):
    export = exported(decision)
    export.took([service().key], 0.1)
    families = list(plain_text(export.exposition()[0].decode()))
    named = [
        f
        for f in families
        if f.name.startswith("pd_planner_") and f.name != "pd_planner_build_info"
    ]
    assert len(named) == len(METRICS)
    for family in named:
        assert all(s.labels["pda_namespace"] == "inference" for s in family.samples), family.name
    others = {f.name for f in families} - {f.name for f in named}
    assert {"pd_planner_build_info", "process_resident_memory_bytes", "python_info"} <= others


def test_openmetrics_says_the_same(decision):
    export = exported(decision)
    accept = "application/openmetrics-text; version=1.0.0"
    text, media_type = export.exposition(accept)
    assert media_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
    assert series(export, accept) == series(export)


@pytest.mark.parametrize("exposed", METRICS, ids=lambda exposed: exposed.name)
def test_the_page_has_every_metric_as_it_is(exposed):
    labels = ", ".join(f"`{label}`" for label in exposed.labels)
    row = f"| `{exposed.name}` | {exposed.kind} | {labels} | {exposed.meaning} |"
    assert row in PAGE


def test_the_page_has_no_other_metric():
    rows = re.findall(
        r"^\| `(pd_planner_\w+)` \| (?:gauge|counter|summary|histogram) ", PAGE, re.MULTILINE
    )
    assert rows == [exposed.name for exposed in METRICS]


def test_the_alerts_of_the_page_are_those_that_ship():
    rule = yaml.safe_load((ROOT / "manifests/monitoring/prometheus_rule.yaml").read_text("utf-8"))
    alerts = [r["alert"] for group in rule["spec"]["groups"] for r in group["rules"]]
    assert re.findall(r"^\| (PDPlanner\w+) ", PAGE, re.MULTILINE) == alerts
