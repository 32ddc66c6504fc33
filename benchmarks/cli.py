"""How long the command takes to answer: ``python -m benchmarks.cli``."""

import subprocess
import sys
import time
from statistics import median

from benchmarks.figure import line
from benchmarks.machine import describe
from benchmarks.replays import SPEC

REPEATS = 7
HELP_TARGET_S = 0.5
CHECK = ("check", "-f", str(SPEC), "--offline")


def figures() -> None:
    """Print the median time of a process that does nothing, and of two commands."""
    bare_s = seconds([sys.executable, "-c", ""])
    command = [sys.executable, "-m", "planner"]
    help_s = seconds([*command, "--help"])
    print(line("python that does nothing", bare_s, "s"), flush=True)
    print(line("pd-planner --help", help_s, "s", HELP_TARGET_S), flush=True)
    print(line("… to python that does nothing", help_s / bare_s, "x"), flush=True)
    print(line("pd-planner check --offline", seconds([*command, *CHECK]), "s"), flush=True)


def seconds(command: list[str]) -> float:
    """Return the median wall time of a command [s]; the first run fills the caches of the disk."""
    times_s: list[float] = []
    for _ in range(REPEATS + 1):
        started_s = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times_s.append(time.perf_counter() - started_s)
    return median(times_s[1:])


if __name__ == "__main__":
    print(describe(), flush=True)
    figures()
