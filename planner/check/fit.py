"""Whether the profiles reach the SLA before any load comes: the part of `check` with physics. Pure.

What one replica can't do for one request alone, no number of replicas does.
"""

import math
from collections.abc import Iterator

import numpy as np

from planner.check.finding import Finding, error, ok, warning
from planner.check.rules import Rule
from planner.model import Pool, Role, Service
from planner.spec.quantities import format_duration
from profiles import DecodeSurface, PrefillSurface, ProfileError


def longest_tokens(service: Service) -> float:
    """Return the longest prompt that is promised anything [tokens], else the longest profiled."""
    if service.sla.max_input_tokens is not None:
        return float(service.sla.max_input_tokens)
    return max(p.prefill.isl_max_tokens for p in service.pools if p.prefill is not None)


def ttft_alone_s(service: Service, pool: Pool, isl_tokens: float) -> float:
    """Return the TTFT of a prompt in an idle service [s]: prefill + KV transfer + first step.

    The definition of TTFT, without the two waits.
    """
    surface = _prefill(pool)
    moved = service.transfer.time_s(isl_tokens, pool.kv_bytes_per_token or 0.0)
    steps = (p.decode.itl_s(1.0, isl_tokens) for p in service.pools if p.decode is not None)
    return float(surface.service_s(isl_tokens)) + moved + float(min(steps))


def fit_findings(service: Service) -> Iterator[Finding]:
    """Yield what the profile of each pool says about the SLA.

    Yields
    ------
    Finding
        At least one for each pool.
    """
    longest = longest_tokens(service)
    for pool in service.pools:
        if pool.role is Role.PREFILL:
            yield _ttft(service, pool, longest)
            yield from _prompt_range(service, pool, longest)
        else:
            yield _itl(service, pool, longest)
            yield from _context_range(pool, longest)


def _prefill(pool: Pool) -> PrefillSurface:
    assert pool.prefill is not None  # what Pool promises of this role
    return pool.prefill


def _decode(pool: Pool) -> DecodeSurface:
    assert pool.decode is not None
    return pool.decode


def _ttft(service: Service, pool: Pool, longest: float) -> Finding:
    target = format_duration(service.sla.ttft_s)
    where = f"pool {pool.name}: ttft"
    # The geometric middle: prompt lengths spread over decades, and most are short.
    typical = math.sqrt(min(_prefill(pool).isl_min_tokens, longest) * longest)
    short_s, long_s = (ttft_alone_s(service, pool, tokens) for tokens in (typical, longest))
    if short_s > service.sla.ttft_s:
        return error(
            where,
            f"a prompt of {typical:.0f} tokens takes {_ms(short_s)} in an idle service, more than "
            f"the target of {target}",
            f"raise sla.ttft to {_ms(short_s * 1.5)} or more, or use faster replicas",
            Rule.TTFT_REACHABLE,
        )
    if long_s > service.sla.ttft_s:
        reach = _reach_tokens(service, pool, typical, longest)
        return warning(
            where,
            f"a prompt of {longest:.0f} tokens takes {_ms(long_s)} in an idle service, more than "
            f"the target of {target}; up to {reach} tokens meet it",
            f"set sla.scope.maxInputTokens to {reach} or less, or raise sla.ttft",
            Rule.TTFT_REACHABLE,
        )
    return ok(
        where,
        f"an idle service takes {_ms(short_s)} for {typical:.0f} tokens and {_ms(long_s)} for "
        f"{longest:.0f}, target {target}",
    )


def _reach_tokens(service: Service, pool: Pool, typical: float, longest: float) -> int:
    lengths = np.linspace(typical, longest, 256)
    late = [ttft_alone_s(service, pool, float(n)) > service.sla.ttft_s for n in lengths]
    return int(lengths[max(late.index(True) - 1, 0)])


def _prompt_range(service: Service, pool: Pool, longest: float) -> Iterator[Finding]:
    surface = _prefill(pool)
    # Half a percent: the grid of a profile seldom ends exactly at the promised length.
    if longest > surface.isl_max_tokens * 1.005:
        yield warning(
            f"pool {pool.name}: profile",
            f"prompts of up to {longest:.0f} tokens are promised and the profile ends at "
            f"{surface.isl_max_tokens:.0f}: longer ones are taken for {surface.isl_max_tokens:.0f}",
            f"measure longer prompts, or set sla.scope.maxInputTokens to "
            f"{surface.isl_max_tokens:.0f}",
            Rule.PROMPT_RANGE,
        )
    if service.sla.max_input_tokens is None:
        yield warning(
            "sla.scope",
            "prompts of every length are promised the TTFT",
            f"set sla.scope.maxInputTokens, at most {surface.isl_max_tokens:.0f}, where the "
            "profile ends",
            Rule.PROMPT_SCOPE,
        )


def _itl(service: Service, pool: Pool, longest: float) -> Finding:
    surface, target_s = _decode(pool), service.sla.itl_s
    where = f"pool {pool.name}: itl"
    typical = math.sqrt(min(surface.context_min_tokens, longest) * longest)
    try:
        point = surface.best_throughput(target_s, typical)
    except ProfileError:
        alone_s = float(surface.itl_s(1.0, typical))
        return error(
            where,
            f"one sequence alone takes {_ms(alone_s)} a token at {typical:.0f} tokens, more than "
            f"the target of {format_duration(target_s)}",
            f"raise sla.itl to {_ms(alone_s * 1.2)} or more, or use faster replicas",
            Rule.ITL_REACHABLE,
        )
    alone_s = float(surface.itl_s(1.0, longest))
    if alone_s > target_s:
        return warning(
            where,
            f"at a context of {longest:.0f} tokens one sequence alone takes {_ms(alone_s)} a "
            f"token, more than the target of {format_duration(target_s)}",
            "set sla.scope.maxInputTokens lower, or raise sla.itl",
            Rule.ITL_REACHABLE,
        )
    return ok(
        where,
        f"{format_duration(target_s)} holds for up to {point.concurrency} sequences a replica at "
        f"{typical:.0f} tokens ({point.throughput_tps:.0f} tokens/s)",
    )


def _context_range(pool: Pool, longest: float) -> Iterator[Finding]:
    surface = _decode(pool)
    where = f"pool {pool.name}: profile"
    if surface.kv_capacity_tokens is not None and surface.kv_capacity_tokens < longest:
        yield error(
            where,
            f"the KV cache of a replica holds {surface.kv_capacity_tokens} tokens, less than a "
            f"prompt of {longest:.0f}",
            f"set sla.scope.maxInputTokens below {surface.kv_capacity_tokens}",
            Rule.KV_CAPACITY,
        )
    elif longest > surface.context_max_tokens * 1.005:
        yield warning(
            where,
            f"prompts of up to {longest:.0f} tokens are promised and decode was measured up to a "
            f"context of {surface.context_max_tokens:.0f}: longer ones are taken for that",
            "measure longer contexts, or set sla.scope.maxInputTokens lower",
            Rule.CONTEXT_RANGE,
        )
    if surface.estimated:
        yield warning(
            where,
            "part of the decode surface is estimated, not measured",
            "measure three contexts or more",
            Rule.ESTIMATED_SURFACE,
        )


def _ms(seconds: float) -> str:
    return format_duration(round(seconds, 3 if seconds >= 0.1 else 4))
