"""Whether a target latency is a bound of the histogram that measures it. Pure."""

import bisect
from collections.abc import Sequence
from typing import Final

from planner.check.finding import Finding, ok, warning
from planner.check.rules import Rule
from planner.spec.quantities import format_duration

VLLM_BOUNDS_S: Final = {
    "ttft": (
        *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
        *(10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
    ),
    "itl": (
        *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
        *(10.0, 20.0, 40.0, 80.0),
    ),
}
"""Default histogram bounds of vLLM 0.33 [s]: time_to_first_token and inter_token_latency."""


def bound_finding(key: str, target_s: float, bounds_s: Sequence[float], whose: str) -> Finding:
    """Return whether the share of requests within a target can be counted exactly.

    Parameters
    ----------
    key
        The SLA's field, such as ``ttft``.
    target_s
        The target latency [s].
    bounds_s
        Finite upper bounds of the histogram [s], ascending.
    whose
        Whose histogram it is, in words.
    """
    where, shown = f"sla.{key}", format_duration(target_s)
    if target_s in bounds_s:
        return ok(where, f"{shown} is a bound of {whose} histogram: attainment is measured")
    at = bisect.bisect(bounds_s, target_s)
    sides = [format_duration(bound) for bound in bounds_s[max(at - 1, 0) : at + 1]]
    return warning(
        where,
        f"{shown} is no bound of {whose} histogram (next: {', '.join(sides)}): the share of "
        "requests within the target is known only between two bounds",
        f"start vLLM with --custom-histogram-buckets that hold {target_s:g}, or choose "
        f"{' or '.join(sides)}",
        Rule.SLA_BOUNDS,
    )
