"""A profile corrected by what production showed: factors by prompt length or by batch. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from planner.errors import InputError
from planner.model import FACTOR_RANGE, Role
from planner.profiling.evidence import Evidence, FloatArray, shares_of
from profiles import DecodePoint, PrefillPoint, Profile, decode_surface, prefill_surface
from profiles.points import AXIS_POINTS_MIN
from profiles.schema import build_profile

# Below so much of it nothing is corrected.
LEAST_INTERVALS: Final = 10
LEAST_REQUESTS: Final = 500.0
# Standard deviations: of one interval's ratio; of the factor from one bucket to the next, twice as
# long or as full; and of all around their mean: profiles are wrong by some 20 %, alike everywhere.
NOISE_SD: Final = 0.05
STEP_SD: Final = 0.1
PRIOR_SD: Final = 0.2
# A factor that is less certain than this is said to lean on its neighbours.
KNOWN_SD: Final = 0.07


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket's factor and what it rests on.

    Attributes
    ----------
    centre
        Where it is [tokens or sequences].
    factor
        Measured over profiled latency, within `FACTOR_RANGE`.
    spread
        Standard deviation: of single intervals around it and of itself.
    intervals, requests
        How much of them is in the bucket.
    is_known
        Whether its own evidence carries it.
    seen
        The factor before it was bounded.
    """

    centre: float
    factor: float
    spread: float
    intervals: float
    requests: float
    is_known: bool
    seen: float


def buckets(found: Evidence) -> tuple[Bucket, ...]:
    """Return the factor of every bucket.

    Notes
    -----
    The factor is linear in the logarithm between centres, so that each interval's ratio is its
    shares times the factors. The most probable factors under normal errors, steps from bucket to
    bucket, and distances from the mean ratio; where nothing was seen those of the neighbours
    remain (a Gaussian Markov random field: Rue and Held, 2005, §2.4).

    Raises
    ------
    InputError
        If there is too little evidence.
    """
    requests = float(found.requests.sum())
    if len(found.ratios) < LEAST_INTERVALS or requests < LEAST_REQUESTS:
        told = ", ".join(f"{count} {why}" for why, count in found.left_out.items()) or "none"
        raise InputError(
            f"--from-prometheus: {len(found.ratios)} usable intervals with {requests:.0f} requests "
            f"(left out: {told}); legal: at least {LEAST_INTERVALS} with {LEAST_REQUESTS:.0f}; "
            "give a longer window"
        )
    shares = shares_of(found, found.centres)
    seen, sd = _most_probable(shares, found.ratios)
    many = shares.sum(axis=0)
    around = (found.ratios - shares @ seen) ** 2 @ shares / np.maximum(many, 1e-9)
    columns = zip(
        found.centres.tolist(),
        seen.tolist(),
        sd.tolist(),
        np.sqrt(around + sd**2).tolist(),
        many.tolist(),
        (found.requests @ shares).tolist(),
        strict=True,
    )
    low, high = FACTOR_RANGE
    return tuple(
        Bucket(at, min(max(factor, low), high), spread, number, served, own <= KNOWN_SD, factor)
        for at, factor, own, spread, number, served in columns
    )


