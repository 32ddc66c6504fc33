"""How long one decision takes: ``python -m benchmarks.tick``.

Both shipped traces are replayed, and the time of `Loop.tick` is taken: from samples in memory to
the record, all five steps, no network. The first decision of a replay is left out, because it
imports what it needs. Every replay is run twice and the shorter time of each tick counts: the work
is the same, what else the machine does is not.
"""

import gc
import os

import numpy as np

from benchmarks.figure import line
from benchmarks.machine import describe
from benchmarks.replays import TRACES, example, scaled
from planner.replay import Frame, Replay

REPEATS = 2
# Targets of the 99th percentile [ms]; ARIMA fits a model by maximum likelihood.
TARGETS_MS = {"LastValue": 10.0, "Kalman": 10.0, "Arima": 150.0}


def figures() -> None:
    """Print median and 99th percentile of a tick by predictor, and their ratio to Kalman's."""
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "as many as cores")
    print(f"threads of the linear algebra: {threads}", flush=True)
    mean_ms: dict[str, float] = {}
    for predictor, target_ms in TARGETS_MS.items():
        times_ms = [took for name in TRACES for took in ticks_ms(predictor, name)]
        p50, p99 = np.percentile(times_ms, (50.0, 99.0))
        mean = float(np.mean(times_ms))
        mean_ms[predictor] = mean
        print(line(f"tick with {predictor}, median of {len(times_ms)}", p50, "ms"), flush=True)
        print(line(f"tick with {predictor}, 99th percentile", p99, "ms", target_ms), flush=True)
        print(line(f"tick with {predictor}, mean", mean, "ms"), flush=True)
    print(
        line("mean tick, Arima to Kalman", mean_ms["Arima"] / mean_ms["Kalman"], "x"),
        flush=True,
    )


def ticks_ms(predictor: str, trace: str) -> list[float]:
    """Return the time of every tick after the first decision [ms]."""
    loaded = example(predictor)
    requests = scaled(trace, loaded)
    runs = [ticked(Replay(loaded, requests)) for _ in range(REPEATS)]
    first = next(i for i, frame in enumerate(runs[0]) if has_decided(frame))
    return [min(f.tick_s for f in same) * 1e3 for same in zip(*runs, strict=True)][first + 1 :]


def ticked(replay: Replay) -> list[Frame]:
    """Run a replay, with what lives long out of garbage collection, as the command has it."""
    gc.collect()
    gc.freeze()
    return list(replay.frames())


def has_decided(frame: Frame) -> bool:
    """Return whether the tick got as far as a plan."""
    return frame.record.decision.plan is not None


if __name__ == "__main__":
    print(describe(), flush=True)
    figures()
