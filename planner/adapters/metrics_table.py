"""The metrics of a service as a table: name, labels, meaning, and where the values come from.

An HPA or KEDA may scale by the desired replicas, so that a series here is never zero for want of
evidence: what is not known is absent, and replicas that can't be read keep their last values.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from planner.model import Attainment, Decision, PoolDecision, Role, Service
from planner.view.series import FULL_BATCH

TICK_BUCKETS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

# Holds that an alert waits for: their counters stand at 0 before, or the first would be no rise.
COUNTED_FROM_ZERO: Final = ("ClusterUnavailable", "MetricsUnavailable", "MetricsStale")

Sample = tuple[tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class Durations:
    """A histogram of durations [s]: entries by bucket, the last one without an upper bound."""

    counts: tuple[int, ...] = (0,) * (len(TICK_BUCKETS_S) + 1)
    sum_s: float = 0.0

    def plus(self, duration_s: float) -> "Durations":
        """Return the histogram with one more entry."""
        at = bisect_left(TICK_BUCKETS_S, duration_s)
        counts = (*self.counts[:at], self.counts[at] + 1, *self.counts[at + 1 :])
        return Durations(counts, self.sum_s + duration_s)

    def cumulative(self) -> list[tuple[str, float]]:
        """Return upper bound and entries up to it, as the exposition format has them."""
        bounds = [*map(str, TICK_BUCKETS_S), "+Inf"]
        return [(bound, float(sum(self.counts[: i + 1]))) for i, bound in enumerate(bounds)]


@dataclass(frozen=True, slots=True)
class Exported:
    """All that is told of one service.

    Attributes
    ----------
    service
        What is asked.
    decision
        The last one, None before the first tick.
    pools
        Replicas as last known: a decision that could not read the cluster has none.
    newest_s
        Time of the newest sample that was of use [s, Unix], None before the first.
    holds, caps
        Ticks by reason.
    ticks
        How long ticks took.
    is_leader
        Whether this process decides for the service.
    """

    service: Service
    decision: Decision | None = None
    pools: Mapping[str, PoolDecision] = field(default_factory=dict)
    newest_s: float | None = None
    holds: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED_FROM_ZERO, 0))
    caps: Mapping[str, int] = field(default_factory=dict)
    ticks: Durations = Durations()
    is_leader: bool = True

    def after(self, decision: Decision) -> "Exported":
        """Return what is told after one more tick."""
        hold, seen = decision.hold, decision.observation
        held = [] if hold is None else [hold.reason.code]
        capped = {r.code for r in decision.reasons if hold is None or r != hold.reason}
        return replace(
            self,
            # An order between two ticks saw no interval: what the last tick saw goes on.
            decision=decision if seen or hold or self.decision is None else self.decision,
            pools=decision.pools or self.pools,
            newest_s=self.newest_s if seen is None else decision.at_s - seen.age_s,
            holds=_plus_one(self.holds, held),
            caps=_plus_one(self.caps, capped),
        )


def _plus_one(counts: Mapping[str, int], codes: Iterable[str]) -> Mapping[str, int]:
    return {**counts, **{code: counts.get(code, 0) + 1 for code in codes}}


def _replicas(of: Callable[[PoolDecision], float]) -> Callable[[Exported], Iterator[Sample]]:
    """Return samples by pool and role of what `of` takes from a pool's decision."""

    def samples(told: Exported) -> Iterator[Sample]:
        roles = {pool.name: pool.role for pool in told.service.pools}
        for name, pool in told.pools.items():
            if name in roles:
                yield (name, roles[name]), float(of(pool))

    return samples


def _lead_times(told: Exported) -> Iterator[Sample]:
    for name, pool in told.pools.items():
        yield (name,), pool.lead_s


def _attainment(told: Exported) -> Iterator[Sample]:
    seen = told.decision.observation if told.decision else None
    shares = {"ttft": seen.ttft, "itl": seen.itl} if seen else {}
    if seen and seen.ttft and seen.itl:
        shares["both"] = _joint(seen.ttft, seen.itl)
    for sla, share in shares.items():
        if share is not None:
            yield (sla, "lower"), share.lower
            yield (sla, "upper"), share.upper


def _joint(ttft: Attainment, itl: Attainment) -> Attainment:
    """Return the bounds on the share that meets both, whatever their dependence (Fréchet)."""
    lower = max(ttft.lower + itl.lower - 1.0, 0.0)
    return Attainment(lower, min(ttft.upper, itl.upper), min(ttft.requests, itl.requests))


def _forecast(told: Exported) -> Iterator[Sample]:
    load = told.decision.load if told.decision else None
    if load is not None and load.up_quantile is not None:
        for role, tokens in load.tokens.items():
            yield (role, f"{load.up_quantile:g}"), tokens.up_tps


