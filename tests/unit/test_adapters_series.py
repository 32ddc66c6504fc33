"""Series to pods: what is added up, what follows upon each other, and what is refused."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from planner.adapters.series import file_under, gather, matches, sample_of
from planner.adapters.sources import source_named
from planner.errors import MetricsError
from planner.model import Pool, Role, Sample, Service, ServiceKey, Signal, Sla, Target

NOW_S = 1000.0
PREFILL = Pool("prefill", Role.PREFILL, Target("apps/v1", "StatefulSet", "p"))
DECODE = Pool("decode", Role.DECODE, Target("apps/v1", "StatefulSet", "d"), min_replicas=0)
SERVICE = Service(ServiceKey("ns", "llm"), Sla(0.5, 0.03), (PREFILL, DECODE))

Series = tuple[Mapping[str, str], float]


def metric(name: str, value: float, **labels: str) -> Series:
    return {"__name__": name, "pod": "p-0", "namespace": "ns", **labels}, value


def requests(
    *trail: tuple[float, float], name: str = "vllm:request_prompt_tokens_count", **labels: str
) -> tuple[Mapping[str, str], Sequence[tuple[float, float]]]:
    return {"__name__": name, "pod": "p-0", "namespace": "ns", **labels}, trail


def prompts(count: float = 3.0, **labels: str) -> list[Series]:
    """The prompt lengths of one engine: a third below 100 tokens."""
    name = "vllm:request_prompt_tokens"
    return [
        metric(f"{name}_bucket", count / 3, le="100.0", **labels),
        metric(f"{name}_bucket", count, le="+Inf", **labels),
        metric(f"{name}_sum", count * 500, **labels),
    ]


def read(
    values: Sequence[Series],
    trails: Sequence[tuple[Mapping[str, str], Sequence[tuple[float, float]]]],
    service: Service = SERVICE,
) -> Sample:
    source = source_named(service.source)
    value_names, trail_names = source.series(), source.trail_series()
    filed = [(file_under(source, value_names, labels), value) for labels, value in values]
    paths = [(file_under(source, trail_names, labels), points) for labels, points in trails]
    exporters = gather(
        [(place, value) for place, value in filed if place is not None],
        [(place, points) for place, points in paths if place is not None],
    )
    return sample_of(service, source, exporters, NOW_S, 60.0)


def refusal(
    values: Sequence[Series],
    trails: Sequence[tuple[Mapping[str, str], Sequence[tuple[float, float]]]],
    service: Service = SERVICE,
) -> str:
    with pytest.raises(MetricsError) as refused:
        read(values, trails, service)
    return str(refused.value)


class TestAddingUp:
    def test_ranks_of_one_engine_are_one_pod(self) -> None:
        sample = read(
            [
                *prompts(3.0, engine="0"),
                *prompts(6.0, engine="1"),
                metric("vllm:num_requests_running", 4, engine="0"),
                metric("vllm:num_requests_running", 5, engine="1"),
            ],
            [
                requests((980.0, 2.0), (995.0, 3.0), engine="0"),
                requests((980.0, 5.0), (995.0, 6.0), engine="1"),
            ],
        )
        (pod,) = sample.pools["prefill"]
        assert pod.histograms[Signal.PROMPT_TOKENS].cumulative == (3.0, 9.0)
        assert pod.histograms[Signal.PROMPT_TOKENS].sum == 4500.0
        assert pod.gauges == {Signal.RUNNING: 9.0}
        assert pod.trail == ((980.0, 7.0), (995.0, 9.0))

    def test_a_share_is_averaged_over_ranks(self) -> None:
        usage = [
            metric("vllm:kv_cache_usage_perc", share, pod="d-0", engine=engine)
            for engine, share in (("0", 0.2), ("1", 0.8))
        ]
        trail = [
            requests((995.0, 1.0), pod="d-0", engine=engine, name=NAME) for engine in ("0", "1")
        ]
        sample = read([*prompts(), *usage], [requests((995.0, 3.0)), *trail])
        assert sample.pools["decode"][0].gauges == {Signal.KV_USAGE: pytest.approx(0.5)}

    def test_only_the_series_meant_counts(self) -> None:
        name = "vllm:prompt_tokens_by_source_total"
        sample = read(
            [
                *prompts(),
                metric(name, 700, source="local_compute"),
                metric(name, 300, source="local_cache_hit"),
                metric("vllm:prompt_tokens_total", 1000),
            ],
            [requests((995.0, 3.0))],
        )
        assert sample.pools["prefill"][0].counters == {Signal.COMPUTED_TOKENS: 700.0}

    def test_each_pod_is_read_by_the_names_it_has(self) -> None:
        sample = read(
            [
                *prompts(pod="p-0"),
                *prompts(pod="p-1"),
                metric("vllm:prompt_tokens_total", 900, pod="p-0"),
                metric(
                    "vllm:prompt_tokens_by_source_total", 700, pod="p-1", source="local_compute"
                ),
                metric("vllm:prompt_tokens_total", 1000, pod="p-1"),
            ],
            [requests((995.0, 3.0), pod="p-0"), requests((995.0, 3.0), pod="p-1")],
        )
        computed = [pod.counters[Signal.COMPUTED_TOKENS] for pod in sample.pools["prefill"]]
        assert computed == [900.0, 700.0]

    def test_a_signal_that_is_not_exposed_is_left_out(self) -> None:
        (pod,) = read(prompts(), [requests((995.0, 3.0))]).pools["prefill"]
        assert set(pod.histograms) == {Signal.PROMPT_TOKENS}
        assert pod.counters == pod.gauges == {}


NAME = "vllm:request_generation_tokens_count"


class TestPodsOverTime:
    def test_a_pod_made_again_under_its_name_speaks_for_itself(self) -> None:
        sample = read(
            [*prompts(90.0, instance="10.0.0.1:8000"), *prompts(3.0, instance="10.0.0.2:8000")],
            [
                requests((950.0, 80.0), (965.0, 90.0), instance="10.0.0.1:8000"),
                requests((980.0, 0.0), (995.0, 3.0), instance="10.0.0.2:8000"),
            ],
        )
        (pod,) = sample.pools["prefill"]
        assert pod.histograms[Signal.PROMPT_TOKENS].count == 3.0
        assert pod.trail == ((950.0, 80.0), (965.0, 90.0), (980.0, 0.0), (995.0, 3.0))

    def test_a_scrape_between_the_two_queries_is_left_for_the_next_read(self) -> None:
        sample = read(prompts(3.0), [requests((980.0, 3.0), (995.0, 9.0))])
        (pod,) = sample.pools["prefill"]
        assert (pod.at_s, pod.trail) == (980.0, ((980.0, 3.0),))

    def test_a_pod_first_scraped_between_the_two_queries_is_not_seen_yet(self) -> None:
        sample = read(prompts(), [requests((995.0, 3.0)), requests((995.0, 0.0), pod="p-1")])
        assert [pod.pod for pod in sample.pools["prefill"]] == ["p-0"]

    @pytest.mark.parametrize(
        ("at_s", "seen"), [(940.0, 0), (940.001, 1)], ids=["at the edge", "within"]
    )
    def test_the_window_is_open_to_the_past(self, at_s: float, seen: int) -> None:
        sample = read(
            [*prompts(), *prompts(pod="p-1")],
            [requests((995.0, 3.0)), requests((at_s, 3.0), pod="p-1")],
        )
        assert len(sample.pools["prefill"]) == 1 + seen


class TestRefusal:
    def test_a_pod_scraped_twice_is_named_with_the_label(self) -> None:
        said = refusal(
            [*prompts(job="pods"), *prompts(job="annotations")],
            [
                requests((980.0, 2.0), (995.0, 3.0), job="pods"),
                requests((990.0, 3.0), job="annotations"),
            ],
        )
        assert said.startswith("ns/llm: pod p-0: label job splits vllm:request_prompt_tokens")

    def test_a_new_label_on_one_metric_is_named(self) -> None:
        running = metric("vllm:num_requests_running", 4, tenant="a")
        said = refusal([*prompts(), running], [requests((995.0, 3.0))])
        assert "pod p-0: label tenant splits vllm:num_requests_running" in said

    def test_a_pod_without_the_request_counter_is_named(self) -> None:
        said = refusal([metric("vllm:num_requests_running", 4)], [])
        assert said == "ns/llm: pod p-0 does not expose vllm:request_prompt_tokens_count"

    @pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
    def test_what_is_not_finite_is_named(self, value: float) -> None:
        running = metric("vllm:num_requests_running", value)
        said = refusal([*prompts(), running], [requests((995.0, 3.0))])
        assert said == f"ns/llm: prefill, pod p-0: running is {value}, not a finite number"

    @pytest.mark.parametrize(
        "bounds",
        [["100"], ["100", "many"], ["1", "1.0", "+Inf"], ["nan", "+Inf"]],
        ids=["open", "a word", "twice", "nan"],
    )
    def test_a_garbled_histogram_is_named(self, bounds: list[str]) -> None:
        name = "vllm:time_to_first_token_seconds"
        garbled = [metric(f"{name}_bucket", 1.0, le=le) for le in bounds]
        said = refusal([*prompts(), *garbled, metric(f"{name}_sum", 1.0)], [requests((995.0, 3.0))])
        assert f"pod p-0: {name}_bucket has the bounds {', '.join(bounds)}" in said

    def test_two_gateway_pods_are_not_added_up(self) -> None:
        service = replace(SERVICE, source="vllm-gateway")
        arrivals = "llm_d_epp_request_total"
        said = refusal(
            [*prompts(), *(metric(arrivals, 1.0, pod=pod) for pod in ("epp-a", "epp-b"))],
            [
                requests((995.0, 3.0)),
                *(requests((995.0, 1.0), name=arrivals, pod=pod) for pod in ("epp-a", "epp-b")),
            ],
            service,
        )
        assert said == "ns/llm: 2 gateway pods report (epp-a, epp-b), legal is 1; narrow selector"

    def test_a_missing_gateway_is_no_silence(self) -> None:
        service = replace(SERVICE, source="vllm-gateway")
        said = refusal(prompts(), [requests((995.0, 3.0))], service)
        assert "the gateway has no series in the last 60 s; looked for llm_d_epp_request" in said

    def test_a_pool_that_must_have_pods_may_not_be_empty(self) -> None:
        service = replace(SERVICE, pools=(PREFILL, replace(DECODE, min_replicas=1)))
        assert "pool decode has no series" in refusal(prompts(), [requests((995.0, 3.0))], service)

    def test_nothing_at_all_is_an_error_even_with_floors_of_zero(self) -> None:
        service = replace(SERVICE, pools=(replace(PREFILL, min_replicas=0), DECODE))
        assert "pool prefill has no series" in refusal([], [], service)


class TestMatching:
    def test_a_pool_with_a_floor_of_zero_may_be_empty(self) -> None:
        assert read(prompts(), [requests((995.0, 3.0))]).pools["decode"] == ()

    def test_another_namespace_is_another_service(self) -> None:
        assert "no series" in refusal(
            prompts(namespace="x"), [requests((995.0, 3.0), namespace="x")]
        )

    def test_series_without_a_namespace_are_taken(self) -> None:
        def bare(labels: Mapping[str, str]) -> Mapping[str, str]:
            return {name: value for name, value in labels.items() if name != "namespace"}

        labels, trail = requests((995.0, 3.0))
        sample = read([(bare(own), value) for own, value in prompts()], [(bare(labels), trail)])
        assert len(sample.pools["prefill"]) == 1

    def test_a_pools_selector_takes_the_place_of_pod_names(self) -> None:
        pool = replace(PREFILL, selector={"role": "=~pre.*"})
        service = replace(SERVICE, pools=(pool, DECODE))
        series = {"role": "prefill", "pod": "anything", "instance": "10.0.0.1:8000"}
        sample = read(prompts(**series), [requests((995.0, 3.0), **series)], service)
        assert [pod.pod for pod in sample.pools["prefill"]] == ["anything"]

    def test_without_a_pod_label_the_address_tells_pods_apart(self) -> None:
        service = replace(SERVICE, pools=(replace(PREFILL, selector={"role": "p"}), DECODE))
        series = {"role": "p", "pod": "", "instance": "10.0.0.1:8000"}
        sample = read(prompts(**series), [requests((995.0, 3.0), **series)], service)
        assert [pod.pod for pod in sample.pools["prefill"]] == ["10.0.0.1:8000"]

    @pytest.mark.parametrize(
        ("selector", "fits"),
        [
            ({}, True),
            ({"a": "x.y"}, True),
            ({"a": "x"}, False),
            ({"a": "=~x..*"}, True),
            ({"a": "=~x"}, False),  # anchored
            ({"b": ""}, True),
            ({"a": "x.y", "b": "z"}, False),
        ],
        ids=str,
    )
    def test_selectors(self, selector: Mapping[str, str], fits: bool) -> None:
        assert matches(selector, {"a": "x.y"}) is fits
