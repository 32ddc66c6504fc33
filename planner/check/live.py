"""`check` against what really runs: the findings about one service from what was read. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from planner.check.finding import Finding, error, ok, warning
from planner.check.metrics import metrics_findings
from planner.check.network import network_findings, site
from planner.check.offline import check_offline
from planner.check.placing import absent_findings
from planner.check.rights import SCHEDULER_CONFIG, Needs, Right, right_findings
from planner.check.rules import Rule
from planner.check.template import Object
from planner.check.traffic import mean_prompt_tokens
from planner.check.volcano import is_volcano_job, volcano_findings
from planner.check.volcano_network import plugin_finding, topology_findings, wants_topology
from planner.check.workloads import autoscaler_findings, workload_findings
from planner.errors import ClusterError, MetricsError, TargetError
from planner.inventory import Inventory, Network
from planner.model import Fleet, Sample, Service
from planner.spec.service import LoadedService

_WORKLOADS = frozenset({"Deployment", "StatefulSet", "LeaderWorkerSet"})


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
    network
        What paths through the network give.
    wanted
        Replicas that are recommended now, by pool name, where a decision was made.
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
    network: Network = field(default_factory=Network)
    wanted: Mapping[str, int] = field(default_factory=dict)


def check_live(loaded: LoadedService, seen: Seen) -> list[Finding]:
    """Return what files and everything that runs tell of a service, at least one a topic."""
    service = loaded.service
    live = [
        *_metrics(service, seen),
        *_targets(service, seen),
        *_autoscalers(service, seen),
        *_network(service, seen),
        *_rights(seen),
    ]
    # Where the live histogram was seen, its bounds count, not the engine's defaults.
    measured = {finding.where for finding in live if finding.where.startswith("sla.")}
    return [*(f for f in check_offline(loaded) if f.where not in measured), *live]


def _metrics(service: Service, seen: Seen) -> Iterator[Finding]:
    return metrics_findings(
        service,
        seen.sample,
        seen.fleet,
        at_s=seen.at_s,
        took_s=seen.metrics_took_s,
        scrape_interval_s=seen.scrape_interval_s,
    )


def _targets(service: Service, seen: Seen) -> Iterator[Finding]:
    jobs: dict[str, Object] = {}
    for pool in service.pools:
        target = seen.targets[pool.name]
        if isinstance(target, ClusterError):
            mend = "create it, or correct scaleTargetRef"
            yield error(f"pool {pool.name}: scaleTargetRef", str(target), mend, Rule.TARGET)
        elif is_volcano_job(pool):
            jobs[pool.target.name] = target  # once, however many of its tasks are pools
        elif pool.target.kind in _WORKLOADS:
            yield from workload_findings(pool, target)
        else:
            yield ok(f"pool {pool.name}: scaleTargetRef", f"{pool.target.kind} {pool.target.name}")
    yield from chain.from_iterable(_job(service, job, seen) for job in jobs.values())
    if any(map(wants_topology, jobs.values())):
        yield plugin_finding(seen.scheduler_config, "/".join(SCHEDULER_CONFIG))


def _job(service: Service, job: Object, seen: Seen) -> Iterator[Finding]:
    inventory = seen.inventory if isinstance(seen.inventory, Inventory) else Inventory(seen.at_s)
    # The scheduler makes the queues root and default: none at all means that they can't be read.
    yield from volcano_findings(service, job, inventory.queues or None)
    yield from topology_findings(job, {h.tier_name for h in inventory.hypernodes if h.tier_name})


def _autoscalers(service: Service, seen: Seen) -> Iterator[Finding]:
    if isinstance(seen.autoscalers, ClusterError):
        mend = "grant list on horizontalpodautoscalers"
        what = f"whether another one scales the same targets is not known: {seen.autoscalers}"
        yield warning("autoscalers", what, mend, Rule.AUTOSCALER)
        return
    for pool in service.pools:
        yield from autoscaler_findings(pool, seen.autoscalers)


def _network(service: Service, seen: Seen) -> Iterator[Finding]:
    fleet, inventory = seen.fleet, seen.inventory
    if isinstance(fleet, ClusterError):
        absent = all(isinstance(target, TargetError) for target in seen.targets.values())
        if absent and isinstance(inventory, Inventory):
            yield from absent_findings(service, seen.wanted, inventory, seen.network)
        elif not isinstance(fleet, TargetError):  # that one is told with its pool
            mend = "see --kubeconfig and --context"
            yield error("cluster", str(fleet), mend, Rule.INVENTORY)
    elif isinstance(inventory, ClusterError):
        mend = "let the planner read nodes; until then nothing caps its replicas"
        yield warning("cluster", str(inventory), mend, Rule.INVENTORY)
    elif inventory is not None:
        tokens = None
        if isinstance(seen.sample, Sample):
            tokens = mean_prompt_tokens(service, seen.sample)
        here = site(service, fleet, inventory, seen.network, tokens, seen.wanted)
        yield from network_findings(here)


def _rights(seen: Seen) -> Iterator[Finding]:
    if isinstance(seen.allowed, ClusterError):
        mend = "see the line about the cluster, then check again"
        yield warning("permissions", f"not known: {seen.allowed}", mend, Rule.RIGHT)
    else:
        yield from right_findings(seen.needs, seen.allowed)
