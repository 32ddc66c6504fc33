"""What production says of a profile: measured over profiled latency, interval by interval. Pure.

Prefill by prompt length, as the share of the time that each length takes; decode by concurrency.
Both from what measures service: what waits is not in it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from planner.decision.lengths import points
from planner.model import Observation, Pool, Role

FloatArray = NDArray[np.float64]

# Requests below which an interval's mean latency says nothing, as in the correction of every tick.
MIN_REQUESTS: Final = 20.0
# Beyond this a ratio is a fault of the measurement, and would pull the others along.
RATIO_RANGE: Final = (0.25, 4.0)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the usable intervals say of one pool.

    Attributes
    ----------
    name, unit
        What the buckets are of, and its unit.
    centres
        float64[bucket], ascending: powers of two over the profiled range.
    places, weights
        Of each interval the points it is made of, float64[interval, point], and the share of the
        expected time that each has (rows sum to 1).
    ratios
        float64[interval], measured over profiled latency.
    requests
        float64[interval].
    left_out
        Intervals that could not be used, by reason.
    """

    name: str
    unit: str
    centres: FloatArray
    places: FloatArray
    weights: FloatArray
    ratios: FloatArray
    requests: FloatArray
    left_out: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Interval:
    places: FloatArray
    weights: FloatArray
    ratio: float
    requests: float


def evidence(pool: Pool, past: Iterable[Observation | None]) -> Evidence:
    """Return what the intervals of a past say about a pool's profile."""
    read = _prefill_interval if pool.role is Role.PREFILL else _decode_interval
    usable: list[_Interval] = []
    left_out: dict[str, int] = {}
    for seen in past:
        if seen is None:
            continue
        found = _why_not(pool, seen) or read(pool, seen)
        if isinstance(found, str):
            left_out[found] = left_out.get(found, 0) + 1
        else:
            usable.append(found)
    widest = max((one.places.size for one in usable), default=1)
    place = np.ones((len(usable), widest))
    weight = np.zeros((len(usable), widest))
    for row, one in enumerate(usable):
        place[row, : one.places.size] = one.places
        weight[row, : one.places.size] = one.weights
    name, unit = ("prompt", "tokens") if pool.role is Role.PREFILL else ("batch", "sequences")
    ratios = np.array([one.ratio for one in usable])
    requests = np.array([one.requests for one in usable])
    return Evidence(name, unit, _centres(pool), place, weight, ratios, requests, left_out)


def _why_not(pool: Pool, seen: Observation) -> str:
    """Return why an interval says nothing of a pool's profile, empty if it does."""
    own = seen.pools[pool.name]
    if own.changed:
        return "pods came or went"
    lengths = [seen.prompts] if pool.role is Role.PREFILL else [seen.prompts, seen.outputs]
    if any(one is None or one.count < MIN_REQUESTS for one in lengths):
        return f"under {MIN_REQUESTS:.0f} requests"
    if own.service_s is None or own.service_s <= 0.0:
        return "no latency was measured"
    return ""


def _prefill_interval(pool: Pool, seen: Observation) -> _Interval | str:
    assert pool.prefill is not None
    assert seen.prompts is not None
    isl, shares = points(seen.prompts)
    computed = np.maximum(isl * seen.uncached_ratio, 1.0)
    expected_s = shares * pool.prefill.service_s(computed)
    outside = float(expected_s[pool.prefill.is_outside(computed)].sum() / expected_s.sum())
    if outside > 0.5:
        return "mostly outside the profile"
    return _interval(computed, expected_s, seen.pools[pool.name].service_s, seen.prompts.count)


def _decode_interval(pool: Pool, seen: Observation) -> _Interval | str:
    assert pool.decode is not None
    assert seen.prompts is not None
    assert seen.outputs is not None
    isl, weights = points(seen.prompts)
    osl, shares = points(seen.outputs)
    # Mean context of a sequence in flight, length-biased (sizing §3).
    context = float(isl @ weights) + 0.5 * float(osl**2 @ shares) / float(osl @ shares)
    own = seen.pools[pool.name]
    # A token sees E[n²] / E[n] = mean + variance / mean sequences, the last term 1 for Poisson
    # arrivals: full moments make more tokens (Cox 1962, length-biased sampling).
    batch = own.concurrency + (1.0 if own.concurrency_spread is None else own.concurrency_spread)
    batch = max(batch, 1.0)
    if batch > pool.decode.n_max or bool(pool.decode.is_outside(1.0, context)):
        return "outside the profile"
    expected_s = np.array([float(pool.decode.itl_s(batch, context))])
    return _interval(np.array([batch]), expected_s, own.service_s, seen.outputs.count)


def _interval(
    places: FloatArray, expected_s: FloatArray, measured_s: float | None, requests: float
) -> _Interval | str:
    assert measured_s is not None
    total_s = float(expected_s.sum())
    ratio = measured_s / total_s
    if not RATIO_RANGE[0] <= ratio <= RATIO_RANGE[1]:
        return f"more than {RATIO_RANGE[1]:g} times off"
    return _Interval(places, expected_s / total_s, ratio, requests)


def _centres(pool: Pool) -> FloatArray:
    """Return powers of two over the profiled range."""
    if pool.prefill is not None:
        low, high = pool.prefill.isl_min_tokens, pool.prefill.isl_max_tokens
    else:
        assert pool.decode is not None
        low, high = 1.0, float(pool.decode.n_max)
    first, last = math.ceil(math.log2(low) - 1e-9), math.floor(math.log2(high) + 1e-9)
    return np.exp2(np.arange(first, max(last, first) + 1, dtype=np.float64))


def shares_of(found: Evidence, centres: FloatArray) -> FloatArray:
    """Return the share of each interval's time at each centre, float64[interval, bucket].

    Between two centres it is split by the distance in the logarithm.
    """
    shares = np.zeros((len(found.ratios), len(centres)))
    if len(centres) == 1:
        return np.ones_like(shares)
    logs = np.log2(centres)
    at = np.clip(np.log2(found.places), logs[0], logs[-1])
    left = np.clip(np.searchsorted(logs, at, side="right") - 1, 0, len(logs) - 2)
    right_share = (at - logs[left]) / (logs[left + 1] - logs[left])
    rows = np.arange(len(found.ratios))[:, None]
    np.add.at(shares, (rows, left), found.weights * (1.0 - right_share))
    np.add.at(shares, (rows, left + 1), found.weights * right_share)
    return shares
