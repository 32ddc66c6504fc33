"""How long one decision takes: ``python -m benchmarks.tick``.

Both shipped traces are replayed, and the time of `Loop.tick` is taken: from samples in memory to
the record, all five steps, no network. The first decision of a replay is left out, because it
imports what it needs. Every replay is run three times and the shortest time of each tick counts:
the work is the same, what else the machine does is not. The median run tells what that adds.
"""

import os

import numpy as np
from numpy.typing import NDArray

from benchmarks.figure import line
from benchmarks.machine import describe
from benchmarks.replays import TRACES, example, scaled
from planner.process import settle
from planner.replay import Frame, Replay

REPEATS = 3
# Targets of the 99th percentile [ms]; ARIMA fits a model by maximum likelihood.
TARGETS_MS = {"LastValue": 10.0, "Kalman": 10.0, "Arima": 150.0}


def figures() -> None:
    """Print median and 99th percentile of a tick by predictor, and their ratio to Kalman's."""
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "as many as cores")
    print(f"threads of the linear algebra: {threads}", flush=True)
    mean_ms: dict[str, float] = {}
    for predictor, target_ms in TARGETS_MS.items():
        runs_ms = np.concatenate([ticks_ms(predictor, name) for name in TRACES], axis=1)
        times_ms = runs_ms.min(axis=0)
        p50, p99 = np.percentile(times_ms, (50.0, 99.0))
        usual = np.median(np.percentile(runs_ms, 99.0, axis=1))
        mean = mean_ms[predictor] = float(np.mean(times_ms))
        print(line(f"tick with {predictor}, median of {times_ms.size}", p50, "ms"), flush=True)
        print(line(f"tick with {predictor}, 99th percentile", p99, "ms", target_ms), flush=True)
        print(line("… of the median run, as the machine was", usual, "ms"), flush=True)
        print(line(f"tick with {predictor}, mean", mean, "ms"), flush=True)
    print(
        line("mean tick, Arima to Kalman", mean_ms["Arima"] / mean_ms["Kalman"], "x"),
        flush=True,
    )


def ticks_ms(predictor: str, trace: str) -> NDArray[np.float64]:
    """Return the time of every tick after the first decision [ms], shape (repeats, ticks)."""
    loaded = example(predictor)
    requests = scaled(trace, loaded)
    runs = [ticked(Replay(loaded, requests)) for _ in range(REPEATS)]
    first = next(i for i, frame in enumerate(runs[0]) if has_decided(frame))
    return np.array([[frame.tick_s * 1e3 for frame in run[first + 1 :]] for run in runs])


def ticked(replay: Replay) -> list[Frame]:
    """Run a replay, with garbage collection as the command has it."""
    settle()
    return list(replay.frames())


def has_decided(frame: Frame) -> bool:
    """Return whether the tick got as far as a plan."""
    return frame.record.decision.plan is not None


if __name__ == "__main__":
    print(describe(), flush=True)
    figures()
