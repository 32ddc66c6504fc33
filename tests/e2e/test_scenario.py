"""The scenario, node for node: a load ramp goes up and down, and both Jobs follow it.

One story is played once, with everything real but containers and GPUs; the tests ask what was seen.
"""

import contextlib
import json
import os
import signal
import statistics
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from planner.adapters.clock import Deadline, pause
from tests.cluster.control_plane import ControlPlane
from tests.cluster.controller import (
    Controller,
    Record,
    Traffic,
    running_controller,
    running_traffic,
    scrapes,
    shipped_kubeconfig,
)
from tests.cluster.history import followed
from tests.cluster.rest import Manifest, core, jobs
from tests.cluster.topologies import H100_NODES, RTX4090_NODES, seven_switches
from tests.cluster.waiting import patience, wait_for
from tests.cluster.workloads import GONE_AFTER, JOB_NAME, READY_AFTER, is_ready, node_of, pods_of
from tests.integration.prometheus_server import prometheus

SCENARIO = Path(__file__).parents[2] / "manifests" / "overlays" / "scenario"
SERVICES = SCENARIO / "planner" / "services.yaml"
NAMESPACE = "inference"
JOBS = {"prefill": "pd-prefill-service", "decode": "pd-decode-service"}
POOLS = {job: pool for pool, job in JOBS.items()}
GPU_NODES = {"prefill": H100_NODES, "decode": RTX4090_NODES}
DRAIN_MARK = "pd-planner.io/drain-until"

# Everything is quicker than in production, in the same proportions.
STARTUP_S, READY_S, DRAIN_S, WINDOW_S = 15.0, 4.0, 2.0, 10.0
# Requests/s in straight lines through these points [s].
LOAD = {0: 15, 28: 15, 60: 60, 78: 60, 86: 15}
PLATEAU_S, END_S = 78.0, 114.0
LOOK_EVERY_S = 0.3
# From a pod's creation to its node, where there is room [s]: the API tells whole seconds.
SCHEDULING_S = 4.0


@dataclass
class Story:
    """What was seen from outside while the load came and went; times from its start [s]."""

    replicas: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    pods: dict[str, Manifest] = field(default_factory=dict)
    pool_of: dict[str, str] = field(default_factory=dict)
    jobs: dict[str, list[Manifest]] = field(default_factory=dict)
    served: list[tuple[float, Mapping[str, Any]]] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    events: list[Manifest] = field(default_factory=list)
    ends: dict[signal.Signals, tuple[int, float]] = field(default_factory=dict)

    def take_pod(self, event: Manifest) -> None:
        """Take in a change of a pod; of every pod that ever was, its last state stays."""
        pod = event["object"]
        name = pod["metadata"].get("labels", {}).get(JOB_NAME)
        if name in POOLS:
            self.pool_of[pod["metadata"]["uid"]] = POOLS[name]
            self.pods[pod["metadata"]["uid"]] = pod

    def look(self, plane: ControlPlane, at_s: float) -> None:
        """Take in the Jobs."""
        for pool, name in JOBS.items():
            job = plane.rest.get(jobs(NAMESPACE, name))
            replicas = job["spec"]["tasks"][0]["replicas"]
            told = self.replicas.setdefault(pool, [])
            if not told or told[-1][1] != replicas:
                told.append((at_s, replicas))
            self.jobs.setdefault(pool, []).append(job)

    def at(self, pool: str, at_s: float) -> int:
        """Return the replicas that a pool had at a time."""
        return [count for since_s, count in self.replicas[pool] if since_s <= at_s][-1]

    def lowest(self, pool: str, from_s: float, to_s: float) -> int:
        within = [count for at_s, count in self.replicas[pool] if from_s < at_s <= to_s]
        return min(self.at(pool, from_s), *within)

    def pods_in(self, pool: str) -> list[Manifest]:
        return [pod for uid, pod in list(self.pods.items()) if self.pool_of[uid] == pool]


