"""Many runs at once: over local processes, or over a Ray cluster. What is finished is kept.

Ctrl-C ends the runs that wait and keeps those that are done; a cluster that goes away leaves the
rest to local processes.
"""

import contextlib
import multiprocessing
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from planner.comparison.driver import on_ray
from planner.comparison.jobs import Job, begin, deaf_to_interrupts, on_disk, play_job
from planner.comparison.runs import Recipe, Result, Task, play
from planner.process import interrupt_held
from planner.simulation.warm import warm

Played = Generator[tuple[Job, Result], None, None]
"""Jobs and what they gave, in the order of their end."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What was done; `why_stopped` is None if all was."""

    results: tuple[Result, ...]
    why_stopped: str | None = None


def play_all(
    tasks: Sequence[Task],
    workers: int,
    ray_address: str | None,
    done: Callable[[Task, Result], None],
) -> Finished:
    """Play all tasks.

    Parameters
    ----------
    tasks
        What to play, the tasks of a recipe together.
    workers
        Local processes; 1 plays in this one.
    ray_address
        Address of a Ray cluster that plays instead; None: none.
    done
        Is told every run as it finishes.
    """
    recipes = list(dict.fromkeys(task.recipe for task in tasks))
    jobs = [Job(recipes.index(task.recipe), task.entry, task.value, task.asked) for task in tasks]
    results: list[Result] = []
    left = list(jobs)

    def take(job: Job, finished: Result) -> None:
        results.append(finished)
        left.remove(job)
        done(job.task(recipes), finished)

    try:
        if ray_address is not None:
            _collect(on_ray(recipes, jobs, ray_address), take)
        if left:
            _collect(_locally(recipes, list(left), workers), take)
    except KeyboardInterrupt:
        return Finished(
            tuple(results), f"stopped by Ctrl-C: {len(left)} of {len(jobs)} runs are left"
        )
    except BrokenProcessPool:
        why = f"a process was killed, perhaps for memory: {len(left)} of {len(jobs)} runs are left"
        return Finished(tuple(results), f"{why}; give fewer --jobs")
    return Finished(tuple(results))


def _collect(results: Played, take: Callable[[Job, Result], None]) -> None:
    """Take runs as they finish; an interrupt in between ends those who play."""
    with contextlib.closing(results):
        for job, finished in results:
            take(job, finished)


def _locally(recipes: list[Recipe], jobs: list[Job], workers: int) -> Played:
    """Return runs as they finish; one worker is this process.

    Yields
    ------
    tuple[Job, Result]
        In the order of their end.
    """
    if workers <= 1 or len(jobs) == 1:
        with interrupt_held():
            warm()
        for job in jobs:
            yield job, play(job.task(recipes))
        return
    # A fresh process: the threads of this one do not survive a fork.
    context, most = multiprocessing.get_context("spawn"), min(workers, len(jobs))
    others = set(multiprocessing.active_children())
    with on_disk(recipes) as shared, ProcessPoolExecutor(most, context, begin, (shared,)) as pool:
        with deaf_to_interrupts():
            futures: dict[Future[Result], Job] = {pool.submit(play_job, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            # One run may take minutes, and nobody will take what it gives.
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise
