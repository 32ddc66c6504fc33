"""The engine as a process of ours: started, watched, ended with all of its children."""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from planner.adapters.clock import pause, stopwatch_s
from planner.adapters.engine.client import EngineClient
from planner.adapters.engine.faults import EngineError, cause
from planner.errors import InputError

_POLL_S: Final = 0.25
_GRACE_S: Final = 20.0
# Its frontend notices the death of a worker and follows within seconds.
_FOLLOW_S: Final = 10.0
_PROBE_S: Final = 60.0
_TOLD_LINES: Final = 8
_READ_BYTES: Final = 200_000
_LIBC: Final = ctypes.CDLL(None)
_DEATH_SIGNAL: Final = 1  # PR_SET_PDEATHSIG of prctl(2)


class EngineProcess:
    """A running engine; its output goes to a log file."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        """Start it.

        Raises
        ------
        InputError
            If there is no such program.
        """
        self._log = log
        self.since_start_s: Callable[[], float] = stopwatch_s()
        try:
            with log.open("wb") as output:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **environment},
                    start_new_session=True,  # Ctrl-C is ours to handle
                    preexec_fn=_end_with_parent,  # noqa: PLW1509  # one call into libc, loaded before
                )
        except OSError as error:
            where = error.filename or log
            raise InputError(
                f"{where}: {error.strerror}; legal: an engine's program and a writable log; give "
                "--python, --engine-command or --state"
            ) from error

    def wait_until_served(self, client: EngineClient, timeout_s: float) -> None:
        """Wait until it answers.

        Raises
        ------
        EngineError
            If it ends before, or takes longer.
        """
        while not client.is_serving():
            if self._process.poll() is not None:
                raise self._ended("before it served")
            if self.since_start_s() > timeout_s:
                raise EngineError(
                    f"engine: does not serve {timeout_s:.0f} s after its start; give it more by "
                    f"--start-timeout{self._told()}"
                )
            pause(_POLL_S)

    def blamed_for(self, error: EngineError) -> EngineError:
        """Return the error, or that the engine has died where it did."""
        waited_s = stopwatch_s()
        while self._process.poll() is None and waited_s() < _FOLLOW_S:
            pause(_POLL_S)
        return error if self._process.poll() is None else self._ended("while it was measured")

    def stop(self) -> None:
        """End it and all that it started."""
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        # The group outlives its leader while a worker of it still runs.
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return

    def _ended(self, when: str) -> EngineError:
        code = self._process.wait()
        found = cause(self._lines(), code)
        how = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return EngineError(f"engine: {how} {when}: {found.what}; {found.mend}{self._told()}")

    def _told(self) -> str:
        lines = [line for line in self._lines() if line.strip()][-_TOLD_LINES:]
        said = "".join(f"\n  {line[:300]}" for line in lines)
        return f"; its last lines, of {self._log}:{said}" if said else "; it said nothing"

    def _lines(self) -> list[str]:
        with self._log.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _READ_BYTES, 0))
            return file.read().decode(errors="replace").splitlines()


def _end_with_parent() -> None:
    """Have the kernel end the engine when we die without a chance to: it holds the GPU."""
    _LIBC.prctl(_DEATH_SIGNAL, signal.SIGTERM)


def free_port() -> int:
    """Return a port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def refuse_used_port(port: int) -> None:
    """Refuse a port that something listens on: it would be measured in the engine's place.

    Raises
    ------
    InputError
        If so.
    """
    with socket.socket() as probe:
        probe.settimeout(1.0)
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise InputError(
                f"--port: {port} is in use on this machine; legal: a free one; leave the flag out, "
                "or give --endpoint to measure what listens there"
            )


def probe_python(python: str, script: str) -> Any:
    """Return the JSON that a script prints in another Python.

    Raises
    ------
    InputError
        If that is no Python.
    """
    try:
        done = subprocess.run(
            [python, "-c", script], capture_output=True, timeout=_PROBE_S, check=True
        )
        return json.loads(done.stdout.splitlines()[-1])
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        reason = error.strerror if isinstance(error, OSError) else "answers nothing"
        raise InputError(
            f"--python: {python}: {reason}; legal: the interpreter of an environment with vLLM; "
            "correct it"
        ) from error


def gpu_name() -> str | None:
    """Return the first GPU's name as its driver tells it, None without a driver."""
    if (program := shutil.which("nvidia-smi")) is None:
        return None
    asked = [program, "--query-gpu=name", "--format=csv,noheader"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=_PROBE_S, check=False)
    return next(iter(done.stdout.splitlines()), "").strip() or None
