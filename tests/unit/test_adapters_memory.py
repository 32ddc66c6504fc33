"""What memory adds to the contract: faults on demand, light scrapes, retention, a cluster."""

import math
from dataclasses import replace

import pytest

from planner.adapters.memory import MemoryCluster, MemoryMetrics
from planner.errors import ClusterError, MetricsError
from planner.model import (
    Fleet,
    Histogram,
    Patch,
    Pod,
    PodSample,
    Pool,
    PoolFleet,
    Role,
    Sample,
    Service,
    ServiceKey,
    Signal,
    Sla,
    Target,
)

SERVICE = Service(
    ServiceKey("ns", "llm"),
    Sla(0.5, 0.03),
    tuple(Pool(role, role, Target("apps/v1", "StatefulSet", role)) for role in Role),
)
KEY = SERVICE.key


def pod(name: str, role: Role, requests: float) -> PodSample:
    signal = Signal.PROMPT_TOKENS if role is Role.PREFILL else Signal.OUTPUT_TOKENS
    lengths = Histogram((100.0, math.inf), (0.0, requests), 500.0 * requests)
    return PodSample(name, 0.0, histograms={signal: lengths})


def scrape(requests: float) -> dict[str, tuple[PodSample, ...]]:
    return {role: (pod(f"{role}-0", role, requests),) for role in Role}


def filled(until_s: int = 120, **limits: float) -> MemoryMetrics:
    metrics = MemoryMetrics(15.0, **limits)
    for at_s in range(0, until_s + 1, 15):
        metrics.store(KEY, scrape(at_s / 15), None, float(at_s))
    return metrics


def read(metrics: MemoryMetrics, now_s: float, service: Service = SERVICE) -> Sample:
    found = metrics.read([service], now_s)[service.key]
    assert isinstance(found, Sample), found
    return found


class TestMetrics:
    def test_shows_the_last_scrape_not_the_present(self) -> None:
        (found,) = read(filled(), 119.0).pools["prefill"]
        assert found.at_s == 105.0
        assert found.trail == ((60.0, 4.0), (75.0, 5.0), (90.0, 6.0), (105.0, 7.0))

    def test_a_light_scrape_is_a_point_of_the_trail_alone(self) -> None:
        metrics = MemoryMetrics(15.0)
        counts = {role: {f"{role}-0": 5} for role in Role}
        metrics.store(KEY, scrape(4.0), None, 15.0)
        metrics.store_light(KEY, 30.0, counts)
        assert read(metrics, 31.0).pools["decode"][0].trail == ((15.0, 4.0),)
        metrics.store(KEY, scrape(6.0), None, 45.0)
        (found,) = read(metrics, 46.0).pools["decode"]
        assert found.trail == ((15.0, 4.0), (30.0, 5.0), (45.0, 6.0))
        assert found.histograms[Signal.OUTPUT_TOKENS].count == 6.0

    def test_scrapes_come_in_the_order_of_time(self) -> None:
        with pytest.raises(ValueError, match=r"a scrape at 120.0 s came after one at 120.0 s"):
            filled().store_light(KEY, 120.0, {})

    def test_a_service_no_one_scraped_is_an_error(self) -> None:
        other = replace(SERVICE, key=ServiceKey("ns", "other"))
        assert isinstance(filled().read([other], 120.0)[other.key], MetricsError)

    def test_a_figure_that_is_not_finite_is_an_error(self) -> None:
        metrics = filled()
        metrics.store(KEY, scrape(math.nan), None, 121.0)
        assert "not a finite number" in str(metrics.read([SERVICE], 122.0)[KEY])

    def test_a_pod_that_is_gone_is_forgotten_in_time(self) -> None:
        metrics = filled(900, retention_s=300.0)
        assert isinstance(metrics.history(SERVICE, 100.0, 100.0, 60.0)[0], MetricsError)
        assert isinstance(metrics.history(SERVICE, 700.0, 700.0, 60.0)[0], Sample)
        kept = metrics._series[KEY]["prefill", "prefill-0"].times
        assert kept[0] >= 900 - 300 - 300 / 4 - 15
        metrics.store(KEY, {"decode": scrape(1.0)["decode"]}, None, 1300.0)
        assert list(metrics._series[KEY]) == [("decode", "decode-0")]

    def test_a_failure_lasts_until_healed(self) -> None:
        metrics = filled()
        metrics.fail(KEY, MetricsError("on purpose"))
        assert str(metrics.read([SERVICE], 120.0)[KEY]) == "on purpose"
        assert str(metrics.history(SERVICE, 120.0, 120.0, 60.0)[0]) == "on purpose"
        metrics.fail(KEY, None)
        assert isinstance(metrics.read([SERVICE], 120.0)[KEY], Sample)

    def test_an_outage_hides_the_present_and_leaves_the_history(self) -> None:
        metrics = filled()
        metrics.outage(60.0, 90.0)
        answers = [metrics.read([SERVICE], now_s)[KEY] for now_s in (59.0, 60.0, 89.9, 90.0)]
        assert [isinstance(a, MetricsError) for a in answers] == [False, True, True, False]
        assert isinstance(metrics.history(SERVICE, 60.0, 60.0, 60.0)[0], Sample)


