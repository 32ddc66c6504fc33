"""``python keeper.py COMMAND...``: runs a command, and ends all its processes when stdin closes.

An engine is several processes that outlive their parent's death. Whoever starts this one holds its
stdin, which the kernel closes at their death, however it comes; then the whole group ends.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys

LOOK_EVERY_S = 0.2
TERM_S = 10.0


def main(command: list[str]) -> int:
    """Run the command in a process group of its own; return its exit status."""
    # A handler and not SIG_IGN, which the command would inherit.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    with contextlib.suppress(KeyboardInterrupt):
        while child.poll() is None and not select.select([sys.stdin], [], [], LOOK_EVERY_S)[0]:
            pass
    tell(child.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(TERM_S)
    # The group outlives its leader: whoever is still there ends now.
    tell(child.pid, signal.SIGKILL)
    return child.wait()


def tell(group: int, number: signal.Signals) -> None:
    """Send a signal to all that is left of a process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
