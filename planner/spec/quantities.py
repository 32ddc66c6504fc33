"""Quantities as a person writes them: durations, percentages, decimals, bandwidths. Pure.

Every parser takes any value and raises ValueError with one line: what was found, what is legal and
how to mend it. Seconds, ratios and bytes/s come out.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pydantic_core.core_schema import CoreSchema

UNITS_S: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
"""Units of a Kubernetes duration [s], as Go's time.ParseDuration knows them."""

WINDOW_UNITS_S: Final = UNITS_S | {"d": 86_400.0, "w": 604_800.0}
"""Units of a stretch of history [s]: Prometheus knows days and weeks too."""

DURATION_PATTERN: Final = r"^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$"
PERCENT_PATTERN: Final = r"^[0-9]+(\.[0-9]+)?%$"
DECIMAL_PATTERN: Final = r"^[0-9]+(\.[0-9]+)?$"

_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)([^0-9.\s]+)")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_BITS: Final = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_LENGTH_MAX: Final = 40


def parse_duration_s(value: object, *, with_days: bool = False) -> float:
    """Return a duration such as ``1m30s`` in seconds; days and weeks only `with_days`.

    Raises
    ------
    ValueError
        If it is no duration: what is missing and how to write it.

    Examples
    --------
    >>> parse_duration_s("1m30s")
    90.0
    """
    text = _short(value).strip()
    units_s = WINDOW_UNITS_S if with_days else UNITS_S
    if _NUMBER.fullmatch(text):
        raise ValueError(f"{text} has no unit: write {text}ms or {text}s")
    parts = _PART.findall(text)
    if not parts or "".join(map("".join, parts)) != text:
        raise ValueError(f"{text!r} is no duration: write one such as 500ms, 90s or 1m30s")
    for _, unit in parts:
        if unit not in units_s:
            legal = ", ".join(name for name in units_s if name.isascii())
            raise ValueError(f"{text}: unknown unit {unit}; legal units: {legal}")
    return sum(float(number) * units_s[unit] for number, unit in parts)


