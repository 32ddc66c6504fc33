"""What a scrape of the plant sees: copies of its counters, turned into samples on demand.

A snapshot costs microseconds, so that one can be taken at every scrape of a day; the samples of
its pods are built only for the few that the planner reads.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from planner.model import Histogram, PodSample, Role, Signal
from planner.simulation import kernel
from planner.simulation.config import PlantConfig, PlantPool
from planner.simulation.layout import ITL_BOUNDS, LENGTH_BOUNDS, TTFT_BOUNDS
from planner.simulation.records import REPLICA, State

GATEWAY: Final = "gateway"

Replica: TypeAlias = Mapping[str, Any]
"""The fields of `records.REPLICA` of one pod."""

_FIELDS: Final = REPLICA.names or ()
_LENGTH: Final = (*LENGTH_BOUNDS, math.inf)
_LATENCY: Final = {Role.PREFILL: (*TTFT_BOUNDS, math.inf), Role.DECODE: (*ITL_BOUNDS, math.inf)}


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Counters of all pods that could be scraped at `at_s` [s], frozen.

    A decode replica's steps count when they are done. Sequences for which no replica has room,
    and prompts in a shared queue, are shown as waiting at the ready pods of the role, evenly, the
    older pods first; prompts for which no prefill replica is ready wait at the gateway, unseen.
    """

    at_s: float
    config: PlantConfig
    replicas: NDArray[Any]
    slots: NDArray[np.int64]
    own_waiting: NDArray[np.int64]
    central_waiting: NDArray[np.int64]
    length_counts: NDArray[np.int64]
    latency_counts: NDArray[np.int64]
    client_counts: NDArray[np.int64]
    clock: NDArray[Any]

    def finished(self) -> Mapping[str, Mapping[str, int]]:
        """Return the requests finished so far of every pod, by pool and pod name."""
        counts: dict[str, dict[str, int]] = {pool.name: {} for pool in self.config.pools}
        names = [pool.name for pool in self.config.pools]
        columns = (self.replicas[name].tolist() for name in ("pool", "ordinal", "finished"))
        for pool, ordinal, finished in zip(*columns, strict=True):
            counts[names[pool]][pod_name(names[pool], ordinal)] = finished
        return counts

    def samples(self) -> Mapping[str, tuple[PodSample, ...]]:
        """Return what every pod's `/metrics` shows, by pool name."""
        found: dict[str, list[PodSample]] = {pool.name: [] for pool in self.config.pools}
        columns = zip(
            # Plain Python values at once: reading a record field by field costs ten times more.
            self.replicas.tolist(),
            _cumulative(self.length_counts),
            _cumulative(self.latency_counts),
            self._waiting().tolist(),
            strict=True,
        )
        for values, lengths, latencies, waiting in columns:
            replica = dict(zip(_FIELDS, values, strict=True))
            pool = self.config.pools[replica["pool"]]
            show = _show_prefill if pool.role is Role.PREFILL else _show_decode
            bounds = _LATENCY[pool.role]
            length = Histogram(_LENGTH, tuple(lengths), replica["length_sum"])
            latency = Histogram(bounds, tuple(latencies[: len(bounds)]), replica["latency_sum"])
            found[pool.name].append(show(self.at_s, pool, replica, length, latency, waiting))
        return {name: tuple(samples) for name, samples in found.items()}

    def queues(self) -> Mapping[str, tuple[PodSample, ...]]:
        """Return requests running, waiting and finished of every pod, by pool name."""
        found: dict[str, list[PodSample]] = {pool.name: [] for pool in self.config.pools}
        names = ("pool", "ordinal", "finished", "running", "active", "pending")
        columns = (self.replicas[name].tolist() for name in names)
        for index, ordinal, finished, prompt, active, pending, waiting in zip(
            *columns, self._waiting().tolist(), strict=True
        ):
            pool = self.config.pools[index]
            is_prefill = pool.role is Role.PREFILL
            counted = Signal.PROMPT_TOKENS if is_prefill else Signal.OUTPUT_TOKENS
            running = float(prompt != kernel.NOBODY) if is_prefill else float(active + pending)
            found[pool.name].append(
                PodSample(
                    pod=pod_name(pool.name, ordinal),
                    at_s=self.at_s,
                    histograms={counted: _summary(finished, 0.0)},
                    gauges={Signal.RUNNING: running, Signal.WAITING: float(waiting)},
                )
            )
        return {name: tuple(samples) for name, samples in found.items()}

    def gateway(self) -> PodSample:
        """Return what a gateway shows: all requests, as clients see them."""
        clock = self.clock[0]
        ttft, itl = _cumulative(self.client_counts)
        return PodSample(
            pod=GATEWAY,
            at_s=self.at_s,
            counters={Signal.ARRIVALS: float(clock["arrived"])},
            histograms={
                Signal.TTFT: Histogram(
                    _LATENCY[Role.PREFILL], tuple(ttft), float(clock["ttft_sum"])
                ),
                Signal.ITL: Histogram(
                    _LATENCY[Role.DECODE],
                    tuple(itl[: len(ITL_BOUNDS) + 1]),
                    float(clock["itl_sum"]),
                ),
            },
        )

    def _waiting(self) -> NDArray[np.int64]:
        """Return the requests waiting at each pod, the central queues shared out evenly."""
        waiting = self.own_waiting.copy()
        roles = np.array([pool.role is Role.DECODE for pool in self.config.pools], dtype=int)
        for role in (kernel.PREFILL, kernel.DECODE):
            of_role = roles[self.replicas["pool"]] == role
            ready = np.flatnonzero(of_role & (self.replicas["state"] == kernel.READY))
            if len(ready):
                each, rest = divmod(int(self.central_waiting[role]), len(ready))
                waiting[ready] += each + (np.arange(len(ready)) < rest)
        return waiting


