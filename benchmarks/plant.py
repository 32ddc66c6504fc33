"""Speed and memory of the plant over a day: ``python -m benchmarks.plant``.

Prints one line a trace: requests, scrapes, seconds on one core once compiled, peak memory.
"""

import argparse
import platform
import resource
import time
from pathlib import Path

import numpy as np

from planner.model import Role
from planner.simulation.config import PlantConfig, PlantPool
from planner.simulation.plant import Plant
from planner.simulation.surface import DecodeTruth, PrefillTruth
from planner.simulation.trace_files import open_trace
from planner.simulation.traces import Trace, clip, make_trace
from planner.simulation.warm import warm
from profiles import sample

SCRAPE_S = 15.0
READ_S = 60.0


def poisson_day(requests: int, seed: int = 1) -> Trace:
    """Return 24 h of Poisson arrivals with lognormal lengths (mean 1000 and 200, CV 0.8)."""
    rng = np.random.default_rng(seed)
    variance = np.log1p(0.8**2)
    lengths = np.exp(np.sqrt(variance) * rng.standard_normal((2, requests)) - variance / 2.0)
    isl, osl = np.maximum(lengths * [[1000.0], [200.0]], 1.0).astype(np.int32)
    return make_trace("poisson-24h", np.sort(rng.uniform(0.0, 86_400.0, requests)), isl, osl)


def build(trace: Trace, prefill: int, decode: int) -> Plant:
    prompts, steps = sample("llama-2-70b-h100-tp4-prefill"), sample("llama-2-70b-h100-tp4-decode")
    return Plant(
        PlantConfig(
            (
                PlantPool(
                    "prefill",
                    Role.PREFILL,
                    PrefillTruth.of(prompts),
                    startup_s=90.0,
                    gpus_per_replica=4,
                    initial_replicas=prefill,
                ),
                PlantPool(
                    "decode",
                    Role.DECODE,
                    DecodeTruth.of(steps),
                    startup_s=90.0,
                    gpus_per_replica=4,
                    initial_replicas=decode,
                    max_sequences=128,
                    kv_capacity_tokens=451_660,
                ),
            ),
            kv_bytes_per_token=327_680.0,
        ),
        trace,
    )


def run(trace: Trace, prefill: int, decode: int) -> str:
    started = time.perf_counter()
    plant = build(trace, prefill, decode)
    scrapes = reads = 0
    for t in np.arange(SCRAPE_S, trace.duration_s + SCRAPE_S, SCRAPE_S):
        plant.advance(float(t))
        snapshot = plant.snapshot()
        snapshot.finished()
        scrapes += 1
        if t % READ_S == 0.0:
            snapshot.samples()
            snapshot.gateway()
            reads += 1
            # A replica more and less each minute, so that pods come and go all day.
            plant.order("prefill", prefill + reads % 2)
            plant.order("decode", decode + reads % 2)
    plant.drain()
    served = int((plant.results().status == 1).sum())
    wall_s = time.perf_counter() - started
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return (
        f"{trace.name}: {trace.duration_s / 3600:.1f} h, {len(trace):,} requests, {served:,} served"
        f", {prefill}+{decode} replicas, {scrapes:,} scrapes, {reads:,} reads: "
        f"{wall_s:.1f} s, peak {peak_gib:.2f} GiB"
    )


def cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_400_000, help="of the Poisson day")
    parser.add_argument("--trace", action="append", default=[], help="further traces to run")
    options = parser.parse_args()
    started = time.perf_counter()
    warm()
    print(f"{time.strftime('%Y-%m-%d')}, {cpu()}, Python {platform.python_version()}")
    print(f"compiled or loaded in {time.perf_counter() - started:.1f} s")
    print(run(poisson_day(options.requests), 8, 10), flush=True)
    for name in options.trace:
        trace, dropped = clip(open_trace(name), 16_384)
        print(run(trace, 24, 32) + f", {dropped} longer prompts left out", flush=True)


if __name__ == "__main__":
    main()
