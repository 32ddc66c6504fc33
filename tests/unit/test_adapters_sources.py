"""The metric maps against a whole scrape of a real vLLM 0.32 (tests/data/vllm_metrics.txt)."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from planner.adapters.series import Place, file_under, gather, sample_of
from planner.adapters.sources import SOURCES, SUFFIXES, Metric, Source, source_named
from planner.errors import SpecError
from planner.model import Pool, Role, Sample, Service, ServiceKey, Signal, Sla, Target

SCRAPE = Path(__file__).parent.parent / "data" / "vllm_metrics.txt"
NOW_S = 1_790_000_000.0
VLLM = SOURCES["vllm"]
TINY = Service(
    ServiceKey("default", "tiny"),
    Sla(0.5, 0.03),
    tuple(
        Pool(role, role, Target("apps/v1", "StatefulSet", "tiny"), selector={"pod": "tiny-0"})
        for role in Role
    ),
    selector={"model_name": "tiny"},
)


def scraped() -> Iterator[tuple[Mapping[str, str], float]]:
    for family in text_string_to_metric_families(SCRAPE.read_text(encoding="utf-8")):
        for row in family.samples:
            yield {"__name__": row.name, "pod": "tiny-0", **row.labels}, row.value


def placed(known: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[Place, float]]:
    for labels, value in scraped():
        if (place := file_under(VLLM, known, labels)) is not None:
            yield place, value


def sample() -> Sample:
    trails = ((place, [(NOW_S, value)]) for place, value in placed(VLLM.trail_series()))
    return sample_of(TINY, VLLM, gather(placed(VLLM.series()), trails), NOW_S, 60.0)


@pytest.mark.parametrize(
    "metric",
    [
        pytest.param(metric, id=f"{role}-{signal}")
        for role, scheme in VLLM.roles.items()
        for signal, metric in scheme.metrics.items()
    ],
)
def test_vllm_exposes_the_first_name_of_every_metric(metric: Metric) -> None:
    family = metric.families[0]
    wanted = {family.name + suffix for suffix in SUFFIXES[metric.kind]}
    exposed = {
        labels["__name__"]
        for labels, _ in scraped()
        if all(labels.get(name) == value for name, value in family.matchers.items())
    }
    assert wanted <= exposed


def test_a_real_scrape_reads_as_it_says() -> None:
    found = sample()
    (prefill,), (decode,) = found.pools["prefill"], found.pools["decode"]
    assert prefill.trail == decode.trail == ((NOW_S, 86.0),)
    assert prefill.counters == {Signal.COMPUTED_TOKENS: 84430.0}
    assert decode.counters == {Signal.GENERATED_TOKENS: 2808.0}
    prompts = prefill.histograms[Signal.PROMPT_TOKENS]
    assert (prompts.count, prompts.sum) == (86.0, 84430.0)
    assert prompts.upper_bounds[:3] == (1.0, 2.0, 5.0)
    assert prefill.histograms[Signal.PREFILL_TIME].mean == pytest.approx(88.22980295600064 / 86)
    gap = decode.histograms[Signal.TOKEN_GAP]
    assert (gap.count, gap.sum) == (2722.0, 137.97120029200028)
    assert len(gap.upper_bounds) == 1
    assert len(decode.histograms[Signal.ITL].upper_bounds) == 20
    assert decode.gauges[Signal.KV_USAGE] == 0.0


@pytest.mark.parametrize("role", list(Role))
def test_every_signal_of_a_role_is_there(role: Role) -> None:
    (pod,) = sample().pools[role]
    seen = {*pod.counters, *pod.gauges, *pod.histograms}
    assert seen == set(VLLM.roles[role].metrics)


@pytest.mark.parametrize("source", SOURCES.values(), ids=lambda source: source.name)
def test_a_series_means_one_thing(source: Source) -> None:
    """One name has one set of matchers, however many signals use it."""
    for scheme in source.schemes():
        assert scheme.trail in scheme.metrics
        for metric in scheme.metrics.values():
            for family in metric.families:
                for suffix in SUFFIXES[metric.kind]:
                    known = source.series()[family.name + suffix]
                    assert known == family.matchers


def test_an_unknown_source_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SpecError, match=r"abacus is not known; legal are vllm, vllm-gateway"):
        source_named("abacus")
