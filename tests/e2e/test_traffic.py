"""The simulated servers of a cluster without GPUs: they are there when their pods are, not else."""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests

from planner.adapters.kubernetes.objects import DRAIN_ANNOTATION
from planner.model import Signal
from planner.simulation.traces import make_trace
from planner.spec.service import LoadedService, load_services
from tests.cluster.control_plane import ControlPlane
from tests.cluster.rest import core, jobs
from tests.cluster.simulated_servers import SeenPod, SimulatedServers, quickened, ramp
from tests.cluster.topologies import eight_nodes
from tests.cluster.traffic import rate_points
from tests.cluster.waiting import wait_for
from tests.cluster.workloads import READY_AFTER, pod_template, task, volcano_job

ROOT = Path(__file__).parents[2]
PLANNER = ROOT / "manifests" / "overlays" / "scenario" / "planner"


def profile_of(_: str, name: str) -> dict[str, str]:
    path = PLANNER / "inference" / "profiles" / f"{name}.json"
    return {"profile.json": path.read_text(encoding="utf-8")}


@pytest.fixture(scope="module")
def loaded() -> LoadedService:
    (found,) = load_services([PLANNER / "services.yaml"], config_maps=profile_of)
    return found


@pytest.fixture
def servers(loaded: LoadedService) -> SimulatedServers:
    # Often enough that one prefill server alone is still busy when the next prompt comes.
    every_30_ms = np.arange(0.0, 60.0, 0.03)
    return SimulatedServers(loaded, make_trace("steady", every_30_ms, 1000, 10))


def pod(name: str, *, serves: bool = True) -> SeenPod:
    return SeenPod(uid=f"uid of {name}", name=name, pool=name.partition("-")[0], serves=serves)


P0, P1, D0 = pod("prefill-0"), pod("prefill-1"), pod("decode-0")


def prompts(servers: SimulatedServers, at_s: float) -> dict[str, float]:
    shown = servers.scrape(at_s)["prefill"]
    return {sample.pod: sample.histograms[Signal.PROMPT_TOKENS].count for sample in shown}


# ── who is seen ──────────────────────────────────────────────────────────────────────────────────


def test_a_pod_that_is_not_ready_shows_nothing_and_gets_nothing(servers):
    servers.follow([P0, pod("prefill-1", serves=False), D0], 0.0)
    assert prompts(servers, 10.0).keys() == {"prefill-0"}
    assert servers.serving == {"prefill": 1, "decode": 1}


def test_requests_wait_for_a_role_without_pods(servers):
    servers.follow([P0], 0.0)
    assert not servers.could_begin()
    servers.follow([P0, D0], 1.0)
    assert servers.could_begin()


def test_every_request_is_counted_once(servers):
    servers.follow([P0, P1, D0], 0.0)
    assert sum(prompts(servers, 30.0).values()) == pytest.approx(1000, abs=5)


def test_what_one_has_done_before_it_left_is_not_lost(servers):
    servers.follow([P0, P1, D0], 0.0)
    servers.follow([P0, pod("prefill-1", serves=False), D0], 10.0)
    servers.follow([P0, pod("prefill-1", serves=False), D0, pod("prefill-2")], 11.0)
    assert sum(prompts(servers, 30.0).values()) == pytest.approx(1000, abs=5)


def test_one_that_is_asked_to_leave_ends_what_it_has_and_gets_nothing_new(servers):
    servers.follow([P0, P1, D0], 0.0)
    servers.follow([P0, pod("prefill-1", serves=False), D0], 10.0)
    shortly_after, later = prompts(servers, 12.0), prompts(servers, 30.0)
    assert shortly_after["prefill-1"] == later["prefill-1"] > 0
    assert later["prefill-0"] > shortly_after["prefill-0"]


def test_one_that_is_gone_shows_nothing_more(servers):
    servers.follow([P0, P1, D0], 0.0)
    servers.follow([P0, D0], 10.0)
    assert prompts(servers, 11.0).keys() == {"prefill-0"}


def test_any_pod_may_go_not_only_the_youngest(servers):
    servers.follow([P0, P1, D0], 0.0)
    before = prompts(servers, 10.0)
    servers.follow([P1, D0], 10.0)
    after = prompts(servers, 12.0)
    assert after.keys() == {"prefill-1"}
    assert after["prefill-1"] > before["prefill-1"] + 40


def test_one_that_may_stay_after_all_counts_from_zero(servers):
    servers.follow([P0, P1, D0], 0.0)
    before = prompts(servers, 10.0)["prefill-1"]
    servers.follow([P0, pod("prefill-1", serves=False), D0], 10.0)
    servers.follow([P0, P1, D0], 12.0)
    assert prompts(servers, 12.5)["prefill-1"] < before


def test_a_new_pod_of_the_same_name_counts_from_zero(servers):
    servers.follow([P0, P1, D0], 0.0)
    before = prompts(servers, 10.0)["prefill-1"]
    servers.follow([P0, SeenPod("another uid", "prefill-1", "prefill", serves=True), D0], 10.0)
    assert prompts(servers, 10.5)["prefill-1"] < before


