"""One run of a comparison: one entry with one knob on one trace, told by its row and its tally.

Runs are described by small values that travel to another process, which builds plant and planner
there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final, Protocol

import numpy as np

from planner.adapters.clock import stopwatch_s
from planner.comparison.entries import ENTRIES, Own, Peer
from planner.comparison.regret import SPARED, Spared
from planner.comparison.run_figures import figures, tick_ms
from planner.errors import InputError
from planner.model import Pool, Role, Service
from planner.replay import Replay
from planner.simulation.config import PlantConfig
from planner.simulation.drive import Bounds, drive
from planner.simulation.elasticity import Steps, supply
from planner.simulation.oracles import Clairvoyant, OracleName, OracleRun, Problem
from planner.simulation.plant import Plant
from planner.simulation.policies.base import Capacity, Hindsight
from planner.simulation.results import PlantResults
from planner.simulation.statistics import Tally, tally
from planner.simulation.traces import MINUTE_S, Trace
from planner.spec.service import LoadedService
from profiles.errors import ProfileError


@dataclass(frozen=True, slots=True, eq=False)
class Scenario:
    """What all entries of one seed share."""

    trace: Trace
    loaded: LoadedService
    plant: PlantConfig
    start: Mapping[str, int]
    from_s: float


class Recipe(Protocol):
    """How to make a scenario; a value that can be sent to another process."""

    def __hash__(self) -> int:
        """Tell recipes apart."""
        ...

    @property
    def name(self) -> str:
        """The trace or case, the same for all seeds."""
        ...

    @property
    def seed(self) -> int:
        """Seed of everything random."""
        ...

    def build(self) -> Scenario:
        """Return the scenario; the same at every call."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """One run: which recipe, which entry, which value of its knob.

    `asked` are the attainments that the oracles are asked for.
    """

    recipe: Recipe
    entry: str
    value: float = 0.0
    asked: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """What a task gave.

    `supply` holds the serving replicas of each role from the end of the warm-up to that of the
    trace, in values that JSON has.
    """

    trace: str
    seed: int
    entry: str
    value: float
    row: Mapping[str, Any]
    tally: Tally
    supply: Mapping[str, Steps] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Foresight:
    """What those who know the future need on one trace, for each attainment asked for."""

    trace: str
    seed: int
    runs: tuple[OracleRun, ...]

    def find(self, oracle: OracleName, asked: float) -> OracleRun | None:
        """Return one oracle's run; None if it was not computed or attains too little."""
        for run in self.runs:
            if run.oracle is oracle and run.asked == asked:
                return run if run.is_reached else None
        return None


Result = Run | Foresight

ORACLES: Final = "oracles"
"""The entry of a task that asks the oracles; its value does not matter."""


@lru_cache(maxsize=2)
def scenario_of(recipe: Recipe) -> Scenario:
    """Return the scenario of a recipe; tasks come in the order of their recipes."""
    return recipe.build()


def play(task: Task) -> Result:
    """Play one task."""
    scenario = scenario_of(task.recipe)
    if task.entry == ORACLES:
        return Foresight(task.recipe.name, task.recipe.seed, foresee(scenario, task.asked))
    return run(task, scenario)


def foresee(scenario: Scenario, asked: Sequence[float]) -> tuple[OracleRun, ...]:
    """Return what the three oracles need for each attainment."""
    sla = scenario.loaded.service.sla
    knowing = Clairvoyant(
        Problem(scenario.plant, scenario.trace, sla.ttft_s, sla.itl_s, scenario.from_s)
    )
    return tuple(run for attainment in asked for run in knowing.all(attainment))


def run(task: Task, scenario: Scenario) -> Run:
    """Play one entry."""
    entry = ENTRIES[task.entry]
    watch = stopwatch_s()
    if isinstance(entry, Peer):
        results, ticks_s = play_peer(entry, task.value, scenario)
    else:
        spared = SPARED.get(task.entry, _spared_nothing)(scenario, task.value)
        results, ticks_s = play_own(entry, task.value, spared)
    sla = scenario.loaded.service.sla
    row = {
        "policy": task.entry,
        "trace": task.recipe.name,
        "seed": task.recipe.seed,
        **figures(scenario.loaded.service, scenario.plant, results, scenario.from_s),
        "asked": sla.attainment_ratio,
        "knob": {"name": entry.knob.name, "value": task.value},
        "tick_ms": tick_ms(ticks_s),
        "wall_s": watch(),
        "simulated_s": results.end_s,
    }
    until_s = scenario.trace.duration_s
    counts = tally(results, sla.ttft_s, sla.itl_s, scenario.from_s, until_s)
    served = {
        str(pool.role): supply(results, pool.name, scenario.from_s, until_s)
        for pool in scenario.plant.pools
    }
    return Run(task.recipe.name, task.recipe.seed, task.entry, task.value, row, counts, served)


