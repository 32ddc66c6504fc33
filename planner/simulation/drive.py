"""One policy through one trace in the plant, in simulated time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from planner.model import Role
from planner.simulation.plant import Plant
from planner.simulation.policies.base import Policy, View
from planner.simulation.policies.sight import see
from planner.simulation.snapshot import Snapshot

SCRAPE_INTERVAL_S: Final = 15.0
# Scrapes and decisions are not in step in production: half an interval is the mean.
SCRAPE_LAG_S: Final = 0.5 * SCRAPE_INTERVAL_S


@dataclass(frozen=True, slots=True)
class Bounds:
    """A pool of the plant, and the replicas it may have."""

    pool: str
    least: int
    most: int


def drive(
    policy: Policy[Any],
    plant: Plant,
    until_s: float,
    bounds: Mapping[Role, Bounds],
    stopwatch_s: Callable[[], Callable[[], float]],
) -> list[float]:
    """Let a policy decide until the last request has arrived; return what its ticks took [s].

    Parameters
    ----------
    policy
        Who decides.
    plant
        At 0 s; afterwards it is at the last decision.
    until_s
        End of the trace [s].
    bounds
        Pool and limits of each role.
    stopwatch_s
        Starts a stopwatch that tells the time since [s].
    """
    pools = {role: plant.config.pool_index(bound.pool) for role, bound in bounds.items()}
    before, state, view = plant.snapshot(), policy.start(), None
    ticks_s: list[float] = []
    for k in range(1, int(until_s // policy.interval_s) + 1):
        now_s = k * policy.interval_s
        now = scraped(plant, now_s)
        ordered = {role: plant.replicas(bound.pool) for role, bound in bounds.items()}
        if now.at_s <= before.at_s:
            continue
        view = see(before, now, pools, ordered, view, now_s) or view
        before = now
        if not isinstance(view, View):
            continue
        elapsed_s = stopwatch_s()
        state, wanted = policy.decide(view, state)
        ticks_s.append(elapsed_s())
        for role, bound in bounds.items():
            plant.order(bound.pool, min(max(wanted[role], bound.least), bound.most))
    return ticks_s


def scraped(plant: Plant, now_s: float) -> Snapshot:
    """Return the last scrape at or before `now_s` [s], and move the plant on to there."""
    last = max((now_s - SCRAPE_LAG_S) // SCRAPE_INTERVAL_S, 0.0)
    plant.advance(last * SCRAPE_INTERVAL_S + SCRAPE_LAG_S)
    snapshot = plant.snapshot()
    plant.advance(now_s)
    return snapshot