def test_too_few_servers_miss_the_sla_and_more_meet_it(loaded):
    trace = make_trace("heavy", np.arange(0.0, 60.0, 1 / 60), 1000, 100)
    servers = SimulatedServers(loaded, trace)
    servers.follow([P0, *(pod(f"decode-{i}") for i in range(9))], 0.0)
    few = servers.attained(20.0, 10.0)["ttft"]
    servers.follow([*(pod(f"prefill-{i}") for i in range(6)), *servers_of_decode(9)], 20.0)
    assert few < 0.1
    assert servers.attained(60.0, 50.0)["ttft"] > 0.95


def servers_of_decode(count: int) -> list[SeenPod]:
    return [pod(f"decode-{i}") for i in range(count)]


# ── the load ─────────────────────────────────────────────────────────────────────────────────────

LENGTHS = make_trace("two lengths", [0.0, 1.0], [100, 200], [10, 20])


def arrivals_between(trace, low_s: float, high_s: float) -> int:
    return int(((trace.arrival_s >= low_s) & (trace.arrival_s < high_s)).sum())


def test_a_ramp_goes_in_straight_lines_and_holds_its_last_rate():
    trace = ramp({0.0: 0.0, 100.0: 100.0, 200.0: 100.0}, 300.0, LENGTHS)
    assert arrivals_between(trace, 0, 100) == pytest.approx(5_000, rel=0.05)
    assert arrivals_between(trace, 45, 55) == pytest.approx(500, rel=0.15)
    assert arrivals_between(trace, 200, 300) == pytest.approx(10_000, rel=0.05)
    assert set(zip(trace.isl_tokens.tolist(), trace.osl_tokens.tolist(), strict=True)) == {
        (100, 10),
        (200, 20),
    }


@pytest.mark.parametrize("speed", [1.0, 2.0, 2.5])
def test_a_quicker_trace_is_as_dense_and_shorter(speed):
    trace = make_trace("even", np.arange(0.0, 100.0, 0.1), 100, 10)
    played = quickened(trace, speed)
    assert played.duration_s == pytest.approx(100.0 / speed, rel=0.01)
    assert len(played) / played.duration_s == pytest.approx(10.0, rel=0.01)


def test_rate_points_are_read_as_written():
    assert rate_points("0s=5, 10m=60") == {0.0: 5.0, 600.0: 60.0}


@pytest.mark.parametrize("text", ["", "5", "1m=x", "1m=-1", "5m=1,1m=2", "soon=1"])
def test_rate_points_that_make_no_sense_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError):
        rate_points(text)


# ── the command, on the real API server ──────────────────────────────────────────────────────────


@pytest.fixture
def traffic(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> Iterator[subprocess.Popen[str]]:
    for name in ("llama-8b-h100", "llama-8b-rtx4090"):
        config_map = {"metadata": {"name": name}, "data": profile_of("", name)}
        control_plane.rest.create(core(namespace, "configmaps"), config_map)
    command = [
        *(sys.executable, "-m", "tests.cluster.traffic"),
        *("-f", str(PLANNER / "services.yaml"), "--namespace", namespace),
        *("--kubeconfig", str(control_plane.kubeconfig), "--listen", "127.0.0.1:0"),
        *("--rps", "0s=20", "--lasts", "5m", "--target-file", str(tmp_path / "targets.json")),
    ]
    environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=log, text=True
        )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def test_the_command_follows_the_jobs_and_ends_at_sigterm(
    control_plane, namespace, traffic, tmp_path
):
    control_plane.lay_out(eight_nodes())
    rest, named = control_plane.rest, tmp_path / "targets.json"
    slow = pod_template(annotations={READY_AFTER: "2s"})
    rest.create(jobs(namespace), volcano_job("pd-prefill-service", task("prefill-worker", 2)))
    decode = volcano_job("pd-decode-service", task("decode-worker", 1, template=slow))
    rest.create(jobs(namespace), decode)
    wait_for("it serves", lambda: traffic.poll() is not None or named.exists(), 60.0)
    assert traffic.poll() is None, (tmp_path / "log").read_text(encoding="utf-8")
    (group,) = json.loads(named.read_text(encoding="utf-8"))
    url = f"http://{group['targets'][0]}"

    def status() -> dict[str, object]:
        with requests.Session() as session:
            session.trust_env = False
            found: dict[str, object] = session.get(f"{url}/status", timeout=10).json()
            return found

    wait_for("all serve", lambda: status()["serving"] == {"prefill": 2, "decode": 1}, 30.0)
    wait_for("requests came", lambda: status()["at_s"] > 2.0, 30.0)
    with requests.Session() as session:
        session.trust_env = False
        shown = session.get(f"{url}/metrics", timeout=10).text
    for name in ("pd-prefill-service-prefill-worker-1", "pd-decode-service-decode-worker-0"):
        assert f'namespace="{namespace}",model_name="llama-8b",pod="{name}"' in shown
    marked = {"metadata": {"annotations": {DRAIN_ANNOTATION: "2026-01-01T00:00:00Z"}}}
    rest.patch(core(namespace, "pods", "pd-prefill-service-prefill-worker-1"), marked)
    wait_for("it is drained", lambda: status()["serving"] == {"prefill": 1, "decode": 1}, 30.0)
    traffic.send_signal(signal.SIGTERM)
    assert traffic.wait(timeout=20) == 0
    assert not named.exists()
