"""The real `pd-planner run`, and traffic for it, as processes beside a test's control plane."""

import contextlib
import json
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import requests

from planner.adapters.clock import stopwatch_s
from tests.cluster.certificates import write_kubeconfig
from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import Process
from tests.cluster.rest import core
from tests.cluster.waiting import wait_for

Record = dict[str, Any]

# What the scenario's overlay installs.
NAMESPACE, ACCOUNT = "pd-planner", "pd-planner"
START_S = 60.0


class Controller:
    """`pd-planner run` on some files; it dies with this Python process.

    Parameters
    ----------
    folder
        Its record, its log and its HOME.
    files
        PDAutoscalers.
    kubeconfig, prometheus_url
        Where it reads and writes.
    more
        Further arguments.
    """

    def __init__(
        self,
        folder: Path,
        files: Sequence[Path],
        kubeconfig: Path,
        prometheus_url: str,
        *more: str,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.record_file = folder / "records.jsonl"
        command = [
            str(Path(sys.executable).with_name("pd-planner")),
            "run",
            *(part for file in files for part in ("--file", str(file))),
            *("--kubeconfig", str(kubeconfig), "--prometheus", prometheus_url),
            *("--record", str(self.record_file)),
            *more,
        ]
        self._process = Process("pd-planner", command, folder / "pd-planner.log")

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> None:
        """Start it, for the first time or again after its end."""
        self._process.start()

    def kill(self) -> None:
        """End it without any warning."""
        self._process.kill()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """End it by a signal; return its exit status and how long it took [s]."""
        took_s = stopwatch_s()
        return self._process.ask_to_end(number), took_s()

    def is_running(self) -> bool:
        return self._process.is_running()

    def rss_mib(self) -> float:
        """Return the memory it holds [MiB]."""
        return self._process.rss_mib()

    def log(self) -> str:
        return self._process.log.read_text(encoding="utf-8")

    def records(self, service: str | None = None) -> list[Record]:
        """Return what it has recorded, of one service by name or of all; oldest first."""
        if not self.record_file.exists():
            return []
        text = self.record_file.read_text(encoding="utf-8")
        # The last line may be half written.
        whole = text[: text.rfind("\n") + 1].splitlines()
        found: list[Record] = [json.loads(line) for line in whole]
        return [one for one in found if service in {None, one["name"]}]

    def wait_for_records(self, count: int, service: str | None = None) -> list[Record]:
        """Wait until there are so many more records than now; return those."""
        before = len(self.records(service))

        def added() -> list[Record]:
            assert self.is_running(), self._process.last_lines()
            return self.records(service)[before:]

        wait_for(f"{count} more records", lambda: len(added()) >= count, START_S)
        return added()


@contextlib.contextmanager
def running_controller(controller: Controller) -> Iterator[Controller]:
    # Started, and killed at the end of the block whatever has become of it.
    controller.start()
    try:
        yield controller
    finally:
        controller.kill()


def shipped_kubeconfig(plane: ControlPlane, folder: Path) -> Path:
    """Return a kubeconfig of the account that the manifests install; they must be applied."""
    path = core(NAMESPACE, "serviceaccounts", f"{ACCOUNT}/token")
    token = plane.rest.create(path, {"spec": {}})["status"]["token"]
    kubeconfig = folder / "kubeconfig"
    write_kubeconfig(kubeconfig, plane.url, plane.ca, token, NAMESPACE)
    return kubeconfig


class Traffic:
    """`python -m tests.cluster.traffic` on one file: simulated servers under a load.

    Parameters
    ----------
    folder
        Its log, and `targets/`, where Prometheus finds its address.
    file
        The PDAutoscaler.
    kubeconfig
        Where its pods are.
    more
        Further arguments, the load.
    """

    def __init__(self, folder: Path, file: Path, kubeconfig: Path, *more: str) -> None:
        self._targets = folder / "targets" / "traffic.json"
        self._targets.parent.mkdir(parents=True, exist_ok=True)
        command = [
            *(sys.executable, "-m", "tests.cluster.traffic", "--file", str(file)),
            *("--kubeconfig", str(kubeconfig), "--listen", "127.0.0.1:0"),
            *("--target-file", str(self._targets), *more),
        ]
        self._process = Process("traffic", command, folder / "traffic.log")

    def start(self) -> None:
        """Start it and wait until it serves."""
        self._process.start()

        def serves() -> bool:
            assert self._process.is_running(), self._process.last_lines()
            return self._targets.exists()

        wait_for("the simulated servers serve", serves, START_S)

    def status(self) -> Mapping[str, Any]:
        """Return what the simulated servers say of themselves."""
        (group,) = json.loads(self._targets.read_text(encoding="utf-8"))
        with requests.Session() as session:
            session.trust_env = False
            found: Mapping[str, Any] = session.get(
                f"http://{group['targets'][0]}/status", timeout=10
            ).json()
        return found

    def kill(self) -> None:
        self._process.kill()


@contextlib.contextmanager
def running_traffic(traffic: Traffic) -> Iterator[Traffic]:
    # Started, and killed at the end of the block.
    try:
        traffic.start()
        yield traffic
    finally:
        traffic.kill()


def scrapes(folder: Path, every_s: float = 1.0) -> str:
    """Return a Prometheus configuration that scrapes what the traffic in `folder` announces."""
    files = f"{folder}/targets/*.json"
    config = {
        "global": {"scrape_interval": f"{every_s:g}s"},
        "scrape_configs": [
            {
                "job_name": "files",
                "file_sd_configs": [{"files": [files], "refresh_interval": "1s"}],
            }
        ],
    }
    return json.dumps(config)
