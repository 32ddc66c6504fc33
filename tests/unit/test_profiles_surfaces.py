import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator

from profiles import ProfileError, decode_surface, prefill_surface, sample
from profiles.pchip import pchip_coefficients
from profiles.schema import build_profile

H200 = "llama-3.1-8b-fp8-h200"


def profile(**over):
    document = {"schemaVersion": "1", "provenance": {"how": "measured"}}
    return build_profile(document | over, "test")


def decode_points(rows):
    return [
        {"concurrency": n, "context_tokens": context, "itl_s": itl}
        for context, row in rows.items()
        for n, itl in row.items()
    ]


BUMPY = {
    1000: {1: 0.010, 10: 0.020, 20: 0.015, 40: 0.050},
    2000: {1: 0.012, 10: 0.024, 20: 0.040},
    4000: {1: 0.016, 5: 0.020, 10: 0.040},
}


def bumpy(**over):
    return decode_surface(profile(decode=decode_points(BUMPY), **over))


@pytest.mark.parametrize(
    "y",
    [
        [1.0, 2.0, 4.0, 9.0, 9.5],
        [1.0, 3.0, 2.0, 2.0, 7.0],
        [5.0, 1.0, 1.0, 3.0, 2.9],
        [1.0, 1.0, 9.0, 9.0, 9.0],
        [0.0, 10.0, 9.0, 20.0, 19.0],
    ],
)
def test_pchip_is_scipys(y):
    x = np.array([1.0, 2.0, 4.0, 5.0, 11.0])
    expected = PchipInterpolator(x, np.array(y)).c
    assert pchip_coefficients(x, np.array(y)) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_pchip_through_three_points_is_scipys():
    x, y = np.array([1.0, 3.0, 4.0]), np.array([1.0, 2.0, 8.0])
    expected = PchipInterpolator(x, y).c
    assert pchip_coefficients(x, y) == pytest.approx(expected, rel=1e-12)


def test_prefill_ignores_batched_points_and_clamps():
    points = [(100, 0.01, 1), (200, 0.02, 1), (400, 0.04, 1)]
    points += [(200, 0.09, 4), (200, 0.05, 2)]
    keys = ("isl_tokens", "ttft_s", "batch")
    surface = prefill_surface(profile(prefill=[dict(zip(keys, p, strict=True)) for p in points]))
    assert surface.service_s([50, 100, 150, 400, 999]) == pytest.approx([
        0.01,
        0.01,
        0.015,
        0.04,
        0.04,
    ])
    assert surface.is_outside([50, 100, 400, 401]).tolist() == [True, False, False, True]
    assert surface.throughput_tps([150, 999]) == pytest.approx([10_000, 10_000])
    assert (surface.isl_min_tokens, surface.isl_max_tokens) == (100, 400)


def test_decode_interpolates_over_concurrency_then_context():
    assert bumpy().itl_s(15, 1000) == pytest.approx(0.0175)
    assert bumpy().itl_s(10, 1500) == pytest.approx((0.020 + 0.024) / 2)


def test_a_row_that_ends_early_does_not_hold_down_its_neighbours():
    # At 3,000 tokens and 13 sequences the row at 4,000 has ended (10 sequences, 40 ms); held there
    # it would give 34.4 ms; continued by its chord of 24 ms over 9 sequences it gives 38.4 ms.
    surface = bumpy()
    held = (0.024 + 0.3 * 0.016 + 0.040) / 2
    assert surface.itl_s(13, 3000) == pytest.approx(held + 0.5 * 3 * 0.024 / 9)


def test_decode_clamps_at_the_end_of_each_row():
    surface = bumpy()
    assert surface.itl_s([20, 25, 1e6], 2000) == pytest.approx([0.040] * 3)
    assert surface.itl_s([0, 0.5, 1], 500) == pytest.approx([0.010] * 3)
    assert surface.itl_s(10, 9999) == pytest.approx(0.040)


def test_is_outside_says_where_clamping_begins():
    surface = bumpy()
    n = [1, 40, 41, 20, 21, 1, 1, 0]
    context = [1000, 1000, 1000, 2000, 2000, 999, 4001, 1000]
    expected = [False, False, True, False, True, True, True, False]
    assert surface.is_outside(n, context).tolist() == expected


def test_the_running_maximum_remembers_the_bump():
    surface = bumpy()
    assert surface.itl_s([10, 20], 1000) == pytest.approx([0.020, 0.015])
    assert surface.itl_running_max_s([10, 20], 1000) == pytest.approx([0.020, 0.020])
    curve = surface.curve(1000)
    assert curve.shape == (41,)
    assert curve[[0, 1, 10, 20, 40]] == pytest.approx([0.010, 0.010, 0.020, 0.020, 0.050])


def test_the_curve_stays_flat_past_the_edge_of_the_profile():
    # Halfway between rows that end at 40,000 KV tokens the edge is at 13⅓ sequences.
    assert bumpy().curve(3000)[14:] == pytest.approx(np.full(27, bumpy().itl_s(40 / 3, 3000)))


@pytest.mark.parametrize(
    ("max_sequences", "expected"), [(None, 40), (16, 16), (500, 40)], ids=["null", "less", "more"]
)
def test_the_largest_batch_was_measured_and_is_run(max_sequences, expected):
    assert bumpy(max_sequences=max_sequences).n_max == expected


