"""Which services share a query, and what the queries say."""

import logging
from collections.abc import Mapping

import pytest

from planner.adapters.promql import batches
from planner.adapters.series import Exporter
from planner.model import Service, ServiceKey, Sla


def service(
    name: str, selector: Mapping[str, str] | None = None, interval_s: float = 60.0
) -> Service:
    own = {"model_name": name} if selector is None else selector
    return Service(ServiceKey("ns", name), Sla(0.5, 0.03), (), selector=own, interval_s=interval_s)


def test_services_with_the_same_labels_share_a_query() -> None:
    (batch,) = batches([service("a.1"), service("b")], 15.0)
    assert batch.matchers == r'model_name=~"a\\.1|b",namespace=~"|ns"'
    assert batch.values_query().startswith('last_over_time({__name__=~"vllm:')
    assert batch.values_query().endswith("[60000ms])")
    assert batch.trail_query(90.0) == (
        '{__name__=~"vllm:request_generation_tokens_count|vllm:request_prompt_tokens_count",'
        r'model_name=~"a\\.1|b",namespace=~"|ns"}[90000ms]'
    )


@pytest.mark.parametrize(
    ("services", "count"),
    [
        pytest.param([], 0, id="none"),
        pytest.param([service("a"), service("b", {"model": "b"})], 2, id="other label"),
        pytest.param([service("a"), service("b", {"model_name": "=~b.*"})], 2, id="expression"),
        pytest.param([service("a"), service("b", interval_s=120.0)], 2, id="other window"),
        pytest.param([service("a"), service("b", interval_s=10.0)], 2, id="short interval"),
        pytest.param([service("a", {}), service("b", {})], 1, id="no labels at all"),
        pytest.param([service("m" * 40 + str(i)) for i in range(100)], 2, id="long"),
    ],
)
def test_a_batch_is_what_can_be_asked_at_once(services: list[Service], count: int) -> None:
    found = batches(services, 15.0)
    assert len(found) == count
    assert sorted(s.key for batch in found for s in batch.services) == sorted(
        s.key for s in services
    )


def test_a_window_spans_two_scrapes_at_least() -> None:
    (batch,) = batches([service("a", interval_s=5.0)], 15.0)
    assert batch.window_s == 30.0


def test_an_expression_is_asked_for_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    alone, _ = batches([service("a", {"model_name": '=~a"|\\d'}), service("b")], 15.0)
    assert alone.matchers.startswith(r'model_name=~"a\"|\\d",')
    assert "ns/a costs queries of its own" in caplog.text


def test_a_namespace_of_the_selector_stands() -> None:
    (batch,) = batches([service("a", {"namespace": "elsewhere"})], 15.0)
    assert batch.matchers == 'namespace="elsewhere"'


def test_exporters_go_to_the_services_that_select_them() -> None:
    first, second = service("a", {"m": "1", "n": "1"}), service("b", {"n": "2", "m": "2"})
    (batch,) = batches([first, second], 15.0)
    # The union of values asks for crosses, too: they belong to nobody.
    mine, cross = Exporter({"m": "1", "n": "1", "x": "y"}), Exporter({"m": "1", "n": "2"})
    assert batch.share([mine, cross]) == [(first, [mine]), (second, [])]
