"""The fleet as the metrics of the time show it."""

from planner.decision.history import fleet_of
from planner.errors import ClusterError, MetricsError
from planner.model import Role, Sample
from tests.builders import START_S, fleet, pod_sample, service

NOTHING = ClusterError("no pod was scraped yet")


def seen(**pools: tuple[float, ...]) -> Sample:
    """Return pods that were last scraped so many seconds ago."""
    return Sample(
        START_S,
        {
            name: tuple(
                pod_sample(f"{name}-{i}", START_S - ago_s, role=Role(name))
                for i, ago_s in enumerate(ages_s)
            )
            for name, ages_s in pools.items()
        },
    )


def test_pods_that_were_scraped_were_there_and_ready():
    found = fleet_of(service(), seen(prefill=(0.0, 12.0), decode=(3.0,)), START_S, NOTHING)
    assert {name: pool.replicas for name, pool in found.pools.items()} == {
        "prefill": 2,
        "decode": 1,
    }
    assert found.pools["prefill"].ready() == 2
    assert found.at_s == START_S


def test_pods_that_died_before_were_not():
    found = fleet_of(service(), seen(prefill=(0.0, 40.0), decode=(0.0,)), START_S, NOTHING)
    assert [pod.name for pod in found.pools["prefill"].pods] == ["prefill-0"]


def test_a_pool_that_was_not_scraped_was_empty():
    found = fleet_of(service(), seen(prefill=(0.0,)), START_S, fleet(decode=3))
    assert found.pools["decode"].replicas == 0


def test_a_gap_in_metrics_is_no_change_of_replicas():
    before = fleet(prefill=4, decode=7)
    assert fleet_of(service(), MetricsError("down"), START_S, before) is before
    assert fleet_of(service(), MetricsError("down"), START_S, NOTHING) is NOTHING