def _show_prefill(
    at_s: float,
    pool: PlantPool,
    replica: Replica,
    length: Histogram,
    latency: Histogram,
    waiting: int,
) -> PodSample:
    return PodSample(
        pod=pod_name(pool.name, replica["ordinal"]),
        at_s=at_s,
        counters={Signal.COMPUTED_TOKENS: float(replica["work_tokens"])},
        histograms={
            Signal.PROMPT_TOKENS: length,
            Signal.TTFT: latency,
            Signal.PREFILL_TIME: _summary(replica["service_count"], replica["service_sum"]),
        },
        gauges={
            Signal.RUNNING: float(replica["running"] != kernel.NOBODY),
            Signal.WAITING: float(waiting),
        },
    )


def _show_decode(
    at_s: float,
    pool: PlantPool,
    replica: Replica,
    length: Histogram,
    latency: Histogram,
    waiting: int,
) -> PodSample:
    steps = _whole_steps(replica, at_s)
    tokens = steps * replica["active"]
    gap_s = steps * (replica["step_s"] + steps * replica["growth_s"]) * replica["active"]
    in_use = replica["context_tokens"] + tokens + replica["pending_tokens"]
    return PodSample(
        pod=pod_name(pool.name, replica["ordinal"]),
        at_s=at_s,
        counters={Signal.GENERATED_TOKENS: float(replica["work_tokens"] + tokens)},
        histograms={
            Signal.OUTPUT_TOKENS: length,
            Signal.ITL: latency,
            Signal.TOKEN_GAP: _summary(
                replica["service_count"] + tokens, replica["service_sum"] + gap_s
            ),
            Signal.TTFT: _summary(replica["handover_count"], replica["handover_sum"]),
        },
        gauges={
            Signal.RUNNING: float(replica["active"] + replica["pending"]),
            Signal.WAITING: float(waiting),
            Signal.KV_USAGE: in_use / pool.kv_capacity_tokens,
        },
    )


def take_snapshot(state: State, config: PlantConfig, at_s: float) -> Snapshot:
    """Return the counters of all ready and draining pods, oldest first."""
    alive = (state.replicas["state"] == kernel.READY) | (state.replicas["state"] == kernel.DRAINING)
    slots = np.flatnonzero(alive)
    slots = slots[np.lexsort((state.replicas["ordinal"][slots], state.replicas["pool"][slots]))]
    return Snapshot(
        at_s=at_s,
        config=config,
        replicas=state.replicas[slots],
        slots=slots,
        own_waiting=state.queues["length"][kernel.OWN + slots],
        central_waiting=state.queues["length"][: kernel.OWN].copy(),
        length_counts=state.length_counts[slots],
        latency_counts=state.latency_counts[slots],
        client_counts=state.client_counts.copy(),
        clock=state.clock.copy(),
    )


def pod_name(pool: str, ordinal: int) -> str:
    """Return the name of a pool's pod."""
    return f"{pool}-{ordinal}"


def _whole_steps(replica: Replica, at_s: float) -> int:
    """Return the decode steps done since the segment began; `kernel.steps_done` in whole steps."""
    elapsed_s = at_s - replica["segment_s"]
    if replica["active"] == 0 or elapsed_s <= 0.0:
        return 0
    step_s, growth_s = replica["step_s"], replica["growth_s"]
    root_s = math.sqrt(max(step_s * step_s + 4.0 * growth_s * elapsed_s, 0.0))
    return int(2.0 * elapsed_s / (step_s + root_s))


def _cumulative(counts: NDArray[np.int64]) -> list[list[float]]:
    return cast("list[list[float]]", counts.cumsum(axis=-1).astype(float).tolist())


def _summary(count: int, total: float) -> Histogram:
    return Histogram((math.inf,), (float(count),), total)
