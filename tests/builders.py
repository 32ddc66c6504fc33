"""Builders with sane defaults: name what a test is about, leave the rest.

`Drive` feeds `decide` with scripted traffic, one interval a call.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from planner.decision.decide import Inputs, State, decide
from planner.errors import ClusterError, MetricsError
from planner.model import (
    Decision,
    Fleet,
    Histogram,
    LengthMix,
    Load,
    Observation,
    PodSample,
    Pool,
    PoolFleet,
    PoolObservation,
    Role,
    Room,
    Sample,
    Service,
    ServiceKey,
    Signal,
    Sla,
    Target,
    TokenLoad,
)
from planner.sizing.dispersion import SCALES_S
from profiles import DecodeSurface, PrefillSurface, decode_surface, prefill_surface
from profiles import sample as sample_profile

START_S = 1_000_000.0
ISL, OSL = 1000.0, 200.0
PREFILL_S, ITL_S = 0.035, 0.012

LENGTHS = (64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, float("inf"))
LATENCIES = (0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, float("inf"))


@cache
def surfaces() -> tuple[PrefillSurface, DecodeSurface]:
    """Return the measured surfaces of one H200 that runs Llama 3.1 8B."""
    profile = sample_profile("llama-3.1-8b-fp8-h200")
    return prefill_surface(profile), decode_surface(profile)


def pool(role: Role = Role.PREFILL, **over: Any) -> Pool:
    prefill, decode = surfaces()
    given = {
        "name": str(role),
        "role": role,
        "target": Target("batch.volcano.sh/v1alpha1", "Job", f"pd-{role}", f"{role}-worker"),
        "prefill": prefill if role is Role.PREFILL else None,
        "decode": decode if role is Role.DECODE else None,
        "max_replicas": 64,
        "gpu_type": "h200",
    }
    return Pool(**(given | over))


def service(**over: Any) -> Service:
    given = {
        "key": ServiceKey("inference", "llama-8b"),
        "sla": Sla(ttft_s=0.5, itl_s=0.03),
        "pools": (pool(Role.PREFILL), pool(Role.DECODE)),
    }
    return Service(**(given | over))


def histogram(value: float, count: float, bounds: tuple[float, ...] = LATENCIES) -> Histogram:
    """Return `count` entries that are all `value`."""
    return Histogram(bounds, tuple(count if b >= value else 0.0 for b in bounds), value * count)


def pod_sample(
    name: str = "prefill-0",
    at_s: float = START_S,
    finished: float = 0.0,
    role: Role = Role.PREFILL,
    *,
    prefill_s: float = PREFILL_S,
    itl_s: float = ITL_S,
    running: float = 0.0,
    waiting: float = 0.0,
    **over: Any,
) -> PodSample:
    """Return a pod that has finished so many requests of one shape in its life."""
    gauges = {Signal.RUNNING: running, Signal.WAITING: waiting}
    if role is Role.PREFILL:
        counters = {Signal.COMPUTED_TOKENS: finished * ISL}
        histograms = {
            Signal.PROMPT_TOKENS: histogram(ISL, finished, LENGTHS),
            Signal.PREFILL_TIME: histogram(prefill_s, finished),
            Signal.TTFT: histogram(prefill_s, finished),
        }
    else:
        counters = {Signal.GENERATED_TOKENS: finished * OSL}
        histograms = {
            Signal.OUTPUT_TOKENS: histogram(OSL, finished, LENGTHS),
            Signal.TOKEN_GAP: histogram(itl_s, finished * (OSL - 1.0)),
            Signal.ITL: histogram(itl_s, finished),
            Signal.TTFT: histogram(0.02, finished),
        }
    given = {"counters": counters, "histograms": histograms, "gauges": gauges}
    return PodSample(name, at_s, **(given | over))


def sample(at_s: float = START_S, finished: float = 0.0, **over: Any) -> Sample:
    """Return one pod a pool that has finished so many requests."""
    given = {
        "pools": {str(role): (pod_sample(f"{role}-0", at_s, finished, role),) for role in Role}
    }
    return Sample(at_s, **(given | over))


def with_pool(read: Sample, name: str, pods: Iterable[PodSample]) -> Sample:
    """Return the sample with other pods in one pool."""
    return replace(read, pools={**read.pools, name: tuple(pods)})


def fleet(at_s: float = START_S, room: Mapping[str, int] | None = None, **replicas: int) -> Fleet:
    """Return a fleet without a list of pods: `fleet(prefill=2, decode=3)`."""
    counts = {"prefill": 1, "decode": 1} | replicas
    rooms = {name: Room(most) for name, most in (room or {}).items()}
    return Fleet(at_s, {name: PoolFleet(n) for name, n in counts.items()}, rooms)


def observation(**over: Any) -> Observation:
    """Return one interval of 10 requests/s on one replica of each pool."""
    given = {
        "at_s": START_S,
        "span_s": 60.0,
        "arrivals_rps": 10.0,
        "finished": 600.0,
        "uncached_ratio": 1.0,
        "pools": {
            "prefill": PoolObservation(1, PREFILL_S, 0.35, 0.0, changed=False),
            "decode": PoolObservation(1, ITL_S, 24.0, 0.0, changed=False),
        },
        "prompts": histogram(ISL, 600.0, LENGTHS),
        "outputs": histogram(OSL, 600.0, LENGTHS),
    }
    return Observation(**(given | over))


def token_load(tps: float, **over: Any) -> TokenLoad:
    """Return a load that is known for certain."""
    return TokenLoad(**(dict.fromkeys(("seen_tps", "mean_tps", "up_tps", "keep_tps"), tps)
                        | over))  # fmt: skip


def load(rps: float = 10.0, **over: Any) -> Load:
    """Return a certain load of `rps` requests/s with spread lengths."""
    weights = np.full(4, 0.25)
    given = {
        "at_s": START_S,
        "tokens": {
            Role.PREFILL: token_load(rps * ISL),
            Role.DECODE: token_load(rps * OSL),
        },
        "lengths": LengthMix((250.0, 500.0, 1250.0, 2000.0), tuple(weights), OSL, 0.5),
        "uncached_ratio": 1.0,
        "scales_s": SCALES_S,
        "dispersion": (1.0,) * len(SCALES_S),
    }
    return Load(**(given | over))


class Drive:
    """A service under scripted traffic: every `tick` is one interval of one decision.

    Each pool's pods share the requests evenly; a tick's fleet is what the last decision desired
    (`follow`), ready at once. `faults` replaces what was read.
    """

    def __init__(self, asked: Service, *, follow: bool = True, **replicas: int) -> None:
        self.service = asked
        self.state = State()
        self.now_s = START_S
        self.replicas = {p.name: p.min_replicas for p in asked.pools} | replicas
        self.finished: dict[str, float] = {}
        self.room: Mapping[str, int] = {}
        self.follow = follow
        self.decisions: list[Decision] = []

    def pods(self, pool: Pool) -> list[str]:
        return [f"{pool.name}-{i}" for i in range(self.replicas[pool.name])]

    def serve(self, rps: float, **over: Any) -> Sample:
        """Let an interval pass; return what is read at its end."""
        self.now_s += self.service.interval_s
        alive = {name for p in self.service.pools for name in self.pods(p)}
        self.finished = {name: n for name, n in self.finished.items() if name in alive}
        pools: dict[str, tuple[PodSample, ...]] = {}
        for role in Role:
            pods = [(p, name) for p in self.service.pools_of(role) for name in self.pods(p)]
            share = rps * self.service.interval_s / max(len(pods), 1)
            for owner, name in pods:
                self.finished[name] = self.finished.get(name, 0.0) + share
                seen = pod_sample(name, self.now_s - 5.0, self.finished[name], role, **over)
                pools[owner.name] = (*pools.get(owner.name, ()), seen)
        return Sample(self.now_s, pools)

    def fleet(self) -> Fleet:
        return replace(fleet(self.now_s, self.room), pools={
            name: PoolFleet(n) for name, n in self.replicas.items()})  # fmt: skip

    def tick(
        self,
        rps: float = 10.0,
        read: Sample | MetricsError | None = None,
        cluster: ClusterError | None = None,
        spoil: Callable[[Sample], Sample] | None = None,
        **over: Any,
    ) -> Decision:
        """Serve one interval and decide.

        `read` stands in for what the metrics say of it, `spoil` changes it.
        """
        served = self.serve(rps, **over)
        said = read or (spoil(served) if spoil else served)
        inputs = Inputs(said, cluster or self.fleet())
        self.state, decision = decide(self.service, self.state, inputs, self.now_s)
        if self.follow and decision.patch is not None:
            self.replicas |= {
                name: count // self.service.pool(name).pods_per_replica
                for name, count in decision.patch.replicas.items()
            }
        self.decisions.append(decision)
        return decision

    def run(self, ticks: int, rps: float = 10.0, **over: Any) -> Decision:
        """Tick so often at one load; return the last decision."""
        return [self.tick(rps, **over) for _ in range(ticks)][-1]


def assert_only_rises(orders: Sequence[tuple[int, ...]]) -> None:
    """Check that no order is given twice, and that none takes a replica back."""
    assert len(set(orders)) == len(orders)
    for before, after in pairwise(orders):
        assert all(was <= now for was, now in zip(before, after, strict=True))
