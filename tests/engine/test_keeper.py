"""No process of an engine outlives the test that started it, and a failed start says why."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.waiting import wait_for
from tests.engine.build import Engine
from tests.engine.server import KEEPER, EngineServer, running

# As an engine: a leader with a child; both write their ids.
FAMILY = "echo $$ >> ids; sh -c 'echo $$ >> ids; sleep 600' & wait"
STUBBORN = "trap '' TERM; " + FAMILY
HOLDER = """
import subprocess, sys
subprocess.Popen([sys.executable, sys.argv[1], "sh", "-c", sys.argv[2]], stdin=subprocess.PIPE)
sys.stdin.read()
"""


def living(ids: list[int]) -> list[int]:
    return [one for one in ids if "Z" not in state(one)]


def state(pid: int) -> str:
    """Return the letter of a process's state; Z, as for a dead one, if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def ids_in(folder: Path) -> list[int]:
    path = folder / "ids"
    found = [int(line) for line in path.read_text().split()] if path.exists() else []
    return found if len(found) == 2 else []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda n: n.name)
def test_all_end_with_the_process_that_started_them(number: signal.Signals, tmp_path: Path):
    command = [sys.executable, "-c", HOLDER, str(KEEPER), FAMILY]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=tmp_path)
    with holder:
        ids = wait_for("both have started", lambda: ids_in(tmp_path))
        assert living(ids) == ids
        os.kill(holder.pid, number)
    wait_for("both have ended", lambda: not living(ids))


@pytest.mark.parametrize(
    ("script", "within_s"),
    [pytest.param(FAMILY, 10.0, id="at TERM"), pytest.param(STUBBORN, 60.0, id="deaf to TERM")],
)
def test_all_end_when_asked_to(script: str, within_s: float, tmp_path: Path):
    keeper = subprocess.Popen(
        [sys.executable, str(KEEPER), "sh", "-c", script], stdin=subprocess.PIPE, cwd=tmp_path
    )
    with keeper:
        ids = wait_for("both have started", lambda: ids_in(tmp_path))
        assert keeper.stdin is not None
        keeper.stdin.close()
        keeper.wait(within_s)
    wait_for("both have ended", lambda: not living(ids))


def test_children_end_when_their_leader_does(tmp_path: Path):
    script = FAMILY.replace("wait", "exit 3")
    command = [sys.executable, str(KEEPER), "sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=tmp_path) as keeper:
        assert keeper.wait(20.0) == 3
    started = [int(line) for line in (tmp_path / "ids").read_text().split()]
    wait_for("both have ended", lambda: not living(started))


def test_a_failed_start_ends_at_once_with_the_last_lines(tmp_path: Path):
    # Has a Python, but no vLLM.
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    engine = Engine(tmp_path)
    engine.python.symlink_to(sys.executable)
    server = EngineServer(engine, tmp_path / "log")
    with pytest.raises(AssertionError, match=r"ended with 1\n(.*\n)*.*vllm"), running(server):
        pytest.fail("it serves")
