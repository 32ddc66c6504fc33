"""The page's parts: how a service stands, what its charts draw, what its tables fold together."""

import doctest
import json
import re
from dataclasses import replace
from html import unescape

import pytest

from planner.errors import ClusterError, MetricsError
from planner.model import Attainment, Mode, Reason, Role
from planner.record import TickRecord
from planner.view import service_chart
from planner.view.service_list import list_page, service_rows
from planner.view.service_page import service_page
from planner.view.service_plots import charts
from planner.view.service_standing import standing
from tests.builders import Drive, pool, service


def records(ticks, **over):
    drive = Drive(service())
    return [TickRecord(drive.service.key, drive.tick(**over)) for _ in range(ticks)]


@pytest.fixture
def good():
    return records(4)[-1]


def shares(record, ttft, itl=(1.0, 1.0)):
    seen = replace(
        record.decision.observation, ttft=Attainment(*ttft, 100), itl=Attainment(*itl, 100)
    )
    return replace(record, decision=replace(record.decision, observation=seen, reasons=()))


def because(record, code):
    return replace(record, decision=replace(record.decision, reasons=(Reason(code, "so"),)))


def held(error):
    drive = Drive(service())
    drive.run(2)
    over = {"cluster" if isinstance(error, ClusterError) else "read": error}
    return TickRecord(drive.service.key, drive.tick(**over))


@pytest.mark.parametrize(
    ("change", "word", "kind"),
    [
        (lambda _: None, "no decision yet", "quiet"),
        (lambda r: shares(r, (0.99, 0.995)), "on target", "met"),
        (lambda r: shares(r, (0.98, 0.995)), "close to target", "limited"),
        (lambda r: shares(r, (0.97, 0.98)), "SLA missed", "missed"),
        (lambda r: shares(r, (1.0, 1.0), (0.5, 0.6)), "SLA missed", "missed"),
        (lambda r: because(r, "CapacityShortage"), "limited", "limited"),
        (lambda r: because(r, "ScaleDownStabilized"), "on target", "met"),
        (lambda r: because(r, "SLAUnreachable"), "SLA out of reach", "missed"),
        (lambda r: replace(r, error="denied"), "order refused", "missed"),
        (lambda _: held(MetricsError("away")), "holding", "missed"),
        (lambda _: held(ClusterError("away")), "holding", "missed"),
        (lambda _: records(1)[0], "warming up", "quiet"),
        (lambda _: records(3, rps=0.0)[-1], "no requests", "quiet"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_a_service_stands(good, change, word, kind):
    stands = standing(service(), change(good))
    assert (stands.word, stands.kind) == (word, kind)


def test_a_miss_is_worse_than_a_limit(good):
    missed = shares(good, (0.9, 0.9))
    limit = Reason("TooManyReplicas", "capped")
    both = replace(missed, decision=replace(missed.decision, reasons=(limit,)))
    assert standing(service(), both).word == "SLA missed"


def test_a_service_that_is_off_is_not_judged(good):
    assert standing(service(mode=Mode.OFF), replace(good, error="denied")).word == "off"


def test_examples_hold():
    assert doctest.testmod(service_chart).failed == 0


def drawn(chart, name):
    """Return the path of one line."""
    index = [line.name for line in chart.lines].index(name)
    return re.findall(r'<path class="line [^"]*" d="([^"]*)"', chart.html())[index]


def hover(chart):
    return json.loads(unescape(re.search(r'data-hover="([^"]*)"', chart.html())[1]))


def test_one_tick_is_drawn():
    made = charts(service(), records(2))
    assert [chart.key for chart in made] == [
        "load-prefill", "load-decode", "replicas-prefill", "replicas-decode",
        "attainment-ttft", "attainment-itl"]  # fmt: skip
    for chart in made:
        assert "nan" not in chart.html().lower()
    # The first tick knows no load: one point, which its round cap shows.
    assert re.fullmatch(r"M\d+ \d+h0", drawn(made[0], "seen"))


def test_no_tick_is_no_chart():
    assert charts(service(), []) == []


def test_a_hold_is_a_gap_and_not_zero():
    drive = Drive(service())
    faults = [None, None, None, MetricsError("away"), None, None]
    ticks = [TickRecord(drive.service.key, drive.tick(read=fault)) for fault in faults]
    load = charts(service(), ticks)[0]
    assert drawn(load, "seen").count("M") == 2
    assert hover(load)["lines"][2]["v"] == [None, 1e4, 1e4, None, 1e4, 1e4]


def test_steps_go_along_and_then_up():
    line = service_chart.Line("n", "s", (0.0, 10.0, 20.0), (1.0, 3.0, 3.0), True, (0.0,) * 3)
    chart = service_chart.Chart(
        "k", "h", "c", "", "count", (line,), (0.0, 20.0), 0.0, 4.0, str, 20.0
    )
    assert drawn(chart, "n") == "M0 750H1000V250H2000h0"
    assert 'd="M0 750H1000V250H2000L2000 1000H0Z"' in chart.html()


def test_what_lies_outside_the_axis_stays_inside_the_box():
    line = service_chart.Line("n", "s", (0.0, 10.0), (-5.0, 99.0))
    chart = service_chart.Chart(
        "k", "h", "c", "", "count", (line,), (0.0, 10.0), 0.0, 4.0, str, 10.0
    )
    assert drawn(chart, "n") == "M0 1000L2000 0h0"


@pytest.mark.parametrize("minutes", [1, 15, 90, 360, 3000])
def test_times_are_labelled_sparsely_at_whole_steps(minutes):
    span_s = (1_795_341_700.0, 1_795_341_700.0 + 60.0 * minutes)
    chart = service_chart.Chart("k", "h", "c", "", "count", (), span_s, 0.0, 4.0, str, span_s[1])
    labels = re.findall(r">(\d\d:\d\d)</text>", chart.html())
    assert len(labels) <= 6
    assert len(labels) >= (minutes > 1)


def test_several_pools_of_a_role_have_a_chart_and_a_row_each():
    asked = service(pools=(pool(), pool(name="spot"), pool(Role.DECODE)))
    drive = Drive(asked)
    ticks = [TickRecord(asked.key, drive.tick()) for _ in range(3)]
    page = service_page(asked, ticks)
    assert page.count('<figure class="picture') == 7
    assert page.count('<tr class="role-prefill">') == 2


def test_quiet_ticks_fold_into_one_row():
    page = service_page(service(), records(30))
    rows = re.findall(r'<tr data-kind="(\w+)"><td[^>]*>([^<]*)</td>', page)
    assert len(rows) < 10
    assert rows[0][1].endswith("times")
    folded = [int(m[1]) for _, told in rows for m in [re.search(r"(\d+) times", told)] if m]
    single = sum("times" not in told for _, told in rows)
    assert sum(folded) + single == 30


def test_a_refused_order_is_told_first():
    (last,) = records(4)[-1:]
    page = service_page(service(), [replace(last, applied=False, error="webhook: denied")])
    assert "<li><b>Refused</b> webhook: denied</li>" in page


def test_a_page_needs_no_pools_in_the_record():
    last = held(ClusterError("connection refused"))
    page = service_page(service(), [last])
    assert "connection refused" in page
    assert list_page([(service(), last)])
    assert service_rows([(service(), last)])[0]["pools"][0]["desired"] is None


def test_the_asked_limits_are_told():
    asked = service(limits=replace(service().limits, gpus={"h200": 32}, cost_per_hour=150.0))
    assert "; at most 32 h200 GPUs, 150 an hour." in service_page(asked, [])
