"""The simulated servers against a real engine: ``python -m tests.engine.beside_plant``.

A prefill and a decode server of a real vLLM (`make engine-build`) are first measured alone. Then
they serve Poisson arrivals, and the plant serves the same requests with what was measured. The
servers and their clients need two cores for themselves: whatever else runs shows in the real tails.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks.figure import line
from benchmarks.machine import describe
from planner.adapters.clock import pause, stopwatch_s
from planner.model import Role
from planner.simulation.config import PlantConfig, PlantPool
from planner.simulation.plant import Plant
from planner.simulation.surface import DecodeTruth, PrefillTruth
from planner.simulation.traces import Trace, make_trace
from profiles.schema import Profile
from tests.engine.build import build, to_stderr
from tests.engine.pair import Pair, Request
from tests.engine.server import EngineServer, prompt, running

Floats = NDArray[np.float64]

ISL_TOKENS = (64, 256, 512, 1024, 2048)
# Whole blocks of 128 tokens and one more: sent before, all but that one are cached, so that the
# prefill of one sequence does not stop the decode of the others.
CONTEXT_TOKENS = (129, 513, 1025)
CONCURRENCY = (1, 4, 12)
SAMPLES, STEPS = 5, 32
LONGEST_TOKENS, MEAN_ISL_TOKENS, MEAN_OSL_TOKENS = 1800, 400.0, 20.0
PERCENTILES = (50, 90, 99)


def measure_prefill(server: EngineServer, numbers: "count[int]") -> list[dict[str, float]]:
    """Return the time of a prompt alone, by its length: the median of warm ones."""

    def once_s(tokens: int) -> float:
        passed_s = stopwatch_s()
        server.complete({"prompt": prompt(tokens, next(numbers)), "max_tokens": 1})
        return passed_s()

    points = []
    for tokens in ISL_TOKENS:
        _, *warm_s = [once_s(tokens) for _ in range(SAMPLES + 1)]
        points.append({"isl_tokens": tokens, "ttft_s": median(warm_s), "batch": 1})
    return points


def measure_decode(server: EngineServer, numbers: "count[int]") -> list[dict[str, float]]:
    """Return the mean time of a token by context and concurrency, as the server counts it."""
    points = []
    for tokens in CONTEXT_TOKENS:
        prompts = [prompt(tokens, next(numbers)) for _ in range(max(CONCURRENCY))]
        for one in prompts:
            server.complete({"prompt": one, "max_tokens": 1})
        for running_now in CONCURRENCY:
            itl_s = [decode_s(server, prompts[:running_now]) for _ in range(3)]
            context = tokens + STEPS // 2
            points.append({
                "concurrency": running_now,
                "context_tokens": context,
                "itl_s": median(itl_s),
            })
    return points


def decode_s(server: EngineServer, prompts: Sequence[str]) -> float:
    """Return the mean time of a token when these prompts are decoded together [s]."""
    before = gaps(server)
    asked = [{"prompt": one, "max_tokens": STEPS, "ignore_eos": True} for one in prompts]
    with ThreadPoolExecutor(len(asked)) as senders:
        list(senders.map(server.complete, asked))
    after = gaps(server)
    return (after[0] - before[0]) / (after[1] - before[1])


def gaps(server: EngineServer) -> tuple[float, float]:
    """Return sum [s] and count of the times between tokens so far."""
    name = "vllm:inter_token_latency_seconds"
    found = {
        row.partition("{")[0]: float(row.rpartition(" ")[2])
        for row in server.metrics().splitlines()
        if row.startswith(name)
    }
    return found[f"{name}_sum"], found[f"{name}_count"]


def measure(pair: Pair, numbers: "count[int]") -> Profile:
    """Return what the two servers do alone."""
    return Profile.model_validate({
        "schemaVersion": "1",
        "provenance": {"how": "measured", "engine": "vllm"},
        "prefill": measure_prefill(pair.prefill, numbers),
        "decode": measure_decode(pair.decode, numbers),
    })


def measure_handover_s(pair: Pair, profile: Profile, numbers: "count[int]") -> float:
    """Return what a first token needs beyond prefill and one decode step, nothing else running."""
    tokens = ISL_TOKENS[1]
    alone_s = next(p.ttft_s for p in profile.prefill if p.isl_tokens == tokens)
    step_s = min(p.itl_s for p in profile.decode)
    sent = [Request(prompt(tokens, next(numbers)), 4) for _ in range(SAMPLES + 1)]
    _, *warm = pair.send_all(sent, 1)
    return max(median(one.ttft_s for one in warm) - alone_s - step_s, 0.0)


def poisson(requests: int, rate_rps: float, seed: int) -> Trace:
    """Return Poisson arrivals with lognormal lengths (CV 0.8)."""
    rng = np.random.default_rng(seed)
    variance = np.log1p(0.8**2)
    factors = np.exp(np.sqrt(variance) * rng.standard_normal((2, requests)) - variance / 2.0)
    isl, osl = (factors * [[MEAN_ISL_TOKENS], [MEAN_OSL_TOKENS]]).astype(np.int32)
    arrivals = np.cumsum(rng.exponential(1.0 / rate_rps, requests))
    return make_trace("poisson", arrivals, np.clip(isl, 16, LONGEST_TOKENS), np.clip(osl, 2, 200))


def replay(pair: Pair, trace: Trace, numbers: "count[int]") -> tuple[Floats, Floats]:
    """Return the TTFT and ITL that clients of the real pair see [s], one entry a request."""
    sent = [
        Request(prompt(int(isl), next(numbers)), int(osl))
        for isl, osl in zip(trace.isl_tokens, trace.osl_tokens, strict=True)
    ]
    passed_s = stopwatch_s()

    def send(i: int) -> tuple[float, float]:
        pause(max(float(trace.arrival_s[i]) - passed_s(), 0.0))
        served = pair.send(sent[i])
        return served.ttft_s, served.itl_s

    with ThreadPoolExecutor(len(trace)) as clients:
        seen = np.array(list(clients.map(send, range(len(trace)))))
    return seen[:, 0], seen[:, 1]


def simulate(profile: Profile, handover_s: float, trace: Trace) -> tuple[Floats, Floats]:
    """Return the same of one simulated replica of each role."""
    pools = (
        PlantPool("prefill", Role.PREFILL, PrefillTruth.of(profile, wiggle=0.0)),
        PlantPool("decode", Role.DECODE, DecodeTruth.of(profile, wiggle=0.0)),
    )
    plant = Plant(PlantConfig(pools, transfer_latency_s=handover_s), trace)
    plant.drain()
    results = plant.results()
    return results.ttft_s, results.itl_s


def show(name: str, real: Floats, simulated: Floats) -> None:
    for percentile in PERCENTILES:
        seen, told = np.percentile(real, percentile), np.percentile(simulated, percentile)
        print(line(f"{name} p{percentile}, real", seen * 1e3, "ms"))
        print(line(f"{name} p{percentile}, simulated / real", told / seen, "x"))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.engine.beside_plant", description=__doc__
    )
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--load", type=float, default=0.3, help="of the prefill server, 0..1")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(describe())
    print(line("load average of others", os.getloadavg()[0], ""))
    numbers = count()
    with tempfile.TemporaryDirectory() as folder:
        pair = Pair(build(to_stderr), Path(folder))
        with running(pair.prefill, pair.decode):
            pair.send_all([Request(prompt(1024, next(numbers)), 8) for _ in range(8)], 4)
            profile = measure(pair, numbers)
            handover_s = measure_handover_s(pair, profile, numbers)
            for point in (*profile.prefill, *profile.decode):
                to_stderr(str(point))
            service_s = float(PrefillTruth.of(profile, 0.0).seconds(np.array([MEAN_ISL_TOKENS]))[0])
            trace = poisson(given.requests, given.load / service_s, given.seed)
            real = replay(pair, trace, numbers)
    simulated = simulate(profile, handover_s, trace)
    print(line("prefill of the mean prompt, alone", service_s * 1e3, "ms"))
    print(line("handover, alone", handover_s * 1e3, "ms"))
    print(line("requests/s", given.load / service_s, "1/s"))
    for name, seen, told in zip(("TTFT", "ITL"), real, simulated, strict=True):
        show(name, seen, told)


if __name__ == "__main__":
    main()
