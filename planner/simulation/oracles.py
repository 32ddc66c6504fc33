"""What a fleet could have cost for one who knows the future: three oracles, by replay in the plant.

O1 has every replica at once, O2 waits for it as everybody does, O3 never changes its fleet. Their
attainment is that of the replay and never assumed; none is a proven bound, since a schedule is
chosen by local counts (`oracle_misses`) and its price of a failure by search.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from planner.model import Role
from planner.simulation.config import PlantConfig
from planner.simulation.oracle_misses import Floats, demand, misses, passes
from planner.simulation.plant import Plant
from planner.simulation.results import Summary, summarise
from planner.simulation.traces import MINUTE_S, Trace

Schedule = Mapping[Role, NDArray[np.int64]]
"""Replicas to order at the start of each minute, by role: int64[minute]."""

PRICES: Final = (0.1, 1e5)
"""Range in which the price of a failure is sought [GPU-seconds]."""

PRICE_STEPS: Final = 11
"""Halvings of that range on a log scale; the last is 0.7 % of the price wide."""

JUST_MET: Final = 2e-4
"""An attainment so little above the one asked for ends the search."""

SPARES: Final = 3
"""Most replicas added to every minute of a role where no price attains."""

START_UP_MAX: Final = 1.3
"""Longest start-up time over the mean: start-up times lie within ± 30 %."""

AHEAD_S: Final = 60.0
"""A clairvoyant looks one interval further than the longest start-up [s]."""

STATIC_SLACK: Final = 0.004
"""What the estimate of a fixed fleet's attainment may be too low by."""


class OracleName(StrEnum):
    """The three."""

    ZERO_LAG = "zero-lag"
    SAME_LAG = "same-lag"
    BEST_STATIC = "best-static"


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """A run to be judged in hindsight: one pool a role, and what its requests have to keep.

    Attributes
    ----------
    config
        The plant of the run, its start and seed included.
    trace
        Requests in scope, scaled.
    ttft_s, itl_s
        Target latencies [s].
    warmup_s
        Left out of all figures [s].
    """

    config: PlantConfig
    trace: Trace
    ttft_s: float
    itl_s: float
    warmup_s: float = 600.0


