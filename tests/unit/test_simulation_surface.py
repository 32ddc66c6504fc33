"""The truth is the profile's points, plus a bounded wiggle, plus stated ways beyond them."""

import numpy as np
import pytest

from planner.simulation.surface import CONTEXT_STEPS, DecodeTruth, PrefillTruth
from profiles import sample
from profiles.schema import Profile, build_profile

PROMPTS = [(100, 0.1), (200, 0.15), (400, 0.35)]
GRID = {
    (1.0, 500.0): 0.010, (4.0, 500.0): 0.013, (16.0, 500.0): 0.025,
    (1.0, 1000.0): 0.011, (4.0, 1000.0): 0.015, (16.0, 1000.0): 0.033,
    (1.0, 4000.0): 0.012, (4.0, 4000.0): 0.021, (16.0, 4000.0): 0.057,
}  # fmt: skip
LINE = {(1.0, 576.0): 0.010, (4.0, 576.0): 0.013, (16.0, 576.0): 0.025}
ROOFLINE = {"kv_capacity_tokens": 100_000, "kv_bytes_per_token": 2e5, "kv_read_bytes_per_s": 2e12}


def profile(
    prompts: list[tuple[int, float]] | None = None,
    steps: dict[tuple[float, float], float] | None = None,
    **over: float,
) -> Profile:
    document = {
        "schemaVersion": "1",
        "provenance": {"how": "estimated"},
        "prefill": [{"isl_tokens": n, "ttft_s": s} for n, s in prompts or []],
        "decode": [
            {"concurrency": n, "context_tokens": c, "itl_s": s}
            for (n, c), s in (steps or {}).items()
        ],
        **over,
    }
    return build_profile(document, "test")


def prefill_s(truth: PrefillTruth, tokens: float) -> float:
    return float(truth.seconds(np.array([tokens]))[0])


def step_s(truth: DecodeTruth, sequences: float, context: float) -> float:
    return float(truth.seconds(np.array([sequences]), np.array([context]))[0])


@pytest.mark.parametrize(
    ("tokens", "seconds"),
    [
        (100, 0.1),
        (200, 0.15),
        (400, 0.35),
        (1, 0.1),
        # Last slope 1 ms a token; the parabola through the three points is above it.
        (800, 0.1 + 5e-4 * 700 + 5e-4 / 300 * 700 * 600),
    ],
    ids=["first point", "middle point", "last point", "below", "above, parabola"],
)
def test_prefill_goes_through_its_points_and_beyond(tokens: float, seconds: float) -> None:
    truth = PrefillTruth.of(profile(PROMPTS), wiggle=0.0)
    assert prefill_s(truth, tokens) == pytest.approx(seconds)


def test_prefill_beyond_a_flattening_curve_keeps_its_last_slope() -> None:
    truth = PrefillTruth.of(profile([(100, 0.1), (200, 0.3), (300, 0.4)]), wiggle=0.0)
    assert prefill_s(truth, 1300) == pytest.approx(1.4)


def test_prefill_between_points_is_monotone() -> None:
    table = PrefillTruth.of(sample("llama-2-70b-h100-tp4-prefill"), wiggle=0.0).table(32_768)
    assert table.shape == (32_769,)
    assert (np.diff(table) >= 0.0).all()


@pytest.mark.parametrize(
    ("sequences", "context", "seconds"),
    [
        (4, 1000, 0.015),
        (2.5, 1000, 0.013),
        (4, 2500, 0.018),
        (32, 1000, 0.033 + 16 * 0.018 / 12),
        (1, 100, 0.010),
        (4, 7000, 0.027),
    ],
    ids=["point", "between n", "between contexts", "above n", "below context", "above context"],
)
def test_decode_interpolates_its_grid(sequences: float, context: float, seconds: float) -> None:
    truth = DecodeTruth.of(profile(steps=GRID), wiggle=0.0)
    assert step_s(truth, sequences, context) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "noisy",
    [{(16.0, 1000.0): 0.014, (16.0, 4000.0): 0.020}, {(16.0, 4000.0): 0.030}],
    ids=["falling with n", "falling with context"],
)
def test_a_falling_edge_is_level_beyond(noisy: dict[tuple[float, float], float]) -> None:
    truth = DecodeTruth.of(profile(steps={**GRID, **noisy}), wiggle=0.0)
    edge = step_s(truth, 16, 4000)
    assert step_s(truth, 1000, 40_000) >= edge
    assert step_s(truth, 16, 40_000) >= edge


def test_one_context_is_carried_on_by_the_roofline() -> None:
    truth = DecodeTruth.of(profile(steps=LINE, **ROOFLINE), wiggle=0.0)
    assert step_s(truth, 4, 300) == pytest.approx(0.013)
    # 2e5 B × 4 sequences × 1000 tokens at 2e12 B/s.
    assert step_s(truth, 4, 1576) == pytest.approx(0.013 + 4e-4)


@pytest.mark.parametrize("seed", range(5))
def test_the_wiggle_is_bounded_smooth_and_its_own(seed: int) -> None:
    prompts, steps = sample("llama-2-70b-h100-tp4-prefill"), profile(steps=GRID)
    smooth = PrefillTruth.of(prompts, 0.0).table(16_000)[1:]
    ratio = PrefillTruth.of(prompts, 0.04, seed).table(16_000)[1:] / smooth
    assert np.abs(ratio - 1.0).max() <= 0.04
    assert ratio.std() > 0.004
    assert np.abs(np.diff(ratio[100:])).max() < 0.002
    other = PrefillTruth.of(prompts, 0.04, seed + 1).table(16_000)[1:] / smooth
    assert np.abs(other - ratio).max() > 0.004
    decode = DecodeTruth.of(steps, 0.04, seed).table(64, 8000.0)
    decode = decode / DecodeTruth.of(steps, 0.0).table(64, 8000.0)
    assert decode.shape == (65, CONTEXT_STEPS + 1)
    assert 0.01 < np.abs(decode - 1.0).max() <= 0.04


def test_constants_are_constant() -> None:
    assert (PrefillTruth.constant(0.2).table(10) == 0.2).all()
    assert (DecodeTruth.constant(0.02).table(4, 100.0) == 0.02).all()


def test_profiles_of_the_other_role_are_refused() -> None:
    with pytest.raises(ValueError, match="prefill: 0 prompt length"):
        PrefillTruth.of(profile(steps=GRID))
    with pytest.raises(ValueError, match="decode: no points"):
        DecodeTruth.of(profile(PROMPTS))
