"""The plant against queueing theory: it is the judge, so it is judged first."""

import heapq
import math
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from planner.model import Role
from planner.simulation.config import DecodeRouter, PlantConfig, PlantPool, PrefillRouter
from planner.simulation.plant import Plant
from planner.simulation.results import PlantResults
from planner.simulation.surface import DecodeTruth, PrefillTruth
from planner.simulation.traces import Trace, make_trace

Floats = NDArray[np.float64]

SECONDS_PER_TOKEN = 5e-5  # 20,000 tokens a second: lengths are fine enough to stand for any time


def plant(
    trace: Trace,
    prefill: PrefillTruth | None = None,
    decode: DecodeTruth | None = None,
    servers: tuple[int, int] = (1, 1),
    max_sequences: int = 512,
    service_cv: float = 0.0,
    prefill_router: PrefillRouter = PrefillRouter.SHARED,
) -> Plant:
    pools = (
        PlantPool(
            "prefill",
            Role.PREFILL,
            prefill or PrefillTruth.constant(0.0),
            initial_replicas=servers[0],
        ),
        PlantPool(
            "decode",
            Role.DECODE,
            decode or DecodeTruth.constant(1e-3),
            initial_replicas=servers[1],
            max_sequences=max_sequences,
            kv_capacity_tokens=10**9,
        ),
    )
    config = PlantConfig(
        pools,
        transfer_latency_s=0.0,
        service_cv=service_cv,
        prefill_router=prefill_router,
        decode_router=DecodeRouter.FEWEST_SEQUENCES,
    )
    return Plant(config, trace)


def drained(built: Plant) -> PlantResults:
    built.drain()
    return built.results()


def poisson(requests: int, rate_rps: float, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.exponential(1.0 / rate_rps, requests))


def prompts(seconds: Floats) -> NDArray[np.int64]:
    """Return prompt lengths [tokens] that take these times to prefill."""
    return np.maximum(np.rint(seconds / SECONDS_PER_TOKEN), 1).astype(np.int64)


LINEAR = PrefillTruth(lambda tokens: tokens * SECONDS_PER_TOKEN)


@pytest.mark.parametrize("servers", [1, 3, 8], ids=lambda c: f"c={c}")
def test_shared_queue_waits_as_kiefer_wolfowitz(servers: int) -> None:
    arrivals = poisson(20_000, 0.9 * servers, seed=servers)
    lengths = prompts(np.random.default_rng(7).lognormal(-0.5, 1.0, 20_000))
    built = plant(
        make_trace("kw", arrivals, lengths, 1), LINEAR, servers=(servers, 1), service_cv=0.05
    )
    service = lengths * SECONDS_PER_TOKEN * built._state.requests["noise"]
    results = drained(built)

    free_s = [0.0] * servers
    expected = []
    for arrival_s, service_s in zip(results.arrival_s, service, strict=True):
        end_s = max(arrival_s, heapq.heappop(free_s)) + service_s
        heapq.heappush(free_s, end_s)
        expected.append(end_s)
    np.testing.assert_allclose(results.prefilled_s, expected, rtol=0, atol=1e-7)
    assert (results.prefilled_s - results.arrival_s - service).max() > 1.0  # queues did form


def test_own_queue_waits_as_lindley() -> None:
    arrivals = poisson(20_000, 0.85, seed=3)
    lengths = prompts(np.random.default_rng(5).exponential(1.0, 20_000))
    results = drained(
        plant(
            make_trace("lindley", arrivals, lengths, 1),
            LINEAR,
            prefill_router=PrefillRouter.FEWEST_TOKENS,
        )
    )
    service = lengths * SECONDS_PER_TOKEN
    waits = [0.0]
    for (a, b), s in zip(pairwise(results.arrival_s), service[:-1], strict=True):
        waits.append(max(waits[-1] + s - (b - a), 0.0))
    seen = results.prefilled_s - results.arrival_s - service
    np.testing.assert_allclose(seen, waits, rtol=0, atol=1e-7)


def erlang_c(servers: int, offered: float) -> float:
    terms = [offered**k / math.factorial(k) for k in range(servers)]
    last = offered**servers / math.factorial(servers) * servers / (servers - offered)
    return last / (sum(terms) + last)