@dataclass(frozen=True, slots=True)
class OracleRun:
    """One oracle's figures: plain values, so that they can be stored as JSON.

    Attributes
    ----------
    oracle
        Which.
    asked
        Attainment asked for.
    attainment, ttft_attainment, itl_attainment, worst_5min
        Shares of all requests in the replay; below `asked` where nothing reaches it.
    gpu_hours
        Billed from order to release, both pools.
    failure_price
        GPU-seconds that a failure was held to be worth; None for a fixed fleet.
    prefill, decode
        Replicas ordered minute by minute; one number for a fixed fleet.
    """

    oracle: OracleName
    asked: float
    attainment: float
    ttft_attainment: float
    itl_attainment: float
    worst_5min: float
    gpu_hours: float
    failure_price: float | None
    prefill: tuple[int, ...]
    decode: tuple[int, ...]

    @property
    def is_reached(self) -> bool:
        """Whether it attains what was asked."""
        return self.attainment >= self.asked

    def document(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {**asdict(self), "prefill": list(self.prefill), "decode": list(self.decode)}

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> "OracleRun":
        """Return what `document` was made from."""
        counts = {role: tuple(document[role]) for role in ("prefill", "decode")}
        return cls(**{**document, **counts, "oracle": OracleName(document["oracle"])})


class Clairvoyant:
    """One who knows a run: counts its failures once and answers for any attainment.

    Parameters
    ----------
    problem
        The run.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._demand = demand(problem.config, problem.trace, problem.ttft_s, problem.itl_s)
        self._misses = {role: misses(self._demand, role) for role in Role}
        self._tried: dict[tuple[OracleName, float, int], OracleRun] = {}
        self._passes: dict[tuple[Role, int], NDArray[np.bool_]] = {}

    def zero_lag(self, asked: float) -> OracleRun:
        """Return O1: every replica is ready when it is ordered, at the minute it is needed."""
        return self._cheapest(OracleName.ZERO_LAG, asked)

    def same_lag(self, asked: float) -> OracleRun:
        """Return O2: start-up times as they are, and all that may come during one foreseen."""
        return self._cheapest(OracleName.SAME_LAG, asked)

    def best_static(self, asked: float) -> OracleRun:
        """Return O3: the cheapest fixed fleet, ready from the start.

        Each role alone tells from which count on it can attain; pairs from that corner on are
        replayed in order of cost, those left out whose roles by themselves fail too much.
        """
        best: OracleRun | None = None
        for prefill, decode in self._pairs(asked):
            run = self._static(asked, prefill, decode)
            best = run if best is None or run.attainment > best.attainment else best
            if run.is_reached:
                return run
        assert best is not None, "the first pair is always replayed"
        return best

    def all(self, asked: float) -> tuple[OracleRun, ...]:
        """Return the three."""
        return self.zero_lag(asked), self.same_lag(asked), self.best_static(asked)

    # ── schedules ────────────────────────────────────────────────────────────────────────────────

    def _cheapest(self, oracle: OracleName, asked: float) -> OracleRun:
        """Return the cheapest run that attains, the price of a failure lowered as far as it goes.

        Attainment rises with the price up to chance, so that a bisection comes within its last
        step of the lowest; of all runs that attain the cheapest one is the answer. Where local
        counts see no failure and the replay does, spare replicas go on where prices end.
        """
        low, high = np.log(PRICES)
        for _ in range(PRICE_STEPS):
            middle = 0.5 * (low + high)
            excess = self._scheduled(oracle, float(np.exp(middle))).attainment - asked
            if 0.0 <= excess <= JUST_MET:
                break
            low, high = (low, middle) if excess > 0.0 else (middle, high)
        for spare in range(1, SPARES + 1):
            if not self._attaining(oracle, asked):
                self._scheduled(oracle, PRICES[1], spare)
        runs = self._attaining(oracle, asked)
        most = max(self._attaining(oracle, 0.0), key=lambda run: run.attainment)
        return replace(min(runs, key=lambda run: run.gpu_hours, default=most), asked=asked)

    def _attaining(self, oracle: OracleName, asked: float) -> list[OracleRun]:
        return [r for r in self._tried.values() if r.oracle is oracle and r.attainment >= asked]

    def _scheduled(self, oracle: OracleName, price: float, spare: int = 0) -> OracleRun:
        """Return the replay of the best schedule at a price, spares on top; remembered."""
        if (oracle, price, spare) not in self._tried:
            is_late = oracle is OracleName.SAME_LAG
            config = self.problem.config if is_late else without_lag(self.problem.config)
            wanted = {}
            for pool in config.pools:
                ahead_s = START_UP_MAX * pool.startup_s + AHEAD_S if is_late else 0.0
                counts = self._misses[pool.role]
                best = schedule(counts, pool.gpus_per_replica, price, ahead_s)
                wanted[pool.role] = best + spare
            summary = replay(replace(self.problem, config=config), wanted)
            self._tried[oracle, price, spare] = _run(oracle, 0.0, summary, price, wanted)
        return self._tried[oracle, price, spare]

    # ── fixed fleets ─────────────────────────────────────────────────────────────────────────────

    def _pairs(self, asked: float) -> Iterator[tuple[int, int]]:
        """Go through the promising pairs of counts (prefill, decode) in order of cost.

        Yields
        ------
        tuple of int
            One pair.
        """
        corner = {role: self._fewest(role, asked - STATIC_SLACK) for role in Role}
        most = {role: self._misses[role].shape[1] - 1 for role in Role}
        pairs = [
            (p, d)
            for p in range(corner[Role.PREFILL], most[Role.PREFILL] + 1)
            for d in range(corner[Role.DECODE], most[Role.DECODE] + 1)
        ]
        gpus = {pool.role: pool.gpus_per_replica for pool in self.problem.config.pools}
        pairs.sort(key=lambda n: (n[0] * gpus[Role.PREFILL] + n[1] * gpus[Role.DECODE], n))
        yield from (n for n in pairs if self._share(*n) >= asked - STATIC_SLACK)
        # Where nothing looks promising, the largest fleet shows how far one comes.
        yield pairs[-1]

    def _fewest(self, role: Role, asked: float) -> int:
        """Return the fewest replicas with which a role alone attains, else the most of any use."""
        low, high = 1, self._misses[role].shape[1] - 1
        while low < high:
            middle = (low + high) // 2
            attains = float(self._counted(role, middle).mean()) >= asked
            low, high = (low, middle) if attains else (middle + 1, high)
        return low

    def _share(self, prefill: int, decode: int) -> float:
        """Return the attainment of a fixed fleet if neither role disturbed the other."""
        both = self._counted(Role.PREFILL, prefill) & self._counted(Role.DECODE, decode)
        return float(both.mean())

    def _counted(self, role: Role, replicas: int) -> NDArray[np.bool_]:
        """Return which requests after the warm-up a role alone serves in time; remembered."""
        if (role, replicas) not in self._passes:
            in_time = passes(self._demand, role, slice(None), replicas)
            counted = self.problem.trace.arrival_s >= self.problem.warmup_s
            self._passes[role, replicas] = in_time[counted]
        return self._passes[role, replicas]

    def _static(self, asked: float, prefill: int, decode: int) -> OracleRun:
        """Return the replay of a fixed fleet."""
        fixed = {Role.PREFILL: np.array([prefill]), Role.DECODE: np.array([decode])}
        problem = replace(self.problem, config=starting_with(self.problem.config, fixed))
        return _run(OracleName.BEST_STATIC, asked, replay(problem, fixed), None, fixed)


def schedule(misses: Floats, gpus: int, price: float, ahead_s: float) -> NDArray[np.int64]:
    """Return the replicas to order at the start of each minute, int64[minute], at least 1.

    Of each minute the count with the lowest GPU-seconds + price × failures, then the maximum over
    the minutes that [t, t + ahead_s] touches.

    Examples
    --------
    Two replicas spare ten failures of the second minute for 240 more GPU-seconds:

    >>> failed = np.array([[9.0, 0.0, 0.0], [20.0, 10.0, 0.0]])
    >>> schedule(failed, 4, 30.0, 0.0).tolist()
    [1, 2]
    >>> schedule(failed, 4, 20.0, 0.0).tolist()
    [1, 1]
    >>> schedule(failed, 4, 30.0, 90.0).tolist()
    [2, 2]
    """
    replicas = np.arange(1, misses.shape[1])
    costs = gpus * MINUTE_S * replicas + price * misses[:, 1:]
    best = replicas[np.argmin(costs, axis=1)]
    further = int(ahead_s // MINUTE_S)
    padded = np.concatenate([best, np.full(further, best[-1])])
    windows = np.lib.stride_tricks.sliding_window_view(padded, further + 1)
    return np.asarray(windows.max(axis=1), dtype=np.int64)


def replay(problem: Problem, wanted: Schedule) -> Summary:
    """Return the figures of a run in which these replicas are ordered minute by minute."""
    plant = Plant(problem.config, problem.trace)
    minutes = max(len(counts) for counts in wanted.values())
    for minute in range(minutes):
        plant.advance(minute * MINUTE_S)
        for pool in problem.config.pools:
            if minute < len(wanted[pool.role]):
                plant.order(pool.name, int(wanted[pool.role][minute]))
    plant.advance(problem.trace.duration_s)
    plant.drain()
    return summarise(plant.results(), problem.ttft_s, problem.itl_s, problem.warmup_s)


def without_lag(config: PlantConfig) -> PlantConfig:
    """Return the plant whose replicas are ready when they are ordered."""
    return replace(config, pools=tuple(replace(pool, startup_s=0.0) for pool in config.pools))


def starting_with(config: PlantConfig, wanted: Schedule) -> PlantConfig:
    """Return the plant that starts with the first counts of a schedule."""
    return replace(
        config,
        pools=tuple(
            replace(pool, initial_replicas=int(wanted[pool.role][0])) for pool in config.pools
        ),
    )


def _run(
    oracle: OracleName, asked: float, summary: Summary, price: float | None, wanted: Schedule
) -> OracleRun:
    shares = summary.attainment
    return OracleRun(
        oracle,
        asked,
        shares.both or 0.0,
        shares.ttft or 0.0,
        shares.itl or 0.0,
        shares.worst_5min or 0.0,
        summary.total_gpu_hours,
        price,
        tuple(wanted[Role.PREFILL].tolist()),
        tuple(wanted[Role.DECODE].tolist()),
    )
