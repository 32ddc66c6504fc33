"""Ticks as time series: what the live view and the report draw. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from planner.model import Role, Service
from planner.record import TickRecord

MISSING: Final = math.nan
"""Stands where a tick held and knows no value: drawn as a gap, never as zero."""

FULL_BATCH: Final = 1.0
"""Fill at which a correction is shown: where it costs replicas (0 and 1 agree for prefill)."""


@dataclass(frozen=True, slots=True)
class LoadSeries:
    """Tokens/s of one role, one value a tick: seen, forecast mean, and the band's upper end.

    `serves_s` is when an order made at the tick serves, which is what its forecast is for [s].
    """

    serves_s: tuple[float, ...]
    seen_tps: tuple[float, ...]
    mean_tps: tuple[float, ...]
    up_tps: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class PoolSeries:
    """Replicas of one pool, one value a tick, and its correction factor at a full batch.

    `wanted` is what the SLA needs without limits, `desired` what was ordered, `ready` what serves.
    """

    wanted: tuple[float, ...]
    desired: tuple[float, ...]
    ready: tuple[float, ...]
    factor: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """All series of a service over the same times `at_s` [s]."""

    at_s: tuple[float, ...]
    roles: Mapping[Role, LoadSeries]
    pools: Mapping[str, PoolSeries]


def series_of(service: Service, records: Sequence[TickRecord]) -> Series:
    """Return the series of a service's ticks, oldest first."""
    return Series(
        at_s=tuple(record.decision.at_s for record in records),
        roles={role: _load(service, records, role) for role in Role if service.pools_of(role)},
        pools={pool.name: _pool(records, pool.name) for pool in service.pools},
    )


def _load(service: Service, records: Sequence[TickRecord], role: Role) -> LoadSeries:
    names = [pool.name for pool in service.pools_of(role)]
    leads = [[r.decision.pools[n].lead_s for n in names if n in r.decision.pools] for r in records]
    tokens = [r.decision.load.tokens.get(role) if r.decision.load else None for r in records]
    return LoadSeries(
        serves_s=tuple(
            r.decision.at_s + max(lead, default=0.0) for r, lead in zip(records, leads, strict=True)
        ),
        seen_tps=tuple(t.seen_tps if t else MISSING for t in tokens),
        mean_tps=tuple(t.mean_tps if t else MISSING for t in tokens),
        up_tps=tuple(t.up_tps if t else MISSING for t in tokens),
    )


def _pool(records: Sequence[TickRecord], name: str) -> PoolSeries:
    plans = [r.decision.plan.pools.get(name) if r.decision.plan else None for r in records]
    pools = [r.decision.pools.get(name) for r in records]
    factors = [r.decision.factors for r in records]
    return PoolSeries(
        wanted=tuple(float(p.wanted) if p else MISSING for p in plans),
        desired=tuple(float(p.desired) if p else MISSING for p in pools),
        ready=tuple(float(p.ready) if p else MISSING for p in pools),
        factor=tuple(f.of(name).at(FULL_BATCH) if f else MISSING for f in factors),
    )
