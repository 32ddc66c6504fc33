"""What engines and gateways call their metrics, as data: a new engine is a new row. Pure.

The names were checked against scrapes of vLLM 0.32 and the sources of the llm-d router 0.10.
A prefill pod ends every request after one token, and a decode pod's time to first token is mostly
KV transfer: so each role has its own map, and nothing is added up over roles.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from planner.errors import SpecError
from planner.model import PodSample, Role, Signal


class Kind(StrEnum):
    """How a metric is exposed and how an engine's ranks add up."""

    HISTOGRAM = "histogram"
    SUMMARY = "summary"  # of a histogram, sum and count alone: a fraction of the series
    COUNTER = "counter"
    GAUGE = "gauge"
    RATIO = "ratio"  # a gauge of which the mean over ranks counts, not the sum


SUFFIXES: Mapping[Kind, tuple[str, ...]] = {
    Kind.HISTOGRAM: ("_bucket", "_sum"),  # the count is the +Inf bucket
    Kind.SUMMARY: ("_count", "_sum"),
    Kind.COUNTER: ("",),
    Kind.GAUGE: ("",),
    Kind.RATIO: ("",),
}


@dataclass(frozen=True, slots=True)
class Family:
    """One metric name, with the labels that pick the series meant."""

    name: str
    matchers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metric:
    """A signal's metric: the first family that a pod exposes counts (names change)."""

    kind: Kind
    families: tuple[Family, ...]

    def trail(self, family: Family) -> str:
        """Return the series that counts the entries of a family."""
        return family.name + ("_count" if self.kind in {Kind.HISTOGRAM, Kind.SUMMARY} else "")


@dataclass(frozen=True, slots=True)
class Scheme:
    """The metrics of one kind of pod; `trail` counts finished (a gateway: arrived) requests."""

    trail: Signal
    metrics: Mapping[Signal, Metric]

    def trail_series(self) -> tuple[str, ...]:
        """Return the names of the series that can tell the trail."""
        metric = self.metrics[self.trail]
        return tuple(metric.trail(family) for family in metric.families)

    def requests(self, sample: PodSample) -> float | None:
        """Return the requests that a sample has counted, None if it does not count them."""
        if self.trail in sample.histograms:
            return sample.histograms[self.trail].count
        return sample.counters.get(self.trail)


@dataclass(frozen=True, slots=True)
class Source:
    """A row: an engine by role, perhaps a gateway, and the labels that are summed away."""

    name: str
    roles: Mapping[Role, Scheme]
    gateway: Scheme | None = None
    sum_over: frozenset[str] = frozenset()

    def schemes(self) -> tuple[Scheme, ...]:
        """Return the maps of all roles and of the gateway."""
        gateway = () if self.gateway is None else (self.gateway,)
        return (*self.roles.values(), *gateway)

    def series(self) -> dict[str, Mapping[str, str]]:
        """Return the names of all series but the trails, with their matchers."""
        return dict(_series(self))

    def trail_series(self) -> dict[str, Mapping[str, str]]:
        """Return the names of the series that the trails need, with their matchers."""
        return {
            metric.trail(family): family.matchers
            for scheme in self.schemes()
            for metric in (scheme.metrics[scheme.trail],)
            for family in metric.families
        }


def _series(source: Source) -> Iterator[tuple[str, Mapping[str, str]]]:
    for scheme in source.schemes():
        for metric in scheme.metrics.values():
            for family in metric.families:
                for suffix in SUFFIXES[metric.kind]:
                    yield family.name + suffix, family.matchers


def _metric(kind: Kind, *families: str | Family) -> Metric:
    """Return a metric; names newest first."""
    return Metric(kind, tuple(Family(f) if isinstance(f, str) else f for f in families))


# vLLM 0.11 renamed the first, 0.12 dropped the old name of both.
_VLLM_TOKEN_GAP = ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds")
_VLLM_KV_USAGE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
# Streaming only: without streaming the first token comes with the last.
_EPP_TTFT = Family("llm_d_epp_request_ttft_seconds", {"streaming": "true"})