@pytest.mark.parametrize(
    ("capacity", "context", "expected"),
    [(None, 1000, 40), (None, 4000, 10), (25_000, 1000, 25), (25_000, 30_000, 0)],
)
def test_the_batch_limit_is_profiled_and_fits_kv(capacity, context, expected):
    assert bumpy(kv_capacity_tokens=capacity).batch_limit(context) == expected


def test_best_throughput_needs_the_whole_path_under_the_target():
    # 20 sequences run at 15 ms, but the way there passes 20 ms at 10 sequences.
    point = bumpy().best_throughput(0.016, 1000)
    assert (point.concurrency, point.clamped) == (6, False)
    assert point.itl_s == pytest.approx(0.010 + 5 * 0.010 / 9)
    assert point.throughput_tps == pytest.approx(6 / point.itl_s)


def test_best_throughput_stops_where_more_sequences_give_less():
    rows = {c: {1: 0.010, 2: 0.011, 3: 0.100} for c in (100, 200, 300)}
    point = decode_surface(profile(decode=decode_points(rows))).best_throughput(1.0, 200)
    assert point.concurrency == 2


def test_best_throughput_says_when_it_clamped():
    assert bumpy().best_throughput(0.05, 5000).clamped
    assert bumpy().best_throughput(0.05, 500).clamped


@pytest.mark.parametrize(
    ("itl_s", "context", "message"),
    [
        (0.009, 1000, "itl_s: got 0.009 s; legal: 0.01 s or more"),
        (0.1, 50_000, "context_tokens: got 50000 tokens"),
        (0.0, 1000, "legal: numbers above 0"),
        (float("nan"), 1000, "legal: numbers above 0"),
        (0.1, float("nan"), "legal: numbers above 0"),
        (0.1, 0.0, "legal: numbers above 0"),
    ],
    ids=["target", "context", "zero target", "nan target", "nan context", "zero context"],
)
def test_best_throughput_refuses_what_no_batch_meets(itl_s, context, message):
    with pytest.raises(ProfileError, match=message) as caught:
        bumpy(kv_capacity_tokens=45_000).best_throughput(itl_s, context)
    assert len(caught.value.faults) == 1


def test_one_context_takes_the_other_direction_from_the_roofline():
    surface = decode_surface(sample("llama-2-70b-h100-tp4-decode"))
    extra = 327_680 * 32 * (4096 - 576) / (4 * 3.35e12 * 0.6)
    assert surface.estimated
    assert surface.itl_s(32, 576) == pytest.approx(0.036885)
    assert surface.itl_s(32, 100) == pytest.approx(0.036885)
    assert surface.itl_s(32, 4096) == pytest.approx(0.036885 + extra)
    assert surface.context_max_tokens == 451_660


@pytest.mark.parametrize("capacity", [100_000, 8000], ids=["roomy", "one sequence"])
def test_an_l_with_two_arms_passes_through_both(capacity):
    roofline = {"kv_bytes_per_token": 100_000, "kv_read_bytes_per_s": 1e12}
    rows = {500: {1: 0.010, 8: 0.012, 32: 0.020}, 2000: {1: 0.011}, 8000: {1: 0.013}}
    surface = decode_surface(
        profile(decode=decode_points(rows), kv_capacity_tokens=capacity, **roofline)
    )
    assert surface.estimated
    assert surface.context_max_tokens == capacity
    assert surface.itl_s([1, 32, 1, 1], [500, 500, 2000, 8000]) == pytest.approx([
        0.010,
        0.020,
        0.011,
        0.013,
    ])
    offset = 0.011 - (0.010 + 1500 * 1e-7)
    assert surface.itl_s(32, 2000) == pytest.approx(0.020 + 32 * 1500 * 1e-7 + offset)


def test_a_measured_grid_is_not_estimated():
    assert not decode_surface(sample(H200)).estimated
    estimated = profile(decode=decode_points(BUMPY), provenance={"how": "estimated"})
    assert decode_surface(estimated).estimated


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_a_surface_of_the_other_role_is_refused(role):
    other = {"prefill": "decode", "decode": "prefill"}[role]
    build = {"prefill": prefill_surface, "decode": decode_surface}[role]
    with pytest.raises(ProfileError, match=f"{role}: got no points"):
        build(sample(f"llama-2-70b-h100-tp4-{other}"))


def test_a_context_left_out_of_the_sample_is_predicted():
    whole = sample(H200)
    others = tuple(p for p in whole.decode if p.context_tokens != 5644)
    surface = decode_surface(whole.model_copy(update={"decode": others}))
    for point in whole.decode:
        if point.context_tokens == 5644:
            assert surface.itl_s(point.concurrency, 5644) == pytest.approx(point.itl_s, rel=0.05)


def test_the_sample_reproduces_the_published_points():
    surface = decode_surface(sample(H200))
    assert surface.n_max == 1024
    assert surface.kv_capacity_tokens == 945_029
    assert surface.itl_s(193, 2997) == pytest.approx(0.026759189)
    assert prefill_surface(sample(H200)).service_s(4168) == pytest.approx(0.087342026)
