"""`compare --ray` on a real cluster on loopback: it takes part, it dies in the middle, Ctrl-C."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from planner.__main__ import main
from tests.cluster.processes import LEASH
from tests.conftest import LeaveOut
from tests.integration.environments import RAY, programs_of
from tests.integration.recorded_past import conversations, example

MINUTES = 8
# Runs that differ from each other, and more than a cluster of two plays while it is killed.
ASKED = ("compare", "-f", "f.yaml", "--trace", "day.csv", "--warmup", "3", "--scale", "2",
         "--policy", "hpa-tokens,without-corrections", "--points", "3", "--no-oracles",
         "-o", "json")  # fmt: skip
FIGURES = ("gpu_hours", "attainment", "reversals", "scale_actions", "unfinished")
# Ray takes 127.0.0.1 for the address of the machine, and this for what it says.
LOOPBACK = "127.0.0.2"

Out = pytest.CaptureFixture[str]


@dataclass
class Head:
    """A cluster of one node; everything in it is of one process group."""

    address: str
    process: subprocess.Popen[str]
    environment: dict[str, str]

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """End all of it without any warning."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="session")
def ray_programs(pytestconfig: pytest.Config, leave_out: LeaveOut) -> Path:
    """Return the programs of the environment with Ray; in CI it is made here."""
    return programs_of(RAY, pytestconfig, leave_out)


@pytest.fixture
def head(ray_programs: Path) -> Iterator[Head]:
    # A folder with a short name: the paths of Ray's sockets have 107 characters at most.
    folder = tempfile.mkdtemp(prefix="ray-")
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
    # Ray listens beyond loopback whatever it is told: nobody else has the token.
    environment = {
        "PATH": f"{ray_programs}:{os.defpath}",
        "HOME": folder,
        "RAY_TMPDIR": folder,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", LEASH, str(os.getpid()), ray_programs / "ray", "start",
         "--head", "--block", f"--port={port}", f"--node-ip-address={LOOPBACK}", "--num-cpus=2",
         "--include-dashboard=false", f"--temp-dir={folder}", "--disable-usage-stats"],
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    started = Head(f"{LOOPBACK}:{port}", process, environment)
    try:
        assert process.stdout is not None
        assert wait_for(process.stdout, "Ray runtime started"), "ray start ended"
        yield started
    finally:
        if started.is_alive():
            started.kill()
        process.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _files(own_place: Path) -> None:
    trace = conversations(1)
    rows = zip(trace.arrival_s, trace.isl_tokens, trace.osl_tokens, strict=True)
    lines = [f"{at_s:.6f},{isl},{osl}" for at_s, isl, osl in rows if at_s < 60.0 * MINUTES]
    (own_place / "f.yaml").write_text(example(), encoding="utf-8")
    (own_place / "day.csv").write_text("\n".join(["t_s,isl,osl", *lines, ""]), encoding="utf-8")


def wait_for(lines: Any, word: str) -> list[str]:
    """Read on until a line holds `word`; return all that was read, nothing if it never comes."""
    read = []
    for line in lines:
        read.append(line)
        if word in line:
            return read
    return []


def compare_on(head: Head) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["pd-planner", *ASKED, "--ray", head.address, "--jobs", "2", "--log-level", "debug"],
        env=head.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip


def figures(rows: Any) -> list[tuple[Any, ...]]:
    """Return what does not depend on where a run was played."""
    named = [(row["policy"], row["knob"]["value"], row["seed"]) for row in rows]
    return [(*name, *(row[key] for key in FIGURES)) for name, row in zip(named, rows, strict=True)]


@pytest.mark.slow
def test_a_cluster_that_dies_leaves_the_table_as_it_would_be(head: Head, capsys: Out):
    run = compare_on(head)
    assert run.stderr is not None
    assert wait_for(run.stderr, "finished"), "no run finished on the cluster"
    head.kill()
    out, err = run.communicate()
    assert run.returncode == 0, err
    assert "the Ray cluster went away (its head does not answer)" in err
    assert main([*ASKED, "--jobs", "2"]) == 0
    here = json.loads(capsys.readouterr().out)
    there = json.loads(out)
    assert figures(there["frontier"]) == figures(here["frontier"])
    assert there["prices"] == here["prices"]


@pytest.mark.slow
def test_ctrl_c_keeps_what_the_cluster_has_finished(head: Head):
    run = compare_on(head)
    assert run.stderr is not None
    assert wait_for(run.stderr, "finished"), "no run finished on the cluster"
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does, to all of the group
    out, err = run.communicate()
    assert run.returncode == 0, err
    assert "stopped by Ctrl-C" in err
    assert "Traceback" not in err
    assert json.loads(out)["frontier"]
    assert head.is_alive()


def test_nobody_at_the_address_is_one_line(ray_programs: Path, capsys: Out):
    # Only the driver needs Ray, and it is never started.
    with socket.create_server((LOOPBACK, 0)) as taken:
        address = f"{LOOPBACK}:{taken.getsockname()[1]}"
    done = subprocess.run(
        [ray_programs / "pd-planner", *ASKED, "--ray", address],
        env={"PATH": os.defpath}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        f"--ray: {address}: no cluster answers (no connection): start one with "
        "`ray start --head`, or leave --ray out\n"
    )
