"""The plant behind the pods of a cluster: who is Ready there serves here, under the same name.

When a pod begins and ends to serve is the cluster's to say; what it does in between is the plant's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from planner.model import PodSample, Role
from planner.replay import plant_config
from planner.simulation import kernel
from planner.simulation.plant import Plant
from planner.simulation.snapshot import pod_name
from planner.simulation.traces import Trace, make_trace
from planner.spec.service import LoadedService


@dataclass(frozen=True, slots=True)
class SeenPod:
    """A pod of the cluster: `serves` if it is Ready and nobody has asked it to leave."""

    uid: str
    name: str
    pool: str
    serves: bool


class FollowingPlant(Plant):
    """A plant whose replicas come and go one by one, as others order."""

    def begin(self, pool: str) -> int:
        """Put one replica into service now, and return its ordinal."""
        self._collect()
        slot = self._start(self.config.pool_index(pool), startup_s=0.0)
        return int(self._state.replicas[slot]["ordinal"])

    def leave(self, pool: str, ordinal: int) -> None:
        """Let one replica finish what it has and take nothing new."""
        table = self._state.replicas
        is_meant = (table["pool"] == self.config.pool_index(pool)) & (table["ordinal"] == ordinal)
        slot = int(np.flatnonzero(is_meant)[0])
        table["state"][slot] = kernel.DRAINING
        kernel.release_if_drained(self._state, slot, self.now_s)

    def shown(self) -> Mapping[str, PodSample]:
        """Return what the replicas show by name, those too that have ended since the last begin."""
        state = self._state.replicas["state"]
        has_ended = (state == kernel.GONE) & (self._state.replicas["pool"] != kernel.NOBODY)
        state[has_ended] = kernel.DRAINING
        samples = {s.pod: s for of_pool in self.scrape().values() for s in of_pool}
        state[has_ended] = kernel.GONE
        return samples


class SimulatedServers:
    """Servers for all pods of one service under a load; times are from the start of the load."""

    def __init__(self, loaded: LoadedService, trace: Trace, seed: int = 0) -> None:
        self._service = loaded.service
        nobody = {pool.name: 0 for pool in self._service.pools}
        self._plant = FollowingPlant(plant_config(loaded, nobody, seed), trace)
        self._pods: dict[str, SeenPod] = {}
        self._replica: dict[str, tuple[str, int]] = {}
        self._last: dict[str, PodSample] = {}
        self._begun = False

    @property
    def serving(self) -> Mapping[str, int]:
        """Pods that take requests, by pool."""
        count = {pool.name: 0 for pool in self._service.pools}
        for pod in self._pods.values():
            count[pod.pool] += pod.serves
        return count

    def could_begin(self) -> bool:
        """Tell whether every role has a pod: requests before that would only pile up."""
        serving = self.serving
        return all(
            any(serving[pool.name] for pool in self._service.pools_of(role)) for role in Role
        )

    def follow(self, pods: Iterable[SeenPod], now_s: float) -> None:
        """Play up to `now_s` [s], then let replicas begin and leave as the pods did."""
        self._look(now_s)
        seen = {pod.uid: pod for pod in pods}
        for uid, before in self._pods.items():
            if before.serves and not (uid in seen and seen[uid].serves):
                self._plant.leave(*self._replica[uid])
        for uid, pod in seen.items():
            if pod.serves and not (uid in self._pods and self._pods[uid].serves):
                # One that was asked to leave and then to stay is a new replica: its counters
                # begin at 0, as those of a server that was started again.
                self._replica[uid] = (pod.pool, self._plant.begin(pod.pool))
        self._pods = seen
        for table in (self._replica, self._last):
            for uid in table.keys() - seen.keys():
                del table[uid]
        # Those that begin are in service from the next event on, which is now.
        self._plant.advance(now_s)

    def scrape(self, now_s: float) -> Mapping[str, tuple[PodSample, ...]]:
        """Return what the pods' metrics show at `now_s` [s], by pool name.

        One that has finished but is still there shows what it showed last; one that has not begun
        shows nothing.
        """
        self._look(now_s)
        found: dict[str, list[PodSample]] = {pool.name: [] for pool in self._service.pools}
        for uid, sample in self._last.items():
            found[self._pods[uid].pool].append(sample)
        return {name: tuple(samples) for name, samples in found.items()}

    def _look(self, now_s: float) -> None:
        """Play up to `now_s` [s] and keep what the pods show then."""
        self._plant.advance(now_s)
        shown = self._plant.shown()
        for uid, replica in self._replica.items():
            if (sample := shown.get(pod_name(*replica))) is not None:
                self._last[uid] = replace(sample, pod=self._pods[uid].name)

    def attained(self, now_s: float, since_s: float) -> dict[str, float | int | None]:
        """Return requests that arrived since then and the shares that met the SLA's targets.

        Requests that may still meet both are left out.
        """
        self._plant.advance(now_s)
        log, sla = self._plant.results(), self._service.sla
        decided = (log.arrival_s >= since_s) & (
            (log.status > 0) | (now_s - log.arrival_s > sla.ttft_s)
        )
        in_ttft = log.ttft_s[decided] <= sla.ttft_s
        late = np.nan_to_num(log.itl_s[decided], nan=0.0) > sla.itl_s
        return {
            "arrived": int((log.arrival_s >= since_s).sum()),
            "ttft": _share(in_ttft),
            "itl": _share(~late),
            "both": _share(in_ttft & ~late),
        }


def _share(met: "np.typing.NDArray[np.bool_]") -> float | None:
    return round(float(met.mean()), 4) if met.size else None


def ramp(points: Mapping[float, float], for_s: float, lengths: Trace, seed: int = 0) -> Trace:
    """Return Poisson arrivals whose rate goes in straight lines through `points`.

    Parameters
    ----------
    points
        Rate [requests/s] by time [s]; the last holds until the end.
    for_s
        Length of the trace [s].
    lengths
        Requests to draw lengths from.
    """
    rng = np.random.default_rng(seed)
    at_s = np.linspace(0.0, for_s, max(int(for_s), 1) + 1)
    rate_rps = np.interp(at_s, list(points), list(points.values()))
    # Arrivals of rate 1 on the axis of the expected count; its inverse gives their times.
    expected = np.concatenate([[0.0], np.cumsum((rate_rps[1:] + rate_rps[:-1]) / 2 * at_s[1])])
    count = rng.poisson(expected[-1])
    arrival_s = np.interp(np.sort(rng.uniform(0.0, expected[-1], count)), expected, at_s)
    drawn = rng.integers(len(lengths), size=count)
    isl, osl = lengths.isl_tokens[drawn], lengths.osl_tokens[drawn]
    return make_trace(f"{lengths.name}'s requests on a ramp", arrival_s, isl, osl)


def quickened(trace: Trace, speed: float) -> Trace:
    """Return the trace played `speed` times faster at the same rate: that share is left out."""
    place = np.floor(np.arange(len(trace) + 1) / speed)
    kept = place[1:] > place[:-1]
    return replace(
        trace,
        arrival_s=trace.arrival_s[kept] / speed,
        isl_tokens=trace.isl_tokens[kept],
        osl_tokens=trace.osl_tokens[kept],
        cached_tokens=trace.cached_tokens[kept],
    )
