"""A day of a million requests through `pd-planner simulate`: ``python -m benchmarks.day``.

The whole path in a process of its own: the trace is read from a file, the plant serves it, the
loop decides every minute, the figures are drawn up. The trace is made on the fly: Poisson
arrivals whose rate swings over the day, lognormal lengths.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.figure import line
from benchmarks.machine import describe
from benchmarks.replays import SPEC

REQUESTS, DAY_S = 1_000_000, 86_400.0
# Rate at noon over that at midnight is (1 + SWING) / (1 - SWING).
SWING = 0.6
WALL_TARGET_S, RSS_TARGET_GIB = 60.0, 2.0


def write_day(path: Path) -> None:
    """Write the trace as t_s,isl,osl."""
    rng = np.random.default_rng(0)
    wanted = rng.uniform(0.0, 1.0, REQUESTS)
    t_s = np.linspace(0.0, DAY_S, 86_401)
    # Share of the day's requests before t, for a rate of 1 - SWING · cos(2π t / day).
    share = t_s / DAY_S - SWING * np.sin(2.0 * np.pi * t_s / DAY_S) / (2.0 * np.pi)
    arrival_s = np.sort(np.interp(wanted, share, t_s))
    isl = lengths(rng, 2000.0)
    osl = lengths(rng, 300.0)
    columns = np.column_stack([arrival_s, isl, osl])
    np.savetxt(path, columns, "%.3f,%d,%d", header="t_s,isl,osl", comments="")


def lengths(rng: np.random.Generator, mean_tokens: float) -> NDArray[np.float64]:
    """Return lengths with that mean and a coefficient of variation of 0.8 [tokens]."""
    variance = np.log1p(0.8**2)
    drawn = np.exp(np.sqrt(variance) * rng.standard_normal(REQUESTS) - variance / 2.0)
    return np.asarray(np.clip(mean_tokens * drawn, 1.0, 16_384.0))


def figures() -> None:
    """Print wall time, memory and what came of the run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "day.csv"
        write_day(path)
        command = ["simulate", "-f", str(SPEC), "--trace", str(path), "-o", "json"]
        started_s = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "planner", *command], check=True, stdout=subprocess.PIPE
        )
        wall_s = time.perf_counter() - started_s
    peak_gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    result = json.loads(done.stdout)
    ticks = int(result["simulated_s"] // 60.0)
    print(f"{result['requests']:,} requests counted, {ticks:,} ticks", flush=True)
    print(line("pd-planner simulate, start to end", wall_s, "s", WALL_TARGET_S), flush=True)
    print(line("… simulated to real time", DAY_S / wall_s, "x"), flush=True)
    print(line("… peak memory", peak_gib, "GiB", RSS_TARGET_GIB), flush=True)
    print(line("… within both targets", 100.0 * result["attainment"]["both"], "%"), flush=True)
    print(line("… GPU-hours", result["gpu_hours"], ""), flush=True)


if __name__ == "__main__":
    print(describe(), flush=True)
    figures()
