"""Many services: one read for all that are due, and none disturbs another."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from planner import supervisor as module
from planner.adapters.memory import MemoryCluster, MemoryMetrics
from planner.errors import ClusterError, MetricsError
from planner.model import Mode, Role, Sample, Service, ServiceKey, Target
from planner.record import TickRecord
from planner.supervisor import Supervisor
from tests.builders import START_S, pod_sample, pool, service

LLAMA = service(mode=Mode.ACT)
QWEN = service(
    key=ServiceKey("inference", "qwen"),
    interval_s=30.0,
    mode=Mode.ACT,
    pools=tuple(
        pool(role, target=Target("apps/v1", "Deployment", f"qwen-{role}")) for role in Role
    ),
)
ONE_EACH = {key: {"prefill": 1, "decode": 1} for key in (LLAMA.key, QWEN.key)}


class Counting(MemoryMetrics):
    """Memory that counts how it is asked, and answers only for the services it knows."""

    def __init__(self, known: Sequence[Service]) -> None:
        super().__init__(15.0, retention_s=1e9)
        self.known = {s.key for s in known}
        self.reads: list[list[ServiceKey]] = []
        self.spans: list[tuple[ServiceKey, float, float, float]] = []

    def read(
        self, services: Sequence[Service], now_s: float
    ) -> Mapping[ServiceKey, Sample | MetricsError]:
        self.reads.append([s.key for s in services])
        return super().read([s for s in services if s.key in self.known], now_s)

    def history(
        self, service: Service, start_s: float, end_s: float, step_s: float
    ) -> Sequence[Sample | MetricsError]:
        self.spans.append((service.key, start_s, end_s, step_s))
        return super().history(service, start_s, end_s, step_s)


class Listener:
    def __init__(self) -> None:
        self.records: list[TickRecord] = []

    def record(self, tick: TickRecord) -> None:
        self.records.append(tick)


def world(known: Sequence[Service] = (LLAMA, QWEN), rps: float = 60.0) -> Counting:
    """Return half an hour of a steady load on one pod a pool, and half an hour to come."""
    metrics = Counting(known)
    for k in range(-120, 120):
        at_s = START_S + 15.0 * k
        finished = rps * 15.0 * (k + 121)
        scrape = {role: (pod_sample(f"{role}-0", at_s, finished, role),) for role in Role}
        for asked in known:
            metrics.store(asked.key, scrape, None, at_s)
    return metrics


def supervisor(metrics: Counting, *, listeners: Sequence[Any] = ()) -> Supervisor:
    return Supervisor([LLAMA, QWEN], metrics, MemoryCluster(ONE_EACH), listeners)


def test_a_tick_reads_all_services_at_once():
    metrics, listener = world(), Listener()
    records = supervisor(metrics, listeners=[listener]).tick(START_S)
    assert metrics.reads == [[LLAMA.key, QWEN.key]]
    assert list(records) == [LLAMA.key, QWEN.key]
    assert listener.records == list(records.values())


def test_only_those_that_are_due_are_read():
    metrics = world()
    records = supervisor(metrics).tick(START_S, [QWEN])
    assert metrics.reads == [[QWEN.key]]
    assert list(records) == [QWEN.key]


def test_a_service_that_is_left_out_holds_and_the_others_go_on():
    both = supervisor(world([QWEN]))
    both.restore(START_S)
    records = both.tick(START_S)
    held = records[LLAMA.key].decision
    assert held.hold is not None
    assert "the metrics source left the service out" in held.hold.reason.message
    assert held.patch is None
    assert records[QWEN.key].decision.hold is None


def test_a_cluster_that_leaves_a_service_out_is_a_hold():
    class Forgetful(MemoryCluster):
        def fleets(self, services: Sequence[Service], now_s: float) -> Any:
            found = dict(super().fleets(services, now_s))
            del found[LLAMA.key]
            return found

    records = Supervisor([LLAMA, QWEN], world(), Forgetful(ONE_EACH)).tick(START_S)
    hold = records[LLAMA.key].decision.hold
    assert hold is not None
    assert hold.reason.code == "ClusterUnavailable"
    assert "the cluster left the service out" in hold.reason.message


def test_a_patch_that_is_refused_is_on_record_and_the_others_are_written():
    cluster = MemoryCluster(ONE_EACH)
    cluster.fail(LLAMA.key, None)
    both = Supervisor([LLAMA, QWEN], world(), Refusing(ONE_EACH, LLAMA.key))
    both.restore(START_S)
    records = both.tick(START_S)
    assert (records[LLAMA.key].applied, records[LLAMA.key].error) == (False, "spec is immutable")
    assert (records[QWEN.key].applied, records[QWEN.key].error) == (True, None)


class Refusing(MemoryCluster):
    """A cluster that writes nothing for one service."""

    def __init__(self, replicas: Any, refused: ServiceKey) -> None:
        super().__init__(replicas)
        self._refused = refused

    def apply(self, service: Service, patch: Any, now_s: float) -> None:
        if service.key == self._refused:
            raise ClusterError("spec is immutable")
        super().apply(service, patch, now_s)


def test_a_restart_replays_each_service_at_its_own_interval():
    metrics = world()
    replayed = supervisor(metrics).restore(START_S)
    assert metrics.spans == [
        (LLAMA.key, START_S - 240 * 60.0, START_S - 60.0, 60.0),
        (QWEN.key, START_S - 240 * 30.0, START_S - 30.0, 30.0),
    ]
    assert replayed == 480


def test_a_restart_goes_back_a_day_at_most(monkeypatch: pytest.MonkeyPatch):
    slow = service(interval_s=600.0)
    monkeypatch.setattr(module, "HISTORY_S", 6000.0)
    metrics = world([slow])
    assert Supervisor([slow], metrics, MemoryCluster(ONE_EACH)).restore(START_S) == 10


def test_a_restart_reaches_the_decision_of_who_never_stopped():
    # So little that one replica does: orders that no pod follows would be another story.
    metrics = world(rps=2.0)
    lived, again = supervisor(metrics), supervisor(metrics)
    for k in range(-30, 0):
        lived.tick(START_S + 60.0 * k, [LLAMA])
    again.restore(START_S)
    for k in range(5):
        at_s = START_S + 60.0 * k
        found, wanted = (s.tick(at_s, [LLAMA])[LLAMA.key].decision for s in (again, lived))
        assert wanted.plan is not None
        assert found == wanted


def test_services_come_in_the_order_given():
    assert supervisor(world()).services == (LLAMA, QWEN)


def test_a_fault_of_the_planner_in_one_service_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    listener = Listener()
    both = supervisor(world(), listeners=[listener])

    def fail(*_: object) -> None:
        raise ZeroDivisionError("float division by zero")

    monkeypatch.setattr(both._loops[LLAMA.key], "decide", fail)
    records = both.tick(START_S)
    hold = records[LLAMA.key].decision.hold
    assert hold is not None
    assert hold.reason.code == "InternalError"
    assert "ZeroDivisionError: float division by zero" in records[LLAMA.key].sentence
    assert records[QWEN.key].decision.patch is not None or records[QWEN.key].decision.hold
    assert [tick.service for tick in listener.records] == [LLAMA.key, QWEN.key]
    assert "fault of the planner" in caplog.text


def test_two_acting_services_on_one_target_are_both_left_alone():
    twin = service(key=ServiceKey("inference", "twin"), mode=Mode.ACT)
    asked = [LLAMA, twin, QWEN]
    cluster = MemoryCluster(ONE_EACH | {twin.key: {"prefill": 1, "decode": 1}})
    records = Supervisor(asked, world(asked), cluster).tick(START_S)
    for key in (LLAMA.key, twin.key):
        hold = records[key].decision.hold
        assert hold is not None
        assert hold.reason.code == "TargetContended"
        assert "pool prefill of inference/llama-8b" in hold.reason.message
        assert "pool prefill of inference/twin" in hold.reason.message
    assert records[QWEN.key].decision.pools


def test_advice_on_a_target_that_somebody_scales_is_no_contest():
    twin = service(key=ServiceKey("inference", "twin"), mode=Mode.RECOMMEND)
    asked = [LLAMA, twin]
    cluster = MemoryCluster(ONE_EACH | {twin.key: {"prefill": 1, "decode": 1}})
    records = Supervisor(asked, world(asked), cluster).tick(START_S)
    assert all(record.decision.pools for record in records.values())
