"""Composition root of `check`: what runs is read once, and told as findings."""

import contextlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from planner.adapters.clock import SystemClock, stopwatch_s
from planner.check.finding import Finding
from planner.check.live import Seen, check_live
from planner.check.offline import check_offline
from planner.check.overlap import shared_targets
from planner.check.rights import Right, rights_of
from planner.controller import live_cluster, load_from_cluster, prometheus
from planner.errors import ClusterError
from planner.model import Mode, Service
from planner.settings import Settings
from planner.spec.service import LoadedService, load_services
from planner.supervisor import Supervisor

if TYPE_CHECKING:
    from planner.adapters.kubernetes.cluster import KubernetesCluster
    from planner.adapters.prometheus import PrometheusMetrics

Findings = dict[str, list[Finding]]


def check_files(files: Sequence[Path], settings: Settings) -> Findings:
    """Return what files alone tell, by service."""
    facts = settings.network
    loaded = load_services(list(files), facts.transfer, facts.node_startup_s)
    return _with_overlaps(loaded, {str(s.service.key): check_offline(s) for s in loaded})


def check_cluster(files: Sequence[Path], settings: Settings) -> Findings:
    """Return what files, Prometheus and the cluster tell, by service.

    Notes
    -----
    InputError without an address of Prometheus or a usable kubeconfig, ClusterError if profiles
    are in a cluster that can't be read.
    """
    loaded = load_from_cluster(files, settings)
    metrics = prometheus(settings)
    with contextlib.ExitStack() as opened:
        cluster = live_cluster(settings, [found.service for found in loaded], opened)
        found = {
            str(one.service.key): check_live(one, _seen(one.service, settings, metrics, cluster))
            for one in loaded
        }
    return _with_overlaps(loaded, found)


def _with_overlaps(loaded: Sequence[LoadedService], found: Findings) -> Findings:
    """Return the findings with those that no service shows alone."""
    for key, shared in shared_targets([one.service for one in loaded]).items():
        found[str(key)] += shared
    return found


def _seen(
    service: Service,
    settings: Settings,
    metrics: "PrometheusMetrics",
    cluster: "KubernetesCluster",
) -> Seen:
    """Return all that is read for one service, each once."""
    from planner.adapters.kubernetes.check import (
        read_autoscalers,
        read_scheduler_config,
        read_targets,
    )

    now_s = SystemClock(threading.Event()).now_s()
    elapsed_s = stopwatch_s()
    sample = metrics.read([service], now_s)[service.key]
    took_s = elapsed_s()
    needs = rights_of([service])
    return Seen(
        at_s=now_s,
        sample=sample,
        metrics_took_s=took_s,
        scrape_interval_s=metrics.scrape_interval_s,
        fleet=cluster.fleets([service], now_s)[service.key],
        inventory=cluster.inventory(now_s),
        targets=read_targets(cluster.api, service),
        autoscalers=read_autoscalers(cluster.api, service.key.namespace),
        scheduler_config=read_scheduler_config(cluster.api),
        needs=needs,
        allowed=_allowed(cluster, needs),
        network=settings.network.network,
        wanted=_wanted(service, settings, metrics, cluster, now_s),
    )


def _wanted(
    service: Service,
    settings: Settings,
    metrics: "PrometheusMetrics",
    cluster: "KubernetesCluster",
    now_s: float,
) -> dict[str, int]:
    """Return the replicas that the loop would recommend now by pool name; none if it holds."""
    advised = replace(service, mode=Mode.RECOMMEND)
    supervisor = Supervisor([advised], metrics, cluster, network=settings.network.network)
    supervisor.restore(now_s)
    plan = supervisor.tick(now_s)[service.key].decision.plan
    return {} if plan is None else {name: pool.wanted for name, pool in plan.pools.items()}


def _allowed(
    cluster: "KubernetesCluster", rights: Mapping[Right, object]
) -> Mapping[Right, bool] | ClusterError:
    from planner.adapters.kubernetes.rights import answers

    try:
        return answers(cluster.api, rights)
    except ClusterError as error:
        return error
