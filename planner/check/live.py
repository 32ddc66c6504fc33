"""`check` against what really runs: the findings about one service from what was read. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from planner.check.finding import Finding, warning
from planner.check.offline import check_offline
from planner.check.rights import Needs, Right, right_findings
from planner.check.rules import Rule
from planner.errors import ClusterError, MetricsError
from planner.inventory import Inventory, Link
from planner.model import Fleet, Sample
from planner.spec.service import LoadedService

Object = Mapping[str, Any]
"""An object as the API server gives it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read for one service; what could not be read is the error that says why.

    Attributes
    ----------
    at_s
        When it was read [s, Unix].
    sample
        What the metrics source knows.
    metrics_took_s
        How long the metrics source took to answer [s].
    scrape_interval_s
        How often pods are scraped, as the process is set [s].
    fleet
        The pools as they run.
    inventory
        Nodes and network, None if nothing bounds.
    targets
        The scale target of each pool, by name of the pool.
    autoscalers
        HorizontalPodAutoscalers of the namespace.
    scheduler_config
        ``volcano-scheduler.conf`` of Volcano's scheduler, None if it can't be read.
    needs, allowed
        What `rights_of` asks for and the API server's answers.
    links, network_label
        What paths through the network give, and the node label that tells their type.
    """

    at_s: float
    sample: Sample | MetricsError
    metrics_took_s: float
    scrape_interval_s: float
    fleet: Fleet | ClusterError
    inventory: Inventory | ClusterError | None
    targets: Mapping[str, Object | ClusterError]
    autoscalers: tuple[Object, ...] | ClusterError
    scheduler_config: str | None
    needs: Needs
    allowed: Mapping[Right, bool] | ClusterError
    links: tuple[Link, ...] = ()
    network_label: str | None = None


def check_live(loaded: LoadedService, seen: Seen) -> list[Finding]:
    """Return what files and everything that runs tell of a service, at least one a topic."""
    return [*check_offline(loaded), *_rights(seen)]


def _rights(seen: Seen) -> Iterator[Finding]:
    if isinstance(seen.allowed, ClusterError):
        mend = "see the line about the cluster, then check again"
        yield warning("permissions", f"not known: {seen.allowed}", mend, Rule.RIGHT)
    else:
        yield from right_findings(seen.needs, seen.allowed)
