"""The pictures of a service's page: load and forecast, replicas, both attainments. Pure."""

import math
from collections.abc import Callable, Sequence

from planner.model import Attainment, Observation, Role, Service
from planner.record import TickRecord
from planner.view.notation import share, thousands
from planner.view.series import MISSING, LoadSeries, PoolSeries, series_of
from planner.view.service_chart import Chart, Line
from planner.view.sparkline import highest

# A page that has just begun shows its first ticks at the right of this many intervals.
LEAST_INTERVALS = 15
# Room above the highest value.
AIR = 1.12


def charts(service: Service, records: Sequence[TickRecord]) -> list[Chart]:
    """Return the pictures of the ticks given, oldest first; none without a tick."""
    if not records:
        return []
    series = series_of(service, records)
    now_s = series.at_s[-1]
    last_s = max([now_s, *(s for load in series.roles.values() for s in load.serves_s)])
    first_s = min(series.at_s[0], now_s - LEAST_INTERVALS * service.interval_s)
    span_s = first_s, last_s
    seen = [record.decision.observation for record in records]
    return [
        *(_load(role, load, series.at_s, span_s) for role, load in series.roles.items()),
        *(_replicas(service, name, p, series.at_s, span_s) for name, p in series.pools.items()),
        _attainment(service, "ttft", seen, lambda s: s.ttft, series.at_s, span_s),
        _attainment(service, "itl", seen, lambda s: s.itl, series.at_s, span_s),
    ]


def _load(
    role: Role, load: LoadSeries, at_s: Sequence[float], span_s: tuple[float, float]
) -> Chart:
    serves_s = load.serves_s
    return Chart(
        key=f"load-{role}",
        heading=f"{role.capitalize()} load",
        caption="Tokens/s. A forecast is drawn at the time for which it was made.",
        style=f"role-{role}",
        unit="tps",
        lines=(
            Line("upper band", "dot grey", serves_s, load.up_tps, floor=load.mean_tps),
            Line("forecast mean", "dash grey", serves_s, load.mean_tps),
            Line("seen", "solid", at_s, load.seen_tps),
        ),
        span_s=span_s,
        low=0.0,
        high=highest(load.seen_tps, load.mean_tps, load.up_tps) * AIR,
        write=thousands,
        now_s=at_s[-1],
    )


def _replicas(
    service: Service,
    name: str,
    pool: PoolSeries,
    at_s: Sequence[float],
    span_s: tuple[float, float],
) -> Chart:
    floor = [0.0] * len(at_s)
    return Chart(
        key=f"replicas-{name}",
        heading=f"Replicas, {name}",
        caption="Wanted is what the SLA needs, limits aside. Desired follows within them.",
        style=f"role-{service.pool(name).role}",
        unit="count",
        lines=(
            Line("ready", "thin", at_s, pool.ready, is_step=True, floor=floor),
            Line("desired", "solid", at_s, pool.desired, is_step=True),
            Line("wanted", "dot grey", at_s, pool.wanted, is_step=True),
        ),
        span_s=span_s,
        low=0.0,
        high=max(highest(pool.wanted, pool.desired, pool.ready) * AIR, 4.0),
        write=lambda replicas: f"{replicas:,.0f}",
        now_s=at_s[-1],
    )


def _attainment(
    service: Service,
    key: str,
    seen: Sequence[Observation | None],
    of: Callable[[Observation], Attainment | None],
    at_s: Sequence[float],
    span_s: tuple[float, float],
) -> Chart:
    shares = [of(s) if s is not None else None for s in seen]
    lower = [s.lower if s else MISSING for s in shares]
    upper = [s.upper if s else MISSING for s in shares]
    asked = service.sla.attainment_ratio
    lowest = min([2.0 * asked - 1.0, *(v for v in lower if math.isfinite(v))])
    return Chart(
        key=f"attainment-{key}",
        heading=f"{key.upper()} on target",
        caption="Share of requests, as a lower and an upper bound: buckets rarely end at a target.",
        style="attainment",
        unit="share",
        lines=(
            Line("at most", "thin", at_s, upper, floor=lower),
            Line("at least", "solid", at_s, lower),
        ),
        span_s=span_s,
        low=max(lowest - 0.05 * (1.0 - lowest), 0.0) if lowest < 1.0 else 0.9,
        high=1.0 + 0.05 * max(1.0 - lowest, 0.002),
        write=share,
        now_s=at_s[-1],
        target=(asked, f"target {share(asked)}"),
    )
