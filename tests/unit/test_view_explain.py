"""Explaining a record file: every part in words, every way to write a time, broken lines."""

import json
from dataclasses import replace

import pytest

from planner.errors import InputError
from planner.model import Decision, Hold, Plan, PoolPlan, Reason, Role, ServiceKey
from planner.record import TickRecord
from planner.view.explain import WIDTH, explain
from planner.view.record_lines import read_lines
from tests.unit.test_view_series import capped, held, load, tick

DAY_S = 1_795_305_600.0  # 2026-11-22 00:00:00 UTC


def lines(*records):
    return [record.to_json() for record in records]


def flat(text):
    return " ".join(text.split())


def test_a_decision_is_told_from_what_was_seen_to_what_was_written():
    reason = Reason("TooManyReplicas", "pool prefill is capped at 9", "prefill", {"wanted": 12})
    text = explain(lines(tick(1860.0, (2, 1), (9, 1), [reason])), None)
    assert text.startswith("inference/llama at 00:31:00\nprefill 2→9, decode stays at 1: pool")
    for told in (
        "12.5 requests/s over 1 min, 750 finished; metrics 7.5 s old",
        "TTFT 72.7 ms on average, 100% on target",
        "prefill: 4 pods, 0.6 running on each, 3 waiting",
        "80% of prompt tokens were not in a cache",
        "prefill takes ×1.05 the profiled time",
        "decode takes ×0.90 the profiled time, ×1.10 at a full batch (kept: its pods came or went)",
        "prefill 1,000 1,100 1,300",
        "exceeded in 25% of cases",
        "prompts of 1k tokens, outputs of 200 on average",
        "prefill 10 9 9",
        "expected to miss the SLA: 0.2% of requests (prefill 0.2%, decode 0%)",
        "prefill 2 2 9 9 90 s",
        "TooManyReplicas: pool prefill is capped at 9 [wanted 12]",
        "Order written: prefill to 9",
    ):
        assert told in flat(text), told


def test_every_line_fits_the_page():
    message = "a limit that is told in very many words " * 5
    reasons = [Reason("LimitedByBudget", message, "prefill", {"limit": 10.0})]
    text = explain(lines(tick(60.0, (1, 1), (3, 2), reasons), held(120.0)), "60")
    assert max(map(len, text.splitlines())) <= WIDTH


def test_the_targets_are_told_where_the_record_has_them():
    line = json.loads(tick().to_json())
    line["sla"] = {"ttft_s": 0.5, "itl_s": 0.015, "attainment_ratio": 0.99}
    text = flat(explain([json.dumps(line)], None))
    assert "100% on target (500 ms)" in text
    assert "(prefill 0.2%, decode 0%) of 1% allowed" in text


@pytest.mark.parametrize(("wanted", "is_weighed"), [(2, True), (3, False)], ids=["free", "capped"])
def test_more_failures_than_allowed_are_told_as_a_matter_of_price_unless_a_limit_binds(
    wanted, is_weighed
):
    plan = Plan({"prefill": PoolPlan(wanted, 2, 2)}, {Role.PREFILL: 0.03})
    line = json.loads(tick(plan=plan).to_json())
    line["sla"] = {"ttft_s": 0.5, "itl_s": 0.015, "attainment_ratio": 0.99}
    text = flat(explain([json.dumps(line)], None))
    assert ("cost more than forecast.caution weighs them" in text) is is_weighed


def test_a_backlog_and_a_failed_predictor_are_told():
    coming = load()
    tokens = {role: replace(t, fallback=True) for role, t in coming.tokens.items()}
    coming = replace(coming, tokens=tokens, backlog_tokens=52_000.0)
    text = flat(explain(lines(tick(load=coming)), None))
    assert "52k prompt tokens wait already the predictor failed: the last value" in text


def test_an_unreachable_sla_says_what_is_best():
    plan = Plan({"prefill": PoolPlan(2, 2, 2)}, {Role.PREFILL: 0.4}, reachable=False,
                best_ttft_s=0.8, best_itl_s=0.02)  # fmt: skip
    text = flat(explain(lines(tick(plan=plan)), None))
    assert "no number of replicas meets the SLA; the best there is: TTFT 800 ms, ITL 20 ms" in text


def test_a_hold_is_told_once_with_its_numbers_apart():
    text = flat(explain(lines(held(120.0)), None))
    assert "Because MetricsStale (hold): metrics are 90 s old; holding blind since 00:01:00" in text
    assert "Seen" not in text
    assert "capped: –" in text


def order(applied, patch=True, error=None):
    record = tick(60.0, (2, 1), (3, 1), **({} if patch else {"patch": None}))
    return TickRecord(record.service, record.decision, applied, error)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (tick(), "none needed"),
        (order(True), "written: prefill to 3"),
        (order(False, error="webhook said no"), "refused: prefill to 3: webhook said no"),
        (order(None, patch=False), "not written: the mode is not Act"),
    ],
    ids=["nothing to do", "applied", "refused", "only recommended"],
)
def test_what_became_of_the_order(record, told):
    assert f"Order {told}" in flat(explain(lines(record), None))


