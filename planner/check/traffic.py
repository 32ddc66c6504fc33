"""Whether the traffic lies within the profiles and is measured at the SLA. Pure."""

import math
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from planner.check.bounds import bound_finding
from planner.check.finding import Finding, ok, warning
from planner.check.rules import Rule
from planner.decision.lengths import points
from planner.model import Histogram, PodSample, Pool, Role, Sample, Service, Signal

SHARE_UNKNOWN: Final = "the share of requests within the target is not known"


def traffic_findings(service: Service, sample: Sample) -> Iterator[Finding]:
    """Yield how the histograms, as they really are, suit the SLA and the profiles.

    Yields
    ------
    Finding
        About the bounds at both target latencies, and the lengths of each pool.
    """
    yield from _bounds(service, sample)
    yield from _traffic(service, sample)


def _total(pods: Iterable[PodSample], signal: Signal) -> Histogram | None:
    total: Histogram | None = None
    for pod in pods:
        if signal in pod.histograms:
            one = pod.histograms[signal]
            total = one if total is None else total.plus(one)
    return total


def _of_role(service: Service, sample: Sample, role: Role) -> list[PodSample]:
    return [pod for pool in service.pools_of(role) for pod in sample.pools.get(pool.name, ())]


def mean_prompt_tokens(service: Service, sample: Sample) -> float | None:
    """Return the mean length of the prompts seen so far [tokens], None without any."""
    prompts = _total(_of_role(service, sample, Role.PREFILL), Signal.PROMPT_TOKENS)
    return None if prompts is None else prompts.mean


def _bounds(service: Service, sample: Sample) -> Iterator[Finding]:
    places = ((Role.PREFILL, Signal.TTFT, "ttft", service.sla.ttft_s),
              (Role.DECODE, Signal.ITL, "itl", service.sla.itl_s))  # fmt: skip
    for role, signal, key, target_s in places:
        whose, pods = f"the {role} pods'", _of_role(service, sample, role)
        if sample.gateway is not None and signal in sample.gateway.histograms:
            whose, pods = "the gateway's", [sample.gateway]
        measured = _total(pods, signal)
        if measured is None:
            continue
        bounds_s = [bound for bound in measured.upper_bounds if math.isfinite(bound)]
        if bounds_s:
            yield bound_finding(key, target_s, bounds_s, whose)
        else:
            yield warning(
                f"sla.{key}",
                f"{whose} histograms have different bounds: {SHARE_UNKNOWN}",
                "start every vLLM with the same --custom-histogram-buckets",
                Rule.SLA_BOUNDS,
            )


def _traffic(service: Service, sample: Sample) -> Iterator[Finding]:
    prompts = _total(_of_role(service, sample, Role.PREFILL), Signal.PROMPT_TOKENS)
    outputs = _total(_of_role(service, sample, Role.DECODE), Signal.OUTPUT_TOKENS)
    if not prompts or prompts.sum <= 0:
        yield ok("traffic", "no request has finished yet: lengths are not known")
        return
    isl, weights = points(prompts)
    half = (outputs.mean or 0.0) / 2 if outputs else 0.0
    for pool in service.pools:
        low, high = _range_tokens(pool)
        tokens = isl + (half if pool.role is Role.DECODE else 0.0)
        above = float(weights[tokens > high].sum())
        mean = float(np.dot(tokens, weights))
        yield _lengths(pool, mean, above, (low, high))


def _range_tokens(pool: Pool) -> tuple[float, float]:
    if pool.prefill is not None:
        return pool.prefill.isl_min_tokens, pool.prefill.isl_max_tokens
    assert pool.decode is not None  # what Pool promises
    return pool.decode.context_min_tokens, pool.decode.context_max_tokens


def _lengths(pool: Pool, mean: float, above: float, span: tuple[float, float]) -> Finding:
    what = "prompts" if pool.role is Role.PREFILL else "contexts"
    seen = (
        f"{what} seen have {mean:.0f} tokens in the mean, the profile goes from {span[0]:.0f} to "
        f"{span[1]:.0f}"
    )
    where = f"pool {pool.name}: traffic"
    if above > 0.01:
        return warning(
            where,
            f"{seen}; {above:.0%} are longer and count as {span[1]:.0f}: the pool is sized too "
            "small for them",
            f"measure up to longer {what}, or bound them in the gateway",
            Rule.TRAFFIC_RANGE,
        )
    if mean < span[0]:
        return warning(
            where,
            f"{seen}: shorter ones count as {span[0]:.0f}",
            f"measure shorter {what}",
            Rule.TRAFFIC_RANGE,
        )
    return ok(where, seen)
