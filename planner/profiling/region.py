"""Where one replica of a profile keeps an SLA, and which traffic lies outside. Pure.

Waiting is not counted: what one replica can't do for a request alone, no number of replicas does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from profiles import (
    DecodeSurface,
    PrefillSurface,
    Profile,
    decode_surface,
    prefill_surface,
)

STEPS: Final = 512
"""Prompt lengths looked at: a limit is found to a five-hundredth of the profiled range."""

CONTEXTS: Final = 8
"""Contexts that the region is told at, evenly over the profile."""


@dataclass(frozen=True, slots=True)
class Targets:
    """The latencies asked for [s]; None: not asked."""

    ttft_s: float | None = None
    itl_s: float | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """The fullest batch at one context [tokens] within the ITL target; 0 if none is."""

    context_tokens: float
    concurrency: int
    throughput_tps: float
    itl_s: float


@dataclass(frozen=True, slots=True)
class Region:
    """What one replica can do within the targets.

    `isl_limit_tokens` is the longest prompt up to which every one keeps the TTFT alone, 0 if not
    even the shortest does; None where it was not asked or there are no points.
    """

    isl_limit_tokens: float | None
    batches: tuple[Batch, ...]


@dataclass(frozen=True, slots=True)
class Outside:
    """A share of requests that the profile or the targets leave out."""

    what: str
    ratio: float


def surfaces(profile: Profile) -> tuple[PrefillSurface | None, DecodeSurface | None]:
    """Return the surfaces of the roles that the profile has points of."""
    return (
        prefill_surface(profile) if profile.prefill else None,
        decode_surface(profile) if profile.decode else None,
    )


def operating_region(profile: Profile, targets: Targets) -> Region:
    """Return where one replica keeps the targets."""
    prefill, decode = surfaces(profile)
    limit: float | None = None
    batches: tuple[Batch, ...] = ()
    if prefill is not None and targets.ttft_s is not None:
        limit = isl_limit_tokens(prefill, targets.ttft_s)
    if decode is not None and targets.itl_s is not None:
        contexts = np.linspace(decode.context_min_tokens, decode.context_max_tokens, CONTEXTS)
        batches = tuple(fullest_batch(decode, float(c), targets.itl_s) for c in contexts)
    return Region(limit, batches)


def isl_limit_tokens(surface: PrefillSurface, ttft_s: float) -> float:
    """Return the longest prompt [tokens] up to which every one keeps the target alone."""
    lengths = np.linspace(surface.isl_min_tokens, surface.isl_max_tokens, STEPS)
    late = surface.service_s(lengths) > ttft_s
    if not late.any():
        return surface.isl_max_tokens
    first = int(np.argmax(late))
    return float(lengths[first - 1]) if first else 0.0


def fullest_batch(surface: DecodeSurface, context_tokens: float, itl_s: float) -> Batch:
    """Return the largest batch at a context [tokens] with every smaller one on target [s]."""
    curve_s = surface.curve(context_tokens)
    room = surface.batch_limit(context_tokens)
    n = int(np.count_nonzero(curve_s[1 : room + 1] <= itl_s))
    # An idle replica counts as one sequence: without a batch this is what one alone takes.
    return Batch(context_tokens, n, n / float(curve_s[n]), float(curve_s[n]))


def traffic_outside(
    profile: Profile, targets: Targets, isl_tokens: ArrayLike, osl_tokens: ArrayLike
) -> tuple[Outside, ...]:
    """Return which requests of these lengths [tokens] lie outside, the shares that are not 0."""
    isl = np.asarray(isl_tokens, dtype=np.float64)
    context = isl + np.asarray(osl_tokens, dtype=np.float64) / 2.0
    prefill, decode = surfaces(profile)
    found: list[Outside] = []
    if prefill is not None:
        found += _prompts_outside(prefill, targets.ttft_s, isl)
    if decode is not None:
        found += _contexts_outside(decode, targets.itl_s, context)
    return tuple(share for share in found if share.ratio > 0.0)


def _prompts_outside(
    surface: PrefillSurface, ttft_s: float | None, isl: NDArray[np.float64]
) -> Sequence[Outside]:
    low, high = surface.isl_min_tokens, surface.isl_max_tokens
    found = [
        Outside(
            f"of prompts are longer than {high:.0f} tokens and count as that", _share(isl > high)
        ),
        Outside(
            f"of prompts are shorter than {low:.0f} tokens and count as that", _share(isl < low)
        ),
    ]
    if ttft_s is not None:
        late = surface.service_s(isl) > ttft_s
        found.append(Outside("of prompts miss the TTFT even alone", _share(late)))
    return found


def _contexts_outside(
    surface: DecodeSurface, itl_s: float | None, context: NDArray[np.float64]
) -> Sequence[Outside]:
    low, high = surface.context_min_tokens, surface.context_max_tokens
    found = [
        Outside(
            f"of contexts are longer than {high:.0f} tokens and count as that",
            _share(context > high),
        ),
        Outside(
            f"of contexts are shorter than {low:.0f} tokens and count as that",
            _share(context < low),
        ),
    ]
    if itl_s is not None:
        slow = surface.itl_s(1.0, context) > itl_s
        found.append(Outside("of sequences miss the ITL even alone", _share(slow)))
    return found


def _share(chosen: NDArray[np.bool_]) -> float:
    return float(np.mean(chosen))
