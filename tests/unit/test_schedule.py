"""The schedule: whole multiples of an interval, one run at a time, until asked to stop."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from planner.adapters.clock import Deadline, pause
from planner.adapters.schedule import run_every, stop_on_signals

INTERVAL_S = 0.05  # the shortest that a loaded machine can keep apart


class Runs:
    """A job that remembers when it ran and asks to stop after so many runs."""

    def __init__(self, stop: threading.Event, last: int = 3) -> None:
        self.times_s: list[float] = []
        self._stop, self._last = stop, last

    def __call__(self, at_s: float) -> None:
        self.times_s.append(at_s)
        if len(self.times_s) >= self._last:
            self._stop.set()


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


def test_a_job_runs_at_whole_multiples_of_its_interval(stop: threading.Event):
    # Long enough that being late on a loaded machine is not half an interval.
    runs = Runs(stop)
    run_every({0.5: runs}.items(), stop)
    assert len(runs.times_s) == 3
    late_s = sorted(at_s % 0.5 for at_s in runs.times_s)
    assert late_s[1] < 0.25, late_s


def test_jobs_of_several_intervals_run_side_by_side(stop: threading.Event):
    often, seldom = Runs(threading.Event(), 99), Runs(stop)
    run_every({INTERVAL_S: often, 4 * INTERVAL_S: seldom}.items(), stop)
    assert len(often.times_s) > len(seldom.times_s) >= 3


def test_a_run_that_fails_is_logged_and_the_next_one_comes(
    stop: threading.Event, caplog: pytest.LogCaptureFixture
):
    runs = Runs(stop)

    def fail(at_s: float) -> None:
        runs(at_s)
        raise ValueError("of the second kind")

    run_every({INTERVAL_S: fail}.items(), stop)
    assert len(runs.times_s) >= 3
    errors = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) >= 3
    assert "of the second kind" in str(errors[0].exc_info)


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), SystemExit(1)], ids=repr)
def test_the_schedule_ends_when_nobody_reads(stop: threading.Event, error: BaseException):
    def write(_at_s: float) -> None:
        raise error

    with pytest.raises(type(error)):
        run_every({INTERVAL_S: write}.items(), stop)
    assert stop.is_set()


def test_a_slow_run_is_not_joined_by_a_second(stop: threading.Event):
    alone = threading.Semaphore(1)
    was_alone: list[bool] = []
    runs = Runs(stop)

    def slow(at_s: float) -> None:
        was_alone.append(alone.acquire(blocking=False))
        pause(4 * INTERVAL_S)
        alone.release()
        runs(at_s)

    run_every({INTERVAL_S: slow}.items(), stop)
    assert was_alone
    assert all(was_alone)


def test_a_run_in_progress_is_finished(stop: threading.Event):
    done: list[float] = []

    def slow(at_s: float) -> None:
        stop.set()
        pause(INTERVAL_S)
        done.append(at_s)

    run_every({INTERVAL_S: slow}.items(), stop)
    assert done


def test_nothing_runs_once_stop_is_asked_for(stop: threading.Event):
    stop.set()
    runs = Runs(stop)
    run_every({5.0: runs}.items(), stop)
    assert runs.times_s == []


class TestSignals:
    @pytest.fixture(autouse=True)
    def _as_before(self) -> Iterator[None]:
        kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        yield
        for number, handler in kept.items():
            signal.signal(number, handler)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
    def test_a_signal_sets_the_event_and_ends_the_schedule(self, number: signal.Signals):
        stop = stop_on_signals()
        assert not stop.is_set()
        deadline = Deadline(30.0)
        run_every({INTERVAL_S: once(lambda: os.kill(os.getpid(), number))}.items(), stop)
        assert stop.is_set()
        assert deadline.left_s() > 0.0


def once(act: Callable[[], None]) -> Callable[[float], None]:
    """Return a job that acts in its first run alone."""
    acted = threading.Event()

    def run(_at_s: float) -> None:
        if not acted.is_set():
            acted.set()
            act()

    return run
