"""The only module that reads a clock. `ManualClock` stands in for it where time is simulated."""

import math
import threading
import time
from collections.abc import Callable

# The wall clock may be set while we wait, so that a wait is looked at afresh this often [s].
_RECHECK_S = 30.0


class SystemClock:
    """The machine's clock; waiting ends at once when `stop` is set."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def now_s(self) -> float:
        """Return the time [s, Unix]."""
        return time.time()

    def wait_until(self, at_s: float) -> bool:
        """Wait until `at_s` [s, Unix]; return False if asked to stop before."""
        while (left_s := at_s - time.time()) > 0:
            if self._stop.wait(min(left_s, _RECHECK_S)):
                return False
        return not self._stop.is_set()


class ManualClock:
    """A clock that moves only when waited upon or advanced, as far as `end_s`."""

    def __init__(self, start_s: float, end_s: float = math.inf) -> None:
        self._now_s = start_s
        self._end_s = end_s
        self._stopped = False

    def now_s(self) -> float:
        """Return the time [s, Unix]."""
        return self._now_s

    def wait_until(self, at_s: float) -> bool:
        """Move on to `at_s` [s, Unix], never back; return False past the end or when stopped."""
        if self._stopped or at_s > self._end_s:
            return False
        self._now_s = max(self._now_s, at_s)
        return True

    def advance(self, by_s: float) -> None:
        """Move on by a time [s]."""
        self._now_s += by_s

    def stop(self) -> None:
        """Let every later wait return False."""
        self._stopped = True


class Deadline:
    """A point on the monotonic clock by which a call to the outside must end."""

    def __init__(self, timeout_s: float) -> None:
        self._at_s = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """Return the time left [s], at least 0."""
        return max(self._at_s - time.monotonic(), 0.0)


def stopwatch_s() -> Callable[[], float]:
    """Start a stopwatch; calling it returns the time since its start [s]."""
    start_s = time.perf_counter()
    return lambda: time.perf_counter() - start_s


def pause(for_s: float) -> None:
    """Wait for a short time [s], as between two attempts."""
    threading.Event().wait(for_s)
