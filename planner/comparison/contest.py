"""A comparison: the same traffic under the planner, the peers' policies and the clairvoyant ones.

Everybody is swept over the one knob it has, so that prices can be read at equal attainment. A
composition root; what decides here is only what is played, and who is told.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from planner.adapters.telemetry import configure_logging
from planner.comparison.entries import ENTRIES, knob_values, read_names
from planner.comparison.recipes import FileRecipe, require_length
from planner.comparison.runs import ORACLES, Recipe, Result, Task, bounds_of
from planner.comparison.summary import Comparison, summed_up, swept
from planner.comparison.workers import play_all
from planner.printing import print_json, print_table
from planner.process import settle
from planner.rehearsal import whole_file
from planner.settings import Settings
from planner.simulation.statistics import DRAWS, Sweep
from planner.simulation.trace_files import open_trace
from planner.simulation.traces import Trace, clip
from planner.spec.service import LoadedService
from planner.view.comparison_rows import between, never_reached, sweeps_of

log = logging.getLogger("pd-planner")

ATTAINMENTS: Final = (0.90, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is played: entries, knob values each, attainments read, resampled traces.

    `refine` plays once more halfway between the knobs on both sides of each attainment.
    """

    names: Sequence[str]
    points: int = 7
    asked: tuple[float, ...] = ATTAINMENTS
    refine: bool = True
    oracles: bool = True
    draws: int = DRAWS


class Store(Protocol):
    """Where finished runs are kept, so that an interrupted comparison goes on."""

    def find(self, task: Task) -> Result | None:
        """Return what the task gave, None if it was never finished."""
        ...

    def keep(self, task: Task, result: Result) -> None:
        """Keep what a task gave."""
        ...


def compare(
    service: LoadedService,
    settings: Settings,
    trace: str | Trace,
    scale: int,
    seeds: int,
    start: Mapping[str, int] | None,
    warmup: int,
    policies: str | None,
    points: int,
    oracles: bool,  # noqa: FBT001 - called by keyword
    jobs: int | None,
    ray: str | None,
    report: Path | None,
    output: str,
) -> int:
    """Compare policies on a service and a trace, and print what came out."""
    configure_logging(settings.log.level, settings.log.format)
    names = read_names(policies)
    bounds_of(service.service)
    requests = open_trace(trace) if isinstance(trace, str) else trace
    longest = service.service.sla.max_input_tokens
    if longest is not None:
        requests, _ = clip(requests, longest)
    require_length(requests, service, warmup)
    recipes = [FileRecipe(service, requests, scale, seed, start, warmup) for seed in range(seeds)]
    asked = tuple(sorted({*ATTAINMENTS, service.service.sla.attainment_ratio}))
    plan = Plan(names, points, asked, oracles=oracles)
    with whole_file(report) as part:
        found = contest(recipes, plan, jobs or os.cpu_count() or 1, ray_address=ray)
        if part is not None:
            from planner.view.comparison_page import write_comparison

            write_comparison(part, found.document(), service.service.sla)
    show(found, output)
    return 0


def show(found: Comparison, output: str) -> None:
    """Print a comparison; what stopped it and who fell short goes to the log."""
    for line in never_reached(found.prices):
        log.warning("%s", line)
    if found.why_stopped is not None:
        log.warning("%s", found.why_stopped)
    if output == "json":
        print_json(found.document())
        return
    from planner.view.comparison_table import comparison_tables

    print_table(comparison_tables(found.document()))


def contest(
    recipes: Sequence[Recipe],
    plan: Plan,
    workers: int = 1,
    *,
    ray_address: str | None = None,
    store: Store | None = None,
) -> Comparison:
    """Play a comparison.

    Parameters
    ----------
    recipes
        Traces, each with all its seeds; recipes of one trace share a name.
    plan
        What is played on each.
    workers
        Local processes.
    ray_address
        A Ray cluster that plays instead.
    store
        Keeps what is finished.
    """
    tasks = [task for recipe in recipes for task in first_tasks(recipe, plan)]
    results, why_stopped = _play(tasks, workers, ray_address, store)
    if plan.refine and plan.points > 1 and why_stopped is None:
        further = refined(recipes, results, plan)
        more, why_stopped = _play(further, workers, ray_address, store)
        results = [*results, *more]
    return summed_up(results, plan.names, plan.asked, plan.draws, why_stopped)


def first_tasks(recipe: Recipe, plan: Plan) -> list[Task]:
    """Return the tasks of one recipe: the longest first, then every entry over its grid."""
    tasks = [Task(recipe, ORACLES, asked=plan.asked)] if plan.oracles else []
    for name in plan.names:
        values = knob_values(ENTRIES[name].knob, plan.points)
        tasks += [Task(recipe, name, value) for value in values]
    return tasks


def refined(recipes: Sequence[Recipe], results: Sequence[Result], plan: Plan) -> list[Task]:
    """Return the tasks halfway between the knobs on both sides of each attainment."""
    sweeps = sweeps_of(swept(results))
    return [
        Task(recipe, name, value)
        for recipe in recipes
        for name, sweep in sweeps.get(recipe.name, {}).items()
        for value in halfway(sweep, plan.asked)
    ]


def halfway(sweep: Sweep, asked: Sequence[float]) -> list[float]:
    """Return the knobs not played yet between those that each attainment is read from."""
    values = (between(sweep, attainment) for attainment in asked)
    return sorted({v for v in values if v is not None} - set(sweep.knobs))


def _play(
    tasks: Sequence[Task], workers: int, ray_address: str | None, store: Store | None
) -> tuple[list[Result], str | None]:
    """Return what all tasks give, those kept from before included."""
    kept = {task: store.find(task) for task in tasks} if store is not None else {}
    results = [result for result in kept.values() if result is not None]
    missing = [task for task in tasks if kept.get(task) is None]
    if not missing:
        return results, None
    settle()
    with progress(len(missing)) as advance:

        def done(task: Task, result: Result) -> None:
            if store is not None:
                store.keep(task, result)
            advance()
            log.debug("%s of %s finished", task.entry, task.recipe.name)

        finished = play_all(missing, workers, ray_address, done)
    return [*results, *finished.results], finished.why_stopped


@contextmanager
def progress(total: int) -> Iterator[Callable[[], None]]:
    """Show how many runs are done and the time left, on a terminal.

    Yields
    ------
    Callable[[], None]
        To be called after every run.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("runs", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), "left")
    console = Console(stderr=True)
    is_shown = sys.stderr.isatty()
    # One run may outlast the half minute over which the bar takes its speed.
    always_s = float("inf")
    with Progress(
        *columns, console=console, speed_estimate_period=always_s, disable=not is_shown
    ) as bar:
        task = bar.add_task("runs", total=total)
        # Its speed is taken from the first sample on: that is now, not the end of the first run.
        bar.advance(task, 0)
        yield lambda: bar.advance(task)
