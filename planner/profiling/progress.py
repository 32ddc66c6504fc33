"""How far a measurement is, on stderr: a line a point, and on a terminal a bar with time left."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from planner.model import Role
from planner.profiling.measuring import Cap, Measurement

_BATCH: Final = "sequences"


class Watch:
    """Tells what happens; `bar` is rich's, shown on a terminal alone."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._task: Any = None

    def say(self, line: str) -> None:
        """Print a line, above the bar if there is one."""
        self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def begin(self, what: str, total: int | None = None, done: int = 0) -> None:
        """Begin something that takes `total` steps at most; None: nobody knows."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(what, total=total, completed=done)

    def step(self, done: int, total: int) -> None:
        """Tell that so many steps are done, of so many at most."""
        self._bar.update(self._task, completed=done, total=total)


@contextmanager
def watch() -> Iterator[Watch]:
    """Show progress until the block ends.

    Yields
    ------
    Watch
        What to tell.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        "at most",
        TimeRemainingColumn(),
        "left",
    )
    always_s = float("inf")  # a point may outlast the half minute that speed is taken over
    console = Console(stderr=True)
    shown = sys.stderr.isatty()
    with Progress(
        *columns, console=console, speed_estimate_period=always_s, disable=not shown, transient=True
    ) as bar:
        yield Watch(bar)


def point_words(found: Measurement | Cap) -> str:
    """Return a measured point as a line."""
    if isinstance(found, Cap):
        return f"decode: the engine runs {found.max_sequences} {_BATCH} together, and no more"
    n, context = found.place
    if found.role is Role.PREFILL:
        what = f"prefill, {context:g} tokens: TTFT {_ms(found.value_s)}"
    else:
        what = f"decode, {n:g} {_BATCH} of {context:g} tokens: ITL {_ms(found.value_s)}"
    low, high = min(found.samples_s), max(found.samples_s)
    server = "" if found.server_s is None else f"; the engine's own mean {_ms(found.server_s)}"
    return f"{what} ({_ms(low)} to {_ms(high)}{server})"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.4g} ms"
