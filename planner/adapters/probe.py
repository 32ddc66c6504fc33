"""The `Probe` port: every pod asked itself, all at once and within a time, for a few series.

Network I/O. A pod that does not answer in time is left out; where more than half of a pool's are,
nothing is said of the service. Services whose pods may not be asked are read from Prometheus
instead, as often as it scrapes.
"""

import contextlib
import math
import queue
import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import urllib3
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample as Series
from urllib3.exceptions import HTTPError

from planner.adapters.clock import Deadline
from planner.adapters.series import matches
from planner.adapters.sources import Family, Scheme, source_named
from planner.errors import ClusterError, InputError, MetricsError
from planner.model import (
    Endpoint,
    Histogram,
    Pod,
    PodSample,
    Pool,
    Sample,
    Service,
    ServiceKey,
    Signal,
)
from planner.ports import Metrics, Probe

# For all pods of all services together [s]: less than the time between two checks.
TIMEOUT_S: Final = 2.0
# Pods asked at the same time, and how soon a wish to stop is noticed [s].
AT_ONCE: Final = 32
STOP_S: Final = 0.05
# A vLLM shows some 100 KB; more than this is no metrics page [bytes].
LARGEST_BYTES: Final = 8 * 1024 * 1024
_CHUNK_BYTES: Final = 65536
# What a look needs beside the count of finished requests.
_GAUGES: Final = (Signal.WAITING, Signal.RUNNING)
_NAME_ENDS: Final = re.compile(r"[{\s]")