class TestCluster:
    def test_stands_in_for_a_cluster_with_the_counts_given(self) -> None:
        cluster = MemoryCluster({KEY: {"prefill": 4, "decode": 6}})
        fleet = cluster.fleets([SERVICE], 7.0)[KEY]
        assert fleet == Fleet(7.0, {"prefill": PoolFleet(4), "decode": PoolFleet(6)})
        assert isinstance(fleet, Fleet)
        assert fleet.pools["prefill"].ready() == 4

    def test_a_patch_changes_the_counts_and_tells(self) -> None:
        told: list[tuple[ServiceKey, dict[str, int], float]] = []
        cluster = MemoryCluster(
            {KEY: {"prefill": 4, "decode": 6}},
            pods=lambda _, pool: (Pod(f"{pool}-0", 1.0, 2.0),),
            applied=lambda service, patch, at_s: told.append((
                service.key,
                dict(patch.replicas),
                at_s,
            )),
            room_replicas={KEY: {"prefill": 5}},
        )
        cluster.apply(SERVICE, Patch({"decode": 8}), 60.0)
        assert told == [(KEY, {"decode": 8}, 60.0)]
        fleet = cluster.fleets([SERVICE], 61.0)[KEY]
        assert isinstance(fleet, Fleet)
        assert [fleet.pools[role].replicas for role in Role] == [4, 8]
        assert fleet.pools["decode"].pods == (Pod("decode-0", 1.0, 2.0),)
        assert fleet.room_replicas == {"prefill": 5}

    @pytest.mark.parametrize(
        ("replicas", "message"),
        [
            pytest.param({"decode": 8, "embed": 1}, "no scale target for pool embed", id="pool"),
            pytest.param({"decode": 8, "prefill": -1}, "replicas is -1, legal is ≥ 0", id="count"),
        ],
    )
    def test_a_refused_patch_changes_nothing(self, replicas: dict[str, int], message: str) -> None:
        cluster = MemoryCluster({KEY: {"prefill": 4, "decode": 6}})
        with pytest.raises(ClusterError, match=message):
            cluster.apply(SERVICE, Patch(replicas), 60.0)
        fleet = cluster.fleets([SERVICE], 61.0)[KEY]
        assert isinstance(fleet, Fleet)
        assert fleet.pools["decode"].replicas == 6

    def test_a_pool_without_a_count_is_an_error(self) -> None:
        found = MemoryCluster({KEY: {"prefill": 4}}).fleets([SERVICE], 0.0)[KEY]
        assert "no scale target for pool decode" in str(found)

    def test_a_failure_lasts_until_healed(self) -> None:
        cluster = MemoryCluster({KEY: {"prefill": 4, "decode": 6}})
        cluster.fail(KEY, ClusterError("on purpose"))
        assert str(cluster.fleets([SERVICE], 0.0)[KEY]) == "on purpose"
        with pytest.raises(ClusterError, match="on purpose"):
            cluster.apply(SERVICE, Patch({"decode": 8}), 0.0)
        cluster.fail(KEY, None)
        assert isinstance(cluster.fleets([SERVICE], 0.0)[KEY], Fleet)


@pytest.mark.parametrize("module", ["memory", "sources", "targets", "exposition", "clock"])
def test_the_light_modules_import_nothing_heavy(module: str) -> None:
    import subprocess
    import sys

    code = (
        f"import sys, planner.adapters.{module}; "
        "print([m for m in ('pandas', 'requests', 'kubernetes', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
