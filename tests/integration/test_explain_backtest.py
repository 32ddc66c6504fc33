"""`explain` and `backtest` as users meet them, on records, traces and a service's own past."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from planner.__main__ import main
from planner.adapters.exposition import openmetrics_format
from tests.integration.prometheus_server import backfill, prometheus
from tests.integration.recorded_past import (
    conversations,
    example,
    live_through,
    loaded_example,
    wall_clock_s,
)

Out = pytest.CaptureFixture[str]
FIGURES = {
    *("predictor", "series", "intervals", "wape", "mase", "pinball"),
    *("coverage", "quantile", "ms_per_tick"),
}


@pytest.fixture(autouse=True)
def _files(own_place: Path) -> None:
    (own_place / "f.yaml").write_text(example(), encoding="utf-8")
    rows = (f"{i * 0.5},{1000 + 400 * (i // 240 % 3)},{100 + i % 7}" for i in range(3600))
    (own_place / "day.csv").write_text("\n".join(["t_s,isl,osl", *rows]), encoding="utf-8")


def no(_constant: str) -> float:
    raise AssertionError("NaN and Infinity are no JSON")


def said(capsys: Out, *arguments: str) -> str:
    assert main([*arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def refused(capsys: Out, *arguments: str) -> str:
    assert main([*arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err.rstrip("\n")


class TestExplain:
    @pytest.fixture(autouse=True)
    def _recorded(self, _files: None, capsys: Out) -> None:
        said(capsys, "simulate", "-f", "f.yaml", "--trace", "day.csv", "--record", "r.jsonl")

    @pytest.mark.parametrize(
        ("at", "moment"),
        [
            pytest.param("600", "00:10:00", id="seconds"),
            pytest.param("00:10", "00:10:00", id="hours and minutes"),
            pytest.param("00:10:59", "00:10:00", id="the last before"),
            pytest.param("99:00", "00:29:00", id="past the end"),
        ],
    )
    def test_tells_the_decision_of_a_time(self, at: str, moment: str, capsys: Out):
        told = said(capsys, "explain", "r.jsonl", "--at", at)
        assert told.startswith(f"inference/llama-8b at {moment}\n")

    def test_tells_the_last_one_by_default(self, capsys: Out):
        assert said(capsys, "explain", "r.jsonl").startswith("inference/llama-8b at 00:29:00\n")

    def test_a_short_line_still_says_why(self, capsys: Out, own_place: Path):
        # The pool stays above its plan for minutes; the first such tick alone is written whole.
        start = ["--start", "prefill=4,decode=4", "--record", "s.jsonl"]
        said(capsys, "simulate", "-f", "f.yaml", "--trace", "day.csv", *start)
        lines = (own_place / "s.jsonl").read_text(encoding="utf-8").splitlines()
        short = next(line for line in map(json.loads, lines) if "observation" not in line)
        told = said(capsys, "explain", "s.jsonl", "--at", str(short["at_s"]))
        assert "ScaleDownStabilized: " in told
        assert "the plan could be followed as it is" not in told

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            pytest.param(None, "x.jsonl: No such file or directory: give a file", id="missing"),
            pytest.param(b"", "x.jsonl: no records; legal: one or more JSON lines", id="empty"),
            pytest.param(b"{\n", "x.jsonl, line 1: no JSON", id="broken"),
            pytest.param(b"[]\n", "x.jsonl, line 1: a JSON list and no object", id="no object"),
            pytest.param(b'{"schemaVersion": 99}\n', "x.jsonl, line 1: schemaVersion 99", id="new"),
            pytest.param(b"\xff\xfe", "x.jsonl: not text: give a file", id="no text"),
        ],
    )
    def test_a_bad_file_is_one_line(
        self, text: bytes | None, line: str, own_place: Path, capsys: Out
    ):
        if text is not None:
            (own_place / "x.jsonl").write_bytes(text)
        assert refused(capsys, "explain", "x.jsonl").startswith(line)

    def test_a_folder_is_one_line(self, capsys: Out):
        assert refused(capsys, "explain", ".").startswith(".: Is a directory: give a file")

    @pytest.mark.parametrize("at", ["noon", "00:00:30", "-5", "2026-11-22T10:00:00Z"])
    def test_a_bad_time_is_one_line(self, at: str, capsys: Out):
        assert refused(capsys, "explain", "r.jsonl", f"--at={at}").startswith(f"--at {at}: ")


class TestBacktest:
    def test_prints_a_row_a_predictor_and_role(self, capsys: Out):
        out = said(capsys, "backtest", "--trace", "day.csv", "--interval", "30s", "-o", "json")
        rows = json.loads(out, parse_constant=no)
        assert {(row["predictor"], row["series"]) for row in rows} >= {
            (name, series)
            for name in ("Kalman", "Arima", "LastValue")
            for series in ("prefill", "decode")
        }
        for row in rows:
            assert row.keys() == FIGURES
            assert row["quantile"] == 0.75
            assert 0.0 <= row["coverage"] <= 1.0
            assert row["wape"] >= 0.0
            assert row["ms_per_tick"]["mean"] > 0.0

    def test_the_last_value_is_what_mase_is_measured_by(self, capsys: Out):
        arguments = "backtest --trace day.csv --predictors LastValue --interval 30s -o json"
        rows = json.loads(said(capsys, *arguments.split()))
        assert [(row["predictor"], row["series"]) for row in rows] == [
            ("LastValue", "prefill"),
            ("LastValue", "decode"),
        ]
        assert rows[0]["mase"] == pytest.approx(1.0, rel=1e-12)
        assert rows[0]["wape"] > 0.05

    def test_the_lead_is_how_far_ahead_is_judged(self, capsys: Out):
        wape = {}
        for lead in ("30s", "3m"):
            arguments = f"backtest --trace day.csv --predictors LastValue --lead {lead}"
            out = said(capsys, *arguments.split(), "--interval", "30s", "-o", "json")
            wape[lead] = json.loads(out)[0]["wape"]
        assert wape["30s"] < 0.7 * wape["3m"]

    def test_the_table_names_every_figure(self, capsys: Out):
        out = said(capsys, "backtest", "--trace", "day.csv", "--interval", "30s")
        for heading in ("Predictor", "WAPE", "MASE", "Pinball", "Coverage"):
            assert heading in out

    def test_a_short_trace_is_one_line(self, capsys: Out):
        told = refused(capsys, "backtest", "--trace", "day.csv", "--interval", "2m")
        assert told.startswith("--trace: day.csv has 14 intervals of 120 s; legal: 20 or more; ")

    def test_whose_past_must_be_said(self, capsys: Out):
        asked = ["--from-prometheus", "30m", "--prometheus", "http://127.0.0.1:1"]
        told = refused(capsys, "backtest", *asked)
        assert told == "--from-prometheus: whose history: give -f FILE of one service"


class TestOwnPast:
    @pytest.fixture(scope="class")
    @staticmethod
    def real_url(
        prometheus_binary: Path, promtool_binary: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[str]:
        folder = tmp_path_factory.mktemp("past")
        loaded = loaded_example(folder)
        start = {"prefill": 2, "decode": 2}
        past = live_through(loaded, conversations(1), start, wall_clock_s() - 2400.0, 200)
        backfill(promtool_binary, folder, openmetrics_format(past.exposed()))
        with prometheus(prometheus_binary, folder) as server:
            yield server.url

    def test_predictors_are_compared_on_it(self, real_url: str, capsys: Out):
        asked = ["--from-prometheus", "30m", "--prometheus", real_url, "-f", "f.yaml"]
        names = ["--predictors", "Kalman,LastValue"]
        rows = json.loads(said(capsys, "backtest", *asked, *names, "-o", "json"), parse_constant=no)
        assert [row["series"] for row in rows] == ["prefill", "decode"] * 2
        # Thirty intervals, the first ten learnt from and the last three ahead of nothing.
        assert all(15 <= row["intervals"] <= 20 for row in rows)
        assert all(0.02 < row["wape"] < 0.6 for row in rows)

    def test_a_short_window_is_one_line(self, real_url: str, capsys: Out):
        asked = ["--from-prometheus", "10m", "--prometheus", real_url, "-f", "f.yaml"]
        told = refused(capsys, "backtest", *asked)
        assert told.startswith("--from-prometheus: that window has 11 intervals of 60 s; legal: 20")
