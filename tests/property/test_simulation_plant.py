"""Whatever is ordered, every request and every GPU-second is accounted for, once."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.model import PodSample, Role, Signal
from planner.simulation import kernel
from planner.simulation.config import DecodeRouter, PlantConfig, PlantPool, PrefillRouter
from planner.simulation.plant import Plant
from planner.simulation.results import PlantResults
from planner.simulation.surface import DecodeTruth, PrefillTruth
from planner.simulation.traces import Trace, make_trace

SPAN_S = 120.0
POOLS = ("prefill", "decode", "decode-slow")

Order = tuple[float, str, int]


@dataclass(frozen=True)
class Case:
    config: PlantConfig
    trace: Trace
    orders: tuple[Order, ...]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    n = draw(st.integers(1, 400))
    trace = make_trace(
        "random",
        rng.uniform(0.0, SPAN_S, n),
        rng.integers(1, 4000, n),
        rng.geometric(1 / draw(st.sampled_from([1, 20, 200])), n),
        rng.integers(0, 3000, n),
    )
    itl = DecodeTruth(lambda n, context: 0.01 + 5e-4 * n + 1e-8 * n * context)
    slow = DecodeTruth(lambda n, context: 0.02 + 1e-3 * n + 0.0 * context)
    size = {"max_sequences": draw(st.integers(1, 32)), "kv_capacity_tokens": 12_000}
    startup_s = draw(st.sampled_from([0.0, 5.0, 40.0]))
    config = PlantConfig(
        (
            PlantPool(
                "prefill", Role.PREFILL, PrefillTruth(lambda t: 0.02 + 3e-4 * t), startup_s, 2, 2
            ),
            PlantPool("decode", Role.DECODE, itl, startup_s, 1, 2, **size),
            PlantPool("decode-slow", Role.DECODE, slow, startup_s, 1, 1, **size),
        ),
        kv_bytes_per_token=1e5,
        prefill_router=draw(st.sampled_from(PrefillRouter)),
        decode_router=draw(st.sampled_from(DecodeRouter)),
        seed=seed,
    )
    orders = st.tuples(st.floats(0.0, SPAN_S), st.sampled_from(POOLS), st.integers(0, 20))
    return Case(config, trace, tuple(sorted(draw(st.lists(orders, max_size=12)))))


def play(case: Case, stops: tuple[float, ...] = ()) -> tuple[Plant, PlantResults]:
    """Run a case, halting at `stops` besides the orders; at last one replica of each serves."""
    plant = Plant(case.config, case.trace)
    events: list[tuple[float, str, int]] = [*case.orders, *((t, "", 0) for t in stops)]
    for at_s, pool, replicas in sorted(events, key=lambda event: event[0]):
        plant.advance(at_s)
        if pool:
            plant.order(pool, replicas)
        else:
            plant.scrape()
    plant.advance(SPAN_S)
    for pool in POOLS:
        plant.order(pool, max(plant.replicas(pool), 1))
    plant.drain()
    return plant, plant.results()


def same(a: PlantResults, b: PlantResults) -> bool:
    columns = ("arrival_s", "prefilled_s", "finished_s", "ttft_s", "itl_s", "status")
    arrays = all(np.array_equal(getattr(a, c), getattr(b, c), equal_nan=True) for c in columns)
    return arrays and (a.lifetimes, a.orders, a.end_s) == (b.lifetimes, b.orders, b.end_s)


@given(cases())
def test_every_request_is_served_once_or_refused(case: Case) -> None:
    _, results = play(case)
    tokens = case.trace.isl_tokens + case.trace.osl_tokens
    assert np.array_equal(results.status == kernel.REFUSED, tokens > 12_000)
    served = results.status == kernel.SERVED
    assert (served | (results.status == kernel.REFUSED)).all()
    assert (
        np.diff([results.arrival_s, results.prefilled_s, results.finished_s], axis=0)[:, served] > 0
    ).all()
    assert (results.ttft_s[served] > 0).all()


@given(cases(), st.lists(st.floats(0.0, SPAN_S), max_size=20))
def test_chopping_a_run_changes_nothing(case: Case, stops: list[float]) -> None:
    assert same(play(case)[1], play(case, tuple(stops))[1])


@given(cases())
def test_gpu_seconds_are_those_of_the_pods_that_were_there(case: Case) -> None:
    _, results = play(case)
    for pool in case.config.pools:
        lives = [life for life in results.lifetimes if life.pool == pool.name]
        assert len({life.pod for life in lives}) == len(lives)
        # Never fewer pods than ordered; more only while they drain.
        for (start_s, replicas), (end_s, _) in zip(
            results.orders[pool.name],
            [*results.orders[pool.name][1:], (results.end_s, 0)],
            strict=True,
        ):
            middle_s = (start_s + end_s) / 2.0
            # Two orders may be so close that there is no moment between them.
            if start_s < middle_s < end_s:
                there = sum(life.ordered_s <= middle_s < life.released_s for life in lives)
                assert there >= replicas
        total_s = sum(life.released_s - life.ordered_s for life in lives)
        assert results.gpu_seconds()[pool.name] == pytest.approx(pool.gpus_per_replica * total_s)
        later = results.gpu_seconds(from_s=50.0)[pool.name]
        assert 0.0 <= later <= results.gpu_seconds()[pool.name] + 1e-9


def total(samples: dict[str, PodSample], signal: Signal) -> tuple[float, float]:
    found = [s.histograms[signal] for s in samples.values() if signal in s.histograms]
    return sum(h.count for h in found), sum(h.sum for h in found)


@given(cases())
def test_metrics_are_the_request_log(case: Case) -> None:
    # Orders only upwards: a pod that is gone takes its counters with it.
    highest = {pool.name: pool.initial_replicas for pool in case.config.pools}
    upwards = []
    for at_s, pool, replicas in case.orders:
        highest[pool] = max(highest[pool], replicas)
        upwards.append((at_s, pool, highest[pool]))
    plant, results = play(Case(case.config, case.trace, tuple(upwards)))
    scraped = plant.scrape()
    served = results.status == kernel.SERVED
    count = int(served.sum())
    isl, osl = case.trace.isl_tokens[served], case.trace.osl_tokens[served]
    computed = isl - case.trace.cached_tokens[served]
    prefill = {s.pod: s for s in scraped["prefill"]}
    decode = {s.pod: s for name in POOLS[1:] for s in scraped[name]}
    assert total(prefill, Signal.PROMPT_TOKENS) == (count, isl.sum())
    assert total(decode, Signal.OUTPUT_TOKENS) == (count, osl.sum())
    ttft_s = (results.prefilled_s - results.arrival_s)[served].sum()
    assert total(prefill, Signal.TTFT) == (count, pytest.approx(ttft_s))
    assert total(decode, Signal.ITL) == (count, pytest.approx(results.itl_s[served].sum()))
    assert sum(s.counters[Signal.COMPUTED_TOKENS] for s in prefill.values()) == computed.sum()
    assert sum(s.counters[Signal.GENERATED_TOKENS] for s in decode.values()) == osl.sum()
    gaps_s = (results.itl_s * np.maximum(case.trace.osl_tokens - 1, 1))[served].sum()
    assert total(decode, Signal.TOKEN_GAP) == ((osl - 1).sum(), pytest.approx(gaps_s, abs=1e-6))
    handover_s = (results.arrival_s + results.ttft_s - results.prefilled_s)[served].sum()
    assert total(decode, Signal.TTFT) == (count, pytest.approx(handover_s))
    client = plant.gateway().histograms
    assert client[Signal.TTFT].sum == pytest.approx(results.ttft_s[served].sum())
    assert client[Signal.ITL].count == count
