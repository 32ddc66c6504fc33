"""Waiting ends in time, at once when asked, and costs nothing where time is simulated."""

import threading

import pytest

from planner.adapters.clock import Deadline, ManualClock, SystemClock, pause


def test_the_system_clock_waits_until_the_time() -> None:
    clock = SystemClock(threading.Event())
    until_s = clock.now_s() + 0.05
    assert clock.wait_until(until_s)
    assert clock.now_s() >= until_s


def test_the_past_needs_no_waiting() -> None:
    assert SystemClock(threading.Event()).wait_until(0.0)


@pytest.mark.parametrize("ahead_s", [-10.0, 3600.0], ids=["past", "future"])
def test_a_stop_ends_the_wait_at_once(ahead_s: float) -> None:
    stop = threading.Event()
    clock = SystemClock(stop)
    stop.set()
    assert not clock.wait_until(clock.now_s() + ahead_s)


def test_a_stop_ends_a_wait_that_has_begun() -> None:
    stop = threading.Event()
    clock = SystemClock(stop)
    timer = threading.Timer(0.05, stop.set)
    timer.start()
    assert not clock.wait_until(clock.now_s() + 3600.0)
    timer.join()


def test_the_manual_clock_moves_when_waited_upon() -> None:
    clock = ManualClock(100.0, end_s=200.0)
    assert clock.wait_until(160.0)
    assert clock.now_s() == 160.0
    assert clock.wait_until(120.0)  # never back
    assert clock.now_s() == 160.0
    assert not clock.wait_until(200.5)
    assert clock.now_s() == 160.0
    clock.advance(5.0)
    assert clock.now_s() == 165.0
    clock.stop()
    assert not clock.wait_until(166.0)


def test_a_deadline_never_leaves_less_than_nothing() -> None:
    deadline = Deadline(0.01)
    assert 0.0 <= deadline.left_s() <= 0.01
    pause(0.02)
    assert deadline.left_s() == 0.0
