"""The report: what stands on the page, the same bytes every time, small after a long run."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from planner.model import Reason, Role
from planner.simulation.results import Summary, summarise
from planner.view.canvas import Extent, canvas
from planner.view.cards import headline_cards, verdict
from planner.view.decision_rows import ROWS_MAX, decision_rows
from planner.view.figures import (
    attainment_picture,
    latency_picture,
    reasons_picture,
    replicas_picture,
)
from planner.view.outcome import LatencyBins, Windows
from planner.view.page import _script_json
from planner.view.report import report_pictures, write_report
from planner.view.series import PoolSeries
from tests.unit.test_view_series import capped, frames, held, plant_results, service, tick

pytest.importorskip("plotly", reason="plotly comes with the simulation extra")

ORDERS = {"prefill": ((0.0, 2), (660.0, 3)), "decode": ((0.0, 1),)}
EXTENT = Extent(600.0, 60.0)


def run(ticks=20):
    """Return frames and results of a run in which every tenth request misses its TTFT."""
    records = [tick(60.0 * k, (2, 1), (3 if k == 11 else 2, 1)) for k in range(1, ticks - 1)]
    records += [capped(60.0 * (ticks - 1)), held(60.0 * ticks)]
    arrival_s = np.arange(0.0, 60.0 * ticks, 0.5)
    count = arrival_s.size
    ttft_s = np.where(np.arange(count) % 10 == 0, 0.9, 0.1)
    results = plant_results(
        arrival_s, ttft_s, np.full(count, 0.01), np.ones(count), ORDERS, end_s=60.0 * ticks
    )
    return frames(*records), results, summarise(results, 0.5, 0.015, from_s=600.0)


def written(tmp_path, notes=(), trace="a trace", **over):
    ran, results, summary = run(**over)
    path = tmp_path / "report.html"
    write_report(path, service(), trace, ran, results, summary, notes)
    return path.read_text(encoding="utf-8")


def figures(page):
    return json.loads(re.search(r'id="figures">(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_tells_title_verdict_figures_and_notes(tmp_path):
    page = written(tmp_path, ["Requests: somewhere, CC-BY-4.0."])
    assert "<title>llama · a trace</title>" in page
    assert (
        "90% of 1,200 requests met both targets; 99% asked: the SLA is missed, 10% failed" in page
    )
    assert "Asked: 99% of requests with TTFT at most 500 ms and ITL at most 15 ms." in page
    assert "<p>Requests: somewhere, CC-BY-4.0.</p>" in page
    assert page.count('<div class="card') == 8
    assert '<div class="card missed"><dt>Both targets met</dt><dd>90%</dd>' in page


def test_the_page_asks_the_network_for_nothing(tmp_path):
    page = written(tmp_path)
    assert "default-src 'none'" in page
    assert not re.findall(
        r"<(?:script|img|link|iframe)[^>]+(?:src|href)=", page.split("<script>")[0]
    )


def test_the_same_run_gives_the_same_bytes(tmp_path):
    assert written(tmp_path) == written(tmp_path)


def test_names_and_reasons_cannot_become_markup(tmp_path):
    page = written(tmp_path, trace="</script><b>x</b>", notes=["<i>"])
    assert "<b>x</b>" not in page
    assert "<i>" not in page.split("<script")[0]


def test_every_picture_has_its_place_and_its_axis(tmp_path):
    page = written(tmp_path)
    drawn = figures(page)
    assert [figure["key"] for figure in drawn] == [
        "load-prefill", "load-decode", "replicas-prefill", "replicas-decode", "ttft", "itl",
        "attainment", "factors", "reasons",
    ]  # fmt: skip
    for figure in drawn:
        assert page.count(f'id="{figure["key"]}"') == 1
        assert figure["layout"]["xaxis"]["range"] == [0.0, 1200e3]
        assert figure["key"] == "reasons" or figure["layout"]["yaxis"]["title"]["text"]


def test_series_have_names_in_words():
    ran, results, summary = run()
    pictures = {p.key: p.figure for p in report_pictures(service(), ran, results, summary)}
    named = {key: [trace.name for trace in figure.data] for key, figure in pictures.items()}
    assert named["load-prefill"] == ["forecast mean", "upper band", "seen"]
    assert named["replicas-decode"] == ["ready", "ordered", "wanted"]
    assert named["ttft"] == ["99th percentile", "median"]
    assert named["factors"] == ["prefill", "decode"]


def test_a_day_stays_small(tmp_path):
    ran, _, summary = run(ticks=17_280)
    count = 500_000
    results = plant_results(
        np.linspace(0.0, 86_400.0, count), np.full(count, 0.1), np.full(count, 0.01),
        np.ones(count), ORDERS, end_s=86_400.0,
    )  # fmt: skip
    path = tmp_path / "report.html"
    write_report(path, service(), "a day", ran, results, summary)
    assert path.stat().st_size < 6e6
    assert f"{17_280 - ROWS_MAX:,} quiet ticks are left out." in path.read_text(encoding="utf-8")


def test_a_run_without_requests_or_ticks_is_a_page_too(tmp_path):
    path = tmp_path / "report.html"
    results = plant_results(end_s=60.0)
    write_report(path, service(), "nothing", [], results, summarise(results, 0.5, 0.015))
    assert "No request arrived after the warm-up." in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("worst_ms", "kind"), [(900.0, None), (60_000.0, "log")], ids=["near", "far beyond"]
)
def test_a_latency_far_beyond_its_target_makes_the_axis_logarithmic(worst_ms, kind):
    at_s, p99_s = np.array([30.0, 90.0]), np.array([0.2, worst_ms / 1e3])
    picture = latency_picture(
        "ttft", "TTFT", 0.5, LatencyBins(60.0, at_s, p99_s / 2, p99_s), EXTENT
    )
    assert picture.figure.layout.yaxis.type == kind
    (label,) = [a for a in picture.figure.layout.annotations if a.text == "target 500 ms"]
    assert label.y == pytest.approx(500.0 if kind is None else np.log10(500.0))


def test_windows_below_the_target_are_marked():
    windows = Windows(np.array([150.0, 450.0]), np.array([1.0, 0.5]), np.array([9.0, 9.0]))
    picture = attainment_picture(service().sla, windows, EXTENT)
    share, missed = picture.figure.data
    assert share.y.tolist() == [1.0, 0.5]
    assert (missed.mode, missed.x.tolist(), missed.y.tolist()) == ("markers", [450e3], [0.5])


@pytest.mark.parametrize(("warm_s", "names"), [(300.0, ["warm-up"]), (30.0, []), (0.0, [])])
def test_a_warm_up_is_shaded_and_named_where_its_name_fits(warm_s, names):
    figure = canvas(Extent(600.0, warm_s), "ms")
    assert [shape.x1 for shape in figure.layout.shapes] == ([warm_s * 1e3] if warm_s else [])
    assert [note.text for note in figure.layout.annotations] == names


def test_replicas_are_counted_in_whole_numbers():
    few, many = PoolSeries(*[(3.0,)] * 4), PoolSeries(*[(90.0,)] * 4)
    figures = [replicas_picture(service(), "decode", p, [60.0], EXTENT).figure for p in (few, many)]
    assert [figure.layout.yaxis.dtick for figure in figures] == [1, None]


def test_no_reason_at_all_is_an_empty_picture():
    assert not reasons_picture([], EXTENT).figure.data


def test_rows_say_what_kind_of_decision_they_are():
    change = tick(180.0, (2, 1), (3, 1), [Reason("A", "because", "prefill")])
    refused = replace(tick(240.0, (2, 1), (3, 1)), applied=False, error="no")
    rows, dropped = decision_rows([tick(60.0), capped(120.0), change, refused, held(300.0)])
    assert [row.kind for row in rows] == ["quiet", "cap", "change", "change", "hold"]
    assert rows[2].sentence == "prefill 2→3, decode stays at 1"
    assert rows[3].reasons == (("PatchRefused", "no"),)
    assert (rows[4].sentence, dropped) == ("keeps what runs", 0)


def test_quiet_rows_are_left_out_first():
    records = [held(60.0), capped(120.0), *(tick(60.0 * k) for k in range(3, ROWS_MAX + 3))]
    records.append(tick(1e6, (2, 1), (3, 1)))
    rows, dropped = decision_rows(records)
    assert (len(rows), dropped) == (ROWS_MAX, 3)
    assert [rows[0].kind, rows[1].kind, rows[-1].kind] == ["hold", "cap", "change"]


def test_cards_judge_only_what_was_asked():
    ran, results, summary = run()
    cards = {card.label: card for card in headline_cards(service(), ran, results, summary)}
    assert cards["Both targets met"].is_met is False
    assert cards["TTFT met"].is_met is None
    assert (cards["Scale actions"].value, cards["Unfinished"].is_met) == ("1", None)
    assert cards["Decision time"].value == "4.0 ms"


def test_a_met_sla_is_said_to_be_met():
    _, _, summary = run()
    good = replace(summary.attainment, both=0.995)
    told = verdict(service(), replace(summary, attainment=good))
    assert told == "99.5% of 1,200 requests met both targets; 99% asked: the SLA is met."


def test_unfinished_requests_are_a_fault():
    ran, results, _ = run()
    summary = Summary(0.0, 10, summarise(results, 0.5, 0.015).attainment, refused=1, unfinished=2)
    cards = {card.label: card for card in headline_cards(service(), ran, results, summary)}
    assert (cards["Unfinished"].is_met, cards["Unfinished"].note) == (False, "1 of them refused")


def test_both_roles_keep_their_colour():
    ran, results, summary = run()
    pictures = {p.key: p.figure for p in report_pictures(service(), ran, results, summary)}
    for role in Role:
        seen, ordered = pictures[f"load-{role}"].data[2], pictures[f"replicas-{role}"].data[1]
        assert seen.line.color == ordered.line.color
    assert pictures["load-prefill"].data[2].line.color != pictures["load-decode"].data[2].line.color


def test_figures_cannot_end_their_script_element():
    assert json.loads(_script_json({"name": "</script>"})) == {"name": "</script>"}
    assert "</script>" not in _script_json({"name": "</script>"})
