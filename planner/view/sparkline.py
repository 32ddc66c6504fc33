"""Small pictures out of block characters, for terminals. Pure."""

import math
from collections.abc import Sequence
from typing import Final

LEVELS: Final = "▁▂▃▄▅▆▇█"
GAP: Final = " "


def sparkline(values: Sequence[float], width: int, low: float, high: float) -> str:
    """Return the last `width` values as bars between `low` and `high`; not a number: a gap.

    Examples
    --------
    >>> sparkline([0, 1, 2, float("nan"), 7], 9, 0.0, 7.0)
    '▁▂▃ █'
    """
    span = max(high - low, 1e-12)
    return "".join(_bar((v - low) / span) for v in values[max(len(values) - width, 0) :])


def _bar(height: float) -> str:
    if not math.isfinite(height):
        return GAP
    return LEVELS[min(max(int(height * len(LEVELS)), 0), len(LEVELS) - 1)]


def highest(*series: Sequence[float]) -> float:
    """Return the largest finite value of all series, 1 if there is none above 0."""
    largest = max((v for values in series for v in values if math.isfinite(v)), default=0.0)
    return largest if largest > 0.0 else 1.0
