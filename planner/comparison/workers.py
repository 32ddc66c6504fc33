"""Many runs at once: over local processes, or over a Ray cluster. What is finished is kept.

Ctrl-C ends the runs that wait and keeps those that are done; a cluster that goes away leaves the
rest to local processes.
"""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from planner.comparison.driver import on_ray
from planner.comparison.jobs import Job, begin, play_job
from planner.comparison.runs import Recipe, Result, Task, play

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
        for job in jobs:
            yield job, play(job.task(recipes))
        return
    # A fresh process: the threads of this one do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), context, _begin, (recipes,)) as pool:
        futures: dict[Future[Result], Job] = {pool.submit(play_job, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin(recipes: list[Recipe]) -> None:
    """Get a worker ready: Ctrl-C is for the process that gives the work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    begin(recipes)
