"""The adaptive sweep: its rules one by one, and its decisions on the measured H200 set."""

from collections.abc import Iterator

import numpy as np
import pytest

from planner.decision.size import size
from planner.model import (
    Factors,
    LengthMix,
    Load,
    Pool,
    Role,
    Service,
    ServiceKey,
    Sla,
    Target,
    TokenLoad,
)
from planner.sizing.dispersion import SCALES_S
from profiles import Profile, decode_surface, prefill_surface, sample
from profiles.sweep import (
    Goal,
    Place,
    candidate_lengths,
    candidate_places,
    next_isl_tokens,
    next_place,
)

GOAL = Goal(ttft_s=0.5, itl_s=0.03)
H200 = sample("llama-3.1-8b-fp8-h200")
TTFT_S = {point.isl_tokens: point.ttft_s for point in H200.prefill}
ITL_S = {Place(p.concurrency, p.context_tokens): p.itl_s for p in H200.decode}

# Targets [s], mean prompt and output [tokens], loads [requests/s]: 200 decisions.
TARGETS = [(0.5, 0.03), (0.3, 0.02), (0.2, 0.04), (0.5, 0.025)]
MIXES = [(200, 100), (400, 128), (1500, 300), (4000, 500), (8000, 256)]
LOADS_RPS = [3.0, 10.0, 20.0, 40.0, 80.0]


def prefill_order(truth: dict[int, float], goal: Goal = GOAL) -> Iterator[int]:
    measured: dict[int, float] = {}
    while (isl := next_isl_tokens(list(truth), measured, goal)) is not None:
        yield isl
        measured[isl] = truth[isl]


def decode_order(truth: dict[Place, float], goal: Goal = GOAL) -> Iterator[Place]:
    measured: dict[Place, float] = {}
    while (place := next_place(list(truth), measured, goal)) is not None:
        yield place
        measured[place] = truth[place]


def test_it_begins_with_the_ends_and_the_middle():
    assert list(prefill_order(TTFT_S))[:3] == [100, 16372, 8236]
    contexts = sorted({place.context_tokens for place in ITL_S})
    first = list(decode_order(ITL_S))[:9]
    assert [p.context_tokens for p in first] == [
        context for context in (contexts[0], contexts[-1], contexts[3]) for _ in range(3)
    ]


def test_a_straight_line_needs_no_more_points():
    straight = {isl: 0.01 + isl * 2e-5 for isl in range(100, 10_000, 500)}
    assert len(list(prefill_order(straight, Goal(0.5, 0.03, error_ratio=0.1)))) == 3


def test_a_bend_is_measured_where_it_is():
    # Flat to 5000 tokens, steep from there.
    bent = {isl: 0.02 + max(isl - 5000, 0) * 1e-4 for isl in range(100, 10_000, 300)}
    more = list(prefill_order(bent))[3:8]
    assert more
    assert all(isl > 4000 for isl in more)


def test_a_tighter_error_bound_never_measures_less():
    counts = [
        len(list(decode_order(ITL_S, Goal(0.5, 0.03, error_ratio=error))))
        for error in (0.2, 0.1, 0.05, 0.02, 0.0)
    ]
    assert counts == sorted(counts)
    assert counts[-1] == len(ITL_S)


def test_points_lie_where_the_target_is():
    near = [p for p in decode_order(ITL_S) if 0.5 < ITL_S[p] / GOAL.itl_s < 1.5]
    frame = 9 + 3  # ends and middles of the contexts it looks at first
    assert len(near) >= (len(list(decode_order(ITL_S))) - frame)


def test_where_the_target_is_crossed_even_a_straight_line_is_looked_at():
    straight = {
        Place(float(n), context): 0.005 + n * 0.0005
        for context in (500.0, 2000.0, 8000.0)
        for n in (1, 17, 33, 49, 65, 81, 97)
    }
    more = list(decode_order(straight, Goal(ttft_s=0.5, itl_s=0.04)))[9:]
    assert more
    # 40 ms are reached at 70 sequences, between the middle and the end.
    assert all(49 < place.concurrency < 97 for place in more)


def test_each_context_it_begins_gets_three_concurrencies():
    places = list(decode_order(ITL_S))
    for context in {place.context_tokens for place in places}:
        assert sum(place.context_tokens == context for place in places) >= 3


def test_a_small_grid_is_measured_whole_and_ends():
    grid = dict.fromkeys([Place(1.0, 100.0), Place(2.0, 100.0), Place(1.0, 4000.0)], 0.01)
    assert set(decode_order(grid)) == set(grid)
    assert list(prefill_order({100: 0.1, 200: 0.2})) == [100, 200]


