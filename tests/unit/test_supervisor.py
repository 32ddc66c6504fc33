"""Many services: one read for all that are due, and none disturbs another."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from planner import supervisor as module
from planner.adapters.memory import MemoryCluster, MemoryMetrics
from planner.errors import ClusterError, MetricsError
from planner.inventory import Inventory, Node, PodShape
from planner.model import Fleet, Mode, Patch, Pod, Role, Sample, Service, ServiceKey, Target
from planner.record import TickRecord
from planner.supervisor import Supervisor
from tests.builders import START_S, assert_only_rises, pod_sample, pool, service

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


# ── between two ticks ────────────────────────────────────────────────────────────────────────────

# Where a minute begins: services of 60 s and of 30 s are due.
EVEN_S = START_S + 20.0


class Pods:
    """A probe that is fed by hand: finished and waiting of the one prefill pod of each service."""

    def __init__(self) -> None:
        self.finished: dict[ServiceKey, float] = {}
        self.waiting: dict[ServiceKey, float] = {}
        self.asked: list[list[ServiceKey]] = []
        self.blind: set[ServiceKey] = set()
        self.meanwhile: Callable[[], object] = lambda: None

    def read(
        self, services: Sequence[Service], now_s: float
    ) -> Mapping[ServiceKey, Sample | MetricsError]:
        self.asked.append([s.key for s in services])
        self.meanwhile()
        return {s.key: self._sample(s.key, now_s) for s in services}

    def _sample(self, key: ServiceKey, now_s: float) -> Sample | MetricsError:
        if key in self.blind:
            return MetricsError(f"{key}: 0 of 1 pods answered")
        waiting = self.waiting.get(key, 0.0)
        done = self.finished.get(key, 0.0)
        pods = {
            "prefill": (pod_sample("prefill-0", now_s, done, waiting=waiting, running=1.0),),
            "decode": (pod_sample("decode-0", now_s, done, Role.DECODE, running=1.0),),
        }
        return Sample(now_s, pods)

    def pass_time(self, key: ServiceKey, rps: float, served_rps: float, for_s: float) -> None:
        self.finished[key] = self.finished.get(key, 0.0) + served_rps * for_s
        self.waiting[key] = self.waiting.get(key, 0.0) + max(rps - served_rps, 0.0) * for_s


def one_ready(_key: ServiceKey, pool: str) -> tuple[Pod, ...]:
    """Return the one pod that serves: what is ordered takes longer than a test to start."""
    return (Pod(f"{pool}-0", 0.0, ready_s=60.0),)


def checked(
    asked: Sequence[Service] = (LLAMA, QWEN),
    cluster: MemoryCluster | None = None,
    listeners: Sequence[Any] = (),
    rps: float = 5.0,
) -> tuple[Supervisor, Pods]:
    """Return services that have ticked under a load that their fleets of one can bear."""
    pods, calm = Pods(), world(asked, rps)
    of = cluster or MemoryCluster({s.key: {"prefill": 1, "decode": 1} for s in asked}, one_ready)
    both = Supervisor(asked, calm, of, listeners, probe=pods)
    both.restore(EVEN_S)
    both.tick(EVEN_S)
    return both, pods


def step(
    both: Supervisor,
    pods: Pods,
    of: Sequence[ServiceKey],
    *,
    until_s: float = 60.0,
    since_s: float = 0.0,
) -> dict[float, dict[ServiceKey, TickRecord]]:
    """Let ten times the load come from `since_s` after the start; return what checks recorded."""
    told = {}
    for k in range(1, int(until_s // 5.0)):
        for key in of:
            pods.pass_time(key, *((60.0, 20.0) if 5.0 * k > since_s else (5.0, 5.0)), 5.0)
        if found := both.check(EVEN_S + 5.0 * k):
            told[5.0 * k] = found
    return told


def test_a_step_of_load_is_ordered_for_within_fifteen_seconds():
    listener = Listener()
    both, pods = checked([LLAMA], listeners=[listener])
    told = step(both, pods, [LLAMA.key], since_s=15.0)
    first_s = min(told)
    assert 15.0 < first_s <= 30.0
    record = told[first_s][LLAMA.key]
    assert (record.applied, record.is_check) == (True, True)
    assert record.decision.pools["prefill"].desired > 1
    assert record.decision.reasons[0].code == "QueueGrowing"
    assert "requests wait at 1 ready replicas" in record.sentence
    assert listener.records[1] is record


def test_the_window_keeps_what_was_ordered_between_two_ticks():
    both, pods = checked([LLAMA])
    told = step(both, pods, [LLAMA.key])
    risen = max(r[LLAMA.key].decision.pools["prefill"].desired for r in told.values())
    # Prometheus has not seen any of it: what the tick plans for is the calm before.
    after = both.tick(EVEN_S + 60.0)[LLAMA.key].decision
    assert after.plan is not None
    assert after.plan.pools["prefill"].keep < risen
    assert after.pools["prefill"].desired == risen
    assert "ScaleDownStabilized" in {reason.code for reason in after.reasons}


def test_a_load_that_fits_orders_nothing_and_asks_the_cluster_nothing():
    asked: list[float] = []

    class Counted(MemoryCluster):
        def fleets(self, services: Sequence[Service], now_s: float) -> Any:
            asked.append(now_s)
            return super().fleets(services, now_s)

    both, pods = checked([LLAMA], Counted(ONE_EACH))
    asked.clear()
    for k in range(1, 12):
        pods.pass_time(LLAMA.key, 5.0, 5.0, 5.0)
        assert both.check(EVEN_S + 5.0 * k) == {}
    assert len(pods.asked) == 11
    assert asked == []


def test_only_services_between_their_ticks_are_looked_at():
    off = service(key=ServiceKey("inference", "off"), mode=Mode.OFF)
    both, pods = checked([LLAMA, QWEN, off])
    for k in (1, 6, 7, 12):
        both.check(EVEN_S + 5.0 * k)
    # QWEN is due at 30 s, and until it has ticked; LLAMA is at 60 s.
    assert pods.asked == [[LLAMA.key, QWEN.key], [LLAMA.key], [LLAMA.key]]


def test_before_its_first_tick_nobody_is_looked_at():
    pods = Pods()
    both = Supervisor([LLAMA], world(), MemoryCluster(ONE_EACH), probe=pods)
    assert both.check(EVEN_S) == {}
    assert pods.asked == []


def test_without_a_probe_there_is_no_check():
    both = supervisor(world())
    both.tick(EVEN_S)
    assert both.check(EVEN_S + 5.0) == {}


def test_what_is_only_recommended_is_told_once_and_never_written():
    advised = service(mode=Mode.RECOMMEND)
    written: list[Any] = []
    cluster = MemoryCluster(ONE_EACH, applied=lambda *given: written.append(given))
    both, pods = checked([advised], cluster)
    told = step(both, pods, [advised.key])
    asked = [desired(r[advised.key]) for r in told.values()]
    assert asked
    assert_only_rises(asked)
    assert all(r[advised.key].decision.patch is None for r in told.values())
    assert written == []


def test_a_refused_order_is_not_tried_again_before_the_tick():
    tried: list[float] = []

    class Stubborn(MemoryCluster):
        def apply(self, service: Service, patch: Any, now_s: float) -> None:  # noqa: ARG002
            tried.append(now_s)
            raise ClusterError("denied the request")

    both, pods = checked([LLAMA], Stubborn(ONE_EACH))
    tried.clear()
    told = step(both, pods, [LLAMA.key])
    assert len(tried) == len(told)
    asked = [desired(r[LLAMA.key]) for r in told.values()]
    assert_only_rises(asked)
    assert told[min(told)][LLAMA.key].error == "denied the request"


def desired(record: TickRecord) -> tuple[int, int]:
    pools = record.decision.pools
    return pools["prefill"].desired, pools["decode"].desired


def test_pods_that_can_not_be_seen_order_nothing_and_are_told_of_once(
    caplog: pytest.LogCaptureFixture,
):
    both, pods = checked()
    pods.blind = {LLAMA.key}
    told = step(both, pods, [LLAMA.key, QWEN.key], until_s=30.0)
    assert {key for found in told.values() for key in found} == {QWEN.key}
    assert caplog.text.count("inference/llama-8b: 0 of 1 pods answered") == 1
    assert "no order between two ticks until it is mended" in caplog.text


@pytest.mark.parametrize("where", ["notice", "check"])
def test_a_fault_in_the_check_of_one_service_does_not_stop_the_others(
    where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(*_: object) -> None:
        raise ZeroDivisionError("float division by zero")

    both, pods = checked()
    monkeypatch.setattr(both._loops[LLAMA.key], where, fail)
    told = step(both, pods, [LLAMA.key, QWEN.key], until_s=30.0)
    assert {key for found in told.values() for key in found} == {QWEN.key}
    # Once until its next tick, not every five seconds.
    assert caplog.text.count("fault of the planner") == 1
    assert LLAMA.key not in pods.asked[-1]


def test_a_tick_is_not_delayed_by_a_slow_probe_and_beats_its_check():
    both, pods = checked([LLAMA])
    step(both, pods, [LLAMA.key], until_s=15.0)
    pods.meanwhile = lambda: both.tick(EVEN_S + 60.0)  # would wait for ever if it had to
    pods.pass_time(LLAMA.key, 90.0, 20.0, 5.0)
    assert both.check(EVEN_S + 55.0) == {}


def test_a_check_does_not_wait_for_a_tick():
    both, pods = checked([LLAMA])
    step(both, pods, [LLAMA.key], until_s=15.0)
    pods.pass_time(LLAMA.key, 90.0, 20.0, 5.0)
    with both._deciding:
        assert both.check(EVEN_S + 15.0) == {}
    assert both.check(EVEN_S + 15.0) != {}


def test_contended_targets_are_not_checked():
    twin = service(key=ServiceKey("inference", "twin"), mode=Mode.ACT)
    both, pods = checked([LLAMA, twin, QWEN])
    both.check(EVEN_S + 5.0)
    assert pods.asked == [[QWEN.key]]


GPU = "nvidia.com/gpu"


class OneNode(MemoryCluster):
    """A cluster of one node with so many GPUs, of which what is placed is taken."""

    def __init__(self, replicas: Mapping[ServiceKey, Mapping[str, int]], free: int) -> None:
        super().__init__(replicas)
        taken = float(sum(sum(pools.values()) for pools in replicas.values()))
        amounts = {"allocatable": {GPU: taken + free}, "requested": {GPU: taken}}
        self._nodes = (Node("n0", **amounts),)
        self._placed = replicas

    def inventory(self, now_s: float) -> Inventory:
        return Inventory(now_s, self._nodes)

    def fleets(
        self, services: Sequence[Service], now_s: float
    ) -> Mapping[ServiceKey, Fleet | ClusterError]:
        return {k: self._seated(k, found) for k, found in super().fleets(services, now_s).items()}

    def _seated(self, key: ServiceKey, found: Fleet | ClusterError) -> Fleet | ClusterError:
        if isinstance(found, ClusterError):
            return found
        pools = {}
        for name, of in found.pools.items():
            ready = tuple(
                Pod(f"{name}-{i}", 0.0, ready_s=60.0, index=i, node="n0")
                for i in range(self._placed[key][name])
            )
            pools[name] = replace(of, pods=ready, shape=PodShape({GPU: 1.0}), is_listed=True)
        return replace(found, pools=pools)


def grown(told: Mapping[float, Mapping[ServiceKey, TickRecord]]) -> int:
    """Return the replicas that checks have written in all."""
    records = [record for found in told.values() for record in found.values()]
    return sum(
        record.decision.pools[name].desired - record.decision.pools[name].current
        for record in records
        if record.applied and record.decision.patch is not None
        for name in record.decision.patch.replicas
    )


@pytest.mark.parametrize("free", [0, 1, 3])
def test_checks_never_take_more_than_is_free_whoever_rises(free: int):
    cluster = OneNode(ONE_EACH, free)
    both, pods = checked(cluster=cluster)
    assert grown(step(both, pods, [LLAMA.key, QWEN.key], until_s=30.0)) == free


def test_a_check_leaves_what_another_service_has_ordered_and_not_got_yet():
    cluster = OneNode(ONE_EACH, free=2)
    both, pods = checked(cluster=cluster)
    # No pod of these two is placed yet: the node looks free.
    cluster.apply(QWEN, Patch({"decode": 3}), EVEN_S)
    assert grown(step(both, pods, [LLAMA.key], until_s=30.0)) == 0