Pods = Mapping[str, tuple[Pod, ...]]
PodsOf = Callable[[Sequence[Service]], Mapping[ServiceKey, Pods | ClusterError]]
"""Services → their pods by pool name, without asking anybody."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """One pod that is asked, and what for; each is another."""

    pool: str
    pod: str
    url: str
    scheme: Scheme
    selector: Mapping[str, str]


class PodProbe:
    """Asks the pods of services by HTTP.

    Parameters
    ----------
    pods_of
        Who knows the pods.
    stop
        Ends a read at once.
    timeout_s
        Time for one `read`, however many pods there are [s].
    """

    def __init__(
        self, pods_of: PodsOf, stop: threading.Event, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._pods_of, self._stop, self._timeout_s = pods_of, stop, timeout_s
        # A connection each time: servers close an idle one after 5 s, just as it is used again.
        headers = {"Accept": "text/plain", "Connection": "close"}
        self._http = urllib3.PoolManager(retries=False, headers=headers)

    def read(
        self, services: Sequence[Service], now_s: float
    ) -> Mapping[ServiceKey, Sample | MetricsError]:
        """Return what pods show at `now_s` [s, Unix], one entry a service; never raises."""
        pods = self._pods_of(services)
        asked = {s.key: asked_of(s, pods.get(s.key, {})) for s in services}
        answers = self._ask([one for ones in asked.values() for one in ones], now_s)
        return {
            s.key: sample_of(s, pods.get(s.key, {}), asked[s.key], answers, now_s) for s in services
        }

    def _ask(self, asked: Sequence[Asked], now_s: float) -> dict[Asked, PodSample | MetricsError]:
        """Return the answers that came in time."""
        deadline = Deadline(self._timeout_s)
        waiting: queue.SimpleQueue[Asked] = queue.SimpleQueue()
        answered: queue.SimpleQueue[tuple[Asked, PodSample | MetricsError]] = queue.SimpleQueue()
        for one in asked:
            waiting.put(one)

        def work() -> None:
            while deadline.left_s() > 0.0 and not self._stop.is_set():
                try:
                    one = waiting.get_nowait()
                except queue.Empty:
                    return
                answered.put((one, self._answer(one, now_s, deadline)))

        # Daemons, each gone at the deadline: a pod that hangs keeps nobody from ending.
        for _ in range(min(AT_ONCE, len(asked))):
            threading.Thread(target=work, name="probe", daemon=True).start()
        return self._collect(answered, len(asked), deadline)

    def _collect(
        self,
        answered: "queue.SimpleQueue[tuple[Asked, PodSample | MetricsError]]",
        count: int,
        deadline: Deadline,
    ) -> dict[Asked, PodSample | MetricsError]:
        found: list[tuple[Asked, PodSample | MetricsError]] = []
        while len(found) < count and not self._stop.is_set():
            left_s = deadline.left_s()
            try:
                found.append(answered.get(timeout=min(left_s, STOP_S)))
            except queue.Empty:
                if left_s <= 0.0:
                    break
        return dict(found)

    def _answer(self, one: Asked, now_s: float, deadline: Deadline) -> PodSample | MetricsError:
        """Return what one pod shows; never raises."""
        try:
            text = self._get(one.url, deadline).decode("utf-8", "replace")
            return pod_sample(one, text, now_s)
        except (HTTPError, OSError, ValueError) as error:
            return MetricsError(f"{one.url}: {type(error).__name__}: {error}")
        except MetricsError as error:
            return error

    def _get(self, url: str, deadline: Deadline) -> bytes:
        """Return the body of an answer, read within the time and the size allowed.

        Raises
        ------
        MetricsError
            If it is no answer of 200, too late or too large.
        """
        response = self._http.request(
            "GET", url, timeout=deadline.left_s(), preload_content=False, redirect=False
        )
        with contextlib.closing(response):
            if response.status != 200:
                raise MetricsError(f"{url}: HTTP {response.status} instead of 200")
            body = bytearray()
            while chunk := response.read1(_CHUNK_BYTES, decode_content=True):
                body += chunk
                if deadline.left_s() <= 0.0:
                    raise MetricsError(f"{url}: not whole in time")
                if len(body) > LARGEST_BYTES:
                    raise MetricsError(f"{url}: over {LARGEST_BYTES} bytes, no metrics page")
        return bytes(body)


class NearestProbe:
    """Asks pods where a service lets it, Prometheus for the others.

    Parameters
    ----------
    pods
        Asks pods; None where there is no cluster that lists them.
    metrics
        Asked once a scrape: more often it would show the same.
    scrape_interval_s
        How often Prometheus scrapes [s].
    """

    def __init__(self, pods: Probe | None, metrics: Metrics, scrape_interval_s: float) -> None:
        self._pods, self._metrics = pods, metrics
        self._scrape_interval_s = scrape_interval_s
        self._read_s: dict[ServiceKey, float] = {}

    def asks_pods_of(self, service: Service) -> bool:
        """Return whether the pods themselves are asked."""
        return self._pods is not None and all(pool.probe is not None for pool in service.pools)

    def read(
        self, services: Sequence[Service], now_s: float
    ) -> Mapping[ServiceKey, Sample | MetricsError]:
        """Return what is new at `now_s` [s, Unix]; no entry where nothing can be. Never raises."""
        near = [s for s in services if self.asks_pods_of(s)]
        far = [s for s in services if not self.asks_pods_of(s) and self._is_new(s.key, now_s)]
        self._read_s |= {s.key: now_s for s in far}
        found = dict(self._metrics.read(far, now_s)) if far else {}
        if near and self._pods is not None:
            found |= self._pods.read(near, now_s)
        return found

    def _is_new(self, key: ServiceKey, now_s: float) -> bool:
        last_s, every_s = self._read_s.get(key), self._scrape_interval_s
        return last_s is None or now_s // every_s > last_s // every_s


def asked_of(service: Service, pods: Pods | ClusterError) -> list[Asked]:
    """Return the pods of a service that can be asked: those that serve and have an address."""
    if isinstance(pods, ClusterError):
        return []
    try:
        source = source_named(service.source)
    except InputError:
        return []
    return [
        Asked(
            pool=pool.name,
            pod=pod.name,
            url=url_of(pod.ip, pool.probe),
            scheme=source.roles[pool.role],
            selector={**service.selector, **pool.selector},
        )
        for pool in service.pools
        for pod in _serving(pods.get(pool.name, ()))
        if pod.ip and pool.probe is not None
    ]


def url_of(ip: str, endpoint: Endpoint) -> str:
    """Return where a pod shows its metrics.

    Examples
    --------
    >>> url_of("10.0.0.7", Endpoint()), url_of("fd00::7", Endpoint(8200, "/m"))
    ('http://10.0.0.7:8000/metrics', 'http://[fd00::7]:8200/m')
    """
    host = f"[{ip}]" if ":" in ip else ip
    return f"http://{host}:{endpoint.port}{endpoint.path}"


def _serving(pods: Iterable[Pod]) -> list[Pod]:
    return [pod for pod in pods if pod.ready_s is not None]


def sample_of(
    service: Service,
    pods: Pods | ClusterError,
    asked: Sequence[Asked],
    answers: Mapping[Asked, PodSample | MetricsError],
    now_s: float,
) -> Sample | MetricsError:
    """Return what the pods of a service answered, an error where less than half of a pool did."""
    if isinstance(pods, ClusterError):
        return MetricsError(f"{service.key}: the pods are not known: {pods}")
    found: dict[str, tuple[PodSample, ...]] = {}
    for pool in service.pools:
        mine = [one for one in asked if one.pool == pool.name]
        told = [answers.get(one, MetricsError(f"{one.url}: no answer in time")) for one in mine]
        read = tuple(one for one in told if isinstance(one, PodSample))
        serving = len(_serving(pods.get(pool.name, ())))
        if 2 * len(read) < serving:
            why = next((str(one) for one in told if isinstance(one, MetricsError)), "no address")
            return MetricsError(_too_few(service, pool, len(read), serving, why))
        found[pool.name] = read
    return Sample(now_s, found)


def _too_few(service: Service, pool: Pool, read: int, serving: int, why: str) -> str:
    return (
        f"{service.key}: pool {pool.name}: {read} of {serving} pods answered, legal is half of "
        f"them: {why}; check metrics.probe and that the pods' network lets the planner in"
    )


def pod_sample(one: Asked, text: str, now_s: float) -> PodSample:
    """Return what a page of metrics says of a pod's queue.

    Raises
    ------
    MetricsError
        If the page lacks a series that is needed, or has no sensible number for it.
    """
    wanted = _wanted(one.scheme)
    names = {family.name for families in wanted.values() for family in families}
    series = [s for s in read_series(text, names) if fits(one.selector, s.labels)]
    figures: dict[Signal, float] = {}
    for signal, families in wanted.items():
        value = _first(series, families)
        if value is None:
            told = " or ".join(family.name for family in families)
            raise MetricsError(f"{one.url}: shows no {told} for {dict(one.selector)}")
        if not (math.isfinite(value) and value >= 0.0):
            raise MetricsError(f"{one.url}: {signal} is {value}, legal is 0 or more")
        figures[signal] = value
    count = figures.pop(one.scheme.trail)
    # Nobody asks a look for lengths: the sum is not read.
    counted = {one.scheme.trail: Histogram((math.inf,), (count,), 0.0)}
    return PodSample(one.pod, now_s, histograms=counted, gauges=figures)


def _wanted(scheme: Scheme) -> dict[Signal, list[Family]]:
    """Return the series that a look needs, newest names first."""
    trail = scheme.metrics[scheme.trail]
    counts = [Family(trail.trail(family), family.matchers) for family in trail.families]
    return {scheme.trail: counts} | {s: list(scheme.metrics[s].families) for s in _GAUGES}


def _first(series: Iterable[Series], families: Iterable[Family]) -> float | None:
    """Return the sum over an engine's ranks, of the first family that is there."""
    for family in families:
        own = [s for s in series if s.name == family.name]
        if ranks := [s.value for s in own if family.matchers.items() <= s.labels.items()]:
            return float(sum(ranks))
    return None


def read_series(text: str, names: Collection[str]) -> list[Series]:
    """Return the series of these names on a page of metrics; ValueError where one is garbled.

    All other lines are passed over unread: to parse a whole page takes a hundred times longer.
    """
    lines = (line for line in text.splitlines() if _NAME_ENDS.split(line, maxsplit=1)[0] in names)
    families = text_string_to_metric_families("\n".join((*lines, "")))
    return [series for family in families for series in family.samples]


def fits(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Return whether a pod's own series is one of the selector's.

    Labels that a scrape adds (namespace, job, pod) are not on the page: they exclude nothing.
    """
    return matches({name: v for name, v in selector.items() if name in labels}, labels)
