"""The loop: apply, tell everybody; a restart at any tick changes no later decision."""

from dataclasses import replace

import pytest

from planner.adapters.memory import MemoryCluster, MemoryMetrics
from planner.errors import ClusterError, MetricsError
from planner.loop import Loop
from planner.model import Behavior, Fallback, Mode, Role, Sample, ScalingRules
from tests.builders import START_S, fleet, pod_sample, pool, sample, service

TICKS = 24
# A rise, a fall that outlasts the stabilisation window, silence, a spike.
RPS = [10.0] * 4 + [60.0] * 4 + [12.0] * 8 + [0.0] * 2 + [90.0] * 2 + [5.0] * 4
WAITS = Behavior(scale_down=ScalingRules(stabilization_window_s=120.0))
SERVICE = service(mode=Mode.ACT, pools=(pool(behavior=WAITS), pool(Role.DECODE, behavior=WAITS)))


class Listener:
    def __init__(self):
        self.records = []

    def record(self, tick):
        self.records.append(tick)


class World:
    """A service in memory: pods appear and vanish with the replicas, at the next scrape."""

    def __init__(self, asked=SERVICE):
        self.service = asked
        self.metrics = MemoryMetrics(15.0, retention_s=1e6)
        self.cluster = MemoryCluster({asked.key: {"prefill": 1, "decode": 1}})
        self.finished = {}
        self.inputs = []

    def pass_interval(self, tick: int) -> float:
        """Serve and scrape one interval; return its end."""
        end_s = START_S + 60.0 * (tick + 1)
        replicas = self.cluster.fleets([self.service], end_s)[self.service.key].pools
        for at_s in (end_s - 50.0, end_s - 35.0, end_s - 20.0, end_s - 5.0):
            scrape = {}
            for role in Role:
                names = [f"{role}-{i}" for i in range(replicas[role].replicas)]
                for name in names:
                    more = RPS[tick] * 15.0 / len(names)
                    self.finished[name] = self.finished.get(name, 0.0) + more
                scrape[role] = [pod_sample(n, at_s, self.finished[n], role) for n in names]
            gone = self.finished.keys() - {pod.pod for pods in scrape.values() for pod in pods}
            for name in gone:
                del self.finished[name]
            self.metrics.store(self.service.key, scrape, None, at_s)
        return end_s

    def read(self, now_s):
        key = self.service.key
        return (
            self.metrics.read([self.service], now_s)[key],
            self.cluster.fleets([self.service], now_s)[key],
            now_s,
        )


@pytest.fixture(scope="module")
def lived():
    """Return a world, and the records of a loop that was never restarted."""
    world = World()
    loop = Loop(world.service, world.cluster, [])
    records = []
    for tick in range(TICKS):
        now_s = world.pass_interval(tick)
        world.inputs.append(world.read(now_s))
        records.append(loop.tick(*world.inputs[-1]))
    return world, records


def test_the_day_holds_what_a_restart_could_forget(lived):
    """Or the next test would prove little."""
    _, records = lived
    prefill = [r.decision.pools["prefill"].desired for r in records]
    assert max(prefill) >= 3
    assert min(prefill[prefill.index(3) :]) < 3
    codes = {reason.code for r in records for reason in r.decision.reasons}
    assert "ScaleDownStabilized" in codes


@pytest.mark.parametrize("restart", range(1, TICKS))
def test_a_restart_at_any_tick_changes_no_later_decision(lived, restart):
    world, records = lived
    loop = Loop(world.service, MemoryCluster({world.service.key: {"prefill": 1, "decode": 1}}), [])
    now_s = world.inputs[restart][2]
    assert loop.restore(world.metrics, now_s, 60.0 * restart) == restart
    for inputs, expected in zip(world.inputs[restart:], records[restart:], strict=True):
        assert loop.tick(*inputs).decision == expected.decision


def test_a_gap_in_history_is_no_change_of_replicas():
    class Gapped:
        def history(self, _, start_s, end_s, step_s):
            def at(k):
                at_s = start_s + k * step_s
                if k in {0, 3, 4}:
                    return MetricsError("down")
                return sample(at_s, 600.0 * k)

            return [at(k) for k in range(round((end_s - start_s) / step_s) + 1)]

    loop = Loop(SERVICE, MemoryCluster({}), [])
    assert loop.restore(Gapped(), START_S, 600.0) == 10
    memory = loop._state.constrain
    assert memory.events == {"prefill": (), "decode": ()}
    assert memory.replicas == {"prefill": 1, "decode": 1}


def test_the_time_before_the_first_metrics_was_not_blind():
    """Or a new service that is restarted would rise to its fallback at once."""

    class New:
        def history(self, *_):
            return [*[MetricsError("no series yet")] * 9, sample(START_S - 60.0)]

    asked = replace(SERVICE, fallback=Fallback(300.0, {"prefill": 8, "decode": 8}))
    loop = Loop(asked, MemoryCluster({}), [])
    loop.restore(New(), START_S, 600.0)
    held = loop.tick(MetricsError("no series"), fleet(), START_S).decision
    assert held.hold.since_s == START_S - 60.0
    assert held.patch is None


@pytest.mark.parametrize(
    ("mode", "applied"),
    [(Mode.ACT, True), (Mode.RECOMMEND, None), (Mode.OFF, None)],
    ids=["act", "recommend", "off"],
)
def test_only_acting_writes(mode, applied):
    asked = replace(SERVICE, mode=mode)
    written, listener = [], Listener()
    cluster = MemoryCluster(
        {asked.key: {"prefill": 1, "decode": 1}},
        applied=lambda *given: written.append(given[1:]),
    )
    loop = Loop(asked, cluster, [listener])
    first = loop.tick(sample(START_S), fleet(START_S), START_S)
    second = loop.tick(sample(START_S + 60.0, 6000.0), fleet(START_S), START_S + 60.0)
    assert listener.records == [first, second]
    assert first.applied is None
    assert second.applied is applied
    assert second.decision.pools["prefill"].desired > 1
    assert bool(written) is bool(applied)
    if applied:
        ((patch, at_s),) = written
        assert at_s == START_S + 60.0
        assert patch.replicas == {
            name: p.desired for name, p in second.decision.pools.items() if p.desired != p.current
        }


def test_a_refused_patch_is_an_answer_not_a_crash(caplog):
    cluster = MemoryCluster({SERVICE.key: {"prefill": 1, "decode": 1}})
    cluster.fail(SERVICE.key, ClusterError("409: somebody was quicker"))
    loop = Loop(SERVICE, cluster, [])
    loop.tick(sample(START_S), fleet(START_S), START_S)
    record = loop.tick(sample(START_S + 60.0, 6000.0), fleet(START_S), START_S + 60.0)
    assert (record.applied, record.error) == (False, "409: somebody was quicker")
    assert "inference/llama-8b: patch refused: 409" in caplog.text


def test_a_sample_is_not_what_a_failed_read_is():
    loop = Loop(SERVICE, MemoryCluster({}), [])
    record = loop.tick(MetricsError("connection refused"), fleet(START_S), START_S)
    assert record.decision.hold.reason.code == "MetricsUnavailable"
    assert isinstance(sample(), Sample)
