"""The classic mean formula, for those who want exactly that. Pure."""

import math

from profiles import DecodeSurface, PrefillSurface, ProfileError


def prefill_replicas(
    prompt_tps: float, isl_tokens: float, factor: float, surface: PrefillSurface
) -> int:
    """Return ``⌈load · min(1, factor) / throughput(isl)⌉``.

    Notes
    -----
    The SLA plays no part, utilisation is 100 %, and the correction can only reduce: the formula
    of the classic SLA planner, first generation.
    """
    throughput_tps = float(surface.throughput_tps(isl_tokens))
    return math.ceil(prompt_tps * min(1.0, factor) / throughput_tps - 1e-9)


def decode_replicas(
    output_tps: float, context_tokens: float, itl_s: float, factor: float, surface: DecodeSurface
) -> tuple[int, bool]:
    """Return ``⌈load / best throughput(itl / factor, context)⌉`` and whether the ITL is reachable.

    Notes
    -----
    An ITL below the whole profile takes the throughput of one sequence, as the classic planner
    does, and is reported.
    """
    target_s = itl_s / factor if factor > 0.0 else itl_s
    try:
        point = surface.best_throughput(target_s, context_tokens)
    except ProfileError:
        alone_s = float(surface.itl_s(1.0, context_tokens))
        return math.ceil(output_tps * alone_s - 1e-9), False
    return math.ceil(output_tps / point.throughput_tps - 1e-9), True
