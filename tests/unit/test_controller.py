"""`run` and `recommend`: what is asked, ticked, written down and printed."""

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from planner import controller
from planner.adapters.clock import ManualClock, SystemClock
from planner.adapters.memory import MemoryMetrics
from planner.errors import InputError
from planner.model import Mode, Role, Service, ServiceKey
from planner.settings import Settings
from tests.builders import pod_sample, pool, service

LLAMA = service(mode=Mode.ACT)
QWEN = service(key=ServiceKey("inference", "qwen"), interval_s=30.0)
CURRENT = {"prefill": 1, "decode": 1}

Out = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("PD_PLANNER_RECORD", raising=False)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def settings_with(**log: object) -> Settings:
    settings = Settings()
    return settings.model_copy(update={"log": settings.log.model_copy(update=log)})


def past(
    *known: Service, pods: Mapping[Role, int] | None = None, waiting_rps: float = 0.0
) -> MemoryMetrics:
    """Return the last half hour of a load that needs more than one replica, and a bit to come."""
    metrics = MemoryMetrics(15.0, retention_s=1e9)
    now_s = SystemClock(threading.Event()).now_s()
    for k in range(-130, 5):
        at_s = now_s + 15.0 * k - 5.0
        scrape = {
            role: tuple(
                pod_sample(
                    *(f"{role}-{i}", at_s, 900.0 * (k + 131), role),
                    waiting=waiting_rps * 15.0 * max(k + 10, 0) * (role is Role.PREFILL),
                )
                for i in range((pods or {}).get(role, 1))
            )
            for role in Role
        }
        for asked in known:
            metrics.store(asked.key, scrape, None, at_s)
    return metrics


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Callable[[MemoryMetrics], None]:
    """Return what puts memory in Prometheus' place."""
    return lambda memory: monkeypatch.setattr(controller, "prometheus", lambda *_: memory)


def recommend(*services: Service, watch: bool = False, **over: object) -> int:
    given = {"settings": Settings(), "running": CURRENT, "output": "json"} | over
    return controller.recommend(services, watch=watch, **given)


class TestRecommend:
    def test_a_service_that_may_act_is_not_acted_upon(
        self, metrics: Callable[[MemoryMetrics], None], tmp_path: Path, capsys: Out
    ):
        metrics(past(LLAMA))
        settings = Settings()
        log = settings.log.model_copy(update={"record": tmp_path / "r.jsonl"})
        assert recommend(LLAMA, settings=settings.model_copy(update={"log": log})) == 0
        (row,) = json.loads(capsys.readouterr().out)
        assert max(p["desiredReplicas"] - p["currentReplicas"] for p in row["pools"]) > 0
        record = json.loads((tmp_path / "r.jsonl").read_text(encoding="utf-8"))
        assert (record["patch"], record["applied"]) == (None, None)

    def test_one_hold_among_several_services_is_exit_1(
        self, metrics: Callable[[MemoryMetrics], None], capsys: Out
    ):
        metrics(past(QWEN))
        assert recommend(LLAMA, QWEN) == 1
        rows = json.loads(capsys.readouterr().out)
        assert [(row["name"], row["hold"]) for row in rows] == [("llama-8b", True), ("qwen", False)]

    def test_replicas_of_several_pods_are_given_as_replicas(
        self, metrics: Callable[[MemoryMetrics], None], capsys: Out
    ):
        wide = service(pools=(pool(Role.PREFILL, pods_per_replica=4), pool(Role.DECODE)))
        metrics(past(wide, pods={Role.PREFILL: 4}))
        assert recommend(wide) == 0
        (row,) = json.loads(capsys.readouterr().out)
        assert {p["name"]: p["currentReplicas"] for p in row["pools"]} == CURRENT

    def test_without_an_address_it_says_how_to_give_one(self):
        with pytest.raises(InputError, match=r"^--prometheus: no address: .*PD_PLANNER_PROMETHEUS"):
            recommend(LLAMA)


