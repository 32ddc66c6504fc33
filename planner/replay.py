"""A trace through the plant under the very loop that runs in production, in simulated time.

Only the adapters differ: the in-memory Metrics and Cluster are fed by the plant and give the
planner what Prometheus and Kubernetes would, quantised by the scrape interval.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from planner.adapters.clock import stopwatch_s
from planner.adapters.memory import MemoryCluster, MemoryMetrics
from planner.adapters.sources import source_named
from planner.decision.looks import CHECK_S
from planner.decision.size import size
from planner.loop import Loop
from planner.model import (
    Factors,
    LengthMix,
    Load,
    Mode,
    Patch,
    Pool,
    Role,
    Sample,
    Service,
    TokenLoad,
)
from planner.record import TickRecord
from planner.simulation.config import DecodeRouter, PlantConfig, PlantPool
from planner.simulation.plant import Plant
from planner.simulation.results import PlantResults
from planner.simulation.surface import DecodeTruth, PrefillTruth
from planner.simulation.traces import Trace
from planner.sizing.dispersion import SCALES_S
from planner.spec.service import LoadedService
from profiles import Profile

SCRAPE_INTERVAL_S = 15.0
# The last scrape lies half a scrape interval before a tick, as it does on average in production.
SCRAPE_LAG_S = 0.5 * SCRAPE_INTERVAL_S
RETENTION_S = 600.0
# What a decode replica takes when the profile does not say.
DEFAULT_MAX_SEQUENCES, DEFAULT_KV_TOKENS = 256, 1_000_000
# Points that stand for the prompt lengths of the first interval.
MIX_POINTS = 24


@dataclass(frozen=True, slots=True)
class Frame:
    """One tick of a replay: the record, and how long the decision took.

    `checks` holds what was ordered between the tick before and this one.
    """

    at_s: float
    record: TickRecord
    tick_s: float
    checks: tuple[TickRecord, ...] = ()


class Replay:
    """One service under one trace.

    Parameters
    ----------
    loaded
        The service and its profiles.
    trace
        Requests; prompts beyond the SLA's scope should have been clipped.
    start
        Replicas by pool name at time 0; None: the plan for the first interval's mean load.
    seed
        Fixes start-up jitter and service noise.
    """

    def __init__(
        self,
        loaded: LoadedService,
        trace: Trace,
        start: Mapping[str, int] | None = None,
        seed: int = 0,
    ) -> None:
        # A simulated replica drains by itself once it is released: it needs no mark before.
        pools = tuple(replace(pool, drain_s=0.0) for pool in loaded.service.pools)
        self.service = replace(loaded.service, mode=Mode.ACT, pools=pools)
        self.trace = trace
        self.start = dict(start) if start is not None else first_plan(self.service, trace)
        self.plant = Plant(plant_config(loaded, self.start, seed), trace)
        self._metrics = MemoryMetrics(SCRAPE_INTERVAL_S, retention_s=RETENTION_S)
        self._cluster = MemoryCluster(
            {self.service.key: self.start},
            pods=lambda _, pool: self.plant.pods(pool),
            applied=lambda _, patch, __: self._order(patch),
        )
        self._loop = Loop(self.service, self._cluster, [])

    def frames(self) -> Iterator[Frame]:
        """Tick every interval until the last request has arrived.

        Yields
        ------
        Frame
            One tick.
        """
        interval_s = self.service.interval_s
        scrape_s, check_s = SCRAPE_LAG_S, CHECK_S
        checks: list[TickRecord] = []
        for k in range(1, int(self.trace.duration_s // interval_s) + 1):
            now_s = k * interval_s
            while min(scrape_s, check_s) <= now_s:
                if scrape_s <= check_s:
                    self._scrape(scrape_s, is_read=scrape_s + SCRAPE_INTERVAL_S > now_s)
                    scrape_s += SCRAPE_INTERVAL_S
                else:
                    checks += self._check(check_s)
                    check_s += CHECK_S
            self.plant.advance(now_s)
            yield replace(self._tick(now_s), checks=tuple(checks))
            checks.clear()

    def finish(self) -> PlantResults:
        """Serve what is left without further orders, and return the log."""
        self.plant.advance(max(self.plant.now_s, self.trace.duration_s))
        self.plant.drain()
        return self.plant.results()

    def _scrape(self, at_s: float, *, is_read: bool) -> None:
        """Scrape the plant; in full only where a tick will read more than the request counts."""
        self.plant.advance(at_s)
        key = self.service.key
        if not is_read:
            self._metrics.store_light(key, *self.plant.light_scrape())
            return
        gateway = self.plant.gateway() if source_named(self.service.source).gateway else None
        self._metrics.store(key, self.plant.scrape(), gateway, at_s)

    def _check(self, at_s: float) -> list[TickRecord]:
        """Let the loop look at the pods between two ticks; return what it ordered."""
        self.plant.advance(at_s)
        glance = Sample(at_s, self.plant.glance())
        fleet = self._cluster.fleets([self.service], at_s)[self.service.key]
        decision = self._loop.check(glance, fleet, at_s)
        return [] if decision is None else [self._loop.act(decision, at_s)]

    def _tick(self, now_s: float) -> Frame:
        """Let the loop decide on what was scraped."""
        sample = self._metrics.read([self.service], now_s)[self.service.key]
        fleet = self._cluster.fleets([self.service], now_s)[self.service.key]
        elapsed_s = stopwatch_s()
        record = self._loop.tick(sample, fleet, now_s)
        return Frame(now_s, record, elapsed_s())

    def _order(self, patch: Patch) -> None:
        for pool, replicas in patch.replicas.items():
            self.plant.order(pool, replicas)


def plant_config(loaded: LoadedService, start: Mapping[str, int], seed: int) -> PlantConfig:
    """Return the plant that stands for a service: its profiles' points, perturbed by the plant."""
    service = loaded.service
    kv_bytes = [p.kv_bytes_per_token for p in service.pools if p.kv_bytes_per_token]
    return PlantConfig(
        pools=tuple(
            _plant_pool(pool, loaded.profiles[pool.name], start[pool.name], seed)
            for pool in service.pools
        ),
        transfer_bandwidth_bytes_per_s=service.transfer.bandwidth_bytes_per_s,
        transfer_latency_s=service.transfer.latency_s,
        kv_bytes_per_token=kv_bytes[0] if kv_bytes else 0.0,
        decode_router=DecodeRouter.FEWEST_SEQUENCES,
        seed=seed,
    )


