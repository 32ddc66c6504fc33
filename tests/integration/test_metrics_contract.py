"""One contract for every `Metrics`: memory and a real Prometheus tell the same story.

Two services share one Prometheus for five minutes. Scrapes every 15 s:

- ``llama``: prefill-0 lives throughout; prefill-1 dies after 75 s; prefill-2 comes at 120 s.
  decode-0 restarts in place at 150 s (its counters begin anew).
- ``qwen`` (same pool names, in another namespace, with a gateway) begins at 60 s.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from planner.adapters.exposition import Line, lines, openmetrics_format
from planner.adapters.memory import MemoryMetrics
from planner.adapters.prometheus import PrometheusAccess, PrometheusMetrics
from planner.errors import MetricsError
from planner.model import (
    Histogram,
    PodSample,
    Pool,
    Role,
    Sample,
    Service,
    ServiceKey,
    Signal,
    Sla,
    Target,
)
from planner.ports import Metrics
from tests.integration.prometheus_server import backfill, prometheus

BASE_S = 1_790_000_000.0  # long ago: nothing here depends on today
SCRAPE_S = 15.0
LENGTHS = (100.0, 1000.0, math.inf)
LATENCIES = (0.025, 0.5, math.inf)


def job_pool(name: str, role: Role, job: str) -> Pool:
    return Pool(name, role, Target("batch.volcano.sh/v1alpha1", "Job", job, name))


def deployment_pool(name: str, role: Role) -> Pool:
    return Pool(name, role, Target("apps/v1", "Deployment", f"qwen-{name}"))


LLAMA = Service(
    ServiceKey("inference", "llama"),
    Sla(0.5, 0.03),
    (job_pool("prefill", Role.PREFILL, "llm"), job_pool("decode", Role.DECODE, "llm")),
    selector={"model_name": "llama"},
)
QWEN = Service(
    ServiceKey("other", "qwen"),
    Sla(0.5, 0.03),
    (deployment_pool("prefill", Role.PREFILL), deployment_pool("decode", Role.DECODE)),
    source="vllm-gateway",
    selector={"model_name": "qwen"},
)


def histogram(bounds: tuple[float, ...], count: float, mean: float) -> Histogram:
    """A third of the entries in the first bucket, two thirds up to the second."""
    cumulative = (float(count // 3), float(2 * count // 3), float(count))
    return Histogram(bounds, cumulative, count * mean)


def summary(count: float, mean: float) -> Histogram:
    return Histogram((math.inf,), (float(count),), count * mean)


def prefill(pod: str, at_s: float, requests: int) -> PodSample:
    return PodSample(
        pod,
        at_s,
        counters={Signal.COMPUTED_TOKENS: 700.0 * requests},
        histograms={
            Signal.PROMPT_TOKENS: histogram(LENGTHS, requests, 800.0),
            Signal.TTFT: histogram(LATENCIES, requests, 0.21),
            Signal.PREFILL_TIME: summary(requests, 0.13),
        },
        gauges={Signal.RUNNING: 1.0, Signal.WAITING: float(requests % 4)},
    )


def decode(pod: str, at_s: float, requests: int) -> PodSample:
    return PodSample(
        pod,
        at_s,
        counters={Signal.GENERATED_TOKENS: 230.5 * requests},
        histograms={
            Signal.OUTPUT_TOKENS: histogram(LENGTHS, requests, 230.5),
            Signal.ITL: histogram(LATENCIES, requests, 0.021),
            Signal.TOKEN_GAP: summary(229 * requests, 0.021),
            Signal.TTFT: summary(requests, 0.07),
        },
        gauges={Signal.RUNNING: 12.0, Signal.WAITING: 0.0, Signal.KV_USAGE: 0.43},
    )


def gateway(at_s: float, requests: int) -> PodSample:
    return PodSample(
        "epp-5f7d8-x2x9k",
        at_s,
        counters={Signal.ARRIVALS: float(requests)},
        histograms={Signal.TTFT: histogram(LATENCIES, requests, 0.3)},
        gauges={Signal.RUNNING: 9.0},
    )


Scrape = tuple[Service, dict[str, tuple[PodSample, ...]], PodSample | None, float]


def script() -> Iterator[Scrape]:
    # Requests of a pod grow by 10 a scrape.
    for tick in range(21):
        offset_s = SCRAPE_S * tick
        at_s = BASE_S + offset_s
        done = 10 * tick
        prefills = [prefill("llm-prefill-0", at_s, done + 5)]
        if offset_s <= 75:
            prefills.append(prefill("llm-prefill-1", at_s, done + 6))
        if offset_s >= 120:
            prefills.append(prefill("llm-prefill-2", at_s, done - 80))
        restarted = done - 100 if offset_s >= 150 else done + 50
        pods = {
            "prefill": tuple(prefills),
            "decode": (decode("llm-decode-0", at_s, restarted),),
        }
        yield LLAMA, pods, None, at_s
        if offset_s >= 60:
            pods = {
                "prefill": (prefill("qwen-prefill-6c5d-abcde", at_s, done + 7),),
                "decode": (decode("qwen-decode-7b9f-fghij", at_s, done + 8),),
            }
            yield QWEN, pods, gateway(at_s, 2 * done), at_s


def stored() -> MemoryMetrics:
    metrics = MemoryMetrics(SCRAPE_S)
    for service, pods, front, at_s in script():
        metrics.store(service.key, pods, front, at_s)
    return metrics


def exposed() -> list[Line]:
    return [line for service, pods, front, _ in script() for line in lines(service, pods, front)]


@pytest.fixture(scope="module")
def real_url(
    prometheus_binary: Path, promtool_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("prometheus")
    backfill(promtool_binary, folder, openmetrics_format(exposed()))
    with prometheus(prometheus_binary, folder) as server:
        yield server.url


@pytest.fixture(params=["memory", "prometheus"])
def metrics(request: pytest.FixtureRequest) -> Metrics:
    if request.param == "memory":
        return stored()
    url = request.getfixturevalue("real_url")
    return PrometheusMetrics(PrometheusAccess(url, scrape_interval_s=SCRAPE_S))


def read(metrics: Metrics, service: Service, offset_s: float) -> Sample:
    answer = metrics.read([LLAMA, QWEN], BASE_S + offset_s)[service.key]
    assert isinstance(answer, Sample), answer
    return answer


def pods(sample: Sample, pool: str) -> dict[str, float]:
    """Return the age of each pod's last scrape by pod name."""
    return {pod.pod: sample.at_s - pod.at_s for pod in sample.pools[pool]}


