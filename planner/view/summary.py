"""The one object that `simulate -o json` prints, and the counts in it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from planner.model import Service

if TYPE_CHECKING:  # the simulation brings a compiler, the figures need its results alone
    from planner.replay import Frame
    from planner.simulation.results import PlantResults, Summary

POLICY: Final = "pd-planner"

REVERSAL_S: Final = 600.0
"""A change of direction within this time of the last change is a reversal."""

NOT_COMPUTED: Final[Mapping[str, object]] = {
    "knob": None,
    "oracle": {"zero_lag_gpu_hours": None, "same_lag_gpu_hours": None, "same_lag_attainment": None},
    "ratio_to_oracle": None,
    "best_static_gpu_hours": None,
}
"""What only a comparison with other policies can tell."""

Orders = Mapping[str, Sequence[tuple[float, int]]]


def results_json(
    service: Service,
    trace_name: str,
    seed: int,
    frames: Sequence["Frame"],
    results: "PlantResults",
    summary: "Summary",
    wall_s: float,
) -> dict[str, Any]:
    """Return the figures of one replay as plain JSON values; what is not computed is None.

    Parameters
    ----------
    service
        Whose replay.
    trace_name, seed
        What was replayed.
    frames
        Every tick.
    results, summary
        The run, and its figures from the end of the warm-up on.
    wall_s
        Time the replay took [s].
    """
    is_priced = any(pool.gpu_hour_price is not None for pool in service.pools)
    return {
        "policy": POLICY,
        "trace": trace_name,
        "seed": seed,
        "requests": summary.requests,
        "attainment": asdict(summary.attainment),
        "gpu_hours": summary.total_gpu_hours,
        "cost": summary.cost if is_priced else None,
        **NOT_COMPUTED,
        "scale_actions": scale_actions(results.orders, summary.from_s),
        "reversals": reversals(results.orders, summary.from_s),
        "unfinished": summary.unfinished,
        "tick_ms": tick_ms(frames),
        "wall_s": wall_s,
        "simulated_s": results.end_s,
    }


def scale_actions(orders: Orders, from_s: float = 0.0) -> int:
    """Return how often a pool was ordered another number of replicas, from `from_s` [s] on.

    Examples
    --------
    >>> scale_actions({"prefill": ((0.0, 2), (60.0, 3), (900.0, 2)), "decode": ((0.0, 1),)}, 600.0)
    1
    """
    return sum(1 for pool in orders.values() for at_s, _ in _changes(pool) if at_s >= from_s)


def reversals(orders: Orders, from_s: float = 0.0) -> int:
    """Return how often a pool turned within 10 min of its last change, from `from_s` [s] on.

    Examples
    --------
    >>> reversals({"prefill": ((0.0, 2), (60.0, 3), (120.0, 4), (600.0, 2), (1800.0, 3))})
    1
    """
    return sum(
        1
        for pool in orders.values()
        for (before_s, before), (at_s, change) in pairwise(_changes(pool))
        if at_s >= from_s and before * change < 0 and at_s - before_s <= REVERSAL_S
    )


def tick_ms(frames: Sequence["Frame"]) -> dict[str, float | None]:
    """Return median and 99th percentile of the time a decision took [ms]."""
    if not frames:
        return {"p50": None, "p99": None}
    p50, p99 = np.percentile([frame.tick_s * 1e3 for frame in frames], (50.0, 99.0))
    return {"p50": float(p50), "p99": float(p99)}


def _changes(orders: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """Return time and change of every order that changed something; the first is the start."""
    return [
        (at_s, after - before) for (_, before), (at_s, after) in pairwise(orders) if after != before
    ]
