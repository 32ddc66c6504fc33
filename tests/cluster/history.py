"""What really happened in a namespace: every change of its Volcano Jobs and pods, by watching.

Faults are judged by the whole history and not by how it ends. A watch goes on from the last version
seen; only an API server that was started anew has forgotten it and is asked for what is there then.
Versions put Jobs and pods into one order.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from operator import attrgetter

import requests

from planner.adapters.clock import pause
from tests.cluster.control_plane import ControlPlane
from tests.cluster.rest import Manifest, Refused, Rest, core, jobs
from tests.cluster.waiting import wait_for
from tests.cluster.workloads import JOB_NAME, is_ready

DRAIN_MARK = "pd-planner.io/drain-until"
WATCH_S, RETRY_S, END_S = 5.0, 0.1, 20.0
GONE = 410
# What was seen a moment later than it was decided is not late [s].
LATE_S = 1.0

Clock = Callable[[], float]
Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class JobSeen:
    """A Volcano Job of one task as one change left it."""

    version: int
    at_s: float
    name: str
    uid: str
    replicas: int
    minima: tuple[int | None, int | None]
    runs: int
    retries: int


@dataclass(frozen=True, slots=True)
class PodSeen:
    """A pod as one change left it; `drain_until_s` is its mark."""

    version: int
    at_s: float
    name: str
    uid: str
    job: str
    serves: bool
    is_gone: bool
    drain_until_s: float | None

    @property
    def index(self) -> int:
        return int(self.name.rpartition("-")[2])


def job_seen(event: Manifest, at_s: float) -> JobSeen:
    job = event["object"]
    (one,) = job["spec"]["tasks"]
    status = job.get("status", {})
    return JobSeen(
        int(job["metadata"]["resourceVersion"]),
        at_s,
        job["metadata"]["name"],
        job["metadata"]["uid"],
        one.get("replicas", 0),
        (job["spec"].get("minAvailable"), one.get("minAvailable")),
        status.get("version", 0),
        status.get("retryCount", 0),
    )


def pod_seen(event: Manifest, at_s: float) -> PodSeen:
    pod = event["object"]
    meta = pod["metadata"]
    mark = meta.get("annotations", {}).get(DRAIN_MARK)
    return PodSeen(
        int(meta["resourceVersion"]),
        at_s,
        meta["name"],
        meta["uid"],
        meta.get("labels", {}).get(JOB_NAME, ""),
        is_ready(pod),
        event["type"] == "DELETED",
        None if mark is None else datetime.fromisoformat(mark).timestamp(),
    )


class History:
    """All changes since the start, oldest first."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._jobs: list[JobSeen] = []
        self._pods: list[PodSeen] = []

    @property
    def jobs(self) -> list[JobSeen]:
        return sorted(self._jobs, key=attrgetter("version"))

    @property
    def pods(self) -> list[PodSeen]:
        return sorted(self._pods, key=attrgetter("version"))

    def of(self, job: str) -> list[JobSeen]:
        return [seen for seen in self.jobs if seen.name == job]

    def counts(self, job: str) -> list[int]:
        """Return the replicas of a Job, one entry for every change of them."""
        found: list[int] = []
        for seen in self.of(job):
            if not found or found[-1] != seen.replicas:
                found.append(seen.replicas)
        return found

    def all_counts(self) -> dict[str, list[int]]:
        """Return the replicas of every Job in the order of their changes."""
        return {name: self.counts(name) for name in {seen.name for seen in self.jobs}}

    def wait_for_counts(self, expected: Mapping[str, list[int]]) -> None:
        """Wait until these were all the replicas; the watch may come after who asks the server."""
        wait_for(f"the history is {expected}", lambda: self.all_counts() == expected)

    @property
    def changes(self) -> int:
        """How often the replicas of any Job were changed."""
        return sum(len(counts) - 1 for counts in self.all_counts().values())

    def decreases(self) -> list[tuple[JobSeen, JobSeen]]:
        """Return each change downwards: before and after."""
        found = []
        for name in sorted({seen.name for seen in self.jobs}):
            changes = self.of(name)
            found += [pair for pair in pairwise(changes) if pair[1].replicas < pair[0].replicas]
        return found

    def marks(self) -> dict[str, float]:
        """Return until when the pods that are marked as leaving now may serve, by name."""
        last = {seen.uid: seen for seen in self.pods}
        return {
            seen.name: seen.drain_until_s
            for seen in last.values()
            if seen.drain_until_s is not None and not seen.is_gone
        }

    def serving(self, job: str) -> list[PodSeen]:
        """Return the pods of a Job that serve now."""
        last = {seen.uid: seen for seen in list(self._pods) if seen.job == job}
        return [seen for seen in last.values() if seen.serves and not seen.is_gone]

    def take_job(self, event: Manifest) -> None:
        self._jobs.append(job_seen(event, self.clock()))

    def take_pod(self, event: Manifest) -> None:
        self._pods.append(pod_seen(event, self.clock()))


