"""The figures of one run as plain values, for its row of the comparison. Pure."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from planner.model import Service
from planner.simulation.config import PlantConfig
from planner.simulation.elasticity import lapses, peak_in_prefill
from planner.simulation.results import PlantResults, Summary, summarise
from planner.view.summary import NOT_COMPUTED, reversals, scale_actions


def figures(
    service: Service, plant: PlantConfig, results: PlantResults, from_s: float
) -> dict[str, Any]:
    """Return the figures of a run, under the keys of `simulate -o json` and a few more.

    Parameters
    ----------
    service
        What was asked.
    plant
        Where it was played.
    results
        The run.
    from_s
        End of the warm-up [s].
    """
    prices = {p.name: p.gpu_hour_price for p in service.pools if p.gpu_hour_price is not None}
    sla = service.sla
    summary = summarise(results, sla.ttft_s, sla.itl_s, from_s, prices)
    fell = lapses(results, sla.ttft_s, sla.itl_s, from_s, service.interval_s)
    return {
        "requests": summary.requests,
        "attainment": asdict(summary.attainment),
        "gpu_hours": summary.total_gpu_hours,
        "cost": summary.cost if prices else None,
        **NOT_COMPUTED,
        "scale_actions": scale_actions(results.orders, from_s),
        "reversals": reversals(results.orders, from_s),
        "unfinished": summary.unfinished,
        "goodput_rps_per_gpu": _goodput(summary),
        "wasted_starts": wasted_starts(results, plant, from_s),
        "lapses": fell.count,
        "recovery_s": fell.longest_s,
        "peak_queue": peak_in_prefill(results, from_s),
        "elasticity": None,
    }


def wasted_starts(results: PlantResults, plant: PlantConfig, from_s: float) -> int:
    """Return replicas released before they served for twice the time they took to start."""
    startup_s = {pool.name: pool.startup_s for pool in plant.pools}
    return sum(
        1
        for life in results.lifetimes
        if from_s <= life.ordered_s
        and life.released_s < results.end_s
        and life.released_s - (life.ready_s or life.released_s) < 2.0 * startup_s[life.pool]
    )


def _goodput(summary: Summary) -> float | None:
    """Return the requests within both targets a second and GPU."""
    gpu_s = 3600.0 * summary.total_gpu_hours
    both = summary.attainment.both
    return None if both is None or gpu_s <= 0.0 else both * summary.requests / gpu_s


def tick_ms(ticks_s: Sequence[float]) -> dict[str, float | None]:
    """Return median and 99th percentile of the time a decision took [ms]."""
    if not ticks_s:
        return {"p50": None, "p99": None}
    p50, p99 = np.percentile(np.array(ticks_s) * 1e3, (50.0, 99.0))
    return {"p50": float(p50), "p99": float(p99)}
