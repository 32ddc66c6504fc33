"""Many runs at once: over local processes, or over a Ray cluster. What is finished is kept.

Ctrl-C ends the runs that wait and keeps those that are done; a cluster that goes away leaves the
rest to local processes.
"""

import logging
import multiprocessing
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from planner.comparison.runs import Recipe, Result, Task, play
from planner.errors import InputError

log = logging.getLogger("pd-planner")

# A cluster that does not answer in this time is none [s].
CONNECT_S = 5.0


@dataclass(frozen=True, slots=True)
class Job:
    """A task that travels: its recipe by its place among those that every worker has."""

    recipe: int
    entry: str
    value: float
    asked: tuple[float, ...]

    def task(self, recipes: Sequence[Recipe]) -> Task:
        """Return the task."""
        return Task(recipes[self.recipe], self.entry, self.value, self.asked)


@dataclass(frozen=True, slots=True)
class Finished:
    """What was done; `why_stopped` is None if all was."""

    results: tuple[Result, ...]
    why_stopped: str | None = None


_recipes: list[Recipe] = []


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
            _collect(_on_ray(recipes, jobs, ray_address), take)
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


def _collect(results: Iterator[tuple[Job, Result]], take: Callable[[Job, Result], None]) -> None:
    for job, finished in results:
        take(job, finished)


def _locally(recipes: list[Recipe], jobs: list[Job], workers: int) -> Iterator[tuple[Job, Result]]:
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
        futures: dict[Future[Result], Job] = {pool.submit(_play, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin(recipes: list[Recipe]) -> None:
    """Get a worker ready: Ctrl-C is for the process that gives the work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _recipes[:] = recipes


def _play(job: Job) -> Result:
    return play(job.task(_recipes))


def _on_ray(recipes: list[Recipe], jobs: list[Job], address: str) -> Iterator[tuple[Job, Result]]:
    """Return runs as a Ray cluster finishes them; ends early, with a warning, if it goes away.

    Yields
    ------
    tuple[Job, Result]
        In the order of their end.

    Raises
    ------
    InputError
        If Ray is not installed or there is no cluster at the address.
    """
    ray = _ray()
    _require_answer(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(_no_cluster(address, first)) from None
    try:
        yield from _gathered(ray, recipes, jobs)
    except (ray.exceptions.RayError, ConnectionError) as error:
        first = str(error).strip().splitlines()[0]
        log.warning("the Ray cluster went away (%s): what is left runs on this machine", first)
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Refuse an address at which nobody listens; Ray itself would try for minutes.

    Raises
    ------
    InputError
        If no connection is made in time.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # such as `auto`, which Ray knows to find
    try:
        socket.create_connection((host, int(port)), CONNECT_S).close()
    except OSError as error:
        raise InputError(_no_cluster(address, str(error.strerror or error))) from None


def _no_cluster(address: str, why: str) -> str:
    return (
        f"--ray: {address}: no cluster answers ({why}): start one with `ray start --head`, or "
        "leave --ray out"
    )


def _gathered(ray: Any, recipes: list[Recipe], jobs: list[Job]) -> Iterator[tuple[Job, Result]]:
    shared = ray.put(recipes)
    remote = ray.remote(_play_with)
    pending = {remote.remote(shared, job): job for job in jobs}
    while pending:
        ready, _ = ray.wait(list(pending), num_returns=1)
        for reference in ready:
            yield pending.pop(reference), ray.get(reference)


def _play_with(recipes: list[Recipe], job: Job) -> Result:
    """Play a job in a worker of Ray, which keeps the recipes it has seen."""
    if not _recipes:
        _recipes[:] = recipes
    return _play(job)


def _ray() -> Any:
    try:
        return import_module("ray")
    except ImportError:
        raise InputError(
            "--ray: the package ray is not installed: pip install 'pd-planner[ray]', or leave "
            "--ray out to run on this machine"
        ) from None
