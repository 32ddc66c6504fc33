"""Time to load a profile and to look it up; how well it predicts a context it was not shown.

Run from the repository root: `python -m benchmarks.profiles`.
"""

import timeit
from collections.abc import Callable

from benchmarks.machine import describe
from profiles import DecodeSurface, Profile, decode_surface, prefill_surface, sample

NAME = "llama-3.1-8b-fp8-h200"


def build() -> DecodeSurface:
    profile = sample(NAME)
    prefill_surface(profile)
    return decode_surface(profile)


def best_us(call: Callable[[], object], repeats: int) -> float:
    """Return the time of one call, best of five rounds [µs]."""
    return min(timeit.repeat(call, number=repeats, repeat=5)) / repeats * 1e6


def left_out_errors(profile: Profile) -> list[tuple[float, float, float]]:
    """Return (context, mean, worst) relative ITL error [%] of each inner context left out."""
    contexts = sorted({point.context_tokens for point in profile.decode})[1:-1]
    return [(context, *_errors_percent(profile, context)) for context in contexts]


def _errors_percent(profile: Profile, context: float) -> tuple[float, float]:
    others = tuple(p for p in profile.decode if p.context_tokens != context)
    surface = decode_surface(profile.model_copy(update={"decode": others}))
    errors = [
        abs(float(surface.itl_s(p.concurrency, context)) / p.itl_s - 1.0) * 100.0
        for p in profile.decode
        if p.context_tokens == context
    ]
    return sum(errors) / len(errors), max(errors)


def main() -> None:
    print(describe(), flush=True)
    build()
    prefill, decode = prefill_surface(sample(NAME)), build()
    rows: list[tuple[str, Callable[[], object], int]] = [
        ("load and build both surfaces", build, 20),
        ("prefill service_s, one prompt", lambda: prefill.service_s(3000.0), 2000),
        (f"decode curve, n = 0 … {decode.n_max}", lambda: decode.curve(3500.0), 2000),
        ("decode itl_s, one point", lambda: decode.itl_s(64.0, 3500.0), 2000),
        ("decode best_throughput", lambda: decode.best_throughput(0.03, 3500.0), 2000),
    ]
    for label, call, repeats in rows:
        print(f"{label:<34}{best_us(call, repeats):>10.1f} µs")
    for context, mean, worst in left_out_errors(sample(NAME)):
        print(
            f"context {context:>6.0f} left out: ITL error {mean:4.1f} % mean, {worst:4.1f} % worst"
        )


if __name__ == "__main__":
    main()