class TestOneRead:
    def test_shows_every_figure_of_a_pod_as_it_was_scraped(self, metrics: Metrics) -> None:
        sample = read(metrics, LLAMA, 61.0)
        found = sample.pools["prefill"][0]
        wanted = prefill("llm-prefill-0", BASE_S + 60, 45)
        assert (found.pod, found.at_s) == ("llm-prefill-0", BASE_S + 60)
        assert found.counters == wanted.counters
        assert found.gauges == wanted.gauges
        assert found.histograms == wanted.histograms
        found = sample.pools["decode"][0]
        wanted = decode("llm-decode-0", BASE_S + 60, 90)
        assert (found.counters, found.gauges) == (wanted.counters, wanted.gauges)
        assert found.histograms == wanted.histograms
        assert sample.gateway is None

    def test_shows_the_gateway_of_a_source_that_has_one(self, metrics: Metrics) -> None:
        found = read(metrics, QWEN, 240.0).gateway
        wanted = gateway(BASE_S + 240, 320)
        assert found is not None
        assert (found.pod, found.at_s) == (wanted.pod, wanted.at_s)
        assert (found.counters, found.gauges) == (wanted.counters, wanted.gauges)
        assert found.histograms == wanted.histograms
        assert found.trail[-1] == (BASE_S + 240, 320.0)

    def test_trails_every_scrape_of_the_window_with_its_own_time(self, metrics: Metrics) -> None:
        trail = read(metrics, LLAMA, 130.0).pools["decode"][0].trail
        assert trail == tuple((BASE_S + 15 * i, 10.0 * i + 50) for i in (5, 6, 7, 8))

    @pytest.mark.parametrize(
        ("offset_s", "ages"),
        [
            pytest.param(75.0, {"llm-prefill-0": 0, "llm-prefill-1": 0}, id="alive"),
            pytest.param(119.0, {"llm-prefill-0": 14, "llm-prefill-1": 44}, id="just dead"),
            pytest.param(
                134.9,
                {"llm-prefill-0": 14.9, "llm-prefill-1": 59.9, "llm-prefill-2": 14.9},
                id="last values at the end of the window",
            ),
            pytest.param(135.0, {"llm-prefill-0": 0, "llm-prefill-2": 0}, id="out of the window"),
        ],
    )
    def test_shows_a_dead_pod_as_long_as_its_last_scrape_is_in_the_window(
        self, metrics: Metrics, offset_s: float, ages: dict[str, float]
    ) -> None:
        sample = read(metrics, LLAMA, offset_s)
        assert pods(sample, "prefill") == pytest.approx(ages, abs=1e-3)

    def test_shows_a_reset_counter_as_it_stands(self, metrics: Metrics) -> None:
        found = read(metrics, LLAMA, 170.0).pools["decode"][0]
        assert found.histograms[Signal.OUTPUT_TOKENS].count == 10.0
        assert [count for _, count in found.trail] == [130.0, 140.0, 0.0, 10.0]

    def test_gives_each_service_its_own_pods(self, metrics: Metrics) -> None:
        assert set(pods(read(metrics, QWEN, 200.0), "prefill")) == {"qwen-prefill-6c5d-abcde"}
        assert set(pods(read(metrics, LLAMA, 200.0), "prefill")) == {
            "llm-prefill-0",
            "llm-prefill-2",
        }


