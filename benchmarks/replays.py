"""The example service on the traces that ship: what several benchmarks replay."""

from dataclasses import replace
from pathlib import Path

from planner.simulation.trace_files import open_trace
from planner.simulation.traces import Trace, clip, scale_trace
from planner.spec.service import LoadedService, load_services

SPEC = Path(__file__).parents[1] / "examples/llama-8b-h200.yaml"
# Scales at which the service needs twenty to fifty replicas.
TRACES = {"azure2023-conv": 60, "servegen-m-large-6h": 20}


def example(predictor: str | None = None) -> LoadedService:
    """Return the example service, with another predictor if one is named."""
    loaded = load_services([SPEC])[0]
    if predictor is None:
        return loaded
    return replace(loaded, service=replace(loaded.service, predictor=predictor))


def scaled(name: str, loaded: LoadedService) -> Trace:
    """Return a shipped trace at its scale, without prompts that the SLA leaves out."""
    trace, _ = clip(open_trace(name), loaded.service.sla.max_input_tokens or 10**9)
    return scale_trace(trace, TRACES[name])
