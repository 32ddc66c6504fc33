"""The values that flow through the loop, in the order in which they flow.

Service (what is asked) · Sample and Fleet (what was read) · Observation (what is believed) ·
Factors (how wrong the profile is) · Load (what is coming) · Plan (what it needs) ·
Decision (what is done, with a Reason for every cap and hold). All are frozen; nothing here acts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from operator import add, sub

from planner.inventory import PodShape
from profiles import DecodeSurface, PrefillSurface

# A correction beyond this says that the profile is of something else.
FACTOR_RANGE = (0.5, 2.0)


class Role(StrEnum):
    """What a pool does for a request; symmetric code is keyed by it."""

    PREFILL = "prefill"
    DECODE = "decode"


class Mode(StrEnum):
    """How far the planner may go."""

    OFF = "Off"
    RECOMMEND = "Recommend"
    ACT = "Act"


class Sizing(StrEnum):
    """What of the forecast is sized for: all of it, failures at a price, or one quantile."""

    DISTRIBUTION = "Distribution"
    QUANTILE = "Quantile"


class Statistic(StrEnum):
    """What the SLA's latencies mean: a share of all requests, or the mean."""

    ATTAINMENT = "Attainment"
    MEAN = "Mean"


class Signal(StrEnum):
    """What an engine or a gateway can tell; a row of the sources table maps each to a metric.

    Lengths and latencies are histograms, amounts are counters, the rest are gauges.
    """

    PROMPT_TOKENS = "prompt_tokens"  # histogram [tokens]: prompts of finished requests
    COMPUTED_TOKENS = "computed_tokens"  # counter [tokens]: prompt tokens really computed
    OUTPUT_TOKENS = "output_tokens"  # histogram [tokens]: outputs of finished requests
    GENERATED_TOKENS = "generated_tokens"  # counter [tokens]: output tokens so far
    TTFT = "ttft"  # histogram [s]
    PREFILL_TIME = "prefill_time"  # histogram [s]: service without waiting
    TOKEN_GAP = "token_gap"  # histogram [s]: one entry a token
    ITL = "itl"  # histogram [s]: one entry a request, its mean over tokens
    ARRIVALS = "arrivals"  # counter [requests]: a gateway's
    RUNNING = "running"  # gauge [requests]
    WAITING = "waiting"  # gauge [requests]
    KV_USAGE = "kv_usage"  # gauge [0..1]


# ── what is asked ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, order=True)
class ServiceKey:
    """Namespace and name of one PDAutoscaler."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Sla:
    """Target latencies and the share of requests that must meet both.

    `attainment_ratio` is p in the sizing formulas; prompts above `max_input_tokens` are
    promised nothing and not counted.
    """

    ttft_s: float
    itl_s: float
    attainment_ratio: float = 0.99
    statistic: Statistic = Statistic.ATTAINMENT
    max_input_tokens: int | None = None

    @property
    def failure_budget(self) -> float:
        """The permitted share of failed requests, ε."""
        return 1.0 - self.attainment_ratio


class PolicyType(StrEnum):
    """HPA's two kinds of scaling policy."""

    PODS = "Pods"
    PERCENT = "Percent"


class SelectPolicy(StrEnum):
    """Which of several scaling policies rules, as in HPA."""

    MAX = "Max"
    MIN = "Min"
    DISABLED = "Disabled"


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """At most `value` replicas or percent of change within `period_s`."""

    type: PolicyType
    value: int
    period_s: float


@dataclass(frozen=True, slots=True)
class ScalingRules:
    """One direction of `behavior`; no policies means no rate limit."""

    stabilization_window_s: float = 0.0
    select_policy: SelectPolicy = SelectPolicy.MAX
    policies: tuple[ScalingPolicy, ...] = ()
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True)
class Behavior:
    """HPA's `behavior`; defaults: free upwards; downwards 60 s of stabilisation, 5 % tolerance."""

    scale_up: ScalingRules = ScalingRules()
    scale_down: ScalingRules = ScalingRules(stabilization_window_s=60.0, tolerance=0.05)


