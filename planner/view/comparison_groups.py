"""A comparison grouped for people: one line a policy and trace, means over its seeds. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """One policy on one trace: its runs as shipped, and its prices by attainment."""

    trace: str
    policy: str
    shipped: Sequence[Row]
    prices: Mapping[float, Row]

    def mean(self, *keys: str) -> float | None:
        """Return the mean of a figure over the shipped runs; None where it is not known."""
        values = [_at(row, keys) for row in self.shipped]
        known = [value for value in values if value is not None]
        return fmean(known) if known and len(known) == len(values) else None

    def lowest(self, *keys: str) -> float | None:
        """Return the lowest of a figure over the shipped runs."""
        known = [value for row in self.shipped if (value := _at(row, keys)) is not None]
        return min(known, default=None)

    def highest(self, *keys: str) -> float | None:
        """Return the highest of a figure over the shipped runs."""
        known = [value for row in self.shipped if (value := _at(row, keys)) is not None]
        return max(known, default=None)

    def an_hour(self, key: str) -> float | None:
        """Return a count of the shipped runs for every simulated hour."""
        count = self.mean(key)
        hours = [row["simulated_s"] / 3600.0 for row in self.shipped]
        return None if count is None or not hours else count / fmean(hours)


def _at(row: Row, keys: Iterable[str]) -> float | None:
    value: Any = row
    for key in keys:
        value = None if value is None else value[key]
    return None if value is None else float(value)


def lines_of(document: Mapping[str, Any]) -> dict[str, list[Line]]:
    """Return the lines by trace, policies in the order in which they were played."""
    shipped: dict[tuple[str, str], list[Row]] = {}
    prices: dict[tuple[str, str], dict[float, Row]] = {}
    for row in document["rows"]:
        shipped.setdefault((row["trace"], row["policy"]), []).append(row)
    for row in document["prices"]:
        prices.setdefault((row["trace"], row["policy"]), {})[row["attainment"]] = row
    found: dict[str, list[Line]] = {}
    for trace, policy in dict.fromkeys((*shipped, *prices)):
        key = (trace, policy)
        line = Line(trace, policy, shipped.get(key, []), prices.get(key, {}))
        found.setdefault(trace, []).append(line)
    return found


def curves_of(document: Mapping[str, Any]) -> dict[str, dict[str, list[tuple[float, float, str]]]]:
    """Return (GPU-hours, attainment, knob) of every knob by trace and policy, means over seeds."""
    runs: dict[str, dict[str, dict[float, list[Row]]]] = {}
    for row in document["frontier"]:
        values = runs.setdefault(row["trace"], {}).setdefault(row["policy"], {})
        values.setdefault(row["knob"]["value"], []).append(row)
    return {
        trace: {
            policy: [_point(values[value]) for value in sorted(values)]
            for policy, values in policies.items()
        }
        for trace, policies in runs.items()
    }


def _point(rows: Sequence[Row]) -> tuple[float, float, str]:
    knob = rows[0]["knob"]
    hours = fmean(row["gpu_hours"] for row in rows)
    both = fmean(row["attainment"]["both"] or 0.0 for row in rows)
    return hours, both, f"{knob['name']} {knob['value']:g}"