def when_s(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def condition_s(pod: Manifest, kind: str) -> float | None:
    """Return since when a condition of a pod is true [s, Unix], None if it is not."""
    for one in pod.get("status", {}).get("conditions") or ():
        if one["type"] == kind and one["status"] == "True":
            return when_s(one["lastTransitionTime"])
    return None


def created_s(pod: Manifest) -> float:
    return when_s(pod["metadata"]["creationTimestamp"])


def quick_scenario(folder: Path) -> Path:
    """Write an overlay of the shipped one whose simulated engines start and end quickly."""
    place = folder / "quick"
    place.mkdir()
    pace = {READY_AFTER: f"{READY_S:g}s", GONE_AFTER: "1s"}
    annotations = {"op": "add", "path": "/spec/tasks/0/template/metadata/annotations"}
    overlay = {
        "resources": [os.path.relpath(SCENARIO, place)],
        "patches": [
            {"target": {"kind": "Job"}, "patch": json.dumps([annotations | {"value": pace}])}
        ],
        "sortOptions": {"order": "fifo"},
    }
    (place / "kustomization.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    return place


def quick_service(folder: Path) -> Path:
    """Write the shipped PDAutoscaler in mode Act and at the pace of the overlay."""
    document = yaml.safe_load(SERVICES.read_text(encoding="utf-8"))
    spec = document["spec"]
    spec |= {"mode": "Act", "interval": "5s"}
    spec["behavior"] = {"scaleDown": {"stabilizationWindowSeconds": int(WINDOW_S)}}
    for pool in spec["pools"]:
        pool |= {"startup": f"{STARTUP_S:g}s", "drain": f"{DRAIN_S:g}s"}
    file = folder / "services.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return file


def apply(plane: ControlPlane, overlay: Path, folder: Path) -> None:
    done = subprocess.run(
        [
            *(plane.site.binaries / "kubectl", f"--cache-dir={folder / 'kubectl'}"),
            *("apply", "--server-side", "-k", str(overlay)),
        ],
        env={"KUBECONFIG": str(plane.kubeconfig), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def story(
    own_control_plane: ControlPlane, prometheus_binary: Path, tmp_path_factory: Any
) -> Iterator[Story]:
    # Namespaces have fixed names here, so that the control plane is this module's own.
    folder, plane = tmp_path_factory.mktemp("story"), own_control_plane
    plane.lay_out(seven_switches())
    apply(plane, quick_scenario(folder), folder)
    wait_for("the first pods are Ready", lambda: all(ready(plane, p) == 12 for p in JOBS), 60.0)
    file = quick_service(folder)
    load = ",".join(f"{at}s={rate}" for at, rate in LOAD.items())
    with contextlib.ExitStack() as opened:
        traffic = Traffic(folder, file, plane.kubeconfig, "--rps", load, "--lasts", "5m")
        opened.enter_context(running_traffic(traffic))
        server = opened.enter_context(prometheus(prometheus_binary, folder, config=scrapes(folder)))
        account = shipped_kubeconfig(plane, folder)
        controller = Controller(folder / "planner", [file], account, server.url)
        opened.enter_context(running_controller(controller))
        seen = Story()
        # A pod is gone a second after it is told to: to look now and then would miss its mark.
        opened.enter_context(followed(plane, {core(NAMESPACE, "pods"): seen.take_pod}))
        watch(plane, controller, traffic, seen)
        seen.ends[signal.SIGTERM] = controller.stop(signal.SIGTERM)
        seen.look(plane, END_S)
        seen.records = controller.records()
        seen.events = plane.rest.items(core(NAMESPACE, "events"))
        controller.start()
        controller.wait_for_records(1)
        seen.ends[signal.SIGINT] = controller.stop(signal.SIGINT)
        yield seen
    for name in JOBS.values():
        plane.rest.delete(jobs(NAMESPACE, name))


def ready(plane: ControlPlane, pool: str) -> int:
    return sum(map(is_ready, pods_of(plane.rest, NAMESPACE, JOBS[pool]).values()))


def watch(plane: ControlPlane, controller: Controller, traffic: Traffic, seen: Story) -> None:
    """Look on until the load has come and gone."""
    deadline = Deadline(END_S + 60.0)
    while (at_s := traffic.status()["at_s"]) < END_S:
        assert controller.is_running(), controller.log()[-2000:]
        assert deadline.left_s() > 0, f"the load has come to {at_s} s only"
        seen.look(plane, at_s)
        seen.served.append((at_s, traffic.status()))
        pause(LOOK_EVERY_S)


@pytest.mark.parametrize("pool", JOBS)
def test_the_replicas_follow_the_load_down_up_and_down(story, pool):
    quiet = story.lowest(pool, 0.0, 45.0)
    busy = story.at(pool, PLATEAU_S)
    back = story.at(pool, END_S)
    assert quiet < 12
    assert busy >= 1.5 * quiet
    assert back <= 0.75 * busy


def test_the_requests_meet_the_sla(story):
    _, last = story.served[-1]
    # From the end of the rise on. The rise itself comes upon a forecast of some ten samples.
    assert last["last_minute"]["arrived"] > 1500
    assert last["last_minute"]["both"] >= 0.97
    assert last["since_start"]["both"] >= 0.85


@pytest.mark.parametrize("pool", JOBS)
def test_no_pod_was_ever_outside_the_domain_or_on_other_gpus(story, pool):
    allowed = {f"node{i}" for i in GPU_NODES[pool]}
    nodes = {node_of(pod) for pod in story.pods_in(pool)} - {""}
    assert nodes
    assert nodes <= allowed
    domains = {r["pools"][pool]["domain"] for r in story.records if r["pools"]}
    assert domains == {"ib-switch4"}


@pytest.mark.parametrize("pool", JOBS)
def test_no_job_was_restarted(story, pool):
    for job in story.jobs[pool]:
        assert job["status"]["state"]["phase"] == "Running"
        assert not {"version", "retryCount"} & job["status"].keys()
    # Those that no scale-down reached are the first ones still.
    floor = min(count for _, count in story.replicas[pool])
    lives: dict[str, set[str]] = {}
    for pod in story.pods_in(pool):
        lives.setdefault(pod["metadata"]["name"], set()).add(pod["metadata"]["uid"])
    kept = [f"{JOBS[pool]}-{pool}-worker-{i}" for i in range(floor)]
    assert {name: len(lives[name]) for name in kept} == dict.fromkeys(kept, 1)


@pytest.mark.parametrize("pool", JOBS)
def test_no_pod_waited_for_a_node(story, pool):
    for pod in story.pods_in(pool):
        bound_s = condition_s(pod, "PodScheduled")
        assert bound_s is not None, pod["metadata"]["name"]
        assert bound_s - created_s(pod) <= SCHEDULING_S * patience()


@pytest.mark.parametrize("pool", JOBS)
def test_every_pod_that_left_was_marked_long_enough_before(story, pool):
    left = [pod for pod in story.pods_in(pool) if "deletionTimestamp" in pod["metadata"]]
    assert len(left) >= 8
    for pod in left:
        meta = pod["metadata"]
        asked_s = when_s(meta["deletionTimestamp"]) - meta["deletionGracePeriodSeconds"]
        mark = meta.get("annotations", {}).get(DRAIN_MARK)
        assert mark is not None, f"{meta['name']} left without a mark"
        # The API's times are whole seconds.
        assert when_s(mark) <= asked_s + 1.0


@pytest.mark.parametrize("pool", JOBS)
def test_one_event_a_change(story, pool):
    written = [
        record["patch"]["replicas"][pool]
        for record in story.records
        if record["applied"] and pool in record["patch"]["replicas"]
    ]
    told = sorted(
        (event["firstTimestamp"], event["message"])
        for event in story.events
        if event["reason"] == "SuccessfulRescale"
        and event["involvedObject"]["name"] == JOBS[pool]
        and event["source"]["component"] == "pd-planner"
    )
    sizes = [int(message.partition("New size: ")[2].partition(";")[0]) for _, message in told]
    assert sizes == written == [count for _, count in story.replicas[pool][1:]]


def test_every_record_explains_itself(story):
    for record in story.records:
        assert record["sentence"]
        assert not record["error"]
        moved = [name for name, p in record["pools"].items() if p["desired"] != p["current"]]
        for name in moved:
            pool = record["pools"][name]
            assert f"{name} {pool['current']}→{pool['desired']}" in record["sentence"]
            assert record["observation"]["arrivals_rps"] > 0.0
            assert record["load"] is not None
            assert record["plan"]["pools"][name]["up"] > 0


def test_the_load_that_was_seen_is_the_load_that_came(story):
    # Also right after a scale-down, when most of the pods that were scraped are gone.
    seen = [r["observation"]["arrivals_rps"] for r in story.records if r.get("observation")]
    assert len(seen) >= 8
    assert max(seen) <= 1.4 * max(LOAD.values())
    assert max(seen) >= 0.7 * max(LOAD.values())


@pytest.mark.parametrize("pool", JOBS)
def test_the_lead_time_is_measured_from_pods(story, pool):
    taken = [
        ready_s - created_s(pod)
        for pod in story.pods_in(pool)
        if (ready_s := condition_s(pod, "Ready")) is not None
    ]
    assert min(taken) >= READY_S
    # The spec's guess counts as two starts beside the last eight that exist.
    expected_s = [STARTUP_S] * 2 + [statistics.mean(taken)] * 8
    lead_s = statistics.mean(expected_s) + statistics.pstdev(expected_s)
    measured = [r["pools"][pool]["lead_s"] for r in story.records if r["pools"]]
    assert measured[0] == pytest.approx(lead_s, abs=1.5)


def test_it_ends_at_once_when_told_to(story):
    for number, (status, took_s) in story.ends.items():
        assert status == 0, number
        assert took_s < 3.0 * patience()
