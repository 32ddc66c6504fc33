"""``python leash.py PID COMMAND...``: becomes a command that dies with its parent, process PID.

A program of its own, because a hook between fork and exec may deadlock in a parent with threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>; survives exec


def main(parent: int, command: list[str]) -> None:
    """Ask the kernel for SIGKILL at the parent's death, then become the command."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent died before its child had started")
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