def _factors(told: Exported) -> Iterator[Sample]:
    factors = told.decision.factors if told.decision else None
    for role in Role:
        pools = told.service.pools_of(role)
        if factors is not None and pools:
            yield (role,), max(factors.of(pool.name).at(FULL_BATCH) for pool in pools)


def _headroom(told: Exported) -> Iterator[Sample]:
    plan = told.decision.plan if told.decision else None
    for name, pool in plan.pools.items() if plan else ():
        if pool.wanted > 0 and name in told.pools:
            yield (name,), told.pools[name].ready / pool.wanted


def _shortage(told: Exported) -> Iterator[Sample]:
    decision = told.decision
    if decision is None or decision.plan is None:
        return
    short = {pool.name: 0.0 for pool in told.service.pools}
    gpus = {pool.name: pool.gpus_per_replica for pool in told.service.pools}
    for reason in decision.reasons:
        if reason.code == "CapacityShortage" and reason.pool in short:
            replicas = reason.values.get("wanted", 0.0) - reason.values.get("capped", 0.0)
            missing = reason.values.get("shortage_gpus", replicas * gpus[reason.pool])
            short[reason.pool] = max(short[reason.pool], missing)
    yield from (((name,), missing) for name, missing in short.items())


def _input_age(told: Exported) -> Iterator[Sample]:
    if told.decision is not None and told.newest_s is not None:
        yield (), told.decision.at_s - told.newest_s


def _counted(of: Callable[[Exported], Mapping[str, int]]) -> Callable[[Exported], Iterator[Sample]]:
    return lambda told: (((reason,), float(ticks)) for reason, ticks in of(told).items())


def _leadership(told: Exported) -> Iterator[Sample]:
    yield (), float(told.is_leader)


@dataclass(frozen=True, slots=True)
class Exposed:
    """One metric: its name, its labels beside those of the service, its meaning, its samples.

    `kind` is ``gauge``, ``counter``, ``summary`` (a forecast's quantiles are one) or ``histogram``,
    that of the ticks, which has no `samples`.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str
    samples: Callable[[Exported], Iterable[Sample]] | None = None


METRICS: Final = (
    Exposed("pd_planner_recommended_replicas", "gauge", ("pool", "role"),
            "Replicas that the load to come needs, before scaling behaviour and limits.",
            _replicas(lambda pool: pool.recommended)),
    Exposed("pd_planner_desired_replicas", "gauge", ("pool", "role"),
            "Replicas after scaling behaviour and limits; what runs while evidence is missing.",
            _replicas(lambda pool: pool.desired)),
    Exposed("pd_planner_current_replicas", "gauge", ("pool", "role"),
            "Replicas that the scale target asks for.",
            _replicas(lambda pool: pool.current)),
    Exposed("pd_planner_ready_replicas", "gauge", ("pool", "role"),
            "Replicas that serve.",
            _replicas(lambda pool: pool.ready)),
    Exposed("pd_planner_attainment_ratio", "gauge", ("sla", "bound"),
            "Share of the last interval's requests within ttft, itl or both, as a lower and an "
            "upper bound; absent when no request finished.",
            _attainment),
    Exposed("pd_planner_forecast_tokens_per_second", "summary", ("role", "quantile"),
            "Tokens per second that the load is forecast not to exceed when an order made now "
            "serves, by probability.",
            _forecast),
    Exposed("pd_planner_correction_factor", "gauge", ("role",),
            "Measured time over profiled time at a full batch, the worst pool of the role; 1 is a "
            "perfect profile.",
            _factors),
    Exposed("pd_planner_headroom_ratio", "gauge", ("pool",),
            "Replicas that serve over those that the load to come needs without any limit; below "
            "1 is too few.",
            _headroom),
    Exposed("pd_planner_holds_total", "counter", ("reason",),
            "Ticks on which what runs was kept for want of evidence.",
            _counted(lambda told: told.holds)),
    Exposed("pd_planner_caps_total", "counter", ("reason",),
            "Ticks on which a decision was not simply what was wanted, by every reason given.",
            _counted(lambda told: told.caps)),
    Exposed("pd_planner_lead_time_seconds", "gauge", ("pool",),
            "Time from an order to a replica that serves, as planned with.",
            _lead_times),
    Exposed("pd_planner_tick_seconds", "histogram", (),
            "Time to read, decide and write for all services that tick together."),
    Exposed("pd_planner_input_age_seconds", "gauge", (),
            "Age of the newest usable traffic metrics at the last tick; absent before the first.",
            _input_age),
    Exposed("pd_planner_shortage_gpus", "gauge", ("pool",),
            "GPUs that the load to come needs and the cluster can't give.",
            _shortage),
    Exposed("pd_planner_is_leader", "gauge", (),
            "1 where this process decides for the service, 0 where it stands by.",
            _leadership),
)  # fmt: skip
"""Every metric of a service, in the order in which they are told."""