@dataclass(frozen=True, slots=True)
class Target:
    """The object whose replicas a pool is: any kind the targets table knows."""

    api_version: str
    kind: str
    name: str
    task: str | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where every pod of a pool shows its metrics, at its own address."""

    port: int = 8000
    path: str = "/metrics"


@dataclass(frozen=True, slots=True)
class Pool:
    """The unit of scaling: one role on one target with one profile.

    Exactly one of `prefill` and `decode` is set, that of the role. Pods that are to go are marked
    `drain_s` before, 0 for those of a fleet that drains by itself. `probe` is None where pods may
    not be asked themselves.
    """

    name: str
    role: Role
    target: Target
    prefill: PrefillSurface | None = None
    decode: DecodeSurface | None = None
    min_replicas: int = 1
    max_replicas: int = 1
    pods_per_replica: int = 1
    gpus_per_replica: int = 1
    gpu_type: str = "gpu"
    gpu_hour_price: float | None = None
    startup_s: float = 60.0
    drain_s: float = 0.0
    kv_bytes_per_token: float | None = None
    behavior: Behavior = Behavior()
    selector: Mapping[str, str] = field(default_factory=dict)
    probe: Endpoint | None = None

    @property
    def price_per_replica(self) -> float:
        """Price of one replica an hour; without prices a GPU counts as 1."""
        price = 1.0 if self.gpu_hour_price is None else self.gpu_hour_price
        return self.gpus_per_replica * price


@dataclass(frozen=True, slots=True)
class Limits:
    """Ceilings over all pools of a service; None: no such limit."""

    gpus: Mapping[str, int] = field(default_factory=dict)
    cost_per_hour: float | None = None
    ratio_min: float | None = None
    ratio_max: float | None = None


@dataclass(frozen=True, slots=True)
class Fallback:
    """Replicas by pool name to rise to when metrics have been gone for `after_s`."""

    after_s: float
    replicas: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Transfer:
    """How a prompt's KV cache moves from prefill to decode: bytes/s and latency [s]."""

    bandwidth_bytes_per_s: float = 25e9  # 200 Gb/s
    latency_s: float = 0.005

    def time_s(self, prompt_tokens: float, kv_bytes_per_token: float) -> float:
        """Return the transfer time of one prompt [s]."""
        return kv_bytes_per_token * prompt_tokens / self.bandwidth_bytes_per_s + self.latency_s


@dataclass(frozen=True, slots=True)
class Topology:
    """Where in the network a service may be.

    Attributes
    ----------
    highest_tier
        Prefill and decode stay under one HyperNode of at most this tier; None: anywhere.
    is_elastic
        Whether a cluster autoscaler adds nodes for pods that fit nowhere.
    node_startup_s
        How long that takes [s].
    """

    highest_tier: int | None = None
    is_elastic: bool = False
    node_startup_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Service:
    """One autoscaled model: what is wanted of it and what it may use."""

    key: ServiceKey
    sla: Sla
    pools: tuple[Pool, ...]
    mode: Mode = Mode.RECOMMEND
    interval_s: float = 60.0
    source: str = "vllm"
    selector: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits()
    fallback: Fallback | None = None
    predictor: str = "Kalman"
    up_quantile: float = 0.65
    keep_quantile: float = 0.9
    sizing: Sizing = Sizing.DISTRIBUTION
    caution: float = 1.0
    transfer: Transfer = Transfer()
    topology: Topology = Topology()

    def pools_of(self, role: Role) -> tuple[Pool, ...]:
        """Return the pools of one role in the order of the spec."""
        return tuple(pool for pool in self.pools if pool.role is role)

    def pool(self, name: str) -> Pool:
        """Return the pool of that name."""
        return next(pool for pool in self.pools if pool.name == name)


