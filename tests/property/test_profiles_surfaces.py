import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles import (
    Profile,
    ProfileError,
    decode_surface,
    parse_profile,
    prefill_surface,
    profile_text,
    read_dynamo,
    write_dynamo,
)

ITL_S = st.floats(1e-4, 1.0)


@st.composite
def profiles(draw):
    lengths = draw(st.lists(st.integers(1, 200_000), min_size=3, max_size=8, unique=True))
    contexts = draw(st.lists(st.integers(10, 100_000), min_size=3, max_size=5, unique=True))
    batches = st.lists(st.integers(1, 300), min_size=3, max_size=6, unique=True)
    return Profile(
        schema_version="1",
        provenance={"how": "measured", "gpusPerReplica": draw(st.integers(1, 16))},
        prefill=[
            {"isl_tokens": isl, "ttft_s": draw(st.floats(1e-3, 100.0))}
            for isl in draw(st.permutations(lengths))
        ],
        decode=[
            {"concurrency": n, "context_tokens": context, "itl_s": draw(ITL_S)}
            for context in contexts
            for n in draw(batches)
        ],
        kv_capacity_tokens=draw(st.integers(1_000_000, 40_000_000)),
    )


CONCURRENCY = st.floats(0.0, 1000.0)
CONTEXT = st.floats(1.0, 300_000.0)


@given(profiles(), st.lists(st.floats(0.0, 1e6), min_size=1, max_size=9))
def test_prefill_stays_inside_the_points_and_clamps(profile, lengths):
    surface = prefill_surface(profile)
    times = [point.ttft_s for point in profile.prefill]
    served = surface.service_s(lengths)
    assert served.min() >= min(times) * (1 - 1e-9)
    assert served.max() <= max(times) * (1 + 1e-9)
    inside = np.clip(lengths, surface.isl_min_tokens, surface.isl_max_tokens)
    assert served == pytest.approx(surface.service_s(inside))
    assert surface.is_outside(lengths).tolist() == (inside != np.array(lengths)).tolist()


@given(profiles())
def test_surfaces_pass_through_the_points(profile):
    prefill, decode = prefill_surface(profile), decode_surface(profile)
    for point in profile.prefill:
        assert prefill.service_s(point.isl_tokens) == pytest.approx(point.ttft_s, rel=1e-9)
    for point in profile.decode:
        itl_s = decode.itl_s(point.concurrency, point.context_tokens)
        assert itl_s == pytest.approx(point.itl_s, rel=1e-6)
        assert not decode.is_outside(point.concurrency, point.context_tokens)


@given(profiles(), st.lists(st.tuples(CONCURRENCY, CONTEXT), min_size=1, max_size=9))
def test_decode_stays_inside_the_points_and_clamps(profile, asked):
    surface = decode_surface(profile)
    latencies = [point.itl_s for point in profile.decode]
    n, context = np.array(asked).T
    itl_s = surface.itl_s(n, context)
    assert itl_s.min() >= min(latencies) * (1 - 1e-9)
    assert itl_s.max() <= max(latencies) * (1 + 1e-9)
    inside = np.clip(context, surface.context_min_tokens, surface.context_max_tokens)
    assert itl_s == pytest.approx(surface.itl_s(np.clip(n, 1, surface.n_max), inside))


@given(profiles(), CONCURRENCY, CONTEXT)
def test_one_point_is_what_it_is_among_others(profile, concurrency, context):
    surface = decode_surface(profile)
    alone, (among, _) = (
        surface.itl_s(concurrency, context),
        surface.itl_s([concurrency, 1.0], context),
    )
    assert alone.shape == ()
    assert np.isclose(alone, among, rtol=1e-12, atol=0.0)


@given(profiles(), CONTEXT)
def test_the_running_maximum_never_falls_and_is_the_maximum(profile, context):
    surface = decode_surface(profile)
    batches = np.arange(surface.n_max + 1)
    curve = surface.curve(context)
    assert curve.shape == (surface.n_max + 1,)
    assert (np.diff(curve) >= 0).all()
    raw = surface.itl_s(batches, context)
    assert curve == pytest.approx(np.maximum.accumulate(raw), rel=1e-6)
    assert surface.itl_running_max_s(batches, context) == pytest.approx(curve, rel=1e-6)


@given(profiles(), st.lists(CONCURRENCY, min_size=2, max_size=9), CONTEXT)
def test_the_running_maximum_never_falls_between_whole_batches(profile, n, context):
    largest = decode_surface(profile).itl_running_max_s(sorted(n), context)
    assert (np.diff(largest) >= -1e-9).all()


@given(profiles(), ITL_S, ITL_S, CONTEXT)
def test_a_tighter_target_never_raises_the_best_throughput(profile, one_s, other_s, context):
    surface = decode_surface(profile)
    best = []
    for target_s in sorted((one_s, other_s)):
        try:
            point = surface.best_throughput(target_s, context)
        except ProfileError:
            best.append(0.0)
        else:
            assert point.itl_s <= target_s
            assert point.concurrency <= surface.batch_limit(context)
            best.append(point.throughput_tps)
    assert best[0] <= best[1]


@given(profiles())
def test_text_round_trip_is_exact(profile):
    assert parse_profile(profile_text(profile), "text") == profile


@settings(max_examples=30)
@given(profiles(), st.sampled_from(["npz", "json"]))
def test_dynamo_round_trip_keeps_what_both_can_say(profile, fmt):
    with tempfile.TemporaryDirectory() as folder:
        write_dynamo(profile, folder, fmt)
        back = read_dynamo(folder)
    prefill = sorted((p.isl_tokens, p.ttft_s) for p in profile.prefill)
    assert [(p.isl_tokens, p.ttft_s) for p in back.prefill] == [
        (isl, pytest.approx(ttft, rel=1e-12)) for isl, ttft in prefill
    ]
    assert [(p.concurrency, p.context_tokens) for p in back.decode] == [
        (p.concurrency, p.context_tokens) for p in profile.decode
    ]
    itl_s = [p.itl_s for p in profile.decode]
    assert [p.itl_s for p in back.decode] == pytest.approx(itl_s, rel=1e-12)
    assert back.kv_capacity_tokens == profile.kv_capacity_tokens
    assert back.provenance.gpus_per_replica == profile.provenance.gpus_per_replica
