"""The status of a PDAutoscaler, as `kubectl get pda -o yaml` shows it (pydantic). Pure."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from planner.spec.quantities import decimal, duration

SPEC_CONFIG: Final = ConfigDict(
    frozen=True,
    extra="forbid",
    use_attribute_docstrings=True,
    alias_generator=to_camel,
)
"""Values are frozen, keys are camelCase and an unknown key is a fault."""

Whole = Annotated[int, Field(strict=True)]
LeadTime = Annotated[float, duration("0s", "24h")]
Count = Annotated[Whole, Field(ge=0)]


def list_map(key: str) -> dict[str, object]:
    """Return the markers of a list whose entries Kubernetes merges by `key`."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


class Condition(BaseModel):
    """One metav1.Condition."""

    model_config = SPEC_CONFIG

    type: str
    """AbleToScale, ScalingActive, ScalingLimited, SLAReachable or MetricsAvailable."""

    status: Literal["True", "False", "Unknown"]
    """Whether the condition holds."""

    observed_generation: Count | None = None
    """Generation of the spec that this was found with."""

    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When `status` last changed, RFC 3339."""

    reason: str
    """The cause in one CamelCase word."""

    message: str
    """The cause in one sentence."""


class PoolStatus(BaseModel):
    """One pool as of the last decision."""

    model_config = SPEC_CONFIG

    name: str
    """Name of the pool in the spec."""

    recommended_replicas: Count
    """Replicas that the SLA needs, before limits and behaviour."""

    desired_replicas: Count
    """Replicas after limits and behaviour."""

    current_replicas: Count
    """Replicas that the scale target asks for."""

    ready_replicas: Count
    """Replicas that serve."""

    lead_time_s: Annotated[LeadTime | None, Field(alias="leadTime")] = None
    """Time from an order to a ready replica, as measured."""

    domain: str | None = None
    """HyperNode that the pool stays in."""


class Bounds(BaseModel):
    """A share known only to lie between two bounds."""

    model_config = SPEC_CONFIG

    lower: Annotated[float, decimal(0.0, 1.0)]
    """Bound from below, 0 to 1."""

    upper: Annotated[float, decimal(0.0, 1.0)]
    """Bound from above, 0 to 1."""


class AttainmentStatus(BaseModel):
    """Share of requests that met each target; histograms know it between two buckets."""

    model_config = SPEC_CONFIG

    ttft: Bounds
    """Share within `sla.ttft`."""

    itl: Bounds
    """Share within `sla.itl`."""

    window_s: Annotated[float, duration("1s", "168h"), Field(alias="window")]
    """The time that the shares are over."""


class PDAutoscalerStatus(BaseModel):
    """What the planner saw and decided last."""

    model_config = SPEC_CONFIG

    observed_generation: Count | None = None
    """Generation of the spec that was acted on."""

    conditions: Annotated[tuple[Condition, ...], Field(json_schema_extra=list_map("type"))] = ()
    """HPA's conditions with HPA's meaning, and SLAReachable and MetricsAvailable."""

    last_scale_time: Annotated[str | None, Field(json_schema_extra={"format": "date-time"})] = None
    """When a scale target was last written, RFC 3339."""

    pools: Annotated[tuple[PoolStatus, ...], Field(json_schema_extra=list_map("name"))] = ()
    """The pools."""

    attainment: AttainmentStatus | None = None
    """How well the SLA was met."""

    message: str | None = None
    """The last decision in one sentence."""
