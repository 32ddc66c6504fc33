"""What concerns the whole process and no service."""

import gc


def settle() -> None:
    """Take what lives as long as the process out of garbage collection.

    A full collection walks through every module's objects, some 50 ms in the middle of a tick.
    """
    gc.collect()
    gc.freeze()