def test_a_cluster_that_cannot_be_read_is_told():
    reason = Reason("ClusterUnavailable", "no answer; holding")
    decision = Decision(60.0, {}, (reason,), Hold(reason))
    text = explain(lines(TickRecord(ServiceKey("a", "b"), decision)), None)
    assert "the replicas that run are unknown" in flat(text)


def test_the_file_is_counted_by_hold_and_by_cap():
    records = [held(60.0), capped(120.0), capped(180.0), tick(240.0, (1, 1), (2, 1))]
    text = flat(explain(lines(*records), None))
    assert "The file: 4 ticks from 00:01:00 to 00:04:00, 1 orders written" in text
    assert text.endswith("held: MetricsStale 1 capped: TooManyReplicas 2")


@pytest.mark.parametrize(
    ("at", "told"),
    [
        (None, "00:03:00"),
        ("60", "00:01:00"),
        ("179.9", "00:02:00"),
        ("00:02", "00:02:00"),
        ("00:02:59", "00:02:00"),
        ("25:00", "00:03:00"),
    ],
)
def test_a_simulated_time_picks_the_last_tick_not_after_it(at, told):
    records = lines(tick(60.0), tick(120.0), tick(180.0))
    assert explain(records, at).startswith(f"inference/llama at {told}\n")


@pytest.mark.parametrize(
    ("at", "told"),
    [
        ("90", "2026-11-22 23:59:00"),
        ("23:59", "2026-11-22 23:59:00"),
        ("00:00:30", "2026-11-23 00:00:00"),
        ("2026-11-23T00:00:30Z", "2026-11-23 00:00:00"),
        ("2026-11-23T01:00:30+01:00", "2026-11-23 00:00:00"),
        ("2026-11-22T23:59:30", "2026-11-22 23:59:00"),
        (str(DAY_S + 86_370.0), "2026-11-22 23:59:00"),
    ],
)
def test_a_calendar_time(at, told):
    records = lines(*(tick(DAY_S + 86_400.0 + minute * 60.0) for minute in (-2, -1, 0, 1)))
    assert explain(records, at).startswith(f"inference/llama at {told} UTC\n")


@pytest.mark.parametrize(
    ("at", "told"),
    [
        ("noon", "--at noon: no time; legal: seconds since the start"),
        ("2026-11-22T10:00:00Z", "these records tell simulated time"),
        ("00:00", "--at 00:00: before the first record of r.jsonl; legal: 00:01:00 to 00:01:00"),
        ("nan", "before the first record"),
    ],
)
def test_a_time_that_is_none(at, told):
    with pytest.raises(InputError, match=told.replace("(", r"\(")):
        explain(lines(tick(60.0)), at, "r.jsonl")


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ('{"schemaVersion":1,', "no JSON"),
        ("[1]", "a JSON list and no object"),
        ('{"schemaVersion":2}', "schemaVersion 2, this program reads 1"),
        ('{"schemaVersion":1,"namespace":"a","name":"b"}', "at_s: Field required"),
        ('{"schemaVersion":1,"namespace":"a","name":"b","at_s":"x"}', "at_s: Input should be"),
    ],
    ids=["cut off", "no object", "another version", "a key is missing", "a wrong type"],
)
def test_a_broken_line_is_named(broken, told):
    with pytest.raises(InputError) as error:
        explain([tick().to_json(), "", broken], None, "r.jsonl")
    assert str(error.value).startswith("r.jsonl, line 3: ")
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", [[], ["", "\n"]], ids=["empty", "blank"])
def test_a_file_without_records_says_so(text):
    with pytest.raises(InputError, match=r"r\.jsonl: no records"):
        explain(text, None, "r.jsonl")


def test_a_short_line_is_told_as_far_as_it_goes():
    short = '{"schemaVersion":1,"namespace":"a","name":"b","at_s":60.0,"pools":{},"plan":null}'
    assert explain([short], None).startswith("a/b at 00:01:00\n")


def test_what_is_written_is_read_back():
    record = tick(60.0, (2, 1), (3, 1), [Reason("X", "y", None, {"z": 1.0})])
    (line,) = read_lines(lines(record), "r.jsonl")
    assert line.record == record
    assert (line.number, line.sla) == (1, None)


def test_every_service_of_a_file_is_told():
    other = TickRecord(ServiceKey("inference", "other"), tick(60.0).decision)
    text = explain(lines(tick(60.0), other, tick(120.0)), None)
    assert "inference/llama at 00:02:00" in text
    assert "inference/other at 00:01:00" in text
