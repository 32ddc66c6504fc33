"""The share of requests that it does not pay to serve in time, with a price on failures. Pure."""

import numpy as np

from planner.decision.fleets import Fleets
from planner.decision.need import failing_weight
from planner.model import Role
from planner.sizing.joint import Frontier

# No role fails more than so many failure budgets on purpose: over a replica or two there are no
# small savings that a day could make up for.
MOST_BUDGETS = 4.0
# What failures weigh where a replica that is there would be given back, over what they weigh where
# one is ordered.
KEEP_PRICE = 5.0
# A budget is met to within rounding.
TIE = 1e-9


def priced_budgets(fleets: Fleets, certain: Fleets) -> tuple[float, float]:
    """Return the shares of requests that may fail where replicas are ordered, and given back.

    Parameters
    ----------
    fleets
        Over the whole distribution of the load, without limits.
    certain
        The same as if the mean load were certain.

    Notes
    -----
    Over a whole distribution no fleet serves the last surprise at a price that anybody pays, nor
    does a moment that is easily served make up for one that is not. There each role has the
    replicas with which what they cost and what the failures weigh are least, where all requests
    failing would cost `failing_weight` times what the work offered costs (the method of Lagrange
    for the day's budget; as the clairvoyant of the comparison is priced). Whatever that is, the
    mean load is met to ε: over a plateau of failing shares no replica pays. Nor is more than
    `MOST_BUDGETS` · ε failed on purpose, unless nothing reaches it. A caution below 1 permits so
    many more of both.

    A replica that is there is not given back before failures at `KEEP_PRICE` times the price would
    not pay for it either: to have it again would take a start-up time in which it serves nobody.
    Where silence is expected nothing is kept for that: it would be kept for ever.
    """
    service, epsilon = fleets.service, fleets.failure_budget
    borne = epsilon / min(service.caution, 1.0)
    enough = certain.cheapest(borne)
    offered = sum(
        fleets.needs[role].offered * service.pools_of(role)[0].price_per_replica for role in Role
    )
    weight = failing_weight(service, epsilon) * offered
    ordering = keeping = TIE
    for role, least in ((Role.PREFILL, enough.prefill), (Role.DECODE, enough.decode)):
        chain = fleets.chains[role]
        shares = chain.failure_shares
        floor = int(np.searchsorted(chain.options.equivalents, least.equivalent - TIE))
        is_silent = certain.needs[role].offered <= 0.0
        bearable = shares <= MOST_BUDGETS * borne
        if not is_silent and bearable.any():
            floor = max(floor, int(np.argmax(bearable)))
        floor = min(floor, shares.size - 1)
        ordering += float(shares[max(_cheapest(chain, weight), floor)])
        dear = weight if is_silent else KEEP_PRICE * weight
        keeping += float(shares[max(_cheapest(chain, dear), floor)])
    return ordering, keeping


def _cheapest(chain: Frontier, weight: float) -> int:
    """Return the option of which the price and the failures, at `weight`, are least together."""
    return int(np.argmin(chain.costs + weight * chain.failure_shares))