# ── what was read ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Histogram:
    """A Prometheus histogram as it stands: cumulative counts at the upper bounds, and the sum.

    `upper_bounds` ends with +Inf and may hold nothing else (a summary: sum and count alone).
    """

    upper_bounds: tuple[float, ...]
    cumulative: tuple[float, ...]
    sum: float

    @property
    def count(self) -> float:
        """Number of entries."""
        return self.cumulative[-1] if self.cumulative else 0.0

    def since(self, earlier: Histogram | None) -> Histogram:
        """Return the entries added since `earlier`; after a counter reset, all of them."""
        if earlier is None or earlier.upper_bounds != self.upper_bounds:
            return self
        counts = tuple(map(sub, self.cumulative, earlier.cumulative))
        if min(counts, default=0.0) < 0.0:
            return self
        return Histogram(self.upper_bounds, counts, max(self.sum - earlier.sum, 0.0))

    def plus(self, other: Histogram) -> Histogram:
        """Return both together; bounds that differ keep only sum and count."""
        total = self.sum + other.sum
        if self.upper_bounds != other.upper_bounds:
            return Histogram((math.inf,), (self.count + other.count,), total)
        counts = tuple(map(add, self.cumulative, other.cumulative))
        return Histogram(self.upper_bounds, counts, total)

    @property
    def mean(self) -> float | None:
        """Mean of the entries, None without any."""
        return self.sum / self.count if self.count > 0 else None

    def times(self, factor: float) -> Histogram:
        """Return the same shape with `factor` times the entries."""
        counts = tuple(c * factor for c in self.cumulative)
        return Histogram(self.upper_bounds, counts, self.sum * factor)


@dataclass(frozen=True, slots=True)
class PodSample:
    """One pod's (or gateway's) cumulative metrics at its last scrape `at_s`.

    `trail` holds (time [s], finished or arrived requests so far) of every scrape in the window,
    oldest first: the only view below the interval, used for the dispersion of arrivals.
    """

    pod: str
    at_s: float
    counters: Mapping[Signal, float] = field(default_factory=dict)
    histograms: Mapping[Signal, Histogram] = field(default_factory=dict)
    gauges: Mapping[Signal, float] = field(default_factory=dict)
    trail: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """What the metrics source knew of one service at `at_s`, by pool name; raw and cumulative."""

    at_s: float
    pools: Mapping[str, tuple[PodSample, ...]]
    gateway: PodSample | None = None


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of a pool; `ready_s` is None until it serves.

    Attributes
    ----------
    index
        Its place in the order in which the target removes pods, highest first; None where the
        target does not say.
    node
        Where it is, None while it waits for a node.
    unschedulable
        Why the scheduler found no node for it, in the scheduler's words; None where it did or
        has not said.
    drain_until_s
        Until when it is marked as leaving [s, Unix], None if it is not.
    ip
        Its address in the cluster, None before it has one.
    """

    name: str
    created_s: float
    ready_s: float | None = None
    terminating: bool = False
    index: int | None = None
    node: str | None = None
    unschedulable: str | None = None
    drain_until_s: float | None = None
    ip: str | None = None


@dataclass(frozen=True, slots=True)
class PoolFleet:
    """Pods asked of the target, and those that exist.

    Attributes
    ----------
    is_listed
        Whether `pods` are all there are; without it none are known, and what is asked for counts.
    uid
        Which object it is: a new one of the same name is another target. None: not known.
    shape
        What one pod asks of a node, None where nodes are not known.
    pinned_tier
        Highest tier that the scheduler keeps the target's pods under, None if it does not.
    changed_by
        Who wrote the replicas last, None if it is not known or was this planner.
    """

    replicas: int
    pods: tuple[Pod, ...] = ()
    uid: str | None = None
    shape: PodShape | None = None
    pinned_tier: int | None = None
    changed_by: str | None = None
    is_listed: bool = False

    def ready(self, pods_per_replica: int = 1) -> int:
        """Return the replicas that serve; without a list of pods, those asked for."""
        if not self.pods and not self.is_listed:
            return self.replicas // pods_per_replica
        serving = sum(1 for p in self.pods if p.ready_s is not None and not p.terminating)
        return serving // pods_per_replica


@dataclass(frozen=True, slots=True)
class Room:
    """How many replicas of a pool fit (those that run and those that still find a node).

    `why` says in words what bounds them.
    """

    replicas: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class Fleet:
    """All pools of a service as the cluster shows them at `at_s`.

    Attributes
    ----------
    rooms
        Caps each pool by what its domain still holds; a pool that is absent is not capped.
    domains
        By pool name the network domain its pods must be in; absent or None: any.
    transfer
        How KV caches move between the pools where they really are, None if that is not known.
    notes
        What the network of the cluster does to this service, for the decision to tell.
    """

    at_s: float
    pools: Mapping[str, PoolFleet]
    rooms: Mapping[str, Room] = field(default_factory=dict)
    domains: Mapping[str, str | None] = field(default_factory=dict)
    transfer: Transfer | None = None
    notes: tuple[Reason, ...] = ()

    @property
    def room_replicas(self) -> dict[str, int]:
        """Replicas that fit, by name of the pools that are capped."""
        return {name: room.replicas for name, room in self.rooms.items()}


# ── what is believed ─────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a decision is not simply what was wanted; `values` carries its numbers."""

    code: str
    message: str
    pool: str | None = None
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hold:
    """Not enough evidence: keep what runs."""

    reason: Reason
    since_s: float | None = None