@pytest.mark.parametrize("kept", [0, 1, 5, 9, 14])
def test_a_sweep_that_was_cut_off_goes_on_where_it_was(kept):
    whole = list(decode_order(ITL_S))
    measured = {place: ITL_S[place] for place in reversed(whole[:kept])}
    assert next_place(list(ITL_S), measured, GOAL) == whole[kept]


def test_candidates_reach_both_ends_and_stay_within_the_cache():
    assert candidate_lengths(64, 16_384)[0] == 64
    assert candidate_lengths(64, 16_384)[-1] == 16_384
    places = candidate_places([500.0, 8000.0], 40_000, 64)
    assert max(p.concurrency for p in places if p.context_tokens == 500.0) == 64
    assert max(p.concurrency for p in places if p.context_tokens == 8000.0) == 5
    assert [tuple(p) for p in candidate_places([9e4], 40_000, 64)] == [(1.0, 9e4)]


def part(lengths: list[int], places: list[Place]) -> Profile:
    chosen = {"prefill": [p for p in H200.prefill if p.isl_tokens in lengths],
              "decode": [p for p in H200.decode
                         if Place(p.concurrency, p.context_tokens) in places]}  # fmt: skip
    return Profile.model_validate(H200.model_dump(by_alias=True) | chosen)


def service(profile: Profile, ttft_s: float, itl_s: float) -> Service:
    pools = tuple(
        Pool(
            str(role), role, Target("apps/v1", "Deployment", str(role)), max_replicas=1000,
            prefill=prefill_surface(profile) if role is Role.PREFILL else None,
            decode=decode_surface(profile) if role is Role.DECODE else None,
            kv_bytes_per_token=profile.kv_bytes_per_token,
        )
        for role in Role
    )  # fmt: skip
    return Service(ServiceKey("inference", "llama"), Sla(ttft_s, itl_s), pools)


def lengths(isl_tokens: float, osl_tokens: float) -> LengthMix:
    # Lognormal prompts (σ = 0.8) as 32 quantiles, exponential outputs.
    z = np.array([-2.15, -1.68, -1.42, -1.23, -1.08, -0.95, -0.83, -0.72, -0.62, -0.53, -0.44,
                  -0.36, -0.28, -0.2, -0.12, -0.04])  # fmt: skip
    points = isl_tokens * np.exp(0.8 * np.concatenate([z, -z[::-1]]) - 0.32)
    inside = tuple(np.clip(points, 100, 16_372).tolist())
    return LengthMix(inside, (1 / 32,) * 32, osl_tokens, 1.0)


def replicas(served: Service, mix: LengthMix, rps: float) -> dict[str, int]:
    rates = {Role.PREFILL: rps * mix.isl_mean_tokens, Role.DECODE: rps * mix.osl_mean_tokens}
    tokens = {role: TokenLoad(tps, tps, tps, tps) for role, tps in rates.items()}
    load = Load(0.0, tokens, mix, 1.0, SCALES_S, (1.0,) * len(SCALES_S))
    return {name: pool.up for name, pool in size(served, load, Factors(), {}).pools.items()}


def test_half_of_the_grid_leads_to_the_same_decisions():
    """The full grid of the H200 set and what the sweep takes of it size the same fleets."""
    off = []
    for ttft_s, itl_s in TARGETS:
        goal = Goal(ttft_s, itl_s)
        asked = list(prefill_order(TTFT_S, goal)), list(decode_order(ITL_S, goal))
        points = len(asked[0]) + len(asked[1])
        assert points <= (len(TTFT_S) + len(ITL_S)) / 2
        full, swept = (service(p, ttft_s, itl_s) for p in (H200, part(*asked)))
        apart = [
            n - replicas(swept, mix, rps)[name]
            for mix in (lengths(*mix) for mix in MIXES)
            for rps in LOADS_RPS
            for name, n in replicas(full, mix, rps).items()
        ]
        print(f"TTFT {ttft_s * 1e3:g} ms, ITL {itl_s * 1e3:g} ms: {points} of "
              f"{len(TTFT_S) + len(ITL_S)} points, {apart.count(0)} of {len(apart)} decisions "
              f"the same, the others by {max(map(abs, apart))}")  # fmt: skip
        off += apart
    assert max(map(abs, off)) <= 1
    assert off.count(0) >= 0.98 * len(off)