def _spared_nothing(scenario: Scenario, _: float) -> Spared:
    return Spared(scenario)


def play_own(entry: Own, value: float, spared: Spared) -> tuple[PlantResults, list[float]]:
    """Replay the planner's own loop on a scenario's plant."""
    scenario = spared.scenario
    service, ablation = entry.turned(scenario.loaded.service, value)
    loaded = replace(scenario.loaded, service=service)
    replay = Replay(loaded, scenario.trace, scenario.start)
    replay.plant = Plant(scenario.plant, scenario.trace)
    with ablation.applied(), spared.ablation.applied():
        ticks_s = [frame.tick_s for frame in replay.frames()]
    return replay.finish(), ticks_s


def play_peer(entry: Peer, value: float, scenario: Scenario) -> tuple[PlantResults, list[float]]:
    """Drive a peer's policy through the scenario's plant."""
    service, trace = scenario.loaded.service, scenario.trace
    policy = entry.build(capacity_of(service), hindsight_of(trace), value)
    plant = Plant(scenario.plant, trace)
    ticks_s = drive(policy, plant, trace.duration_s, bounds_of(service), stopwatch_s)
    plant.advance(max(plant.now_s, trace.duration_s))
    plant.drain()
    return plant.results(), ticks_s


def bounds_of(service: Service) -> dict[Role, Bounds]:
    """Return each role's pool and its limits; nobody but the planner goes to zero.

    Raises
    ------
    InputError
        If a role has several pools: no peer knows what to do with them.
    """
    found: dict[Role, Bounds] = {}
    for role in Role:
        pools = service.pools_of(role)
        if len(pools) != 1:
            names = ", ".join(pool.name for pool in pools)
            raise InputError(
                f"compare: role {role} has {len(pools)} pools ({names}); legal: 1, as the peers "
                "know one a role; leave the others out of the file"
            )
        found[role] = Bounds(pools[0].name, max(pools[0].min_replicas, 1), pools[0].max_replicas)
    return found


def capacity_of(service: Service) -> Capacity:
    """Return what the profiles of a service say of a replica."""
    prefill, decode = (_only(service, role) for role in (Role.PREFILL, Role.DECODE))
    prompts, steps = prefill.prefill, decode.decode
    assert prompts is not None
    assert steps is not None

    @lru_cache(maxsize=4096)
    def best(itl_s: float, context_tokens: float) -> tuple[float, float]:
        try:
            point = steps.best_throughput(itl_s, context_tokens)
        except ProfileError:
            alone_s = float(steps.itl_s(1.0, context_tokens))
            return 1.0 / alone_s, 1.0
        return point.throughput_tps, float(point.concurrency)

    return Capacity(
        ttft_s=service.sla.ttft_s,
        itl_s=service.sla.itl_s,
        prefill_s=lambda isl_tokens: float(prompts.service_s(isl_tokens)),
        decode_itl_s=lambda n, context_tokens: float(steps.itl_s(n, context_tokens)),
        decode_best=best,
    )


def hindsight_of(trace: Trace) -> Hindsight:
    """Return mean lengths and the busiest whole minute of a trace."""
    minute = (trace.arrival_s // MINUTE_S).astype(np.int64)
    tokens = {Role.PREFILL: trace.isl_tokens, Role.DECODE: trace.osl_tokens}
    return Hindsight(
        float(trace.isl_tokens.mean()),
        float(trace.osl_tokens.mean()),
        {role: float(np.bincount(minute, n).max()) / MINUTE_S for role, n in tokens.items()},
    )


def _only(service: Service, role: Role) -> Pool:
    return service.pools_of(role)[0]
