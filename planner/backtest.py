"""Predictors side by side on the token loads of a trace. Pure: the caller brings the timer."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from planner.errors import InputError
from predictors import build
from predictors.backtest import backtest

if TYPE_CHECKING:
    from planner.simulation.traces import Trace

# Fewer intervals than this say nothing about a predictor.
MIN_INTERVALS = 20


def trace_series(trace: "Trace", interval_s: float) -> dict[str, list[float | None]]:
    """Return prompt and output tokens/s of every whole interval of a trace, by role."""
    intervals = int(trace.duration_s // interval_s)
    check_intervals("--trace", trace.name, intervals, interval_s)
    index = (trace.arrival_s // interval_s).astype(int)
    inside = index < intervals
    return {
        role: (
            np.bincount(index[inside], weights=tokens[inside], minlength=intervals) / interval_s
        ).tolist()
        for role, tokens in (("prefill", trace.isl_tokens), ("decode", trace.osl_tokens))
    }


def check_intervals(flag: str, name: str, intervals: int, interval_s: float) -> None:
    """Refuse a series that is too short.

    Raises
    ------
    InputError
        If there are fewer than `MIN_INTERVALS` intervals.
    """
    if intervals < MIN_INTERVALS:
        raise InputError(
            f"{flag}: {name} has {intervals} intervals of {interval_s:g} s; legal: "
            f"{MIN_INTERVALS} or more; give a longer one or shorter intervals"
        )


def compare_predictors(
    series: Mapping[str, Sequence[float | None]],
    predictors: Sequence[str],
    interval_s: float,
    lead_s: float,
    quantile: float,
    timer: Callable[[], float],
) -> list[dict[str, Any]]:
    """Return one row of figures for each predictor and series.

    Parameters
    ----------
    series
        Tokens/s of every interval by name, None in a gap.
    predictors
        Names that `predictors.build` knows.
    interval_s, lead_s
        Length of an interval, and order to ready [s]: the maximum over the window in which an
        order made now serves is judged.
    quantile
        Quantile that coverage and pinball loss are judged at.
    timer
        Returns a time [s] that only rises.
    """
    first = int(lead_s // interval_s) + 1
    last = max(math.ceil((lead_s + interval_s) / interval_s - 1e-9), first)
    rows = []
    for name in predictors:
        for load, values in series.items():
            scores = backtest(values, build(name), first, last, quantile, timer)
            rows.append({
                "predictor": name,
                "series": load,
                "intervals": scores.n,
                "wape": scores.wape,
                "mase": scores.mase,
                "pinball": scores.pinball,
                "coverage": scores.coverage,
                "quantile": quantile,
                "ms_per_tick": {
                    "mean": scores.ms_per_tick_mean,
                    "p99": scores.ms_per_tick_p99,
                },
            })
    return rows