def format_duration(seconds: float) -> str:
    """Return seconds as the shortest usual Kubernetes duration.

    Examples
    --------
    >>> [format_duration(s) for s in (0.015, 0.5, 60, 90, 3600, 0)]
    ['15ms', '500ms', '1m', '1m30s', '1h', '0s']
    """
    if 0 < seconds < 1:
        in_ms = seconds * 1e3
        return f"{in_ms:.6g}ms" if in_ms >= 1 else f"{in_ms * 1e3:.6g}us"
    minutes, rest = divmod(round(seconds, 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    parts = (f"{hours}h" if hours else "", f"{minutes}m" if minutes else "")
    return "".join(parts) + (f"{rest:.6g}s" if rest or not (hours or minutes) else "")


def parse_percent_ratio(value: object) -> float:
    """Return a percentage such as ``"99%"`` as a ratio.

    Raises
    ------
    ValueError
        If it is no percentage.

    Examples
    --------
    >>> parse_percent_ratio("99.5%")
    0.995
    """
    text = _short(value).strip()
    number = text.removesuffix("%").rstrip()
    if not _NUMBER.fullmatch(number):
        raise ValueError(f'{text!r} is no percentage: write one such as "99%"')
    if number == text:
        raise ValueError(f'{text} has no percent sign: write "{_as_percent(float(text))}%"')
    # 12 digits: 99.5 / 100 is then the float that 0.995 is.
    return round(float(number) / 100.0, 12)


def format_percent(ratio: float) -> str:
    """Return a ratio as a percentage."""
    return f"{ratio * 100:.10g}%"


def parse_decimal(value: object) -> float:
    """Return a decimal number written as a string, such as ``"2.5"``.

    Raises
    ------
    ValueError
        If it is not a string (a CRD field has one type), or no number of 0 or more.
    """
    text = _short(value)
    if not _NUMBER.fullmatch(text):
        raise ValueError(f'{text!r} is no number of 0 or more: write one such as "2.5"')
    if text is not value:
        raise ValueError(f'{text} is a bare number: write it in quotes, "{text}"')
    return float(text)


def format_decimal(value: float) -> str:
    """Return a number as the string that `parse_decimal` reads."""
    return f"{value:.12g}"


def parse_bandwidth_bytes_per_s(value: object) -> float:
    """Return a bandwidth in bits per second, such as ``200G``, in bytes per second.

    Raises
    ------
    ValueError
        If it is no bandwidth above 0.

    Examples
    --------
    >>> parse_bandwidth_bytes_per_s("200G")
    25000000000.0
    """
    text = _short(value).strip()
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)([kMGT]?)", text)
    if match is None or float(match[1]) == 0:
        raise ValueError(
            f"{text!r} is no bandwidth: write bits per second above 0 with k, M, G or T, "
            "such as 200G"
        )
    return float(match[1]) * _BITS[match[2]] / 8.0


def _as_percent(number: float) -> str:
    return f"{number * 100 if number <= 1 else number:.10g}"


def _short(value: object) -> str:
    # Whatever is longer is no quantity, and would only fill the message.
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= _LENGTH_MAX else f"{text[:_LENGTH_MAX]}…"


@dataclass(frozen=True, slots=True)
class Quantity:
    """How pydantic reads, bounds, writes and describes a float that people write as a string.

    Used as ``Annotated[float, Quantity(…)]``. `low` and `high` are inclusive unless `is_open`.
    """

    parse: Callable[[object], float]
    write: Callable[[float], str]
    pattern: str
    low: float = 0.0
    high: float = math.inf
    is_open: bool = False

    @property
    def legal(self) -> str:
        """The legal range in words."""
        if math.isinf(self.high):
            return f"{'above' if self.is_open else 'at least'} {self.write(self.low)}"
        if self.is_open:
            return f"between {self.write(self.low)} and {self.write(self.high)}, both excluded"
        return f"{self.write(self.low)} to {self.write(self.high)}"

    def read(self, value: object) -> float:
        """Return the value in the program's unit.

        Raises
        ------
        ValueError
            If it cannot be parsed or is out of range.
        """
        number = self.parse(value)
        inside = self.low < number < self.high or (
            not self.is_open and number in {self.low, self.high}
        )
        if not inside:
            raise ValueError(f"{value} is out of range: write a value {_preposition(self.legal)}")
        return number

    def __get_pydantic_core_schema__(self, _source: object, _handler: object) -> "CoreSchema":
        # The command line reads durations too, and should not wait for pydantic.
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            self.read, serialization=core_schema.plain_serializer_function_ser_schema(self.write)
        )

    def __get_pydantic_json_schema__(self, _schema: object, _handler: object) -> dict[str, Any]:
        return {"type": "string", "pattern": self.pattern, "x-legal": self.legal}


def duration(low: str, high: str) -> Quantity:
    """Return a Kubernetes duration from `low` to `high`, in seconds inside."""
    low_s, high_s = parse_duration_s(low), parse_duration_s(high)
    return Quantity(parse_duration_s, format_duration, DURATION_PATTERN, low_s, high_s)


def percent(low: str, high: str, *, is_open: bool = False) -> Quantity:
    """Return a percentage from `low` to `high`, a ratio inside."""
    bounds = parse_percent_ratio(low), parse_percent_ratio(high)
    return Quantity(parse_percent_ratio, format_percent, PERCENT_PATTERN, *bounds, is_open)


def decimal(low: float = 0.0, high: float = math.inf, *, is_open: bool = False) -> Quantity:
    """Return a decimal number in a string."""
    return Quantity(parse_decimal, format_decimal, DECIMAL_PATTERN, low, high, is_open)


def _preposition(legal: str) -> str:
    return legal if legal[0].isalpha() else f"from {legal}"
