"""How scenarios are made: from a file and a trace, or from a case that policies are compared on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from planner.comparison.runs import Scenario
from planner.errors import InputError
from planner.replay import first_plan, plant_config
from planner.simulation.cases import (
    DECODE,
    GPUS_PER_REPLICA,
    PREFILL,
    START_REPLICAS,
    WARMUP_S,
    Case,
    case_named,
    case_plant,
    case_profile,
    case_trace,
)
from planner.simulation.traces import Trace, scale_trace
from planner.spec.resource import PDAutoscaler
from planner.spec.service import DEFAULT_TRANSFER, LoadedService, build_service

# So many that no policy meets them within its sweep.
CASE_MAX_REPLICAS: Final = 200


@dataclass(frozen=True, slots=True, eq=False)
class FileRecipe:
    """A service of the user under a trace of the user; the plant stands on the same profile."""

    loaded: LoadedService
    requests: Trace
    scale: int
    seed: int
    start: Mapping[str, int] | None = None
    warmup: int = 10

    @property
    def name(self) -> str:
        """The trace and how many copies of it."""
        return self.requests.name if self.scale == 1 else f"{self.requests.name} x {self.scale}"

    def build(self) -> Scenario:
        """Return the scenario."""
        trace = scale_trace(self.requests, self.scale, self.seed)
        service = self.loaded.service
        start = dict(self.start) if self.start is not None else first_plan(service, trace)
        plant = plant_config(self.loaded, start, self.seed)
        from_s = self.warmup * service.interval_s
        return Scenario(trace, self.loaded, plant, start, from_s)


@dataclass(frozen=True, slots=True)
class CaseRecipe:
    """One of the cases; `until_s` cuts its trace short, `spec` holds settings of `spec.*`."""

    case: str
    seed: int
    profile_error: float = 0.0
    until_s: float | None = None

    @property
    def name(self) -> str:
        """The case, and how wrong its profile is."""
        return f"{self.case} {self.profile_error:+.0%}" if self.profile_error else self.case

    def build(self) -> Scenario:
        """Return the scenario."""
        case = case_named(self.case)
        trace = case_trace(case, self.seed)
        if self.until_s is not None:
            trace = cut(trace, self.until_s)
        start = {PREFILL: START_REPLICAS, DECODE: START_REPLICAS}
        loaded = case_service(case, self.profile_error)
        return Scenario(trace, loaded, case_plant(case, self.seed), start, WARMUP_S)


def case_service(case: Case, profile_error: float = 0.0) -> LoadedService:
    """Return the service of a case: every setting that the case does not fix is the default."""
    profile = case_profile(case, profile_error)
    document = {
        "apiVersion": "pd-planner.io/v1alpha1",
        "kind": "PDAutoscaler",
        "metadata": {"name": case.name.replace("_", "-"), "namespace": "default"},
        "spec": {
            "sla": {
                "attainment": f"{case.attainment:.1%}",
                "ttft": f"{case.ttft_s * 1e3:.0f}ms",
                "itl": f"{case.itl_s * 1e3:.0f}ms",
                "scope": {"maxInputTokens": case.isl_max_tokens},
            },
            "pools": [_pool(PREFILL, "Prefill", case), _pool(DECODE, "Decode", case)],
        },
    }
    spec = PDAutoscaler.model_validate(document)
    profiles = {PREFILL: profile, DECODE: profile}
    service = build_service(spec, profiles, DEFAULT_TRANSFER)
    return LoadedService(spec, service, profiles, f"case {case.name}")


def _pool(name: str, role: str, case: Case) -> dict[str, Any]:
    return {
        "name": name,
        "role": role,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "profile": {"file": "case.json"},
        "minReplicas": 1,
        "maxReplicas": CASE_MAX_REPLICAS,
        "gpusPerReplica": GPUS_PER_REPLICA,
        "gpuType": case.gpu,
        "startup": f"{case.lag_s:.0f}s",
    }


def cut(trace: Trace, until_s: float) -> Trace:
    """Return the requests that arrive before `until_s` [s]."""
    count = int(np.searchsorted(trace.arrival_s, until_s))
    return replace(
        trace,
        arrival_s=trace.arrival_s[:count],
        isl_tokens=trace.isl_tokens[:count],
        osl_tokens=trace.osl_tokens[:count],
        cached_tokens=trace.cached_tokens[:count],
    )


def require_length(requests: Trace, loaded: LoadedService, warmup: int) -> None:
    """Refuse a trace on which no order could ever serve.

    Raises
    ------
    InputError
        If the trace is not longer than the start-up lag, or than the warm-up.
    """
    service = loaded.service
    lag_s = max(pool.startup_s for pool in service.pools)
    if requests.duration_s <= lag_s:
        raise InputError(
            f"--trace: {requests.name} is {requests.duration_s:.0f} s long and a replica takes "
            f"{lag_s:.0f} s to start, so that no order would ever serve: give a trace longer "
            "than startup of the pools"
        )
    warm_s = warmup * service.interval_s
    if requests.duration_s <= warm_s:
        raise InputError(
            f"--warmup: {warmup} intervals of {service.interval_s:g} s leave nothing of "
            f"{requests.name}, {requests.duration_s:.0f} s long: give fewer, or a longer trace"
        )