def _plant_pool(pool: Pool, profile: Profile, replicas: int, seed: int) -> PlantPool:
    """Return one pool of the plant."""
    truth = PrefillTruth if pool.role is Role.PREFILL else DecodeTruth
    return PlantPool(
        name=pool.name,
        role=pool.role,
        surface=truth.of(profile, seed=seed),
        startup_s=pool.startup_s,
        gpus_per_replica=pool.gpus_per_replica,
        initial_replicas=replicas,
        max_sequences=profile.max_sequences or DEFAULT_MAX_SEQUENCES,
        kv_capacity_tokens=int(profile.kv_capacity_tokens or DEFAULT_KV_TOKENS),
    )


def first_plan(service: Service, trace: Trace) -> dict[str, int]:
    """Return the plan for the first interval's mean load, as if it were known and would stay.

    The floors where no request of that interval is in scope.
    """
    early = trace.arrival_s < service.interval_s
    if not early.any():
        return {pool.name: pool.min_replicas for pool in service.pools}
    isl, osl = trace.isl_tokens[early], trace.osl_tokens[early]
    rates = {Role.PREFILL: float(isl.sum()) / service.interval_s,
             Role.DECODE: float(osl.sum()) / service.interval_s}  # fmt: skip
    points = np.quantile(isl, (np.arange(MIX_POINTS) + 0.5) / MIX_POINTS)
    load = Load(
        at_s=0.0,
        tokens={role: TokenLoad(tps, tps, tps, tps) for role, tps in rates.items()},
        lengths=LengthMix(
            tuple(points.tolist()),
            (1.0 / MIX_POINTS,) * MIX_POINTS,
            float(osl.mean()),
            float(osl.var()) / float(osl.mean()) ** 2,
        ),
        uncached_ratio=1.0,
        scales_s=SCALES_S,
        dispersion=(1.0,) * len(SCALES_S),
    )
    plan = size(service, load, Factors(), {})
    return {name: pool.up for name, pool in plan.pools.items()}
