"""Where what tests need is made once, outside the checkout, and by one process at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def cache_of(kind: str) -> Path:
    """Return the folder of a kind of thing in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "pd-planner" / kind


@contextlib.contextmanager
def alone_in(place: Path) -> Iterator[None]:
    """Hold a folder for one process; a second caller waits for the first."""
    with (place / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
