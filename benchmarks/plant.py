"""Speed and memory of the plant over a day: ``python -m benchmarks.plant``.

The simulated servers alone, scraped every 15 s and read every minute, without the planner.
"""

import argparse
import resource
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.figure import line
from benchmarks.machine import describe
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
REQUESTS = 1_000_000
LONGEST_TOKENS = 16_384
WALL_TARGET_S, RSS_TARGET_GIB = 60.0, 2.0


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


def serve(plant: Plant, trace: Trace, prefill: int, decode: int) -> tuple[int, int]:
    """Serve the whole trace; return the scrapes and the reads of it."""
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
    return scrapes, reads


def measure(trace: Trace, prefill: int, decode: int) -> None:
    """Print what a trace took."""
    started_s = time.perf_counter()
    plant = build(trace, prefill, decode)
    scrapes, reads = serve(plant, trace, prefill, decode)
    wall_s = time.perf_counter() - started_s
    served = int((plant.results().status == 1).sum())
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{trace.name}: {trace.duration_s / 3600:.1f} h, {len(trace):,} requests, "
        f"{served:,} served, {prefill}+{decode} replicas, {scrapes:,} scrapes, {reads:,} reads",
        flush=True,
    )
    print(line("… once compiled", wall_s, "s", WALL_TARGET_S), flush=True)
    print(line("… simulated to real time", trace.duration_s / wall_s, "x"), flush=True)
    print(line("… peak memory", peak_gib, "GiB", RSS_TARGET_GIB), flush=True)


def figures(requests: int = REQUESTS, traces: Sequence[str] = ()) -> None:
    """Print the figures of a Poisson day, and of further traces."""
    started_s = time.perf_counter()
    warm()
    print(
        line("compiled, or loaded from the cache", time.perf_counter() - started_s, "s"), flush=True
    )
    measure(poisson_day(requests), 8, 10)
    for name in traces:
        trace, dropped = clip(open_trace(name), LONGEST_TOKENS)
        measure(trace, 24, 32)
        print(f"… prompts longer than {LONGEST_TOKENS:,} tokens, left out: {dropped}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=REQUESTS, help="of the Poisson day")
    parser.add_argument("--trace", action="append", default=[], help="further traces to run")
    options = parser.parse_args()
    print(describe(), flush=True)
    figures(options.requests, options.trace)


if __name__ == "__main__":
    main()
