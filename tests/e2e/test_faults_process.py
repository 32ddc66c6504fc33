"""`pd-planner run` as a process: killed at any moment, blind for a while, and itself again."""

import contextlib
import json
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from planner.adapters.clock import SystemClock, pause, stopwatch_s
from planner.model import Role
from planner.spec.service import load_services
from tests.cluster.control_plane import ControlPlane
from tests.cluster.controller import Controller, running_controller
from tests.cluster.gate import gate
from tests.cluster.history import History, breaches, recorded
from tests.cluster.pilot import BUSY, NEEDED, QUIET, RUSH, place, wait_ready
from tests.cluster.processes import Process
from tests.cluster.scripted_servers import ScriptedServers, served
from tests.cluster.topologies import eight_nodes
from tests.cluster.waiting import patience, wait_for
from tests.loopback import free_port

PROFILE = Path(__file__).parents[2] / "profiles" / "data" / "llama-3.1-8b-fp8-h200.json"
INTERVAL_S, DRAIN_S, WINDOW_S, FALLBACK_S = 5.0, 4.0, 10.0, 10.0
CEILING = 8
FALLBACK = {"prefill": 4, "decode": 3}
BOUNDS = {f"pd-{role}": (1, CEILING) for role in Role}
# What the heaviest load needs, and one for a step that was seen in part: more is scaled twice.
NOT_TWICE = {f"pd-{name}": (1, count + 1) for name, count in NEEDED[RUSH].items()}

KILLS, SEED = 20, 20261122
# How a life of the planner ends: at the first count written, at the first mark, at any moment.
ROUND = ("write", "moment", "moment", "mark", "moment", "moment")
LONGEST_LIFE_S, MOMENT_S = 25.0, (0.3, 5.0)

now_s = SystemClock(threading.Event()).now_s


def spec(namespace: str) -> dict[str, object]:
    pools = [
        {
            "name": role,
            "role": role.capitalize(),
            "scaleTargetRef": {
                "apiVersion": "batch.volcano.sh/v1alpha1",
                "kind": "Job",
                "name": f"pd-{role}",
                "task": f"{role}-worker",
            },
            "profile": {"file": str(PROFILE)},
            "maxReplicas": CEILING,
            "gpuType": "h200",
            "startup": "5s",
            "drain": f"{DRAIN_S:g}s",
        }
        for role in Role
    ]
    return {
        "apiVersion": "pd-planner.io/v1alpha1",
        "kind": "PDAutoscaler",
        "metadata": {"name": "llama", "namespace": namespace},
        "spec": {
            "mode": "Act",
            "interval": f"{INTERVAL_S:g}s",
            # Means: the steps of a scripted load are no uncertainty to be provided for.
            "sla": {"ttft": "500ms", "itl": "30ms", "statistic": "Mean"},
            "metrics": {"source": "vllm", "selector": {"model_name": "llama"}},
            "forecast": {"predictor": "LastValue"},
            "fallback": {"after": f"{FALLBACK_S:g}s", **FALLBACK},
            "behavior": {
                "scaleDown": {"stabilizationWindowSeconds": int(WINDOW_S), "tolerance": "0"}
            },
            "pools": pools,
        },
    }


