"""Metrics of servers that are where their pods are, under a load that a test sets. No physics.

Every Ready pod has served its share of the load for as long as it has been there. For tests whose
load must be exact; what a load does to latencies is `simulated_servers`.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence

from planner.adapters.exposition import lines, text_format
from planner.model import PodSample, Service
from tests.builders import pod_sample
from tests.cluster.history import Clock, History
from tests.cluster.pilot import lengths
from tests.integration.prometheus_server import page

Rate = Callable[[], float]
"""Requests/s now, of each service."""


class ScriptedServers:
    """The servers of some services, each in a namespace whose history is followed."""

    def __init__(self, places: Sequence[tuple[Service, History]], rate: Rate, clock: Clock) -> None:
        self._places, self._rate, self._clock = places, rate, clock
        self._finished: dict[str, float] = {}
        self._at_s = clock()
        self._lock = threading.Lock()

    def metrics(self) -> str:
        """Return what all pods show now, in Prometheus' text format."""
        with self._lock:
            now_s = self._clock()
            added = self._rate() * (now_s - self._at_s)
            self._at_s = now_s
            return "".join(
                text_format(lines(service, self._scrape(service, history, added)))
                for service, history in self._places
            )

    def _scrape(
        self, service: Service, history: History, added: float
    ) -> dict[str, tuple[PodSample, ...]]:
        found: dict[str, tuple[PodSample, ...]] = {}
        for pool in service.pools:
            pods = history.serving(pool.target.name)
            for pod in pods:
                self._finished[pod.uid] = self._finished.get(pod.uid, 0.0) + added / len(pods)
            found[pool.name] = tuple(
                pod_sample(
                    pod.name,
                    self._at_s,
                    self._finished[pod.uid],
                    pool.role,
                    histograms=lengths(self._finished[pod.uid])[pool.role],
                )
                for pod in pods
            )
        return found


@contextlib.contextmanager
def served(servers: ScriptedServers) -> Iterator[str]:
    # Serves /metrics until the block ends; yields HOST:PORT.
    with page(lambda _: (200, "text/plain; version=0.0.4", servers.metrics().encode())) as url:
        yield url.removeprefix("http://")
