"""Production days drawn anew: measured rates and mean lengths, arrivals and lengths of our own.

ServeGen's pool m_large was measured every ten minutes for fourteen days. Six hours of each, scaled
to some ten replicas, stand for traffic that no constant was chosen for.
"""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Final

import numpy as np

from planner.simulation.workloads import ZERO, Curve, Floats, Workload

DAYS: Final = 14
STEP_S: Final = 600.0
FROM_S: Final = 9.0 * 3600.0
DURATION_S: Final = 6.0 * 3600.0
DAY_S: Final = 24.0 * 3600.0
PROMPT_TPS: Final = 14_000.0
"""Mean prompt tokens/s that a day is scaled to."""

BURST_CV: Final = 0.3
"""How the rate varies from ten seconds to the next, besides what was measured."""


@cache
def _measured() -> Floats:
    """Return time [s], requests/s and mean lengths [tokens], shape (2016, 4)."""
    place = resources.files("planner.simulation") / "data/servegen_m_large_14d_10min.csv.gz"
    with resources.as_file(place) as path:
        rows = np.loadtxt(path, delimiter=",", skiprows=1, usecols=(0, 1, 2, 3))
    return np.asarray(rows, dtype=np.float64)


def _quantity(day: int, column: int) -> Curve:
    """Return what was measured from 9 o'clock on, straight lines in between."""
    start_s = day * DAY_S + FROM_S

    def curve(at_s: Floats) -> Floats:
        rows = _measured()
        return np.asarray(np.interp(at_s + start_s, rows[:, 0], rows[:, column]))

    return curve


def _rate(day: int) -> Curve:
    """Return the requests/s, scaled."""
    rate_rps, isl_tokens = _quantity(day, 1), _quantity(day, 2)

    def scaled(at_s: Floats) -> Floats:
        steps_s = np.arange(0.0, DURATION_S, STEP_S)
        tokens_tps = float(np.mean(rate_rps(steps_s) * isl_tokens(steps_s)))
        return np.asarray(rate_rps(at_s) * (PROMPT_TPS / tokens_tps))

    return scaled


def _redrawn(day: int) -> Workload:
    return Workload(
        f"servegen-day-{day}",
        DURATION_S,
        _rate(day),
        _quantity(day, 2),
        _quantity(day, 3),
        ZERO,
        BURST_CV,
    )


REDRAWN: Final[Mapping[str, Workload]] = MappingProxyType({
    workload.name: workload for workload in map(_redrawn, range(DAYS))
})
"""Six hours from 9 o'clock of each of the fourteen days, by name."""
