"""How numbers are written for a person: shares, rates, times, latencies. Pure."""

import math
from datetime import UTC, datetime
from typing import Final

CALENDAR_FROM_S: Final = 1e8
"""Times from here on are Unix times (1973 and later), below it seconds of a simulation."""

UNKNOWN: Final = "–"


def share(ratio: float | None) -> str:
    """Return a share in percent, cut off and not rounded: one miss is never "100%".

    Examples
    --------
    >>> share(0.99999), share(1.0), share(0.9851), share(None)
    ('99.99%', '100%', '98.51%', '–')
    """
    if ratio is None or not math.isfinite(ratio):
        return UNKNOWN
    # The nudge undoes binary fractions: 0.29 × 1e4 is 2899.9999…
    return f"{math.floor(ratio * 1e4 + 1e-6) / 100:g}%"


def share_between(lower: float, upper: float) -> str:
    """Return a share known between two bounds.

    Examples
    --------
    >>> share_between(0.991, 0.997), share_between(1.0, 1.0)
    ('99.1% to 99.7%', '100%')
    """
    low, high = share(lower), share(upper)
    return low if low == high else f"{low} to {high}"


def small_share(ratio: float) -> str:
    """Return a share that is mostly near nothing, in percent with two digits.

    Examples
    --------
    >>> small_share(0.0), small_share(2.3e-6), small_share(0.0123)
    ('0%', '0.00023%', '1.2%')
    >>> small_share(0.01), small_share(0.249)
    ('1%', '25%')
    """
    percent = ratio * 100.0
    if percent < 1e-6:
        return "0%"
    digits = max(1 - math.floor(math.log10(percent)), 0)
    text = f"{percent:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text}%"


def thousands(value: float | None) -> str:
    """Return a rate or an amount in three digits and a unit prefix.

    Examples
    --------
    >>> [thousands(x) for x in (0.0, 59.13, 7628.5, 82517.5, 1.25e6)]
    ['0', '59.1', '7.63k', '82.5k', '1.25M']
    """
    if value is None or not math.isfinite(value):
        return UNKNOWN
    for unit, size in (("M", 1e6), ("k", 1e3)):
        # 999 500 would round up to 1000k.
        if abs(value) >= size * 0.9995:
            return f"{_three_digits(value / size)}{unit}"
    return _three_digits(value)


def milliseconds(seconds: float | None) -> str:
    """Return a latency in milliseconds.

    Examples
    --------
    >>> milliseconds(0.0727), milliseconds(0.006095), milliseconds(1.5)
    ('72.7 ms', '6.1 ms', '1500 ms')
    """
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    value = seconds * 1e3
    return f"{value:.1f} ms".replace(".0 ", " ") if value < 100 else f"{value:.0f} ms"


def ratio_to_profile(factor: float) -> str:
    """Return a correction factor: ``×1.03`` is 3 % slower than the profile."""
    return f"×{factor:.2f}" if math.isfinite(factor) else UNKNOWN


def moment(at_s: float) -> str:
    """Return a time: the simulated clock, or a calendar date where it is Unix time.

    Examples
    --------
    >>> moment(1860.0), moment(90061.5), moment(1795341600.0)
    ('00:31:00', '25:01:01', '2026-11-22 10:00:00 UTC')
    """
    if at_s >= CALENDAR_FROM_S:
        return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
    minutes, seconds = divmod(int(at_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}"


def span(seconds: float) -> str:
    """Return a length of time in its two largest units.

    Examples
    --------
    >>> span(12.3), span(104.8), span(3600), span(90000)
    ('12 s', '1 min 45 s', '1 h', '25 h')
    """
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    large, small, units = (
        (*divmod(total, 60), ("min", "s"))
        if total < 3600
        else (*divmod(round(total / 60), 60), ("h", "min"))
    )
    return f"{large} {units[0]}" + (f" {small} {units[1]}" if small else "")


def _three_digits(value: float) -> str:
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
