"""What requests really met, over time: from the plant's log, not from the planner's view. Pure."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # the simulation brings a compiler, the pictures need its results alone
    from planner.simulation.results import PlantResults

Floats = NDArray[np.float64]

MINUTE_S: Final = 60.0
BINS_MAX: Final = 1500
"""More points than this are not told apart on a screen."""

WINDOW_S: Final = 300.0


@dataclass(frozen=True, slots=True, eq=False)
class LatencyBins:
    """Median and 99th percentile of a latency [s] of the requests that arrived in each bin.

    `at_s` is the middle of the bin [s]; nan where none arrived.
    """

    bin_s: float
    at_s: Floats
    p50_s: Floats
    p99_s: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Shares of the requests that arrived in each 5 minutes; `at_s` is the middle [s]."""

    at_s: Floats
    both: Floats
    requests: Floats


def bin_width_s(duration_s: float) -> float:
    """Return the width of a bin: a minute, or as many as keep `BINS_MAX` bins [s].

    Examples
    --------
    >>> bin_width_s(3600.0), bin_width_s(14 * 86400.0)
    (60.0, 840.0)
    """
    return MINUTE_S * max(math.ceil(duration_s / MINUTE_S / BINS_MAX), 1)


def latency_bins(arrival_s: Floats, latency_s: Floats, bin_s: float) -> LatencyBins:
    """Return percentiles by time of arrival; a latency that is nan or 0 never happened."""
    counted = np.isfinite(latency_s) & (latency_s > 0.0)
    index = (arrival_s[counted] // bin_s).astype(np.int64)
    order = np.argsort(index, kind="stable")
    present, starts = np.unique(index[order], return_index=True)
    groups = np.split(latency_s[counted][order], starts[1:]) if present.size else []
    bins = int(present[-1]) + 1 if present.size else 0
    p50, p99 = np.full(bins, np.nan), np.full(bins, np.nan)
    for place, group in zip(present, groups, strict=True):
        p50[place], p99[place] = np.percentile(group, (50.0, 99.0))
    at_s = (np.arange(bins, dtype=np.float64) + 0.5) * bin_s
    return LatencyBins(bin_s, at_s, p50, p99)


def attainment_windows(
    results: "PlantResults", ttft_s: float, itl_s: float, from_s: float
) -> Windows:
    """Return the share within both targets by windows that start at `from_s`, as the figures do.

    Windows before it, of the warm-up, are there too; those without requests are left out.
    """
    served = results.status == 1
    both = served & (results.ttft_s <= ttft_s) & (results.itl_s <= itl_s)
    index = ((results.arrival_s - from_s) // WINDOW_S).astype(np.int64)
    present, place = np.unique(index, return_inverse=True)
    requests = np.bincount(place, minlength=present.size).astype(np.float64)
    attained = np.bincount(place, weights=both, minlength=present.size)
    at_s = from_s + (present.astype(np.float64) + 0.5) * WINDOW_S
    return Windows(at_s, attained / requests, requests)
