"""The plant: a prefill/decode service at the level of single requests, in simulated time.

Requests of a trace arrive by themselves; the caller moves the time on, orders replicas and looks.
Deterministic: the same configuration, trace and orders give the same run, however `advance` is
chopped.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from planner.model import Pod, PodSample
from planner.simulation import kernel
from planner.simulation.config import PlantConfig
from planner.simulation.layout import build_state, clear_slot, doubled, free_slot
from planner.simulation.results import Lifetime, PlantResults
from planner.simulation.snapshot import Snapshot, pod_name, take_snapshot
from planner.simulation.traces import Trace

DRAIN_BOUND_S: Final = 6 * 3600.0
"""Longest drain: what is not served six hours after the last order is starved."""


class Plant:
    """A service under a trace.

    Parameters
    ----------
    config
        Pools, link, routers and seed.
    trace
        Requests; prompts that the service does not take should be clipped away first.
    """

    def __init__(self, config: PlantConfig, trace: Trace) -> None:
        self.config = config
        self.now_s = 0.0
        self._state = build_state(config, trace)
        self._lifetimes: list[Lifetime] = []
        self._orders: dict[str, list[tuple[float, int]]] = {p.name: [] for p in config.pools}
        self._next_ordinal = [0] * len(config.pools)
        self._startup = [
            np.random.default_rng([config.seed, 1, i]) for i in range(len(config.pools))
        ]
        for i, pool in enumerate(config.pools):
            self._orders[pool.name].append((0.0, pool.initial_replicas))
            for _ in range(pool.initial_replicas):
                slot = self._start(i, 0.0)
                self._state.replicas[slot]["state"] = kernel.READY
                self._state.next_s[slot] = np.inf

    def advance(self, until_s: float) -> None:
        """Play everything that happens up to `until_s` [s]."""
        kernel.advance(self._state, until_s, False)  # noqa: FBT003
        self.now_s = max(self.now_s, until_s)

    def drain(self, bound_s: float = DRAIN_BOUND_S) -> None:
        """Play on without orders until every request is closed, at most `bound_s` [s] more.

        Requests that are still open then are unfinished. The time stops at the last event, so that
        nobody is billed for waiting on a request that nobody serves.
        """
        last_s = float(self._state.requests["arrival_s"][-1])
        until_s = max(self.now_s, last_s) + bound_s
        kernel.advance(self._state, until_s, True)  # noqa: FBT003
        self.now_s = max(self.now_s, float(self._state.clock[0]["now_s"]))

    def replicas(self, pool: str) -> int:
        """Return the replicas ordered of a pool."""
        return self._orders[self.config.pools[self.config.pool_index(pool)].name][-1][1]

    def order(self, pool: str, replicas: int) -> None:
        """Ask for that many replicas of a pool, now.

        Up: new pods with the next ordinals, ready after the pool's start-up time. Down: highest
        ordinal first; one that is starting is cancelled, a ready one takes no new work, finishes
        what it has and is released.

        Raises
        ------
        ValueError
            If the pool is unknown or `replicas` is negative.
        """
        index = self.config.pool_index(pool)
        if replicas < 0:
            raise ValueError(f"order of {pool}: got {replicas}; legal: 0 or more; correct it")
        self._collect()
        missing = replicas - self.replicas(pool)
        if missing == 0:
            return
        self._orders[pool].append((self.now_s, replicas))
        for _ in range(missing):
            self._start(index, self._startup_s(index))
        for _ in range(-missing):
            self._stop(index)

    def pods(self, pool: str) -> tuple[Pod, ...]:
        """Return the pods of a pool that exist: starting, ready and draining, oldest first."""
        table = self._state.replicas
        exists = (table["pool"] == self.config.pool_index(pool)) & (table["state"] != kernel.GONE)
        found = table[exists]
        return tuple(
            Pod(
                name=pod_name(pool, int(r["ordinal"])),
                created_s=float(r["ordered_s"]),
                ready_s=None if r["state"] == kernel.STARTING else float(r["ready_s"]),
                terminating=bool(r["state"] == kernel.DRAINING),
            )
            for r in found[np.argsort(found["ordinal"])]
        )

    def snapshot(self) -> Snapshot:
        """Return the counters of all pods now; cheap, for one a scrape interval."""
        return take_snapshot(self._state, self.config, self.now_s)

    def scrape(self) -> Mapping[str, tuple[PodSample, ...]]:
        """Return what every ready or draining pod's metrics show now, by pool name."""
        return self.snapshot().samples()

    def glance(self) -> Mapping[str, tuple[PodSample, ...]]:
        """Return what a look at every pod shows of its queue, by pool name: a part of `scrape`."""
        return self.snapshot().queues()

    def gateway(self) -> PodSample:
        """Return what a gateway in front of the service shows now."""
        return self.snapshot().gateway()

    def light_scrape(self) -> tuple[float, Mapping[str, Mapping[str, int]]]:
        """Return the time [s] and the requests finished so far, by pool and pod."""
        return self.now_s, self.snapshot().finished()

    def results(self) -> PlantResults:
        """Return the log of all requests that have arrived and the lives of all pods."""
        self._collect()
        log = self._state.requests[: int(self._state.clock[0]["arrived"])]
        alive = self._state.replicas[self._state.replicas["pool"] != kernel.NOBODY]
        gaps = np.maximum(log["osl_tokens"] - 1, 1)
        return PlantResults(
            arrival_s=log["arrival_s"].copy(),
            prefilled_s=log["prefilled_s"].copy(),
            finished_s=log["finished_s"].copy(),
            ttft_s=log["first_token_s"] - log["arrival_s"],
            itl_s=(log["finished_s"] - log["first_token_s"]) / gaps,
            status=log["status"].copy(),
            end_s=self.now_s,
            lifetimes=(*self._lifetimes, *(self._lifetime(r, self.now_s) for r in alive)),
            orders={name: tuple(steps) for name, steps in self._orders.items()},
            gpus_per_replica={p.name: p.gpus_per_replica for p in self.config.pools},
        )

    def _startup_s(self, index: int) -> float:
        jitter = self.config.startup_jitter * self._startup[index].uniform(-1.0, 1.0)
        return self.config.pools[index].startup_s * (1.0 + jitter)

    def _start(self, index: int, startup_s: float) -> int:
        """Begin a replica and return its slot."""
        slot = free_slot(self._state)
        if slot == kernel.NOBODY:
            self._state = doubled(self._state)
            slot = free_slot(self._state)
        replica = self._state.replicas[slot]
        replica["pool"] = index
        replica["ordinal"] = self._next_ordinal[index]
        replica["state"] = kernel.STARTING
        replica["running"] = kernel.NOBODY
        replica["first_finish_step"] = kernel.NEVER
        replica["ordered_s"] = self.now_s
        replica["ready_s"] = self.now_s + startup_s
        replica["released_s"] = np.nan
        self._state.next_s[slot] = replica["ready_s"]
        self._next_ordinal[index] += 1
        return slot

    def _stop(self, index: int) -> None:
        """Cancel or drain the pool's youngest replica."""
        table = self._state.replicas
        candidates = np.flatnonzero((table["pool"] == index) & (table["state"] <= kernel.READY))
        slot = int(candidates[np.argmax(table["ordinal"][candidates])])
        if table["state"][slot] == kernel.STARTING:
            table["state"][slot] = kernel.GONE
            table["released_s"][slot] = self.now_s
            self._state.next_s[slot] = np.inf
        else:
            table["state"][slot] = kernel.DRAINING
            kernel.release_if_drained(self._state, slot, self.now_s)

    def _collect(self) -> None:
        """Book the replicas that are gone and free their slots."""
        table = self._state.replicas
        gone = (table["state"] == kernel.GONE) & (table["pool"] != kernel.NOBODY)
        for slot in np.flatnonzero(gone):
            self._lifetimes.append(self._lifetime(table[slot], float(table["released_s"][slot])))
            clear_slot(self._state, int(slot))

    def _lifetime(self, replica: np.void, end_s: float) -> Lifetime:
        pool = self.config.pools[int(replica["pool"])].name
        ready_s = float(replica["ready_s"])
        return Lifetime(
            pool=pool,
            pod=pod_name(pool, int(replica["ordinal"])),
            ordered_s=float(replica["ordered_s"]),
            ready_s=ready_s if ready_s <= end_s else None,
            released_s=end_s,
        )
