"""One program as a child process: started, frozen, killed, never left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

LEASH = Path(__file__).with_name("leash.py")
ROOT = Path(__file__).parents[2]
END_S = 10.0


class Process:
    """A command that can be started again after its death; it dies with this Python process.

    The kernel ties it to the *thread* that starts it: start it from one that lasts.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None, f"{self.name} was never started"
        return self._child.pid

    def start(self) -> None:
        # A session of its own: Ctrl-C goes to the tests, which then end their processes in order.
        assert not self.is_running(), f"{self.name} runs already"
        leashed = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), *self._command]
        # No proxy variables and no caller's ~/.kube: everything happens on loopback.
        alone = {"PATH": os.defpath, "HOME": str(self.log.parent)}
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                leashed,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=alone,
                cwd=ROOT,
                start_new_session=True,
            )

    def is_running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def ended_with(self) -> int | None:
        """Return the exit status, None while it runs."""
        return None if self._child is None else self._child.poll()

    def freeze(self) -> None:
        """Stop it where it is: it accepts connections and never answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it without any warning, frozen or not."""
        if self._child is not None:
            self._child.kill()
            self._child.wait(END_S)

    def ask_to_end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal that it should end at; return its exit status."""
        assert self._child is not None, f"{self.name} was never started"
        self._child.send_signal(number)
        return self._child.wait(END_S)

    def rss_mib(self) -> float:
        """Return the memory it holds [MiB]."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) / 1024

    def last_lines(self, count: int = 15) -> str:
        if not self.log.exists():
            return f"{self.name} has written no log"
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join([f"--- the end of {self.log}:", *lines[-count:]])
