"""A control plane by hand: ``python -m tests.cluster up`` and ``down``; `make cluster` calls it.

A holder process in the background owns everything, so that its end, however it comes, ends all.
"""

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from planner.adapters.clock import pause, stopwatch_s
from tests.cluster import build
from tests.cluster.control_plane import ControlPlane, running_control_plane
from tests.cluster.processes import Process
from tests.cluster.topologies import eight_nodes, seven_switches
from tests.cluster.waiting import wait_for
from tests.loopback import free_port

TOPOLOGIES = {"seven-switches": seven_switches, "eight-nodes": eight_nodes}
END_S = 20.0


class Place:
    """The folder of the one control plane by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = folder / "run"
        self.state = folder / "state.json"
        self.log = folder / "log"
        self.kubeconfig = folder / "kubeconfig"
        self.kubectl = folder / "kubectl"
        self._lock = folder / "lock"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        # The kernel takes the lock back at the holder's death: a stale file misleads nobody.
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield

    def is_held(self) -> bool:
        try:
            with self.held():
                return False
        except BlockingIOError:
            return True

    def read_state(self) -> dict[str, str]:
        if not self.state.exists():
            return {}
        found: dict[str, str] = json.loads(self.state.read_text(encoding="utf-8"))
        return found

    def write_state(self, **values: object) -> None:
        unfinished = self.state.with_suffix(".new")
        unfinished.write_text(json.dumps({k: str(v) for k, v in values.items()}), encoding="utf-8")
        unfinished.rename(self.state)


def up(place: Place, topology: str) -> int:
    """Start the holder, wait until the cluster is usable, say what to type next."""
    if place.is_held():
        print(f"cluster: already running; {next_commands(place)}")
        return 0
    build.build(build.to_stderr)
    took_s = stopwatch_s()
    place.state.unlink(missing_ok=True)
    print("cluster: starting (about 10 s) ...", flush=True)
    command = [sys.executable, "-m", "tests.cluster", "--folder", str(place.folder), "hold"]
    with place.log.open("w") as log:
        holder = subprocess.Popen(
            [*command, "--topology", topology],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        while not (place.state.exists() and place.read_state().get("usable")):
            if holder.poll() is not None:
                print(f"cluster: did not start:\n{_last_lines(place.log)}", file=sys.stderr)
                return 1
            pause(0.1)
    except KeyboardInterrupt:
        holder.terminate()
        holder.wait()
        print("cluster: stopped", file=sys.stderr)
        return 130
    # It lives on by itself, which Popen would warn about.
    holder.returncode = 0
    print(f"cluster: usable after {took_s():.0f} s; {next_commands(place)}")
    return 0


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8").splitlines()[-20:])


def next_commands(place: Place) -> str:
    """Return what to type next."""
    state = place.read_state()
    kubectl = _shown(place.kubectl)
    lines = [
        f"next (logs in {_shown(place.run)}):",
        f"  export KUBECONFIG={_shown(place.kubeconfig)}",
        f"  {kubectl} get nodes -L gpu-type,topology.kubernetes.io/switch",
        f"  {kubectl} get hypernodes",
        f"  {kubectl} apply --server-side -k tests/cluster/scenario",
        f"  {kubectl} get jobs.batch.volcano.sh,pods -n inference -o wide",
        "  make traffic  (in another terminal; docs/walkthrough.md goes on from here)",
    ]
    if url := state.get("prometheus"):
        lines.append(f"  Prometheus: {url} (scrapes what {_shown(place.run)}/targets/*.json name)")
    else:
        lines.append("  no Prometheus on PATH: make test-deps installs one")
    return "\n".join([*lines, "  make cluster-down"])


def _shown(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def down(place: Place) -> int:
    """End the holder by its id, and with it everything; fine if nothing runs."""
    if not place.is_held():
        print("cluster: none is running")
        return 0
    if not (pid := place.read_state().get("pid")):
        print("cluster: it is just starting, try again in a moment", file=sys.stderr)
        return 1
    took_s = stopwatch_s()
    os.kill(int(pid), signal.SIGTERM)
    wait_for("the cluster has ended", lambda: not place.is_held(), END_S)
    print(f"cluster: ended after {took_s():.1f} s, all of it")
    return 0


def hold(place: Place, topology: str) -> int:
    """Own a control plane until a signal comes."""
    # Both signals unwind the blocks below, at whatever stage of the start they come.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with place.held(), contextlib.suppress(KeyboardInterrupt):
            place.write_state(pid=os.getpid())
            shutil.rmtree(place.run, ignore_errors=True)
            place.run.mkdir()
            with running_control_plane(build.folder(), place.run) as plane:
                plane.lay_out(TOPOLOGIES[topology]())
                with _prometheus(place.run) as url:
                    _publish(place, plane, url)
                    signal.pause()
    except BlockingIOError:
        print("another holder was quicker")
        return 1
    return 0


def _publish(place: Place, plane: ControlPlane, prometheus_url: str) -> None:
    shutil.copy(plane.kubeconfig, place.kubeconfig)
    place.kubectl.unlink(missing_ok=True)
    place.kubectl.symlink_to(plane.site.binaries / "kubectl")
    place.write_state(pid=os.getpid(), usable=True, url=plane.url, prometheus=prometheus_url)


@contextlib.contextmanager
def _prometheus(run: Path) -> Iterator[str]:
    # Yields the URL of a Prometheus that scrapes what the files in `targets` name; empty if there
    # is none on this machine.
    if (program := shutil.which("prometheus")) is None:
        yield ""
        return
    (run / "targets").mkdir()
    jobs = [{"job_name": "files", "file_sd_configs": [{"files": [f"{run}/targets/*.json"]}]}]
    config = {"global": {"scrape_interval": "5s"}, "scrape_configs": jobs}
    (run / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
    listen = f"127.0.0.1:{free_port()}"
    command = [
        program,
        f"--config.file={run / 'prometheus.yml'}",
        f"--storage.tsdb.path={run / 'tsdb'}",
        f"--web.listen-address={listen}",
        "--log.level=warn",
    ]
    process = Process("prometheus", command, run / "prometheus.log")
    process.start()
    try:
        yield f"http://{listen}"
    finally:
        process.kill()


def main() -> int:
    """Parse the command line and run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("out/cluster"))
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "hold"):
        command = commands.add_parser(name)
        command.add_argument("--topology", choices=TOPOLOGIES, default="seven-switches")
    commands.add_parser("down")
    given = parser.parse_args()
    place = Place(given.folder.resolve())
    try:
        if given.command == "down":
            return down(place)
        return {"up": up, "hold": hold}[given.command](place, given.topology)
    except build.BuildError as error:
        print(f"cluster: {error}", file=sys.stderr)
    except AssertionError as error:
        print(f"cluster: {error}; look at {_shown(place.log)}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