@dataclass(frozen=True, slots=True)
class LengthMix:
    """Prompt lengths as weighted points and output lengths as two moments.

    Attributes
    ----------
    isl_tokens, isl_weights
        Points of the prompt-length distribution [tokens] and their shares (sum 1).
    osl_mean_tokens, osl_cv2
        Mean output length [tokens] and its squared coefficient of variation.
    """

    isl_tokens: tuple[float, ...]
    isl_weights: tuple[float, ...]
    osl_mean_tokens: float
    osl_cv2: float

    @property
    def isl_mean_tokens(self) -> float:
        """Mean prompt length [tokens]."""
        return sum(t * w for t, w in zip(self.isl_tokens, self.isl_weights, strict=True))

    @property
    def context_tokens(self) -> float:
        """Mean context of a sequence in flight [tokens], length-biased (sizing §3)."""
        return self.isl_mean_tokens + 0.5 * self.osl_mean_tokens * (1.0 + self.osl_cv2)

    @property
    def context_sd_tokens(self) -> float:
        """Standard deviation of that context [tokens].

        Prompt and progress are taken as independent; progress of an output of one length is
        uniform, variance OSL² / 12, and outputs in flight are length-biased.
        """
        mean = self.isl_mean_tokens
        prompts = sum(
            w * (t - mean) ** 2 for t, w in zip(self.isl_tokens, self.isl_weights, strict=True)
        )
        progress = (self.osl_mean_tokens * (1.0 + self.osl_cv2)) ** 2 / 12.0
        return math.sqrt(prompts + progress)


@dataclass(frozen=True, slots=True)
class Attainment:
    """Share of requests within one target: a bound from below and one from above."""

    lower: float
    upper: float
    requests: float


@dataclass(frozen=True, slots=True)
class PoolObservation:
    """One pool over one interval.

    Attributes
    ----------
    pods
        Pods that were scraped.
    service_s
        Mean prefill time without waiting [s] or mean inter-token latency [s]; None if unknown.
    concurrency
        Mean running sequences a pod over the interval, by Little's law.
    concurrency_spread
        Variance over mean of running sequences over the pool's pods, None below three pods.
    waiting
        Requests waiting in the pool now.
    changed
        Whether pods came or went within the interval (start-up or drain).
    """

    pods: int
    service_s: float | None
    concurrency: float
    waiting: float
    changed: bool
    concurrency_spread: float | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """What the sample says about one interval ending at `at_s`, validated and finite.

    Attributes
    ----------
    span_s
        Time between the scrapes that were differenced [s].
    arrivals_rps, finished
        Requests/s demanded (queued ones included), and requests finished.
    uncached_ratio
        Share of prompt tokens that had to be computed.
    prompts, outputs
        Lengths [tokens] of what finished, None if unknown.
    ttft, itl
        Share of requests on target, as an interval: buckets rarely end at the target.
    handover_s
        Mean time from the end of prefill to the first token at the client [s].
    arrival_bins
        Width [s] and requests of the scrape intervals inside, oldest first.
    """

    at_s: float
    span_s: float
    arrivals_rps: float
    finished: float
    uncached_ratio: float
    pools: Mapping[str, PoolObservation]
    prompts: Histogram | None = None
    outputs: Histogram | None = None
    ttft_mean_s: float | None = None
    itl_mean_s: float | None = None
    ttft: Attainment | None = None
    itl: Attainment | None = None
    handover_s: float | None = None
    age_s: float = 0.0
    arrival_bins: tuple[float, tuple[float, ...]] = (0.0, ())


