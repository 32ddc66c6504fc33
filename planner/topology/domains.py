"""In which domains the pods of each pool must be: as Volcano pins them, and as the spec asks. Pure.

Volcano keeps no record of a Job's domain: it finds it again from where the Job's pods are.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from planner.model import Fleet, Pod, Pool, Service
from planner.topology.faults import BREAKING, Fault
from planner.topology.tree import ROOT, Tree


@dataclass(frozen=True, slots=True)
class Reach:
    """Where further pods of a pool may go.

    Attributes
    ----------
    domains
        One of them must hold all; more than one: none is chosen yet. The root: anywhere.
    barred
        Why no pod may be added, empty if it may.
    """

    domains: tuple[str, ...]
    barred: str = ""

    @property
    def domain(self) -> str | None:
        """The one domain it must be in, None where there is none or none is chosen."""
        return self.domains[0] if len(self.domains) == 1 and self.domains[0] != ROOT else None


ANYWHERE = Reach((ROOT,))


def placed(pods: Iterable[Pod]) -> tuple[Pod, ...]:
    """Return the pods that have a node and stay."""
    return tuple(pod for pod in pods if pod.node is not None and not pod.terminating)


def nodes_of(pods: Iterable[Pod]) -> list[str]:
    """Return the nodes of the pods that have one, those that are leaving included."""
    return [pod.node for pod in pods if pod.node is not None]


def reaches(service: Service, fleet: Fleet, tree: Tree) -> Mapping[str, Reach]:
    """Return by pool name where its pods may go."""
    tier = service.topology.highest_tier
    broken = breaking_fault(tree)
    whole = ANYWHERE if tier is None or broken else service_reach(service, fleet, tree)
    found: dict[str, Reach] = {}
    for pool in service.pools:
        pinned = fleet.pools[pool.name].pinned_tier
        if pinned is None and tier is None:
            found[pool.name] = ANYWHERE
        elif broken is not None:
            found[pool.name] = Reach((), f"the HyperNode tree cannot be read: {broken.message}")
        elif pinned is None:
            found[pool.name] = whole
        else:
            found[pool.name] = _common(pinned_reach(service, pool, fleet, tree), whole, tree)
    return found


def breaking_fault(tree: Tree) -> Fault | None:
    """Return the fault for which Volcano places no topology Job, None if there is none."""
    return next((fault for fault in tree.faults if fault.code in BREAKING), None)


def pinned_reach(service: Service, pool: Pool, fleet: Fleet, tree: Tree) -> Reach:
    """Return where Volcano places further pods of a pool whose Job is pinned at a tier.

    The lowest HyperNode that holds all pods of the Job, then its highest ancestor within the
    tier; pools that are tasks of one Job share it. Without pods any domain of the tier will do.
    """
    tier = fleet.pools[pool.name].pinned_tier
    assert tier is not None
    home = tree.lowest_common(_job_nodes(service, pool, fleet))
    if home is None:
        widest = tree.widest_within(tier)
        return Reach(widest, "" if widest else f"there is no HyperNode of tier {tier} or lower")
    domain = tree.highest_within(home, tier)
    if domain is None:
        why = (
            f"its pods are spread over {home} of tier {tree.domains[home].tier}, and its Job is "
            f"pinned at tier {tier}: Volcano places no more of them"
        )
        return Reach((), why)
    return Reach((domain,))


def home_of(service: Service, pool: Pool, fleet: Fleet, tree: Tree) -> str | None:
    """Return the lowest domain that holds all pods of a pool's Job, None without any."""
    return tree.lowest_common(_job_nodes(service, pool, fleet))


def service_reach(service: Service, fleet: Fleet, tree: Tree) -> Reach:
    """Return the domains of at most the service's tier that its pools may share.

    The highest that holds all pods; pods that are in several: the one that holds most of them.
    """
    tier = service.topology.highest_tier
    assert tier is not None
    widest = tree.widest_within(tier)
    if not widest:
        return Reach((), f"there is no HyperNode of tier {tier} or lower")
    nodes = [n for p in service.pools for n in nodes_of(placed(fleet.pools[p.name].pods))]
    held = Counter({d: sum(n in tree.domains[d].nodes for n in nodes) for d in widest})
    (domain, most), *_ = sorted(held.items(), key=lambda item: (-item[1], item[0]))
    return Reach((domain,)) if most else Reach(widest)


def _job_nodes(service: Service, pool: Pool, fleet: Fleet) -> list[str]:
    """Return the nodes of all pods of the object that a pool is a task of."""

    def job(of: Pool) -> tuple[str, str]:
        return of.target.kind, of.target.name

    tasks = (p for p in service.pools if job(p) == job(pool))
    return [node for task in tasks for node in nodes_of(fleet.pools[task.name].pods)]


def _common(one: Reach, other: Reach, tree: Tree) -> Reach:
    """Return what two reaches share: of two nested domains the lower."""
    if one.barred or other.barred:
        return one if one.barred else other
    shared = {
        a if b in tree.ancestors(a) else b
        for a in one.domains
        for b in other.domains
        if b in tree.ancestors(a) or a in tree.ancestors(b)
    }
    if not shared:
        apart = f"its Job is pinned to {one.domains[0]}, which is outside {other.domains[0]}"
        return Reach((), apart)
    return Reach(tuple(sorted(shared)))
