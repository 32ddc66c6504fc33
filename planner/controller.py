"""Composition root of what looks at a live service: `run` and `recommend`.

Settings and files in, live adapters chosen, services ticked once or until a signal comes.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from planner.adapters.clock import SystemClock, stopwatch_s
from planner.adapters.memory import MemoryCluster
from planner.adapters.probe import NearestProbe, PodProbe
from planner.adapters.schedule import run_every, stop_on_signals
from planner.adapters.telemetry import RecordFile, TickLog, configure_logging
from planner.decision.looks import CHECK_S
from planner.errors import ClusterError, InputError
from planner.inventory import Inventory, Network
from planner.model import Mode, Service, ServiceKey
from planner.ports import Cluster, Metrics, Probe, Telemetry
from planner.printing import print_recommendations
from planner.process import settle
from planner.record import TickRecord
from planner.settings import Settings
from planner.spec.service import LoadedService, load_services
from planner.supervisor import Supervisor

if TYPE_CHECKING:
    from planner.adapters.kubernetes.api import KubernetesAccess
    from planner.adapters.kubernetes.cluster import KubernetesCluster
    from planner.adapters.prometheus import PrometheusMetrics

log = logging.getLogger("pd-planner")

WRONG = 1
# Between two attempts to read from a cluster that is away at the start [s].
RETRY_S = 5.0
# What a read of Prometheus may take for a tick, and between two ticks [s].
READ_S, LOOK_S = 10.0, 2.0

Ticked = Callable[[Sequence[TickRecord], float], None]
Checked = Callable[[Sequence[TickRecord]], None]


def run(files: Sequence[Path], settings: Settings) -> int:
    """Drive the services until a signal comes; no fault of Prometheus or the cluster ends it."""
    configure_logging(settings.log.level, settings.log.format)
    stop = stop_on_signals()
    with contextlib.ExitStack() as opened:
        loaded = _load_when_reachable(files, settings, stop)
        services = [found.service for found in loaded]
        if not services:
            return 0
        metrics = prometheus(settings)
        telemetry: list[Telemetry] = [TickLog(), *_recorded(settings, opened)]
        ticked = _served(settings.http.listen, services, telemetry, opened)
        cluster = live_cluster(settings, services, opened)
        telemetry.append(_events(cluster, services, opened))
        probe = _probe(services, settings, PodProbe(cluster.pods, stop))
        network = settings.network.network
        supervisor = Supervisor(services, metrics, cluster, telemetry, network, probe)
        acting = sum(service.mode is Mode.ACT for service in services)
        log.info("%d services, %d of them in mode Act", len(services), acting)
        _tick_until(stop, supervisor, ticked)
        log.info("stopped")
    return 0


def recommend(
    services: Sequence[Service],
    settings: Settings,
    running: Mapping[str, int],
    *,
    watch: bool,
    output: str,
) -> int:
    """Say what every service needs beside the replicas that are said to run.

    Parameters
    ----------
    services
        What is asked.
    settings
        Of the process.
    running
        Replicas by pool name; they stand in for a cluster.
    watch
        Go on at each interval until a signal comes.
    output
        `table`, `json` or `yaml`.
    """
    _configure_advice(settings, watch=watch)
    counts = {
        s.key: {p.name: running[p.name] * p.pods_per_replica for p in s.pools} for s in services
    }
    cluster = MemoryCluster(counts)
    metrics, stop = prometheus(settings), stop_on_signals() if watch else None
    return _advise(services, settings, metrics, cluster, stop=stop, output=output)


def recommend_live(files: Sequence[Path], settings: Settings, *, watch: bool, output: str) -> int:
    """Say what every service needs beside what runs in the cluster; never write to it.

    Raises
    ------
    InputError
        If there is no way to a cluster.
    """
    _configure_advice(settings, watch=watch)
    with contextlib.ExitStack() as opened:
        services = [found.service for found in load_from_cluster(files, settings)]
        metrics = prometheus(settings)
        try:
            cluster = live_cluster(settings, services, opened)
        except InputError as error:
            stand_in = (
                "or give --current, such as --current prefill=4,decode=6, instead of a cluster"
            )
            raise InputError(f"{error}; {stand_in}") from None
        stop = stop_on_signals() if watch else None
        pods = None if stop is None else PodProbe(cluster.pods, stop)
        return _advise(services, settings, metrics, cluster, pods, stop=stop, output=output)


def _configure_advice(settings: Settings, *, watch: bool) -> None:
    configure_logging(settings.log.level if watch else "error", settings.log.format)


def _advise(
    services: Sequence[Service],
    settings: Settings,
    metrics: Metrics,
    cluster: Cluster,
    pods: Probe | None = None,
    *,
    stop: threading.Event | None,
    output: str,
) -> int:
    """Recommend once, or until `stop`; 1 if there was not enough evidence."""
    asked = [replace(s, mode=Mode.OFF if s.mode is Mode.OFF else Mode.RECOMMEND) for s in services]
    with contextlib.ExitStack() as opened:
        telemetry: list[Telemetry] = [] if stop is None else [TickLog()]
        telemetry += _recorded(settings, opened)
        probe = None if stop is None else _probe(asked, settings, pods)
        network = settings.network.network
        supervisor = Supervisor(asked, metrics, cluster, telemetry, network, probe)
        if stop is not None:

            def tell(told: Sequence[TickRecord], _elapsed_s: float = 0.0) -> None:
                print_recommendations(told, output)

            _tick_until(stop, supervisor, tell, tell)
            return 0
        now_s = SystemClock(threading.Event()).now_s()
        supervisor.restore(now_s)
        records = supervisor.tick(now_s)
        placements = _placements(asked, records, cluster, network, now_s)
    print_recommendations(list(records.values()), output, placements)
    return WRONG if any(record.decision.hold for record in records.values()) else 0


def _placements(
    services: Sequence[Service],
    records: Mapping[ServiceKey, TickRecord],
    cluster: Cluster,
    network: Network,
    now_s: float,
) -> dict[ServiceKey, str]:
    """Return where services belong of which nothing runs yet, and the lines that put them there."""
    from planner.check.network import unplaced_findings

    inventory = cluster.inventory(now_s)
    if not isinstance(inventory, Inventory):
        return {}
    fleets = cluster.fleets(services, now_s)
    found: dict[ServiceKey, str] = {}
    for service in services:
        plan = records[service.key].decision.plan
        wanted = {} if plan is None else {name: pool.wanted for name, pool in plan.pools.items()}
        told = unplaced_findings(service, fleets[service.key], inventory, network, wanted)
        if lines := [finding.line for finding in told]:
            found[service.key] = "; ".join(lines)
    return found


def _tick_until(
    stop: threading.Event, supervisor: Supervisor, ticked: Ticked, checked: Checked | None = None
) -> None:
    """Tick the services that are due at every beat, and check the others, until `stop`.

    Parameters
    ----------
    stop
        Ends it.
    supervisor
        Who ticks.
    ticked
        Told what came of it and how long it took [s].
    checked
        Told what was asked for between two ticks.
    """
    clock = SystemClock(stop)
    beat_s = supervisor.beat_s()

    def tick(at_s: float, services: Sequence[Service]) -> None:
        elapsed_s = stopwatch_s()
        records = supervisor.tick(at_s, services)
        ticked(list(records.values()), elapsed_s())

    def beat(now_s: float) -> None:
        at_s = now_s // beat_s * beat_s
        if due := supervisor.due(at_s):
            tick(at_s, due)

    def check(now_s: float) -> None:
        risen = supervisor.check(now_s)
        if risen and checked is not None:
            checked(list(risen.values()))

    for interval_s in sorted({service.interval_s for service in supervisor.services}):
        # As of the last whole interval: a first tick right before the next would find no new
        # scrape there, and the past is replayed at the very moments that were ticked.
        at_s = clock.now_s() // interval_s * interval_s
        group = [s for s in supervisor.services if s.interval_s == interval_s]
        supervisor.restore(at_s, group)
        if stop.is_set():
            return
        tick(at_s, group)
    settle()
    run_every([(beat_s, beat), (CHECK_S, check)], stop)


def _probe(services: Sequence[Service], settings: Settings, pods: Probe | None) -> Probe:
    """Return who looks between two ticks; say of whom the pods themselves are not asked."""
    # One of its own: two threads ask, and what is late is of no use to a check.
    metrics = prometheus(settings, LOOK_S)
    every_s = metrics.scrape_interval_s
    probe = NearestProbe(pods, metrics, every_s)
    far = [str(service.key) for service in services if not probe.asks_pods_of(service)]
    if far:
        log.info(
            "between two ticks Prometheus is asked every %g s, not the pods every %g s, for want "
            "of metrics.probe: %s",
            every_s,
            CHECK_S,
            ", ".join(far),
        )
    return probe


def _recorded(settings: Settings, opened: contextlib.ExitStack) -> list[Telemetry]:
    """Return the record file, if one is asked for."""
    if settings.log.record is None:
        return []
    return [opened.enter_context(contextlib.closing(RecordFile(settings.log.record)))]


def _served(
    listen: str | None,
    services: Sequence[Service],
    telemetry: list[Telemetry],
    opened: contextlib.ExitStack,
) -> Ticked:
    """Serve page, metrics and health if asked for; return who is told how long a tick took."""
    if listen is None:
        return lambda _records, _elapsed_s: None
    from planner.adapters.http.server import serve
    from planner.adapters.http.site import Site

    site = Site(services)
    telemetry.append(site)
    log.info("page, metrics and health on %s", opened.enter_context(serve(listen, site)))
    return lambda records, elapsed_s: site.took([r.service for r in records], elapsed_s)


def _access(settings: Settings) -> "KubernetesAccess":
    """Return where the cluster is."""
    from planner.adapters.kubernetes.api import KubernetesAccess

    return KubernetesAccess(settings.kubernetes.kubeconfig, settings.kubernetes.context)


def load_from_cluster(files: Sequence[Path], settings: Settings) -> list[LoadedService]:
    """Return the services of the files; profiles that are in ConfigMaps are read from there.

    Notes
    -----
    SpecError if a file or profile is invalid, ClusterError if the cluster can't be read.
    """
    from planner.adapters.kubernetes.api import KubernetesApi
    from planner.adapters.kubernetes.faults import CONFIG_MAPS

    # Opened when the first ConfigMap is asked for: a fault of a file is told without a cluster.
    with contextlib.ExitStack() as opened:
        apis: list[KubernetesApi] = []

        def config_maps(namespace: str, name: str) -> Mapping[str, str]:
            if not apis:
                api = KubernetesApi(_access(settings))
                apis.append(opened.enter_context(contextlib.closing(api)))
            found: Mapping[str, str] = apis[0].get(CONFIG_MAPS, namespace, name).get("data") or {}
            return found

        facts = settings.network
        return load_services(list(files), facts.transfer, facts.node_startup_s, config_maps)


def _load_when_reachable(
    files: Sequence[Path], settings: Settings, stop: threading.Event
) -> list[LoadedService]:
    """Return the services as soon as the cluster gives their profiles; none when told to stop."""
    told = ""
    while not stop.is_set():
        try:
            return load_from_cluster(files, settings)
        except ClusterError as error:
            if str(error) != told:
                log.warning("%s: waiting for it", error)
            told = str(error)
        stop.wait(RETRY_S)
    return []


def live_cluster(
    settings: Settings, services: Sequence[Service], opened: contextlib.ExitStack
) -> "KubernetesCluster":
    """Return the cluster, followed until the end."""
    from planner.adapters.kubernetes.cluster import KubernetesCluster

    cluster = KubernetesCluster(_access(settings), services)
    opened.enter_context(contextlib.closing(cluster))
    cluster.start()
    return cluster


def _events(
    cluster: "KubernetesCluster", services: Sequence[Service], opened: contextlib.ExitStack
) -> Telemetry:
    """Return who tells of every change on the scale targets."""
    from planner.adapters.kubernetes.events import KubernetesEvents

    events = KubernetesEvents(cluster.api, services, cluster.uid_of)
    return opened.enter_context(contextlib.closing(events))


def prometheus(settings: Settings, timeout_s: float = READ_S) -> "PrometheusMetrics":
    """Return the metrics source that the settings name, with the time that a read may take [s].

    Raises
    ------
    InputError
        If they name none.
    """
    from planner.adapters.prometheus import PrometheusAccess, PrometheusMetrics

    asked = settings.prometheus
    if asked.url is None:
        raise InputError(
            "--prometheus: no address: give --prometheus URL or set PD_PLANNER_PROMETHEUS"
        )
    return PrometheusMetrics(
        PrometheusAccess(
            asked.url,
            asked.token_file,
            asked.ca_file,
            headers=asked.header_map,
            timeout_s=timeout_s,
        )
    )
