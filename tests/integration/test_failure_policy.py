"""The failure policy end to end: whatever Prometheus does, `recommend` holds and says why.

Seven services share one Prometheus and one past: two replicas a pool, of which one would do. What
is wrong with each is its name; all are asked about at once, and none disturbs another.
"""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from planner.__main__ import main
from planner.adapters import prometheus as prometheus_adapter
from planner.adapters.exposition import Line, openmetrics_format
from planner.adapters.prometheus import PrometheusAccess
from tests.integration.prometheus_server import (
    Answer,
    Server,
    backfill,
    page,
    prometheus,
)
from tests.integration.recorded_past import (
    ROOT,
    SCRAPE_S,
    Past,
    Scrape,
    conversations,
    example,
    live_through,
    loaded_example,
    wall_clock_s,
)
from tests.loopback import free_port

NOW_S = 1500.0  # the wall clock's now, from the beginning of the past
SCRAPES = 140
CURRENT = {"prefill": 2, "decode": 2}
FALLBACK = {"prefill": 8, "decode": 16}  # of the example, after ten minutes
LATENCIES = (
    "vllm:time_to_first_token_seconds",
    "vllm:request_prefill_time_seconds",
    "vllm:inter_token_latency_seconds",
    "vllm:request_time_per_output_token_seconds",
)
# `open sesame`; made with `htpasswd -nB`, at the lowest cost.
BASIC_AUTH = (
    "basic_auth_users: {ali: $2b$04$.ZMSEQAtw/fqAk.vGtlKSegPfTOh.hG.jpz.VnMxMC9qSHDT7tx7C}\n"
)

Show = Callable[[Line], Sequence[Line]]


def not_a_number(line: Line) -> Sequence[Line]:
    return [replace(line, value=math.nan) if line.name.endswith("requests_waiting") else line]


def twice(line: Line) -> Sequence[Line]:
    return [line, replace(line, labels={**line.labels, "container": "sidecar"})]


def without_latencies(line: Line) -> Sequence[Line]:
    return [] if line.family in LATENCIES else [line]


def nothing(_: Line) -> Sequence[Line]:
    return []


def since(at_s: float, show: Show) -> Show:
    """Return the fault that begins at a time [s, Unix]."""
    return lambda line: show(line) if line.at_s > at_s else [line]


def silent(past: Past, from_s: float) -> Past:
    """Return the past of a service that nobody asks anything any more from a time on."""
    *_, last = (scrape for at_s, scrape in past.scrapes if at_s <= from_s)
    return replace(
        past,
        scrapes=[
            (at_s, scrape if at_s <= from_s else still(last, at_s)) for at_s, scrape in past.scrapes
        ],
    )


def still(scrape: Scrape, at_s: float) -> Scrape:
    return {
        pool: tuple(replace(p, at_s=at_s, gauges=dict.fromkeys(p.gauges, 0.0)) for p in pods)
        for pool, pods in scrape.items()
    }


@pytest.fixture(scope="module")
def server(
    prometheus_binary: Path, promtool_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Path]]:
    # The Prometheus of all seven, with the folder of their specs.
    folder = tmp_path_factory.mktemp("past")
    now_s = wall_clock_s()
    first = loaded_example(folder, "good")
    past = live_through(first, conversations(1), CURRENT, now_s - NOW_S, SCRAPES)
    shown: dict[str, Show] = {
        "good": lambda line: [line],
        "not-a-number": since(now_s - 120.0, not_a_number),
        "twice": since(now_s - 120.0, twice),
        "late": since(now_s - 120.0, nothing),
        "long-gone": since(now_s - 900.0, nothing),
        "no-latencies": without_latencies,
    }
    exposed = [
        line
        for model, show in shown.items()
        for line in past.of(loaded_example(folder, model)).exposed(show)
    ]
    quiet = silent(past.of(loaded_example(folder, "silent")), now_s - 900.0)
    backfill(promtool_binary, folder, openmetrics_format([*exposed, *quiet.exposed()]))
    with prometheus(prometheus_binary, folder) as running:
        yield running, folder


Answers = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def answers(server: tuple[Server, Path]) -> Answers:
    """Ask about all services at once; return each one's printed row and whole record."""
    running, folder = server
    specs = sorted(folder.glob("*.yaml"))
    files = [flag for spec in specs for flag in ("-f", str(spec))]
    record = folder / "r.jsonl"
    asked = ["--prometheus", running.url, "--current", "prefill=2,decode=2", "--record", record]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "planner", "recommend", *files, *asked, "-o", "json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    told = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    return {entry["name"]: {"row": rows[entry["name"]], "record": entry} for entry in told}


def desired(answer: dict[str, Any]) -> dict[str, int]:
    return {pool["name"]: pool["desiredReplicas"] for pool in answer["row"]["pools"]}


def test_the_good_one_would_release_replicas(answers: Answers):
    """Or a hold of the others would look like any other decision."""
    good = answers["good"]
    assert not good["row"]["hold"]
    assert desired(good) == {"prefill": 1, "decode": 1}


