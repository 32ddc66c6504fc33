"""What travels to a process that plays: tasks without their recipes, which it gets but once."""

import contextlib
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path

from planner.comparison.runs import Recipe, Result, Task, play


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


@contextlib.contextmanager
def on_disk(recipes: Sequence[Recipe]) -> Iterator[Path]:
    """Keep the recipes in a file for those who play.

    Who starts a process writes its arguments into a pipe, and with whole traces among them waits
    there until that process has come up, one after the other.

    Yields
    ------
    Path
        For `read_recipes`.
    """
    with tempfile.TemporaryDirectory(prefix="pd-planner-") as folder:
        path = Path(folder) / "recipes.pickle"
        path.write_bytes(pickle.dumps(list(recipes)))
        yield path


def read_recipes(path: Path) -> list[Recipe]:
    """Return the recipes that `on_disk` keeps."""
    recipes: list[Recipe] = pickle.loads(path.read_bytes())
    return recipes


@contextlib.contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Start processes that never hear of Ctrl-C: it is for the one that gives the work.

    They inherit what is blocked, from their first instruction on; one that comes meanwhile is
    raised here at the end.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# Kept by a worker for all its jobs: a scenario is built once for each recipe, known by identity.
_recipes: list[Recipe] = []


def begin(recipes: Path) -> None:
    """Get a worker ready for jobs of these recipes; it ends with the process that started it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    _recipes[:] = read_recipes(recipes)


def _end_with(sentinel: int) -> None:
    # A worker waits for jobs for ever where whoever gave them was killed.
    connection.wait([sentinel])
    os._exit(1)


def play_job(job: Job) -> Result:
    """Play a job in a worker that was made ready."""
    return play(job.task(_recipes))


def play_with(recipes: Sequence[Recipe], job: Job) -> Result:
    """Play a job in a worker that may be new; it keeps the first recipes it sees."""
    if not _recipes:
        _recipes[:] = recipes
    return play_job(job)
