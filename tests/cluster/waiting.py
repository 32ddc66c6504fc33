"""Waiting for something to become true, with a deadline and what was last seen."""

import os
from collections.abc import Callable
from typing import TypeVar

import requests

from planner.adapters.clock import Deadline, pause, stopwatch_s
from tests.ci import IN_CI
from tests.cluster.rest import Refused

T = TypeVar("T")

LOOK_EVERY_S = 0.05
# After an outage of the API server its clients look again after up to 30 s and as much again by
# chance (client-go's reflector); one waits for another.
OUTAGE_S = 120.0
LOADED = 3.0  # deadlines are for a machine of our own; on a busy one they are this much longer


def patience() -> float:
    """Return the factor for deadlines: more than 1 where more is running than there are cores.

    The load does not show what a CI machine's neighbours do.
    """
    is_busy = IN_CI or os.getloadavg()[0] > (os.cpu_count() or 1)
    return LOADED if is_busy else 1.0


def wait_for(what: str, look: Callable[[], T], timeout_s: float = 20.0) -> T:
    """Return the first true thing that `look` finds; fail with the last one it saw.

    A refused or broken connection counts as nothing seen yet, and so does a server that fails.
    """
    waited_s = stopwatch_s()
    while True:
        seen: object
        try:
            if seen := look():
                return seen
        except (requests.ConnectionError, requests.Timeout) as error:
            seen = error
        except Refused as error:
            if error.status < requests.codes.server_error:
                raise
            seen = error
        # What is waited for may be what makes the machine busy: asked at every look.
        if waited_s() > timeout_s * patience():
            raise AssertionError(f"{what}: not within {waited_s():.0f} s; last seen: {seen!r}")
        pause(LOOK_EVERY_S)


def happens(look: Callable[[], object], within_s: float) -> bool:
    """Return whether `look` finds something true in time; deadlines as in `wait_for`."""
    try:
        wait_for("it", look, within_s)
    except AssertionError:
        return False
    return True


def always(what: str, look: Callable[[], object], for_s: float) -> None:
    """Check that something stays true for a time; fail at the first look that finds it is not."""
    deadline = Deadline(for_s)
    while deadline.left_s() > 0:
        assert look(), f"{what}: no longer so, {deadline.left_s():.1f} s before the end"
        pause(LOOK_EVERY_S)
