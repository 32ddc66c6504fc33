"""`recommend`: a real Prometheus leads to the decision that memory leads to; and how it ends.

Forty minutes of an hour of requests have passed when the tests begin. Pods come and go in them:
prefill 3 → 4 → 2, decode 2 → 3.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import yaml

from planner.__main__ import main
from planner.adapters.exposition import openmetrics_format
from planner.adapters.memory import MemoryCluster
from planner.adapters.prometheus import PrometheusAccess, PrometheusMetrics
from planner.ports import Metrics
from planner.record import TickRecord
from planner.supervisor import Supervisor
from tests.integration import prometheus_server
from tests.integration.prometheus_server import Server, backfill, prometheus, wait_for
from tests.integration.recorded_past import (
    ROOT,
    Past,
    conversations,
    example,
    live_through,
    loaded_example,
    wall_clock_s,
)
from tests.loopback import free_port

NOW_S = 2400.0  # the wall clock's now, from the beginning of the past
ORDERS = {900.0: ("prefill", 4), 1350.0: ("decode", 3), 1800.0: ("prefill", 2)}
CURRENT = {"prefill": 2, "decode": 3}
ASKED = "prefill=2,decode=3"


@dataclass(frozen=True)
class World:
    """A past, the Prometheus that holds it, and its spec."""

    past: Past
    url: str
    spec: Path


@pytest.fixture(scope="module")
def world(
    prometheus_binary: Path, promtool_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("past")
    loaded = loaded_example(folder)
    base_s = wall_clock_s() - NOW_S
    past = live_through(
        loaded, conversations(4), {"prefill": 3, "decode": 2}, base_s, 230, orders=ORDERS
    )
    backfill(promtool_binary, folder, openmetrics_format(past.exposed()))
    with prometheus(prometheus_binary, folder) as server:
        yield World(past, server.url, folder / "llama-8b.yaml")


def decided(past: Past, metrics: Metrics, at_s: float) -> TickRecord:
    """Return the tick after a start at `at_s` [s, Unix]."""
    service = past.loaded.service
    supervisor = Supervisor([service], metrics, MemoryCluster({service.key: CURRENT}))
    supervisor.restore(at_s)
    return supervisor.tick(at_s)[service.key]


@pytest.mark.parametrize(
    "passed_s",
    [
        pytest.param(30.0, id="first sample"),
        pytest.param(120.0, id="third sample"),
        pytest.param(960.0, id="a pod starts"),
        pytest.param(1440.25, id="between two scrapes"),
        pytest.param(1845.0, id="pods just left"),
        pytest.param(2400.0, id="now"),
        pytest.param(3600.0, id="past the end"),
    ],
)
def test_a_real_prometheus_leads_to_the_same_decision(world: World, passed_s: float):
    at_s = world.past.base_s + passed_s
    in_memory = decided(world.past, world.past.memory(), at_s)
    real = decided(world.past, PrometheusMetrics(PrometheusAccess(world.url)), at_s)
    # The whole record to the last bit: numbers travel as the shortest text that reads back.
    assert real == in_memory
    assert (real.decision.hold is None) == (120.0 <= passed_s < 3600.0)


def test_the_past_holds_what_a_decision_could_trip_over(world: World):
    """Or the test above would prove little."""
    early = decided(world.past, world.past.memory(), world.past.base_s + 960.0)
    late = decided(world.past, world.past.memory(), world.past.base_s + NOW_S)
    assert early.decision.observation is not None
    assert late.decision.observation is not None
    assert early.decision.observation.arrivals_rps > 10.0
    assert late.decision.pools["decode"].desired < CURRENT["decode"]
    assert late.decision.factors is not None
    assert late.decision.factors.pools["decode"].level != 1.0


def pd_planner(*arguments: object, **over: Any) -> "subprocess.Popen[bytes]":
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PD_PLANNER_")}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "planner", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | over,
    )


def test_the_command_prints_that_decision(world: World, tmp_path: Path):
    record = tmp_path / "r.jsonl"
    asked = ["-f", world.spec, "--prometheus", world.url, "--current", ASKED, "--record", record]
    process = pd_planner("recommend", *asked, "-o", "json")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    (row,) = json.loads(out)
    (written,) = (json.loads(line) for line in record.read_text(encoding="utf-8").splitlines())
    wanted = decided(world.past, world.past.memory(), written["at_s"]).to_dict()
    # The record rounds the time to 1 µs, on which the age of metrics and the forecast hang.
    assert {k: v for k, v in written.items() if k in {"pools", "reasons", "hold", "sentence"}} == {
        k: v for k, v in wanted.items() if k in {"pools", "reasons", "hold", "sentence"}
    }
    for role in ("prefill", "decode"):
        told, meant = (dict(one["load"]["tokens"][role]) for one in (written, wanted))
        points, levels = (np.ravel(one.pop("up_points")) for one in (told, meant))
        assert (told.pop("keep_tps"), meant.pop("keep_tps")) == (None, None)
        assert told == pytest.approx(meant, rel=1e-6)
        assert points == pytest.approx(levels, rel=1e-6)
    assert (row["namespace"], row["name"], row["hold"]) == ("inference", "llama-8b", False)
    assert row["message"] == wanted["sentence"]
    assert {
        p["name"]: (p["recommendedReplicas"], p["desiredReplicas"], p["currentReplicas"])
        for p in row["pools"]
    } == {
        name: (p["recommended"], p["desired"], p["current"]) for name, p in wanted["pools"].items()
    }
    assert 0.5 < float(row["attainment"]["itl"]["lower"]) <= 1.0


def forms(value: Any) -> Any:
    """Return a value's shape: its keys and types."""
    if isinstance(value, dict):
        return {key: forms(item) for key, item in value.items()}
    return [forms(item) for item in value] if isinstance(value, list) else type(value)