class TestNothingToRead:
    @pytest.mark.parametrize("offset_s", [-1.0, 360.0], ids=["before", "long after"])
    def test_no_series_is_an_error_that_names_the_pool(
        self, metrics: Metrics, offset_s: float
    ) -> None:
        answer = metrics.read([LLAMA], BASE_S + offset_s)[LLAMA.key]
        assert isinstance(answer, MetricsError)
        assert "inference/llama: pool prefill has no series in the last 60 s" in str(answer)
        assert r"pod=~llm-prefill-\d+" in str(answer)

    def test_one_service_without_series_does_not_disturb_another(self, metrics: Metrics) -> None:
        answers = metrics.read([LLAMA, QWEN], BASE_S + 30)
        assert isinstance(answers[LLAMA.key], Sample)
        assert isinstance(answers[QWEN.key], MetricsError)

    def test_an_unknown_source_is_an_error_of_its_service(self, metrics: Metrics) -> None:
        strange = Service(LLAMA.key, LLAMA.sla, LLAMA.pools, source="abacus")
        answers = metrics.read([strange, QWEN], BASE_S + 120)
        assert "abacus is not known; legal are vllm" in str(answers[LLAMA.key])
        assert isinstance(answers[QWEN.key], Sample)

    def test_no_services_cost_nothing(self, metrics: Metrics) -> None:
        assert metrics.read([], BASE_S) == {}


class TestHistory:
    @pytest.mark.parametrize("service", [LLAMA, QWEN], ids=["llama", "qwen"])
    @pytest.mark.parametrize(
        ("start_s", "step_s"),
        [
            pytest.param(-30.0, 30.0, id="with the scrapes"),
            pytest.param(7.5, 60.0, id="between the scrapes"),
            pytest.param(0.123, 12.5, id="at odd times"),
            pytest.param(-1.0, 1.5, id="in several stretches"),
        ],
    )
    def test_replays_what_was_read(
        self, metrics: Metrics, service: Service, start_s: float, step_s: float
    ) -> None:
        start_s, end_s = BASE_S + start_s, BASE_S + 390
        history = metrics.history(service, start_s, end_s, step_s)
        assert len(history) == int((end_s - start_s) / step_s) + 1
        seen = 0
        for i, then in enumerate(history):
            now = metrics.read([service], start_s + i * step_s)[service.key]
            if isinstance(now, Sample):
                assert then == now
                seen += 1
            else:
                assert isinstance(then, MetricsError)
                assert str(then) == str(now)
        assert 0 < seen < len(history)

    def test_nothing_is_asked_of_an_empty_time(self, metrics: Metrics) -> None:
        assert list(metrics.history(LLAMA, BASE_S, BASE_S - 1, 60.0)) == []


def test_memory_and_prometheus_tell_the_same(real_url: str) -> None:
    memory = stored()
    real = PrometheusMetrics(PrometheusAccess(real_url, scrape_interval_s=SCRAPE_S))
    for offset_s in range(-10, 400, 7):
        wanted = memory.read([LLAMA, QWEN], BASE_S + offset_s)
        found = real.read([LLAMA, QWEN], BASE_S + offset_s)
        for key, sample in wanted.items():
            if isinstance(sample, Sample):
                assert found[key] == sample
            else:
                assert str(found[key]) == str(sample)
