"""A thousand nodes under a hundred switches: what they cost the planner's process and its ticks.

The planner is a process of its own, beside real parts; the nodes are as large as those of a cluster
that has pulled some images.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import pytest
import requests
import yaml

from planner.adapters.clock import Deadline, pause
from tests.cluster.control_plane import ControlPlane
from tests.cluster.controller import (
    Controller,
    Traffic,
    running_controller,
    running_traffic,
    scrapes,
)
from tests.cluster.rest import Manifest, jobs
from tests.cluster.topologies import Topology, eight_nodes, of_size
from tests.cluster.waiting import patience, wait_for
from tests.cluster.workloads import is_ready, pods_of, task, volcano_job
from tests.integration.prometheus_server import prometheus
from tests.loopback import free_port

SCENARIO = Path(__file__).parents[2] / "manifests" / "overlays" / "scenario" / "planner"
JOBS = {"prefill": "pd-prefill-service", "decode": "pd-decode-service"}
NODES, LEAVES = 1000, 100
MOST_MIB, MOST_TICK_S = 100.0, 0.2
REPLICAS = {"prefill": 2, "decode": 4}
IMAGES_A_NODE = 50


@dataclass(frozen=True, slots=True)
class Cost:
    """Memory of the process [MiB], times of its ticks [s], and where it saw its pods."""

    rss_mib: float
    ticks_s: tuple[float, ...]
    domains: frozenset[str]


def with_images(topology: Topology) -> Topology:
    """Return the topology with nodes that tell of the images they hold, as kubelets do."""
    images = [
        {"names": [f"registry/some-model/some-image@sha256:{i:064x}", f"registry/some-image:{i}"],
         "sizeBytes": 10**9 + i}
        for i in range(IMAGES_A_NODE)
    ]  # fmt: skip

    def laden(node: Manifest) -> Manifest:
        return node | {"status": node["status"] | {"images": images}}

    return replace(topology, nodes=tuple(map(laden, topology.nodes)))


def service_file(folder: Path, namespace: str) -> Path:
    document = yaml.safe_load((SCENARIO / "services.yaml").read_text(encoding="utf-8"))
    document["metadata"]["namespace"] = namespace
    document["spec"] |= {"mode": "Act", "interval": "5s"}
    for pool in document["spec"]["pools"]:
        profile = SCENARIO / "inference" / "profiles" / f"{pool['profile']['configMap']}.json"
        pool["profile"] = {"file": str(profile)}
    file = folder / "services.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return file


@contextlib.contextmanager
def served_jobs(plane: ControlPlane, namespace: str) -> Iterator[None]:
    rest = plane.rest
    for pool, name in JOBS.items():
        one = task(f"{pool}-worker", REPLICAS[pool])
        rest.create(jobs(namespace), volcano_job(name, one, tier=2))
    for pool, name in JOBS.items():

        def is_so(name: str = name, count: int = REPLICAS[pool]) -> bool:
            return sum(map(is_ready, pods_of(rest, namespace, name).values())) == count

        wait_for(f"{name} is Ready", is_so, 60.0)
    yield
    for name in JOBS.values():
        rest.delete(jobs(namespace, name))
    for name in JOBS.values():

        def is_gone(name: str = name) -> bool:
            return not pods_of(rest, namespace, name)

        wait_for(f"{name} is gone", is_gone, 30.0)


def tick_times(listen: str, ticks: int) -> tuple[float, ...]:
    """Return how long each of the next ticks takes [s], from what the process tells of itself."""
    deadline, counted, sum_s = Deadline(60.0 + 10.0 * ticks), 0.0, 0.0
    found: list[float] = []
    with requests.Session() as session:
        session.trust_env = False
        while len(found) < ticks:
            assert deadline.left_s() > 0, f"{ticks - len(found)} ticks are missing"
            pause(0.2)
            with contextlib.suppress(requests.ConnectionError):
                text = session.get(f"http://{listen}/metrics", timeout=10).text
                now, now_s = figure(text, "tick_seconds_count"), figure(text, "tick_seconds_sum")
                if now > counted:
                    found.append((now_s - sum_s) / (now - counted))
                    counted, sum_s = now, now_s
    return tuple(found)


def figure(exposition: str, name: str) -> float:
    lines = [line for line in exposition.splitlines() if line.startswith(f"pd_planner_{name}{{")]
    return float(lines[0].split()[-1]) if lines else 0.0


def cost_of(plane: ControlPlane, folder: Path, file: Path, url: str, ticks: int) -> Cost:
    listen = f"127.0.0.1:{free_port()}"
    controller = Controller(folder, [file], plane.kubeconfig, url, "--listen", listen)
    with running_controller(controller):
        # The first is over a past that is read once.
        _, *took_s = tick_times(listen, ticks + 1)
        domains = {
            pool["domain"]
            for record in controller.records()[1:]
            for pool in record["pools"].values()
        }
        return Cost(controller.rss_mib(), tuple(took_s), frozenset(domains))


@pytest.mark.slow
def test_a_thousand_nodes_cost_little(
    own_control_plane: ControlPlane,
    own_namespace: str,
    prometheus_binary: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    plane, file = own_control_plane, service_file(tmp_path, own_namespace)
    with contextlib.ExitStack() as opened:
        plane.lay_out(eight_nodes())
        with served_jobs(plane, own_namespace):
            few = Traffic(tmp_path, file, plane.kubeconfig, "--rps", "0s=15", "--lasts", "10m")
            opened.enter_context(running_traffic(few))
            url = opened.enter_context(
                prometheus(prometheus_binary, tmp_path, config=scrapes(tmp_path))
            ).url
            without = cost_of(plane, tmp_path / "without", file, url, ticks=4)
        plane.lay_out(with_images(of_size(NODES, LEAVES)))
        with served_jobs(plane, own_namespace):
            with_them = cost_of(plane, tmp_path / "with", file, url, ticks=7)
    more_mib = with_them.rss_mib - without.rss_mib
    with capsys.disabled():
        print(
            f"\n{NODES} nodes, {len(of_size(NODES, LEAVES).hyper_nodes)} HyperNodes: "
            f"{with_them.rss_mib:.0f} MiB, {more_mib:+.0f} MiB; a tick takes "
            f"{1e3 * median(with_them.ticks_s):.0f} ms ({1e3 * median(without.ticks_s):.0f} of 8)"
        )
    assert {domain[:5] for domain in with_them.domains} == {"spine"}
    assert more_mib <= MOST_MIB
    assert median(with_them.ticks_s) <= MOST_TICK_S * patience()
