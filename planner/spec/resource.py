"""The user's API: PDAutoscaler (pydantic). Pure.

One source for YAML files, the CRD (`spec.crd`) and the reference page (`planner.reference`).
What no field can check alone is checked by `spec.contradictions`.
"""

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from planner.model import Mode, Statistic
from planner.spec.behavior import BehaviorSpec
from planner.spec.contradictions import (
    fallback_faults,
    floor_faults,
    raise_faults,
    ratio_faults,
    zero_faults,
)
from planner.spec.pools import Name, PoolSpecs, Price, ProbeSpec, Replicas, Selector
from planner.spec.quantities import decimal, duration, percent
from planner.spec.status import SPEC_CONFIG, PDAutoscalerStatus, Whole

API_VERSION: Final = "pd-planner.io/v1alpha1"
KIND: Final = "PDAutoscaler"

Ratio = Annotated[float, decimal(is_open=True)]


class Metadata(BaseModel):
    """Which object this is; what else Kubernetes keeps here is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    name: Name
    """Name of the service."""

    namespace: Name = "default"
    """Namespace of the service and of its scale targets."""


class ScopeSpec(BaseModel):
    """Which requests the SLA speaks of."""

    model_config = SPEC_CONFIG

    max_input_tokens: Annotated[Whole | None, Field(ge=1)] = None
    """Longest prompt that is promised anything [tokens]; longer ones are not counted. Absent: all
    prompts are."""


class SlaSpec(BaseModel):
    """What is promised to how many requests."""

    model_config = SPEC_CONFIG

    attainment_ratio: Annotated[
        float, percent("50%", "100%", is_open=True), Field(alias="attainment")
    ] = 0.99
    """At least this share of all requests meets both targets."""

    statistic: Statistic = Statistic.ATTAINMENT
    """`Attainment`: the targets hold for that share of requests. `Mean`: they hold for the mean
    latencies, and `attainment` is not used."""

    ttft_s: Annotated[float, duration("1ms", "10m"), Field(alias="ttft")]
    """Time to first token: arrival at the service to the first token at the client."""

    itl_s: Annotated[float, duration("100us", "1m"), Field(alias="itl")]
    """Inter-token latency of a request: (last token − first token) / (output tokens − 1)."""

    scope: ScopeSpec = ScopeSpec()
    """Which requests the SLA speaks of."""


class ForecastSpec(BaseModel):
    """How the load at the time when new replicas serve is predicted."""

    model_config = SPEC_CONFIG

    predictor: Literal["Kalman", "Arima", "Prophet", "LastValue"] = "Kalman"
    """Predictor of the load. `LastValue` expects no change; `Prophet` needs the extra
    `pd-planner[prophet]`."""

    caution: Annotated[float, decimal(0.05, 100)] = 1.0
    """How much more than by default a failed request weighs against the replicas that would have
    served it in time. More is safer and dearer: above 1 there are replicas for loads beyond all
    that was seen. Below 1 even the expected load is met to less than the attainment asked for; the
    default suits it."""


class MetricsSpec(BaseModel):
    """Where the metrics of the service come from."""

    model_config = SPEC_CONFIG

    source: Literal["vllm", "vllm-gateway"] = "vllm"
    """Which names the metrics have: `vllm` reads the engines' pods, `vllm-gateway` also the
    gateway, which alone knows the TTFT that the client sees."""

    selector: Selector = {}
    """Label matchers that are added to every query."""

    probe: ProbeSpec | None = None
    """Where every pod shows its metrics: between two decisions pods are asked every 5 s, and a
    queue that grows is answered at once. `{}` is port 8000 and `/metrics`. Absent: Prometheus is
    asked as often as it scrapes, which sees a queue later."""


class FallbackSpec(BaseModel):
    """Replicas to rise to, never to fall to, when metrics are gone."""

    model_config = SPEC_CONFIG

    after_s: Annotated[float, duration("10s", "24h"), Field(alias="after")] = 600.0
    """How long metrics must have been gone."""

    prefill: Replicas
    """Replicas of all prefill pools together, filled in the order of the spec."""

    decode: Replicas
    """Replicas of all decode pools together, filled in the order of the spec."""


class RatioSpec(BaseModel):
    """Bounds of prefill replicas over decode replicas."""

    model_config = SPEC_CONFIG

    min: Ratio | None = None
    """Lower bound."""

    max: Ratio | None = None
    """Upper bound."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        raise_faults(ratio_faults(self))
        return self


class LimitsSpec(BaseModel):
    """Ceilings over all pools of the service."""

    model_config = SPEC_CONFIG

    gpus: dict[str, Annotated[Whole, Field(ge=0)]] = {}
    """GPUs by GPU type; a type that is absent is not limited."""

    cost_per_hour: Price | None = None
    """Cost of all pools for an hour, in the currency of `gpuHourPrice`."""

    prefill_decode_ratio: RatioSpec = RatioSpec()
    """Bounds of prefill replicas over decode replicas."""


class TopologySpec(BaseModel):
    """Where in the network the pools may be."""

    model_config = SPEC_CONFIG

    highest_tier_allowed: Annotated[Whole | None, Field(ge=0, le=100)] = None
    """Prefill and decode stay under one HyperNode of at most this tier; absent: anywhere."""

    capacity: Literal["Existing", "Elastic"] = "Existing"
    """`Existing`: never ask for more than fits now. `Elastic`: a cluster autoscaler adds nodes."""


class PDAutoscalerSpec(BaseModel):
    """What is asked of the planner for one service."""

    model_config = SPEC_CONFIG

    mode: Mode = Mode.RECOMMEND
    """`Off`: do nothing. `Recommend`: decide and publish, never write to a scale target. `Act`:
    write too."""

    interval_s: Annotated[float, duration("5s", "10m"), Field(alias="interval")] = 60.0
    """Time between two decisions."""

    sla: SlaSpec
    """What is promised to the users."""

    forecast: ForecastSpec = ForecastSpec()
    """How the load is predicted."""

    metrics: MetricsSpec = MetricsSpec()
    """Where the metrics come from."""

    fallback: FallbackSpec | None = None
    """Replicas to rise to when metrics are gone."""

    behavior: BehaviorSpec = BehaviorSpec()
    """Scaling behaviour of every pool."""

    pools: PoolSpecs
    """What is scaled: at least one pool of each role."""

    limits: LimitsSpec = LimitsSpec()
    """Ceilings over all pools."""

    topology: TopologySpec = TopologySpec()
    """Where in the network the pools may be."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        raise_faults([*floor_faults(self), *fallback_faults(self), *zero_faults(self)])
        return self


class PDAutoscaler(BaseModel):
    """SLA-driven autoscaling of the prefill and decode pools of one service."""

    model_config = SPEC_CONFIG

    api_version: Literal["pd-planner.io/v1alpha1"]
    """Version of this API."""

    kind: Literal["PDAutoscaler"]
    """Kind of this object."""

    metadata: Metadata
    """Which object this is."""

    spec: PDAutoscalerSpec
    """What is asked of the planner."""

    status: PDAutoscalerStatus | None = None
    """What the planner saw and decided last; ignored in files."""
