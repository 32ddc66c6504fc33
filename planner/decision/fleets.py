"""The fleets that a need can be met with: how each fails, and the cheapest in a budget. Pure."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from planner.decision.need import Need
from planner.model import Limits, Pool, Role, Service
from planner.sizing.joint import (
    Choice,
    Frontier,
    Options,
    choose,
    every_staffing,
    frontier,
    staffing,
)

# Options whose failing share is below this part of the budget are all the same.
NEGLIGIBLE = 0.02
# Nothing is looked for beyond these multiples of the offered work, its mean and the most that may
# come: waiting is gone long before.
SEARCH_RATIO, SEARCH_MOST_RATIO, SEARCH_EXTRA = 2.0, 1.25, 32
# Nor beyond so many replicas: a load that no replica can take would ask for endless ones.
SEARCH_MOST = 4000
# Goodput for which a split off the chain is worth its restarts.
WORTH_LEAVING = 0.01

Ways = Callable[[tuple[Pool, ...], Mapping[str, float], Mapping[str, int]], Options]


def search_limit(pool: Pool, need: Need) -> int:
    """Return more replicas than the load could need, limits aside."""
    work = max(SEARCH_RATIO * need.offered, SEARCH_MOST_RATIO * need.most)
    most = work / max(need.worth[pool.name], 1e-3)
    return pool.min_replicas + math.ceil(min(most, SEARCH_MOST)) + SEARCH_EXTRA


@dataclass(frozen=True)
class Fleets:
    """All ways to staff a service within ceilings and limits.

    Attributes
    ----------
    service
        Whose pools these are.
    needs
        Failing share by replicas of each role.
    ceilings
        Most replicas by pool name.
    failure_budget
        Share of requests ε that may fail.
    limits
        GPU, cost and ratio limits; None: the unconstrained need.
    """

    service: Service
    needs: Mapping[Role, Need]
    ceilings: Mapping[str, int]
    failure_budget: float
    limits: Limits | None = None

    @cached_property
    def chains(self) -> Mapping[Role, Frontier]:
        """How each role fails, from its floors on with one replica more at a time."""
        limits = self.limits
        bounded = limits is not None and (limits.ratio_min, limits.ratio_max) != (None, None)
        return {role: self._front(role, staffing, keep_all=bounded) for role in Role}

    def cheapest(self, budget: float) -> Choice:
        """Return the cheapest legal fleet that fails no more than `budget`, or the best there is.

        Notes
        -----
        A limit may cut across the chain of a role's several pools; then every split is looked at.
        """
        choice = choose(self.chains[Role.PREFILL], self.chains[Role.DECODE], budget, self.limits)
        if choice.within_budget or self.limits is None or len(self.service.pools) == len(Role):
            return choice
        every = {role: self._front(role, every_staffing, keep_all=True) for role in Role}
        better = choose(every[Role.PREFILL], every[Role.DECODE], budget, self.limits)
        # The chain's plans hold one another from tick to tick; leaving it for next to nothing would
        # swap one pool's replicas for another's with every whim of the forecast.
        return better if better.goodput > choice.goodput + WORTH_LEAVING else choice

    def _front(self, role: Role, ways: Ways, *, keep_all: bool) -> Frontier:
        pools, need = self.service.pools_of(role), self.needs[role]
        return frontier(
            pools,
            ways(pools, need.worth, self.ceilings),
            need.shares,
            NEGLIGIBLE * self.failure_budget,
            offered=need.offered,
            keep_all=keep_all,
        )
