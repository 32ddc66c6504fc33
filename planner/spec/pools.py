"""The pools of a PDAutoscaler: what is scaled, and what one replica of it is (pydantic). Pure."""

import re
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from planner.model import Endpoint
from planner.spec.behavior import BehaviorSpec
from planner.spec.contradictions import (
    pool_faults,
    pools_faults,
    raise_faults,
    reference_faults,
    target_faults,
)
from planner.spec.quantities import decimal, duration
from planner.spec.status import SPEC_CONFIG, Whole, list_map

REPLICAS_MAX: Final = 10_000
"""No pool is larger; a typing error should not size a million replicas."""

Replicas = Annotated[Whole, Field(ge=0, le=REPLICAS_MAX)]
Name = Annotated[
    str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
]
Startup = Annotated[float, duration("1s", "2h")]
Price = Annotated[float, decimal(is_open=True)]
Text = Annotated[str, Field(min_length=1, max_length=253)]


def _label_names(selector: dict[str, str]) -> dict[str, str]:
    for name in selector:
        if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name):
            raise ValueError(
                f"{name!r} is no Prometheus label: write letters, digits and _, no digit first"
            )
    return selector


Selector = Annotated[dict[str, str], AfterValidator(_label_names)]


class ProbeSpec(BaseModel):
    """Where every pod shows its metrics at its own address, for the check between two decisions."""

    model_config = SPEC_CONFIG

    port: Annotated[Whole, Field(ge=1, le=65535)] = 8000
    """Port of the pod, not of a Service."""

    path: Annotated[str, Field(max_length=1024, pattern=r"^/[^\s?#]*$")] = "/metrics"
    """Path of the metrics."""

    def to_model(self) -> Endpoint:
        """Return the endpoint as a value of the loop."""
        return Endpoint(self.port, self.path)


class PoolMetricsSpec(BaseModel):
    """Which series belong to a pool."""

    model_config = SPEC_CONFIG

    selector: Selector = {}
    """Label matchers that narrow the pool's own series; default: the pods of its target."""

    probe: ProbeSpec | None = None
    """Where the pool's pods show their metrics; default: what the service says."""


class ScaleTargetRef(BaseModel):
    """The object whose replicas a pool is."""

    model_config = SPEC_CONFIG

    api_version: Text
    """API version of the object, such as `batch.volcano.sh/v1alpha1`."""

    kind: Text
    """Kind of the object, such as `Job`."""

    name: Name
    """Name of the object, in the namespace of the PDAutoscaler."""

    task: Text | None = None
    """The part of the object that is scaled, where it has several: a task of a Volcano Job."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        raise_faults(target_faults(self))
        return self


class ProfileRef(BaseModel):
    """Where the performance profile of a pool is; exactly one of the two."""

    model_config = SPEC_CONFIG

    config_map: Name | None = None
    """ConfigMap in the namespace of the PDAutoscaler, with the key `profile.json`."""

    file: Text | None = None
    """Path of a profile, relative to the file that names it; for the command line only."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        raise_faults(reference_faults(self))
        return self


class PoolSpec(BaseModel):
    """What is scaled: one role on one target with one profile."""

    model_config = SPEC_CONFIG

    name: Annotated[Name, Field(max_length=63)]
    """Name of the pool, unique within the service."""

    role: Literal["Prefill", "Decode"]
    """What the pool does for a request."""

    scale_target_ref: ScaleTargetRef
    """The object whose replicas the pool is."""

    metrics: PoolMetricsSpec = PoolMetricsSpec()
    """Which series belong to the pool."""

    profile: ProfileRef
    """Measured performance of one replica."""

    min_replicas: Replicas = 1
    """Floor; 0 lets the pool go when there is no traffic."""

    max_replicas: Annotated[Replicas, Field(ge=1)]
    """Ceiling."""

    pods_per_replica: Annotated[Whole, Field(ge=1, le=1024)] = 1
    """Pods of one replica: an engine that spans several pods scales in that step."""

    gpus_per_replica: Annotated[Whole | None, Field(ge=1, le=8192)] = None
    """GPUs of one replica; default: what the profile says, else 1."""

    gpu_type: Text = "gpu"
    """Name of the GPU type: `limits.gpus` counts by it."""

    gpu_hour_price: Price | None = None
    """Price of one GPU for an hour in any currency; without prices GPUs are counted."""

    startup_s: Annotated[Startup | None, Field(alias="startup")] = None
    """First guess of the time from a pod's creation to Ready, measured afterwards; default: what
    the profile says, else 60s."""

    drain_s: Annotated[float, duration("0s", "1h"), Field(alias="drain")] = 30.0
    """How long before its removal a pod is marked as leaving, so that routers send it nothing new
    and what it has can end; `0s` removes without a mark."""

    behavior: BehaviorSpec = BehaviorSpec()
    """Overrides the service's behaviour field by field."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        raise_faults(pool_faults(self))
        return self


PoolSpecs = Annotated[
    tuple[PoolSpec, ...],
    AfterValidator(pools_faults),
    Field(min_length=1, max_length=32, json_schema_extra=list_map("name")),
]
