"""An interrupt in the wrong moment is held back, not lost."""

import os
import signal

import pytest

from planner.process import interrupt_held


def test_an_interrupt_is_held_until_the_block_has_ended():
    done: list[str] = []

    @interrupt_held()
    def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        done.append("the rest of the block")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["the rest of the block"]


def test_without_one_nothing_happens_and_the_handler_is_as_before():
    before = signal.getsignal(signal.SIGINT)
    with interrupt_held():
        pass
    assert signal.getsignal(signal.SIGINT) is before
