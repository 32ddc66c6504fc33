"""Samples as an engine's own page, read back by an independent parser."""

import math

import pytest
from prometheus_client.parser import text_string_to_metric_families

from planner.adapters.exposition import lines, openmetrics_format, text_format
from planner.model import (
    Histogram,
    PodSample,
    Pool,
    Role,
    Service,
    ServiceKey,
    Signal,
    Sla,
    Target,
)

POOL = Pool(
    "prefill", Role.PREFILL, Target("apps/v1", "StatefulSet", "p"), selector={"zone": "=~.*"}
)
SERVICE = Service(
    ServiceKey("ns", "llm"),
    Sla(0.5, 0.03),
    (POOL,),
    source="vllm-gateway",
    selector={"model_name": 'a"b\\c'},
)
POD = PodSample(
    "p-0",
    12.5,
    counters={Signal.COMPUTED_TOKENS: 0.1},
    histograms={
        Signal.TTFT: Histogram((0.025, math.inf), (1.0, 3.0), 0.3),
        Signal.PREFILL_TIME: Histogram((0.1, math.inf), (1.0, 3.0), 0.2),
    },
    gauges={Signal.RUNNING: 2.0},
)
GATEWAY = PodSample("epp-0", 12.5, counters={Signal.ARRIVALS: 7.0})


def test_a_page_reads_back_as_it_was() -> None:
    text = text_format(lines(SERVICE, {"prefill": (POD,)}, GATEWAY))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    ttft = families["vllm:time_to_first_token_seconds"]
    assert ttft.type == "histogram"
    assert [(s.name, s.labels.get("le"), s.value) for s in ttft.samples] == [
        ("vllm:time_to_first_token_seconds_bucket", "0.025", 1.0),
        ("vllm:time_to_first_token_seconds_bucket", "+Inf", 3.0),
        ("vllm:time_to_first_token_seconds_sum", None, 0.3),
        ("vllm:time_to_first_token_seconds_count", None, 3.0),
    ]
    prefill = families["vllm:request_prefill_time_seconds"].samples
    assert [s.name.rpartition("_")[2] for s in prefill] == ["sum", "count"]
    (computed,) = families["vllm:prompt_tokens_by_source"].samples
    assert computed.value == 0.1
    assert computed.labels == {
        "namespace": "ns",
        "model_name": 'a"b\\c',
        "pod": "p-0",
        "engine": "0",
        "source": "local_compute",
    }
    (arrivals,) = families["llm_d_epp_request"].samples
    assert arrivals.labels == {"namespace": "ns", "model_name": 'a"b\\c', "pod": "epp-0"}


@pytest.mark.parametrize(
    ("stamped", "ending"), [(True, " 2.0 12500"), (False, " 2.0")], ids=["stamped", "plain"]
)
def test_a_page_carries_times_when_asked(*, stamped: bool, ending: str) -> None:
    text = text_format(lines(SERVICE, {"prefill": (POD,)}), stamped=stamped)
    (running,) = (row for row in text.splitlines() if row.startswith("vllm:num_requests_running{"))
    assert running.endswith(ending)


def test_openmetrics_counts_time_in_seconds_and_ends() -> None:
    rows = openmetrics_format(lines(SERVICE, {}, GATEWAY)).splitlines()
    assert rows == [
        'llm_d_epp_request_total{namespace="ns",model_name="a\\"b\\\\c",pod="epp-0"} 7.0 12.500',
        "# EOF",
    ]


def test_a_source_without_a_gateway_shows_none() -> None:
    from dataclasses import replace

    assert lines(replace(SERVICE, source="vllm"), {}, GATEWAY) == []