def _most_probable(shares: FloatArray, ratios: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the factors and their standard deviations, float64[bucket] each."""
    mean, size = float(ratios.mean()), shares.shape[1]
    steps = np.diff(np.eye(size), axis=0)
    precision = (
        shares.T @ shares / NOISE_SD**2
        + steps.T @ steps / STEP_SD**2
        + np.eye(size) / PRIOR_SD**2 / size
    )
    covariance = np.linalg.inv(precision)
    factors = mean + covariance @ (shares.T @ (ratios - mean)) / NOISE_SD**2
    return np.asarray(factors), np.sqrt(np.diag(covariance))


def refined(
    profile: Profile, role: Role, found: Sequence[Bucket], provenance: dict[str, str]
) -> Profile:
    """Return the profile with its points of a role multiplied by the factors.

    Points are added on the profile's own surface where a bucket with evidence has none: else what
    was seen between two points far apart would be lost. What did not fall before does not fall
    now: more work never takes less time, and a factor is not known well enough to say so.

    Parameters
    ----------
    profile
        What is corrected.
    role
        Which of its points.
    found
        Factors.
    provenance
        Fields of the provenance that are new.
    """
    points_of = _prefill_points if role is Role.PREFILL else _decode_points
    document = profile.model_dump(by_alias=True)
    document[role.value] = points_of(profile, found)
    document["provenance"] |= provenance
    return build_profile(document, "the refined profile")


def factor_at(found: Sequence[Bucket], at: float) -> float:
    """Return the factor at a prompt length [tokens] or batch [sequences]."""
    centres = np.log2([bucket.centre for bucket in found])
    return float(np.interp(math.log2(max(at, 1.0)), centres, [bucket.factor for bucket in found]))


def _prefill_points(profile: Profile, found: Sequence[Bucket]) -> list[dict[str, Any]]:
    surface = prefill_surface(profile)
    alone = {point.isl_tokens: point.ttft_s for point in profile.prefill if point.batch == 1}
    new = _new_places(found, sorted(alone))
    alone |= {round(isl): float(surface.service_s(isl)) for isl in new}
    lengths = sorted(alone)
    corrected = [alone[isl] * factor_at(found, isl) for isl in lengths]
    rising = _not_falling([alone[isl] for isl in lengths], corrected)
    batched = [
        PrefillPoint(
            isl_tokens=point.isl_tokens,
            ttft_s=point.ttft_s * factor_at(found, point.isl_tokens),
            batch=point.batch,
        )
        for point in profile.prefill
        if point.batch > 1
    ]
    singles = [
        PrefillPoint(isl_tokens=isl, ttft_s=ttft_s)
        for isl, ttft_s in zip(lengths, rising, strict=True)
    ]
    return [point.model_dump() for point in (*singles, *batched)]


def _decode_points(profile: Profile, found: Sequence[Bucket]) -> list[dict[str, Any]]:
    surface = decode_surface(profile)
    rows: dict[float, dict[float, float]] = {}
    for point in profile.decode:
        rows.setdefault(point.context_tokens, {})[point.concurrency] = point.itl_s
    corrected: list[DecodePoint] = []
    for context, row in sorted(rows.items()):
        # A row of one or two points is one leg of an L: more of them would make it a grid.
        new = _new_places(found, sorted(row)) if len(row) >= AXIS_POINTS_MIN else []
        whole = row | {n: float(surface.itl_s(n, context)) for n in new}
        batches = sorted(whole)
        before = [whole[n] for n in batches]
        after = [whole[n] * factor_at(found, n) for n in batches]
        corrected += [
            DecodePoint(concurrency=n, context_tokens=context, itl_s=itl_s)
            for n, itl_s in zip(batches, _not_falling(before, after), strict=True)
        ]
    return [point.model_dump() for point in corrected]


def _new_places(found: Sequence[Bucket], known: Sequence[float]) -> list[float]:
    """Return the centres with evidence inside the known places that have none of them near."""
    return [
        bucket.centre
        for bucket in found
        if bucket.is_known
        and known[0] < bucket.centre < known[-1]
        and all(abs(math.log2(bucket.centre / place)) > 0.5 for place in known)
    ]


def _not_falling(before: Sequence[float], after: Sequence[float]) -> list[float]:
    """Return `after`, raised where it falls below an earlier value and `before` did not."""
    raised: list[float] = []
    for index, value in enumerate(after):
        floors = [r for r, b in zip(raised, before, strict=False) if b <= before[index]]
        raised.append(max([value, *floors]))
    return raised


def provenance(profile: Profile, evidence_told: str, date: str, tool: str) -> dict[str, str]:
    """Return what is new in the provenance: who refined it, when, and from what."""
    made = profile.provenance
    before = made.tool or "an unknown tool"
    return {
        "tool": f"{tool}, of points by {before}",
        "date": date,
        "command": f"refined from {evidence_told}; before: {made.command or 'unknown'}",
    }