def mean_waits(load: float, servers: int, *, exponential: bool) -> Floats:
    """Return the mean wait [services] of 30 independent runs, the first tenth of each left out."""
    means = []
    for seed in range(30):
        n = 30_000
        service = (
            np.random.default_rng([seed, 1]).exponential(1.0, n) if exponential else np.ones(n)
        )
        lengths = prompts(service)
        trace = make_trace("queue", poisson(n, load * servers, seed), lengths, 1)
        results = drained(plant(trace, LINEAR, servers=(servers, 1)))
        waits = results.prefilled_s - results.arrival_s - lengths * SECONDS_PER_TOKEN
        means.append(waits[n // 10 :].mean())
    return np.array(means)


@pytest.mark.parametrize(
    ("load", "servers", "exponential", "theory"),
    [
        (0.7, 1, False, 0.7 / (2 * 0.3)),
        (0.8, 1, True, 0.8 / 0.2),
        (0.8, 4, True, erlang_c(4, 3.2) / (4 - 3.2)),
    ],
    ids=["M/D/1", "M/M/1", "M/M/4"],
)
def test_mean_wait_is_within_its_confidence_interval(
    load: float, servers: int, exponential: bool, theory: float
) -> None:
    means = mean_waits(load, servers, exponential=exponential)
    half = stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / math.sqrt(len(means))
    assert half < 0.05 * theory  # else the test says nothing
    assert means.mean() == pytest.approx(theory, abs=half)


def occupancy(results: PlantResults) -> Floats:
    """Return the share of time with n sequences, shape (n,), the first tenth left out."""
    moments = np.concatenate([results.arrival_s, results.finished_s])
    change = np.repeat([1, -1], len(results.arrival_s))
    order = np.argsort(moments, kind="stable")
    level, spans = np.cumsum(change[order])[:-1], np.diff(moments[order])
    steady = (moments[order][:-1] > 0.1 * results.end_s) & (
        moments[order][:-1] < results.arrival_s[-1]
    )
    shares = np.bincount(level[steady], weights=spans[steady])
    return shares / shares.sum()


def processor_sharing(rate_rps: float, osl: float, itl: Floats) -> Floats:
    """Return π(n) ∝ Π λ E[OSL] ITL(k) / k for n = 0 … len(itl) − 1; `itl` [s] by n."""
    k = np.arange(1, len(itl))
    log_weights = np.concatenate([[0.0], np.cumsum(np.log(rate_rps * osl * itl[1:] / k))])
    weights = np.exp(log_weights - log_weights.max())
    return weights / weights.sum()


def outputs(kind: str, n: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(11)
    if kind == "geometric":
        return rng.geometric(1 / 200, n)
    if kind == "two-point":
        return rng.choice([50, 350], n)
    return np.full(n, 200)


@pytest.mark.parametrize(
    ("kind", "replicas"),
    [("geometric", 1), ("two-point", 1), ("fixed", 1), ("geometric", 4)],
    ids=str,
)
def test_decode_occupancy_is_that_of_processor_sharing(kind: str, replicas: int) -> None:
    n, rate_rps = 500_000, 4.3 * replicas
    osl = outputs(kind, n)
    results = drained(
        plant(
            make_trace("ps", poisson(n, rate_rps, seed=2), 1, osl),
            decode=DecodeTruth(lambda n, context: 0.02 + 0.0005 * n + 0.0 * context),
            servers=(1, replicas),
        )
    )
    seen = occupancy(results)
    per_replica = np.arange(512 * replicas) / replicas
    # A sequence waits half a step on average until the one under way ends: 0.25 % of its stay.
    expected = processor_sharing(rate_rps, osl.mean() + 0.5, 0.02 + 0.0005 * per_replica)

    mean = float(expected @ np.arange(len(expected)))
    assert seen @ np.arange(len(seen)) == pytest.approx(mean, rel=0.03)
    level = int(np.searchsorted(np.cumsum(expected), 0.95))
    assert int(np.searchsorted(np.cumsum(seen), 0.95)) == pytest.approx(level, rel=0.03)
    # Some 4,000 independent looks at the batch: the tail's own standard error is 6 %.
    assert seen[level:].sum() == pytest.approx(expected[level:].sum(), rel=0.18)


def stepped(trace: Trace, itl: DecodeTruth) -> tuple[Floats, Floats]:
    """Return first and last token times [s] of one replica, simulated step after step."""
    first, last = np.zeros(len(trace)), np.zeros(len(trace))
    batch: dict[int, int] = {}
    t, arrived = 0.0, 0
    while arrived < len(trace) or batch:
        if not batch:
            t = max(t, trace.arrival_s[arrived])
        while arrived < len(trace) and trace.arrival_s[arrived] <= t:
            batch[arrived] = 0
            arrived += 1
        context = np.mean([trace.isl_tokens[i] + done for i, done in batch.items()]) + 0.5
        t += float(itl.seconds(np.array([float(len(batch))]), np.array([context]))[0])
        for i in list(batch):
            batch[i] += 1
            if batch[i] == 1:
                first[i] = t
            if batch[i] == trace.osl_tokens[i]:
                last[i] = t
                del batch[i]
    return first, last


def test_decode_by_arithmetic_is_decode_step_by_step() -> None:
    rng = np.random.default_rng(4)
    trace = make_trace(
        "steps", poisson(800, 5.0, 4), rng.integers(1, 3000, 800), rng.integers(1, 400, 800)
    )
    itl = DecodeTruth(lambda n, context: 0.01 + 0.0004 * n + 4e-8 * n * context)
    results = drained(plant(trace, decode=itl))
    first, last = stepped(trace, itl)
    np.testing.assert_allclose(results.ttft_s, first - trace.arrival_s, rtol=0, atol=1e-6)
    np.testing.assert_allclose(results.finished_s, last, rtol=0, atol=1e-6)
