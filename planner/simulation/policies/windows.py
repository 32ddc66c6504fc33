"""The recent past of a number: means and maxima over sliding windows. Pure."""

History = tuple[tuple[float, float], ...]
"""(time [s], value), oldest first."""


def noted(history: History, at_s: float, value: float, window_s: float) -> History:
    """Return the history with one more value, and without those out of the window [s]."""
    return (*((t, v) for t, v in history if t > at_s - window_s + 1e-9), (at_s, value))


def mean(history: History) -> float:
    """Return the mean of the values.

    Examples
    --------
    >>> mean(noted(((0.0, 9.0), (30.0, 1.0)), 60.0, 3.0, 60.0))
    2.0
    """
    return sum(value for _, value in history) / len(history)


def highest(history: History) -> float:
    """Return the largest value."""
    return max(value for _, value in history)