_VLLM_PREFILL = Scheme(
    Signal.PROMPT_TOKENS,
    {
        Signal.PROMPT_TOKENS: _metric(Kind.HISTOGRAM, "vllm:request_prompt_tokens"),
        Signal.COMPUTED_TOKENS: _metric(
            Kind.COUNTER,
            Family("vllm:prompt_tokens_by_source_total", {"source": "local_compute"}),
            "vllm:prompt_tokens_total",
        ),
        Signal.TTFT: _metric(Kind.HISTOGRAM, "vllm:time_to_first_token_seconds"),
        Signal.PREFILL_TIME: _metric(Kind.SUMMARY, "vllm:request_prefill_time_seconds"),
        Signal.RUNNING: _metric(Kind.GAUGE, "vllm:num_requests_running"),
        Signal.WAITING: _metric(Kind.GAUGE, "vllm:num_requests_waiting"),
    },
)

_VLLM_DECODE = Scheme(
    Signal.OUTPUT_TOKENS,
    {
        Signal.OUTPUT_TOKENS: _metric(Kind.HISTOGRAM, "vllm:request_generation_tokens"),
        Signal.GENERATED_TOKENS: _metric(Kind.COUNTER, "vllm:generation_tokens_total"),
        Signal.TOKEN_GAP: _metric(Kind.SUMMARY, *_VLLM_TOKEN_GAP),
        Signal.ITL: _metric(
            Kind.HISTOGRAM, "vllm:request_time_per_output_token_seconds", *_VLLM_TOKEN_GAP
        ),
        Signal.TTFT: _metric(Kind.SUMMARY, "vllm:time_to_first_token_seconds"),
        Signal.RUNNING: _metric(Kind.GAUGE, "vllm:num_requests_running"),
        Signal.WAITING: _metric(Kind.GAUGE, "vllm:num_requests_waiting"),
        Signal.KV_USAGE: _metric(Kind.RATIO, *_VLLM_KV_USAGE),
    },
)

# The second names are those of installations from before the router took its own prefix.
_EPP = Scheme(
    Signal.ARRIVALS,
    {
        Signal.ARRIVALS: _metric(
            Kind.COUNTER, "llm_d_epp_request_total", "inference_objective_request_total"
        ),
        Signal.PROMPT_TOKENS: _metric(
            Kind.HISTOGRAM, "llm_d_epp_request_input_tokens", "inference_objective_input_tokens"
        ),
        Signal.OUTPUT_TOKENS: _metric(
            Kind.HISTOGRAM, "llm_d_epp_request_output_tokens", "inference_objective_output_tokens"
        ),
        Signal.TTFT: _metric(Kind.HISTOGRAM, _EPP_TTFT, "inference_objective_request_ttft_seconds"),
        Signal.TOKEN_GAP: _metric(Kind.SUMMARY, "llm_d_epp_request_streaming_itl_seconds"),
        Signal.ITL: _metric(
            Kind.HISTOGRAM,
            "llm_d_epp_request_streaming_tpot_seconds",
            "inference_objective_request_tpot_seconds",
        ),
        Signal.RUNNING: _metric(
            Kind.GAUGE, "llm_d_epp_request_running", "inference_objective_running_requests"
        ),
    },
)

_VLLM_ROLES = {Role.PREFILL: _VLLM_PREFILL, Role.DECODE: _VLLM_DECODE}

SOURCES: Mapping[str, Source] = {
    row.name: row
    for row in (
        Source("vllm", _VLLM_ROLES, sum_over=frozenset({"engine"})),
        Source(
            "vllm-gateway",
            _VLLM_ROLES,
            gateway=_EPP,
            sum_over=frozenset({"engine", "fairness_id", "priority", "target_model_name"}),
        ),
    )
}


def source_named(name: str) -> Source:
    """Return the row of that name.

    Raises
    ------
    SpecError
        If there is none.
    """
    if name not in SOURCES:
        known = ", ".join(SOURCES)
        raise SpecError(f"metrics.source: {name} is not known; legal are {known}")
    return SOURCES[name]