class TestWatch:
    @pytest.fixture
    def jobs(self, monkeypatch: pytest.MonkeyPatch) -> dict[float, Callable[[float], None]]:
        """Keep the jobs instead of running them by the clock."""
        kept: dict[float, Callable[[float], None]] = {}
        monkeypatch.setattr(controller, "run_every", lambda jobs, _stop: kept.update(jobs))
        monkeypatch.setattr(controller, "stop_on_signals", threading.Event)
        return kept

    @pytest.mark.usefixtures("jobs")
    def test_prints_at_once_as_of_the_last_whole_interval(
        self,
        metrics: Callable[[MemoryMetrics], None],
        tmp_path: Path,
        capsys: Out,
    ):
        metrics(past(LLAMA, QWEN))
        settings = Settings()
        log = settings.log.model_copy(update={"record": tmp_path / "r.jsonl", "level": "error"})
        assert recommend(LLAMA, QWEN, watch=True,
                         settings=settings.model_copy(update={"log": log})) == 0  # fmt: skip
        out, err = capsys.readouterr()
        assert (out.count('"name": "llama-8b"'), out.count('"name": "qwen"'), err) == (1, 1, "")
        lines = (tmp_path / "r.jsonl").read_text(encoding="utf-8").splitlines()
        at_s = {entry["name"]: entry["at_s"] for entry in map(json.loads, lines)}
        assert (at_s["llama-8b"] % 60.0, at_s["qwen"] % 30.0) == (0.0, 0.0)

    def test_one_beat_ticks_whoever_is_due(
        self,
        jobs: Mapping[float, Callable[[float], None]],
        metrics: Callable[[MemoryMetrics], None],
        capsys: Out,
    ):
        other = replace(LLAMA, key=ServiceKey("inference", "other"))
        metrics(past(LLAMA, QWEN, other))
        recommend(LLAMA, QWEN, other, watch=True)
        capsys.readouterr()
        assert jobs.keys() == {30.0, 5.0}
        beat = jobs[30.0]
        minute_s = (SystemClock(threading.Event()).now_s() // 60.0 + 1.0) * 60.0
        told: list[list[str]] = []
        for at_s in (minute_s - 29.0, minute_s + 0.2, minute_s + 0.4, minute_s + 30.1):
            beat(at_s)
            out = capsys.readouterr().out
            told.append([row["name"] for row in json.loads(out)] if out else [])
        assert told[1:] == [["llama-8b", "qwen", "other"], [], ["qwen"]]

    def test_a_queue_that_grows_is_told_between_two_ticks(
        self,
        jobs: Mapping[float, Callable[[float], None]],
        metrics: Callable[[MemoryMetrics], None],
        monkeypatch: pytest.MonkeyPatch,
        capsys: Out,
    ):
        metrics(past(LLAMA, waiting_rps=40.0))
        now_s = SystemClock(threading.Event()).now_s()
        monkeypatch.setattr(controller, "SystemClock", lambda _: ManualClock(now_s))
        recommend(LLAMA, watch=True, settings=settings_with(level="info"))
        log = capsys.readouterr().err
        assert log.count("for want of metrics.probe: inference/llama-8b") == 1
        told = []
        for after_s in (15.0, 30.0, 45.0):
            jobs[5.0](now_s // 60.0 * 60.0 + after_s)
            told.append(capsys.readouterr().out)
        assert told[:2] == ["", ""]
        (row,) = json.loads(told[2])
        assert row["name"] == "llama-8b"
        (prefill,) = (p for p in row["pools"] if p["name"] == "prefill")
        assert prefill["desiredReplicas"] > prefill["currentReplicas"] == 1

    def test_a_stop_while_the_past_is_read_prints_nothing(
        self,
        jobs: Mapping[float, Callable[[float], None]],
        metrics: Callable[[MemoryMetrics], None],
        monkeypatch: pytest.MonkeyPatch,
        capsys: Out,
    ):
        asked_to = threading.Event()
        asked_to.set()
        monkeypatch.setattr(controller, "stop_on_signals", lambda: asked_to)
        metrics(past(LLAMA))
        assert recommend(LLAMA, watch=True) == 0
        assert (capsys.readouterr().out, jobs) == ("", {})