@dataclass(frozen=True, slots=True)
class Factor:
    """How much slower a pool is than its profile; 1 is a perfect profile.

    `slope` is the further error at full batch: the factor is ``level + slope · fill``, where
    fill is the profiled latency over its target (0 for prefill). Kept within `FACTOR_RANGE`.
    """

    level: float = 1.0
    slope: float = 0.0

    def at(self, fill: float) -> float:
        """Return the factor at one fill of the batch."""
        return min(max(self.level + self.slope * fill, FACTOR_RANGE[0]), FACTOR_RANGE[1])


@dataclass(frozen=True, slots=True)
class Factors:
    """Correction factors by pool name, and the pools whose correction is frozen now."""

    pools: Mapping[str, Factor] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()

    def of(self, pool: str) -> Factor:
        """Return the factor of a pool, 1 until something was seen."""
        return self.pools.get(pool, Factor())


@dataclass(frozen=True, slots=True)
class TokenLoad:
    """Tokens/s that one role must serve.

    Attributes
    ----------
    seen_tps
        The last observed value.
    mean_tps, up_tps
        Predicted mean, and quantile `Load.up_quantile`, over the time when an order made now
        serves.
    keep_tps
        Higher quantile from now until then, for which replicas are kept; None where the whole
        distribution is sized for: a higher price on failures keeps them there.
    fallback
        Whether the predictor was replaced by the last value.
    up_points
        The whole predictive distribution over the time when an order made now serves, as
        (tokens/s, probability); empty where the quantiles alone are sized for.
    """

    seen_tps: float
    mean_tps: float
    up_tps: float
    keep_tps: float | None = None
    fallback: bool = False
    up_points: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """What is coming, by role, with the shape that sizing needs.

    `dispersion` is the index of dispersion for counts at the time scales `scales_s` [s].
    """

    at_s: float
    tokens: Mapping[Role, TokenLoad]
    lengths: LengthMix
    uncached_ratio: float
    scales_s: tuple[float, ...]
    dispersion: tuple[float, ...]
    backlog_tokens: float = 0.0
    up_quantile: float | None = None
    handover_s: float | None = None


# ── what it needs and what is done ───────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """Replicas one pool needs.

    `wanted` is what the SLA needs without limits, `up` what an order now must reach within the
    limits, `keep` what must not be released (never below `up`).
    """

    wanted: int
    up: int
    keep: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What the forecast load needs, by pool, and what it is expected to give.

    Attributes
    ----------
    failure_shares
        Predicted share of failed requests by role, at `up`.
    reachable
        False when no number of replicas meets the SLA; then `best_ttft_s` and `best_itl_s` say
        what can be met and the plan is the best effort.
    """

    pools: Mapping[str, PoolPlan]
    failure_shares: Mapping[Role, float]
    reachable: bool = True
    best_ttft_s: float | None = None
    best_itl_s: float | None = None
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class PoolDecision:
    """One pool's replicas: recommended by the plan, desired after every limit, and what runs."""

    recommended: int
    desired: int
    current: int
    ready: int
    lead_s: float
    domain: str | None = None


@dataclass(frozen=True, slots=True)
class Patch:
    """What to write: nothing that stays as it is.

    Attributes
    ----------
    replicas
        Pods to ask of the target, by pool name.
    drain
        Pods to mark as leaving, by name, and until when they may still serve [s, Unix].
    keep
        Names of pods whose mark is taken off again.
    """

    replicas: Mapping[str, int] = field(default_factory=dict)
    drain: Mapping[str, float] = field(default_factory=dict)
    keep: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.replicas or self.drain or self.keep)


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of one tick; explains itself.

    `hold` is set when there was not enough evidence, and then `patch` is None except for the
    rise to the fallback.
    """

    at_s: float
    pools: Mapping[str, PoolDecision]
    reasons: tuple[Reason, ...] = ()
    hold: Hold | None = None
    observation: Observation | None = None
    factors: Factors | None = None
    load: Load | None = None
    plan: Plan | None = None
    patch: Patch | None = None