@pytest.mark.usefixtures("own_place")
class TestForms:
    def test_yaml_says_what_json_says(self, world: World, capsys: pytest.CaptureFixture[str]):
        asked = ["recommend", "-f", str(world.spec), "--prometheus", world.url]
        said: dict[str, Any] = {}
        for form, read in (("json", json.loads), ("yaml", yaml.safe_load)):
            assert main([*asked, "--current", ASKED, "-o", form]) == 0
            out, err = capsys.readouterr()
            assert err == ""
            (said[form],) = read(out)
        # Asked at two moments, so that a scrape may lie between them: forms, not figures.
        assert forms(said["yaml"]) == forms(said["json"])
        assert [p["name"] for p in said["yaml"]["pools"]] == ["prefill", "decode"]

    def test_the_table_holds_a_row_a_pool_and_every_reason(
        self, world: World, capsys: pytest.CaptureFixture[str]
    ):
        asked = ["recommend", "-f", str(world.spec), "--prometheus", world.url]
        assert main([*asked, "--current", ASKED]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        rows = {row[1]: row for row in re.finditer(r"(\w+) +(\d+) +(\d+) +(\d+) +(\d+) +90 s", out)}
        assert rows.keys() == {"prefill", "decode"}
        assert [int(rows["decode"][i]) for i in (2, 3)] == [3, 3]
        assert int(rows["decode"][5]) < 3
        assert max(map(len, out.splitlines())) <= 80

    def test_no_series_is_a_hold_with_its_reason_and_exit_1(
        self, world: World, own_place: Path, capsys: pytest.CaptureFixture[str]
    ):
        (own_place / "other.yaml").write_text(example("other"), encoding="utf-8")
        asked = ["recommend", "-f", "other.yaml", "--prometheus", world.url]
        assert main([*asked, "--current", "prefill=9,decode=17"]) == 1
        out, err = capsys.readouterr()
        assert err == ""
        told = " ".join(out.split())
        assert "inference/other holds: inference/other: pool prefill has no series" in told
        assert "model_name=other" in told
        assert "check that its pods are scraped" in told

    def test_without_a_cluster_replicas_are_asked_for_in_one_line(
        self, world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("KUBECONFIG", str(world.spec.with_name("none")))
        assert main(["recommend", "-f", str(world.spec), "--prometheus", world.url]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith("--kubeconfig, --context: ")
        assert "or give --current, such as --current prefill=4,decode=6" in err

    def test_no_prometheus_is_asked_for_in_one_line(
        self, world: World, capsys: pytest.CaptureFixture[str]
    ):
        assert main(["recommend", "-f", str(world.spec), "--current", ASKED]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert "PD_PLANNER_PROMETHEUS" in err


def rounds(printed: Path) -> list[dict[str, Any]]:
    """Return what each tick of one service printed as JSON so far, whole ones only."""
    text = printed.read_text(encoding="utf-8")
    decoder = json.JSONDecoder()
    found: list[dict[str, Any]] = []
    while text.strip():
        try:
            (row,), end = decoder.raw_decode(text)
        except json.JSONDecodeError:
            break
        found.append(row)
        text = text[end:].lstrip()
    return found


@pytest.fixture
def quick(prometheus_binary: Path, promtool_binary: Path, tmp_path: Path) -> Path:
    """Lay a past scraped every 5 s, of a service that ticks every 5 s; return its folder."""
    loaded = loaded_example(tmp_path, "quick", interval="5s")
    start = {"prefill": 1, "decode": 1}
    past = live_through(loaded, conversations(1), start, wall_clock_s() - 300.0, 140, every_s=5.0)
    backfill(promtool_binary, tmp_path, openmetrics_format(past.exposed()))
    return tmp_path


def watching(folder: Path, url: str, **over: Any) -> "subprocess.Popen[bytes]":
    asked = ["-f", folder / "quick.yaml", "--current", "prefill=1,decode=1", "-o", "json"]
    return pd_planner("recommend", *asked, "--prometheus", url, "--watch", **over)


def test_watching_outlives_prometheus_and_ends_on_ctrl_c(
    quick: Path, prometheus_binary: Path, monkeypatch: pytest.MonkeyPatch
):
    port = free_port()
    monkeypatch.setattr(prometheus_server, "free_port", lambda: port)
    printed, told = quick / "out", quick / "err"
    with printed.open("wb") as out, told.open("wb") as err:
        with prometheus(prometheus_binary, quick) as server:
            process = watching(quick, server.url, stdout=out, stderr=err)
            try:
                wait_for("two ticks", lambda: len(rounds(printed)) >= 2)
                kill(server)
                wait_for("a hold", lambda: "unreachable" in rounds(printed)[-1]["message"])
                ticked = len(rounds(printed))
            except BaseException:
                process.kill()
                raise
        with prometheus(prometheus_binary, quick):
            try:
                wait_for("no hold any more", lambda: not rounds(printed)[-1]["hold"])
                process.send_signal(signal.SIGINT)
                assert process.wait(timeout=30) == 0
            finally:
                process.kill()
                process.wait()
    seen = rounds(printed)[:ticked]
    assert not seen[0]["hold"]
    lost = seen[-1]
    assert lost["hold"]
    assert "holding" in lost["message"]
    assert all(p["desiredReplicas"] >= p["currentReplicas"] for p in lost["pools"])
    said = told.read_text(encoding="utf-8")
    assert "Traceback" not in said
    assert "WARNING inference/quick: Prometheus at http://127.0.0.1" in said
    assert "INFO inference/quick: prefill" in said


def kill(server: Server) -> None:
    os.kill(server.pid, signal.SIGKILL)
    os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)


def test_watching_ends_when_nobody_reads(quick: Path, prometheus_binary: Path):
    with prometheus(prometheus_binary, quick) as server:
        process = watching(quick, server.url)
        out, err = streams(process)
        with err:
            out.readline()
            out.close()
            try:
                code = process.wait(timeout=60)
            finally:
                process.kill()
            said = err.read().decode()
    assert code == 141
    assert "Traceback" not in said


def streams(process: "subprocess.Popen[bytes]") -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdout is not None
    assert process.stderr is not None
    return process.stdout, process.stderr