class Prometheus:
    """A real one that can be killed and started again at the same address."""

    def __init__(self, binary: Path, folder: Path, target: str) -> None:
        folder.mkdir()
        config = {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [{"job_name": "pods", "static_configs": [{"targets": [target]}]}],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [
            str(binary),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        self._process = Process("prometheus", command, folder / "prometheus.log")

    def start(self) -> None:
        self._process.start()
        wait_for("Prometheus is ready", self._is_ready, 60.0)

    def kill(self) -> None:
        self._process.kill()

    def _is_ready(self) -> bool:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"{self.url}/-/ready", timeout=5).ok


@dataclass
class World:
    """A namespace with both Jobs under a load, its history, and a planner that is not started."""

    namespace: str
    history: History
    planner: Controller


class Worlds:
    """Makes worlds that share one load and one Prometheus."""

    def __init__(self, plane: ControlPlane, folder: Path, prometheus: Path) -> None:
        self.plane, self._folder = plane, folder
        self._binary = prometheus
        self.rps = QUIET

    @contextlib.contextmanager
    def made(self, *names: str) -> Iterator[list[World]]:
        # A world a name, with metrics of a quiet load already there.
        self.plane.lay_out(eight_nodes())
        with contextlib.ExitStack() as opened:
            spaces = {name: opened.enter_context(self._space()) for name in names}
            histories = {
                name: opened.enter_context(recorded(self.plane, space, now_s))
                for name, space in spaces.items()
            }
            services = []
            for name, space in spaces.items():
                file = self._folder / f"{name}.yaml"
                file.write_text(json.dumps(spec(space)), encoding="utf-8")
                (loaded,) = load_services([file])
                services.append((loaded.service, histories[name]))
            servers = ScriptedServers(services, lambda: self.rps, now_s)
            target = opened.enter_context(served(servers))
            self.prometheus = Prometheus(self._binary, self._folder / "prometheus", target)
            opened.callback(self.prometheus.kill)
            self.prometheus.start()
            wait_for("metrics of both pools are there", self._is_scraped, 60.0)
            planners = {name: self._planner(name) for name in names}
            for planner in planners.values():
                opened.callback(planner.kill)
            yield [World(spaces[name], histories[name], planners[name]) for name in names]

    @contextlib.contextmanager
    def _space(self) -> Iterator[str]:
        name = self.plane.add_namespace()
        try:
            place(self.plane, name)
            wait_ready(self.plane.rest, name, QUIET)
            yield name
        finally:
            self.plane.remove_namespace(name)

    def _planner(self, name: str) -> Controller:
        return Controller(
            self._folder / name,
            [self._folder / f"{name}.yaml"],
            self.plane.kubeconfig,
            self.prometheus.url,
        )

    def _is_scraped(self) -> bool:
        query = {"query": 'count(count_over_time({__name__=~"vllm:.*_tokens_count"}[10s]) > 1)'}
        with requests.Session() as session:
            session.trust_env = False
            url = f"{self.prometheus.url}/api/v1/query"
            return bool(session.get(url, params=query, timeout=5).json()["data"]["result"])


@pytest.fixture
def worlds(own_control_plane: ControlPlane, prometheus_binary: Path, tmp_path: Path) -> Worlds:
    return Worlds(own_control_plane, tmp_path, prometheus_binary)


def last_counts(world: World) -> dict[str, int]:
    return {name: counts[-1] for name, counts in world.history.all_counts().items()}


def needed(rps: float) -> dict[str, int]:
    return {f"pd-{name}": count for name, count in NEEDED[rps].items()}


def wait_settled(world: World, rps: float) -> None:
    """Wait until what a load needs is there and no pod is marked."""

    def is_settled() -> bool:
        assert world.planner.is_running(), world.planner.log()
        return last_counts(world) == needed(rps) and not world.history.marks()

    wait_for(f"{needed(rps)} and no marks", is_settled, 60.0)


def test_killed_twenty_times_it_never_does_harm_and_ends_as_if_undisturbed(worlds: Worlds):
    dice = random.Random(SEED)
    with worlds.made("disturbed", "undisturbed") as (disturbed, undisturbed):
        undisturbed.planner.start()
        took_s = stopwatch_s()
        for number in range(KILLS):
            end = ROUND[number % len(ROUND)]
            loads = {"write": (RUSH,), "mark": (QUIET,), "moment": (worlds.rps, worlds.rps, BUSY)}
            worlds.rps = dice.choice(loads[end])
            disturbed.planner.start()
            wait_for_end(disturbed, end, dice.uniform(*MOMENT_S))
            disturbed.planner.kill()
        print(f"{KILLS} kills within {took_s():.0f} s: {disturbed.history.all_counts()}")
        worlds.rps = BUSY
        with running_controller(disturbed.planner):
            wait_settled(disturbed, BUSY)
            wait_settled(undisturbed, BUSY)
        for world in (disturbed, undisturbed):
            assert breaches(world.history, NOT_TWICE, DRAIN_S) == []


def wait_for_end(world: World, end: str, moment_s: float) -> None:
    """Let a life go on until it is to end; the end comes a moment after what it waits for."""
    history = world.history
    if end == "moment":
        pause(moment_s)
        return
    look = {"mark": history.marks, "write": lambda: history.changes}[end]
    before, life_s = look(), stopwatch_s()
    while look() == before:
        assert world.planner.is_running(), world.planner.log()
        assert life_s() < LONGEST_LIFE_S * patience(), f"no {end} in {life_s():.0f} s"
        pause(0.002)


def test_killed_within_an_order_and_within_a_drain_it_goes_on_where_it_was(worlds: Worlds):
    with worlds.made("story") as (world,):
        worlds.rps = BUSY
        kill_between_two_writes(worlds, world)
        written = world.history.all_counts()
        assert written["pd-prefill"][-1] > 1
        assert written["pd-decode"] == [1]
        with running_controller(world.planner):
            wait_settled(world, BUSY)
            worlds.rps = QUIET
            wait_for("pods are marked", world.history.marks, 60.0)
        # The load is back before anybody looks again: the marks are taken off.
        worlds.rps = BUSY
        # The first look is over the last whole interval: no part of it may be of the low load.
        pause(2.0 * INTERVAL_S)
        with running_controller(world.planner):
            wait_for("the marks are off", lambda: not world.history.marks(), 60.0)
            assert not world.history.decreases()
            wait_settled(world, BUSY)
            worlds.rps = QUIET
            marks = wait_for("pods are marked again", world.history.marks, 60.0)
        # The load stays away: the drain goes on with the deadlines that were set.
        with running_controller(world.planner):
            wait_settled(world, QUIET)
        last = {seen.name: seen.drain_until_s for seen in world.history.pods if seen.is_gone}
        assert {name: last[name] for name in marks} == marks
        assert breaches(world.history, NOT_TWICE, DRAIN_S) == []


def kill_between_two_writes(worlds: Worlds, world: World) -> None:
    """Kill the planner when one Job of an order is written and the other is on its way."""
    arrived, may_go_on = threading.Event(), threading.Event()

    def judge(job: str, *_: int) -> str | None:
        if job != "pd-decode":
            return None
        arrived.set()
        may_go_on.wait(60.0)
        return "whoever asked is dead"

    with gate(worlds.plane, world.namespace, judge, "pd-decode"):
        with running_controller(world.planner):
            assert arrived.wait(60.0 * patience())
        may_go_on.set()


def test_without_prometheus_it_holds_rises_to_the_fallback_and_comes_back(worlds: Worlds):
    with worlds.made("blind") as (world,):
        worlds.rps = BUSY
        with running_controller(world.planner):
            wait_settled(world, BUSY)
            worlds.prometheus.kill()
            since_s = now_s()
            worlds.rps = QUIET
            # The tick under way may have read just before; the one after it has not.
            *_, held = world.planner.wait_for_records(2)
            assert held["hold"]["reason"]["code"] == "MetricsUnavailable"
            assert last_counts(world) == needed(BUSY)
            world.planner.kill()
            world.planner.start()
            fallback = {f"pd-{name}": count for name, count in FALLBACK.items()}
            wait_for("the fallback is there", lambda: last_counts(world) == fallback, 60.0)
            worlds.prometheus.start()
            until_s = now_s()
            wait_settled(world, QUIET)
        blind = [(since_s, until_s)]
        assert breaches(world.history, BOUNDS, DRAIN_S, blind) == []
        # A tick that sees the load begin within its interval orders for a part of it first.
        counts, busy = world.history.all_counts(), needed(BUSY)
        for job, seen in counts.items():
            assert seen[: seen.index(busy[job]) + 1] in ([1, busy[job]], [1, 2, busy[job]])
        after = {job: seen[seen.index(busy[job]) :] for job, seen in counts.items()}
        assert after == {"pd-prefill": [3, 4, 1], "pd-decode": [2, 3, 1]}
