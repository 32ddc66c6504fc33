"""What concerns the whole process and no service."""

import contextlib
import gc
import signal
import threading
from collections.abc import Iterator

# Objects made and not freed before the youngest are searched for cycles, and how often the older
# are then. A decision makes thousands, and none in a cycle: at Python's own 700 every tick is
# searched several times for nothing, and a search of the older makes the longest of them.
SEARCHED = (20_000, 20, 20)


def settle() -> None:
    """Take what lives as long as the process out of garbage collection, and search seldom.

    A full collection walks through every module's objects, some 50 ms in the middle of a tick.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*SEARCHED)


@contextlib.contextmanager
def interrupt_held() -> Iterator[None]:
    """Hold Ctrl-C back until the block has ended.

    A compiler that loads its cache calls back into Python, and an interrupt that is raised there
    is printed and lost.

    Raises
    ------
    KeyboardInterrupt
        At the end, if there was one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt
