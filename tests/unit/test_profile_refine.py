"""A profile corrected by production: known factors come back, and the profile stays sane."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.adapters.memory import MemoryMetrics
from planner.decision.lengths import points
from planner.errors import InputError
from planner.model import FACTOR_RANGE, Histogram, Observation, Pool, PoolObservation, Role
from planner.past import observations
from planner.profiling.evidence import evidence
from planner.profiling.refine import Bucket, buckets, factor_at, provenance, refined
from planner.replay import plant_config
from planner.simulation.plant import Plant
from planner.simulation.surface import DecodeTruth, PrefillTruth
from planner.simulation.traces import make_trace
from planner.spec.service import load_services
from planner.view.refine_table import refine_table, used_line
from profiles import Profile, decode_surface, prefill_surface, sample
from profiles.sanity import oddities
from tests.builders import OSL, histogram, observation, pool

ROOT = Path(__file__).parents[2]
BOUNDS = (*(float(2**k) for k in range(6, 15)), math.inf)
Factor = Callable[[Any], Any]
PREFILL, DECODE = pool(Role.PREFILL), pool(Role.DECODE)


@cache
def h200() -> Profile:
    return sample("llama-3.1-8b-fp8-h200")


def by_octave(values: dict[float, float]) -> Factor:
    """Return a factor that is linear in the logarithm between these."""
    at, factors = np.log2(sorted(values)), [values[key] for key in sorted(values)]
    return lambda x: np.interp(np.log2(x), at, factors)


def prompts(isl: float, count: float, other: float = 0.0, share: float = 0.0) -> Histogram:
    """Return prompts of one length, and a share of them of another."""
    main = histogram(isl, count * (1.0 - share), BOUNDS)
    return main if share == 0.0 else main.plus(histogram(other, count * share, BOUNDS))


def prefill_seen(lengths: Histogram, truth: Factor, uncached: float = 1.0) -> Observation:
    """Return an interval of these prompts on servers off their profile by `truth`."""
    surface = PREFILL.prefill
    assert surface is not None
    isl, weights = points(lengths)
    took_s = surface.service_s(isl * uncached) * truth(isl * uncached)
    own = PoolObservation(1, float(weights @ took_s), 0.4, 0.0, changed=False)
    return seen_by("prefill", own, prompts=lengths, uncached_ratio=uncached)


def decode_seen(mean_batch: float, truth: Factor, count: float = 300.0) -> Observation:
    """Return an interval with so many sequences together in the mean, on such servers."""
    surface = DECODE.decode
    assert surface is not None
    outputs = histogram(OSL, count, BOUNDS)
    isl, osl = points(histogram(1000.0, count, BOUNDS)), points(outputs)
    context = float(isl[0] @ isl[1]) + 0.5 * float(osl[0] ** 2 @ osl[1]) / float(osl[0] @ osl[1])
    batch = mean_batch + 1.0  # as a token sees it
    itl_s = float(surface.itl_s(batch, context)) * truth(batch)
    own = PoolObservation(1, itl_s, mean_batch, 0.0, changed=False)
    return seen_by("decode", own, prompts=histogram(1000.0, count, BOUNDS), outputs=outputs)


def seen_by(name: str, own: PoolObservation, **over: object) -> Observation:
    usual = observation()
    return observation(pools={**usual.pools, name: own}, **over)


def factors_of(pool_: Pool, past: Iterable[Observation | None]) -> tuple[Bucket, ...]:
    return buckets(evidence(pool_, past))


def at(found: Iterable[Bucket], centre: float) -> Bucket:
    return next(bucket for bucket in found if bucket.centre == centre)


OCTAVES = (256.0, 1024.0, 4096.0)
truths = st.tuples(*[st.floats(0.7, 1.4)] * 3).map(
    lambda f: by_octave(dict(zip(OCTAVES, f, strict=True)))
)


class TestPrefill:
    @given(truths)
    def test_known_factors_come_back(self, truth: Factor):
        lengths = np.exp(np.linspace(math.log(200.0), math.log(8000.0), 100)).tolist()
        past = [prefill_seen(prompts(isl, 300.0), truth) for isl in lengths]
        found = factors_of(PREFILL, past)
        for isl in (300.0, 512.0, 1024.0, 2000.0, 4096.0, 7000.0):
            assert factor_at(found, isl) == pytest.approx(truth(isl), abs=0.06), isl

    def test_mixes_of_short_and_long_are_told_apart(self):
        truth = by_octave({512.0: 0.8, 4096.0: 1.3})
        past = [
            prefill_seen(prompts(400.0, 300.0, 5000.0, share), truth)
            for share in np.linspace(0.02, 0.98, 60)
        ]
        found = factors_of(PREFILL, past)
        assert factor_at(found, 400.0) == pytest.approx(0.8, abs=0.05)
        assert factor_at(found, 5000.0) == pytest.approx(1.3, abs=0.05)

    def test_one_mix_throughout_gives_one_factor(self):
        past = [prefill_seen(prompts(400.0, 300.0, 5000.0, 0.5), lambda _: 1.2)] * 50
        assert [bucket.factor for bucket in factors_of(PREFILL, past)] == pytest.approx([1.2] * 7)

    def test_only_computed_tokens_are_work(self):
        truth = by_octave({512.0: 0.8, 4096.0: 1.3})
        past = [prefill_seen(prompts(2000.0, 300.0), truth, uncached=0.25)] * 50
        found = factors_of(PREFILL, past)
        assert factor_at(found, 500.0) == pytest.approx(0.8, abs=0.05)


class TestDecode:
    @given(st.tuples(*[st.floats(0.7, 1.4)] * 3))
    def test_known_factors_come_back(self, values: tuple[float, float, float]):
        truth = by_octave(dict(zip((2.0, 16.0, 128.0), values, strict=True)))
        past = [decode_seen(n, truth) for n in np.exp(np.linspace(0.0, math.log(200.0), 150))]
        found = factors_of(DECODE, past)
        for batch in (2.0, 4.0, 10.0, 16.0, 40.0, 128.0, 180.0):
            assert factor_at(found, batch) == pytest.approx(truth(batch), abs=0.06), batch

    def test_what_was_not_seen_leans_on_its_neighbours(self):
        past = [decode_seen(n, lambda _: 1.3) for n in np.linspace(10.0, 30.0, 40)]
        past += [decode_seen(1.0, lambda _: 0.9)] * 40
        found = factors_of(DECODE, past)
        assert [bucket.centre for bucket in found if bucket.is_known] == [2.0, 8.0, 16.0, 32.0]
        assert 0.9 < at(found, 4.0).factor < 1.3
        assert at(found, 64.0).factor == pytest.approx(1.3, abs=0.06)
        assert at(found, 64.0).requests == 0.0

    def test_evidence_is_counted(self):
        found = factors_of(DECODE, [decode_seen(15.0, lambda _: 1.1)] * 40)
        assert at(found, 16.0).intervals == pytest.approx(40.0)
        assert at(found, 16.0).requests == pytest.approx(40 * 300.0)
        assert at(found, 16.0).factor == pytest.approx(1.1)
        assert at(found, 16.0).spread < 0.02


class TestBounds:
    @pytest.mark.parametrize(("truth", "bound"), [(0.3, FACTOR_RANGE[0]), (3.0, FACTOR_RANGE[1])])
    def test_factors_are_bounded_and_it_is_said(self, truth: float, bound: float):
        found = evidence(DECODE, [decode_seen(15.0, lambda _: truth)] * 40)
        bucket = at(buckets(found), 16.0)
        assert (bucket.factor, bucket.seen) == (bound, pytest.approx(truth, rel=0.01))
        notes = refine_table("t", found, buckets(found)).columns[-1]
        assert f"seen {truth:.2f}: bounded" in list(notes.cells)

    @pytest.mark.parametrize(
        ("spoilt", "why"),
        [
            pytest.param({"changed": True}, "pods came or went", id="pods changed"),
            pytest.param({"service_s": None}, "no latency was measured", id="no latency"),
            pytest.param({"service_s": 9.0}, "more than 4 times off", id="a fault"),
            pytest.param({"concurrency": 5000.0}, "outside the profile", id="outside"),
        ],
    )
    def test_what_can_not_be_used_is_left_out_and_counted(
        self, spoilt: dict[str, object], why: str
    ):
        good = decode_seen(15.0, lambda _: 1.1)
        bad = seen_by(
            "decode",
            replace(good.pools["decode"], **spoilt),
            prompts=good.prompts,
            outputs=good.outputs,
        )
        found = evidence(DECODE, [good] * 20 + [bad] * 3 + [None])
        assert found.left_out == {why: 3}
        assert used_line(found) == f"20 intervals used; left out: 3 {why}"
        assert at(buckets(found), 16.0).factor == pytest.approx(1.1)

    @pytest.mark.parametrize(
        ("past", "told"),
        [
            pytest.param([], "0 usable intervals with 0 requests (left out: none)", id="nothing"),
            pytest.param(
                [decode_seen(15.0, lambda _: 1.0)] * 9,
                "9 usable intervals with 2700 requests (left out: none)",
                id="few intervals",
            ),
            pytest.param(
                [decode_seen(15.0, lambda _: 1.0, count=30.0)] * 12
                + [decode_seen(15.0, lambda _: 1.0, count=10.0)] * 5,
                "12 usable intervals with 360 requests (left out: 5 under 20 requests)",
                id="few requests",
            ),
        ],
    )
    def test_too_little_is_one_line(self, past: list[Observation], told: str):
        with pytest.raises(InputError) as refused:
            factors_of(DECODE, past)
        assert str(refused.value) == (
            f"--from-prometheus: {told}; legal: at least 10 with 500; give a longer window"
        )


def known(centres: Iterable[float], factors: Iterable[float]) -> list[Bucket]:
    return [
        Bucket(centre, factor, 0.02, 100.0, 1e4, is_known=True, seen=factor)
        for centre, factor in zip(centres, factors, strict=True)
    ]


LENGTHS = [float(2**k) for k in range(7, 15)]
BATCHES = [float(2**k) for k in range(10)]
any_factor = st.floats(*FACTOR_RANGE)


class TestProfile:
    @given(st.lists(any_factor, min_size=8, max_size=8))
    def test_prefill_stays_sane_whatever_the_factors(self, factors: list[float]):
        new = refined(h200(), Role.PREFILL, known(LENGTHS, factors), {})
        assert not falls(new) - falls(h200())
        surface = prefill_surface(new)
        lengths = np.linspace(100.0, 16_000.0, 400)
        assert (np.diff(surface.service_s(lengths)) >= -1e-12).all()
        assert new.decode == h200().decode

    @given(st.lists(any_factor, min_size=10, max_size=10))
    def test_decode_stays_sane_whatever_the_factors(self, factors: list[float]):
        new = refined(h200(), Role.DECODE, known(BATCHES, factors), {})
        assert not falls(new) - falls(h200())
        assert new.prefill == h200().prefill
        assert new.max_sequences == h200().max_sequences

    @given(st.floats(0.6, 1.8))
    def test_one_factor_scales_the_surface(self, factor: float):
        lengths, batches = np.linspace(150.0, 16_000.0, 50), np.linspace(1.0, 60.0, 50)
        new = refined(h200(), Role.PREFILL, known(LENGTHS, [factor] * 8), {})
        assert prefill_surface(new).service_s(lengths) == pytest.approx(
            factor * prefill_surface(h200()).service_s(lengths), rel=0.02
        )
        new = refined(h200(), Role.DECODE, known(BATCHES, [factor] * 10), {})
        assert decode_surface(new).itl_s(batches, 3000.0) == pytest.approx(
            factor * decode_surface(h200()).itl_s(batches, 3000.0), rel=1e-6
        )

    def test_what_was_seen_between_two_points_is_kept(self):
        factors = [1.0, 1.0, 1.0, 1.0, 1.0, 1.4, 1.4, 1.0, 1.0, 1.0]
        new = refined(h200(), Role.DECODE, known(BATCHES, factors), {})
        # The profile was measured at 1 and 263 sequences in this context.
        ratio = decode_surface(new).itl_s(48.0, 350.0) / decode_surface(h200()).itl_s(48.0, 350.0)
        assert ratio == pytest.approx(1.4, abs=0.02)

    def test_points_are_added_only_where_something_was_seen(self):
        found = [replace(bucket, is_known=False) for bucket in known(BATCHES, [1.2] * 10)]
        new = refined(h200(), Role.DECODE, found, {})
        assert len(new.decode) == len(h200().decode)
        assert [p.itl_s for p in new.decode] == pytest.approx([
            1.2 * p.itl_s for p in h200().decode
        ])

    @pytest.mark.parametrize("name", ["llama-2-70b-a100-tp4", "llama-2-70b-h100-tp4"])
    @pytest.mark.parametrize("role", list(Role))
    def test_every_sample_can_be_refined(self, name: str, role: Role):
        old = sample(f"{name}-{role}")
        centres = LENGTHS if role is Role.PREFILL else BATCHES
        new = refined(old, role, known(centres, np.linspace(1.3, 0.8, len(centres))), {})
        assert not falls(new) - falls(old)
        kept = {p.batch for p in old.prefill}
        assert {p.batch for p in new.prefill} == kept

    def test_the_provenance_says_from_what(self):
        told = provenance(h200(), "production X: 90 intervals", "2026-11-22", "pd-planner 1")
        made = refined(h200(), Role.DECODE, known(BATCHES, [1.1] * 10), told).provenance
        assert made.tool == "pd-planner 1, of points by NVIDIA Dynamo profiler"
        assert made.date == "2026-11-22"
        assert made.command is not None
        assert made.command.startswith(
            "refined from production X: 90 intervals; before: pd-planner"
        )
        assert (made.how, made.gpu) == (h200().provenance.how, "h200")


def falls(profile: Profile) -> set[str]:
    return {odd.name for odd in oddities(profile)}


@pytest.fixture(scope="module")
def simulated() -> list[Observation | None]:
    # Two hours on simulated servers that are exactly as their profile says: 2 to 22 requests/s.
    (loaded,) = load_services([ROOT / "examples" / "llama-8b-h200.yaml"])
    random = np.random.default_rng(1)
    seconds = np.arange(7200.0)
    arrival_s = np.repeat(seconds, random.poisson(12.0 - 10.0 * np.cos(seconds / 600.0)))
    arrival_s += random.uniform(size=arrival_s.size)
    isl = np.clip(random.lognormal(6.5, 0.8, arrival_s.size), 10.0, 12_000.0)
    osl = np.clip(random.exponential(200.0, arrival_s.size), 1.0, 2000.0)
    usual = plant_config(loaded, {"prefill": 3, "decode": 1}, 0)
    truths = {"prefill": PrefillTruth, "decode": DecodeTruth}
    exact = tuple(
        replace(p, surface=truths[p.name].of(loaded.profiles[p.name], wiggle=0.0))
        for p in usual.pools
    )
    plant = Plant(replace(usual, pools=exact), make_trace("two hours", arrival_s, isl, osl))
    metrics = MemoryMetrics(15.0, retention_s=1e9)
    for at_s in np.arange(7.5, 7200.0, 15.0).tolist():
        plant.advance(at_s)
        metrics.store(loaded.service.key, plant.scrape(), None, at_s)
    samples = metrics.history(loaded.service, 0.0, 7140.0, 60.0)
    return observations(loaded.service, samples, 0.0)


@pytest.mark.parametrize(("role", "least"), [(PREFILL, 2), (DECODE, 4)], ids=["prefill", "decode"])
def test_servers_as_their_profile_says_need_no_correction(
    role: Pool, least: int, simulated: list[Observation | None]
):
    found = [bucket for bucket in factors_of(role, simulated) if bucket.is_known]
    print({bucket.centre: round(bucket.factor, 4) for bucket in found})
    assert len(found) >= least
    assert [bucket.factor for bucket in found] == pytest.approx([1.0] * len(found), abs=0.008)


def test_the_mean_batch_alone_would_take_fuller_batches_for_slow_servers(
    simulated: list[Observation | None],
):
    even = [
        replace(
            seen,
            pools={name: replace(own, concurrency_spread=0.0) for name, own in seen.pools.items()},
        )
        for seen in simulated
        if seen is not None
    ]
    found = [bucket for bucket in factors_of(DECODE, even) if bucket.is_known]
    print({bucket.centre: round(bucket.factor, 4) for bucket in found})
    assert min(bucket.factor for bucket in found) > 1.008