@contextlib.contextmanager
def recorded(plane: ControlPlane, namespace: str, clock: Clock) -> Iterator[History]:
    # Follows the namespace from before the block until its end.
    history = History(clock)
    places = {jobs(namespace): history.take_job, core(namespace, "pods"): history.take_pod}
    with followed(plane, places):
        yield history


@contextlib.contextmanager
def followed(
    plane: ControlPlane, places: Mapping[str, Callable[[Manifest], None]]
) -> Iterator[None]:
    """Tell of every change at some paths, each by a thread of its own, until the block ends."""
    stop, token = threading.Event(), plane.site.trust.admin_token
    threads = [
        threading.Thread(target=_follow, args=(plane.client(token), path, take, stop))
        for path, take in places.items()
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(END_S)


def _follow(
    rest: Rest,
    path: str,
    take: Callable[[Manifest], None],
    stop: threading.Event,
) -> None:
    version = "0"
    with rest:
        while not stop.is_set():
            try:
                for event in rest.changes(path, version, WATCH_S):
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        take(event)
                    if stop.is_set():
                        return
            except (requests.RequestException, Refused) as error:
                if isinstance(error, Refused) and error.status == GONE:
                    version = "0"
                pause(RETRY_S)


# ── what must hold at every moment ───────────────────────────────────────────────────────────────


def breaches(
    history: History,
    bounds: Mapping[str, tuple[int, int]],
    drain_s: float,
    blind: Sequence[Span] = (),
) -> list[str]:
    """Return what should never have happened, in words.

    Parameters
    ----------
    history
        What did happen.
    bounds
        Fewest and most replicas by name of the Job.
    drain_s
        How long pods are marked before they go [s]; 0: they are not.
    blind
        When there were no metrics [s, as the history's clock].
    """
    return [
        *_out_of_bounds(history, bounds),
        *_restarts(history),
        *_raised_minima(history),
        *(told for pair in history.decreases() for told in _not_drained(history, *pair, drain_s)),
        *(told for pair in history.decreases() for told in _while_blind(*pair, blind)),
    ]


def _out_of_bounds(history: History, bounds: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    for seen in history.jobs:
        fewest, most = bounds[seen.name]
        if not fewest <= seen.replicas <= most:
            yield f"{seen.name} had {seen.replicas} replicas, not {fewest} to {most}"


def _restarts(history: History) -> Iterator[str]:
    for seen in history.jobs:
        if seen.runs or seen.retries:
            yield f"{seen.name} was restarted: version {seen.runs}, {seen.retries} retries"


def _raised_minima(history: History) -> Iterator[str]:
    least: dict[str, tuple[int | None, int | None]] = {}
    for seen in history.jobs:
        before = least.setdefault(seen.uid, seen.minima)
        for was, now in zip(before, seen.minima, strict=True):
            if was is not None and now is not None and now > was:
                yield f"minAvailable of {seen.name} was raised from {was} to {now}"
        least[seen.uid] = seen.minima


def _not_drained(
    history: History, before: JobSeen, after: JobSeen, drain_s: float
) -> Iterator[str]:
    if drain_s <= 0.0:
        return
    earlier = [s for s in history.pods if s.job == after.name and s.version < after.version]
    last = {seen.name: seen for seen in earlier}
    for seen in last.values():
        if seen.index < after.replicas or not seen.serves or seen.is_gone:
            continue
        change = f"{before.replicas} → {after.replicas} of {after.name}"
        if seen.drain_until_s is None:
            yield f"{change}: {seen.name} served and was not marked"
            continue
        if seen.drain_until_s > after.at_s + LATE_S:
            yield f"{change}: {seen.name} was to serve {seen.drain_until_s - after.at_s:.1f} s more"
        marked_s = _marked_since_s(earlier, seen)
        if after.at_s - marked_s < drain_s - LATE_S:
            yield f"{change}: {seen.name} was marked for {after.at_s - marked_s:.1f} s only"


def _marked_since_s(earlier: Sequence[PodSeen], pod: PodSeen) -> float:
    since_s = pod.at_s
    for seen in reversed([s for s in earlier if s.uid == pod.uid]):
        if seen.drain_until_s is None:
            break
        since_s = seen.at_s
    return since_s


def _while_blind(before: JobSeen, after: JobSeen, blind: Sequence[Span]) -> Iterator[str]:
    for since_s, until_s in blind:
        if since_s + LATE_S < after.at_s < until_s:
            yield f"{after.name} went from {before.replicas} to {after.replicas} without metrics"