@pytest.mark.parametrize(
    ("name", "code", "why"),
    [
        (
            "not-a-number",
            "MetricsUnavailable",
            "prefill, pod pd-prefill-service-prefill-worker-0: waiting is nan",
        ),
        (
            "twice",
            "MetricsUnavailable",
            "pod pd-prefill-service-prefill-worker-0: label container splits",
        ),
        ("late", "MetricsUnavailable", "pool prefill has no series in the last 60 s"),
    ],
)
def test_what_can_not_be_trusted_is_a_hold(answers: Answers, name: str, code: str, why: str):
    answer = answers[name]
    assert answer["row"]["hold"]
    assert [reason["code"] for reason in answer["row"]["reasons"]] == [code]
    assert why in answer["row"]["message"]
    assert answer["row"]["message"].endswith("; holding")
    assert desired(answer) == CURRENT
    assert answer["record"]["patch"] is None


def test_metrics_gone_for_long_raise_to_the_fallback(answers: Answers):
    answer = answers["long-gone"]
    assert answer["row"]["hold"]
    assert [r["code"] for r in answer["row"]["reasons"]] == ["MetricsUnavailable", "Fallback"]
    assert desired(answer) == FALLBACK


def test_missing_latencies_do_not_stop_the_decision(answers: Answers):
    answer = answers["no-latencies"]
    assert not answer["row"]["hold"]
    assert answer["row"]["attainment"] == {"ttft": None, "itl": None}
    assert answer["record"]["observation"]["arrivals_rps"] > 1.0
    assert desired(answer) == {"prefill": 1, "decode": 1}


def test_silence_that_was_observed_is_no_hold(answers: Answers):
    answer = answers["silent"]
    assert not answer["row"]["hold"]
    assert answer["record"]["observation"]["arrivals_rps"] == 0.0
    assert desired(answer) == {"prefill": 1, "decode": 1}


# ── a Prometheus that gives nothing ──────────────────────────────────────────────────────────────


def held(url: str, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """Ask about a service of 9 and 17 replicas, above its fallback; return why it holds."""
    Path("f.yaml").write_text(example("good"), encoding="utf-8")
    asked = ["recommend", "-f", "f.yaml", "--prometheus", url, "-o", "json", *more]
    assert main([*asked, "--current", "prefill=9,decode=17"]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    (row,) = json.loads(out)
    assert row["hold"]
    assert [pool["desiredReplicas"] for pool in row["pools"]] == [9, 17]
    assert "\n" not in row["message"]
    return str(row["message"])


def as_page(status: int, kind: str, body: bytes) -> Callable[[BaseHTTPRequestHandler], Answer]:
    return lambda _: (status, kind, body)


@pytest.mark.usefixtures("own_place")
class TestPrometheusThat:
    def test_is_not_there(self, capsys: pytest.CaptureFixture[str]):
        url = f"http://127.0.0.1:{free_port()}"
        assert held(url, capsys).startswith(f"Prometheus at {url} is unreachable: ")

    @pytest.mark.parametrize(
        ("answer", "why"),
        [
            pytest.param((200, "text/html", b"<html>Log in</html>"), "no query result", id="page"),
            pytest.param((200, "application/json", b""), "no query result", id="nothing"),
            pytest.param((503, "text/plain", b"starting"), "is not serving (HTTP 503", id="503"),
            pytest.param(
                (
                    200,
                    "application/json",
                    b'{"status": "success", "data": {"resultType": "vector", "result": []}}',
                ),
                "pool prefill has no series",
                id="empty",
            ),
        ],
    )
    def test_answers_what_is_no_answer(
        self, answer: tuple[int, str, bytes], why: str, capsys: pytest.CaptureFixture[str]
    ):
        with page(as_page(*answer)) as url:
            assert why in held(url, capsys)

    def test_refuses_the_token(
        self, prometheus_binary: Path, own_place: Path, capsys: pytest.CaptureFixture[str]
    ):
        (own_place / "token").write_text("a-secret\n", encoding="utf-8")
        known = {"auth": ("ali", "open sesame")}
        with prometheus(prometheus_binary, own_place, web_config=BASIC_AUTH, ready=known) as real:
            told = held(real.url, capsys, "--prometheus-token-file", "token")
        assert "refused the token or password (HTTP 401" in told
        assert "a-secret" not in told

    def test_freezes(
        self,
        prometheus_binary: Path,
        own_place: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ):
        # The shipped patience of 10 s, twice, would only make the test slow.
        def impatient(*given: Any, **named: Any) -> PrometheusAccess:
            return PrometheusAccess(*given, **named | {"timeout_s": 0.5})

        with prometheus(prometheus_binary, own_place) as real:
            os.kill(real.pid, signal.SIGSTOP)
            with monkeypatch.context() as short:
                short.setattr(prometheus_adapter, "PrometheusAccess", impatient)
                assert "gave no answer within 0.5 s" in held(real.url, capsys)
            os.kill(real.pid, signal.SIGCONT)
            assert "has no series" in held(real.url, capsys)


def test_the_past_outlasts_the_tests():
    assert SCRAPES * SCRAPE_S > NOW_S + 300.0
