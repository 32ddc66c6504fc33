"""What travels to a process that plays: tasks without their recipes, which it gets but once."""

from collections.abc import Sequence
from dataclasses import dataclass

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


# Kept by a worker for all its jobs: a scenario is built once for each recipe, known by identity.
_recipes: list[Recipe] = []


def begin(recipes: Sequence[Recipe]) -> None:
    """Get a worker ready for jobs of these recipes."""
    _recipes[:] = recipes


def play_job(job: Job) -> Result:
    """Play a job in a worker that was made ready."""
    return play(job.task(_recipes))


def play_with(recipes: Sequence[Recipe], job: Job) -> Result:
    """Play a job in a worker that may be new; it keeps the first recipes it sees."""
    if not _recipes:
        begin(recipes)
    return play_job(job)
