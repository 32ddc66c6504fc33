"""The replay: the plant under the loop that runs in production; a restart changes no order.

A restart reads its past from metrics alone: an order is in it once its pods are scraped. All the
same every later record is the very same, to the last bit: orders, load, factors and reasons.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planner import replay as module
from planner.loop import Loop
from planner.model import Mode, Role, Signal
from planner.replay import SCRAPE_LAG_S, Frame, Replay, first_plan, plant_config
from planner.simulation.trace_files import open_trace
from planner.simulation.traces import Trace, clip, make_trace, scale_trace
from planner.spec.service import LoadedService, load_services

DEMO = Path(module.__file__).with_name("demo.yaml")
RESTARTS = (1, 3, 4, 24, 41, 46, 57)  # amid orders, rising and falling, and between them


@pytest.fixture(scope="module")
def loaded() -> LoadedService:
    (found,) = load_services([DEMO])
    return found


@pytest.fixture(scope="module")
def trace() -> Trace:
    """Return an hour of real requests at twelve times the traffic."""
    return scale_trace(clip(open_trace("azure2023-conv"), 16384)[0], 12)


def steady(minutes: float, rps: float = 2.0, from_s: float = 0.0) -> Trace:
    times = [0.0, *np.arange(from_s + 0.1, 60.0 * minutes, 1.0 / rps)]
    return make_trace("steady", times, 1000, 50)


class TestFrames:
    def test_one_tick_an_interval_until_the_last_arrival(self, loaded: LoadedService):
        frames = list(Replay(loaded, steady(5.5)).frames())
        assert [frame.at_s for frame in frames] == [60.0, 120.0, 180.0, 240.0, 300.0]
        assert all(frame.record.decision.at_s == frame.at_s for frame in frames)
        assert all(frame.tick_s > 0.0 for frame in frames)

    def test_a_trace_of_less_than_an_interval_is_served_without_a_tick(self, loaded: LoadedService):
        replay = Replay(loaded, steady(0.5))
        assert not list(replay.frames())
        assert replay.finish().status.tolist() == [1] * len(replay.trace)

    def test_orders_are_carried_out_whatever_the_mode_of_the_spec(self, loaded: LoadedService):
        assert loaded.service.mode is Mode.RECOMMEND
        replay = Replay(loaded, steady(20), {"prefill": 5, "decode": 5})
        last = list(replay.frames())[-1].record.decision.pools
        assert {name: pool.desired for name, pool in last.items()} == {"prefill": 1, "decode": 1}
        assert replay.plant.replicas("prefill") == 1
        assert replay.finish().orders["decode"][0] == (0.0, 5)

    def test_metrics_are_half_a_scrape_old_when_they_are_read(self, loaded: LoadedService):
        for frame in list(Replay(loaded, steady(4)).frames())[1:]:
            seen = frame.record.decision.observation
            assert seen is not None
            assert seen.age_s == pytest.approx(SCRAPE_LAG_S, rel=1e-9)
            # 60 s of requests, and a bin for each scrape within.
            width_s, bins = seen.arrival_bins
            assert (width_s, len(bins)) == (15.0, 4)

    def test_what_is_observed_is_what_arrives(self, loaded: LoadedService):
        frames = list(Replay(loaded, steady(10, rps=4.0)).frames())
        seen = frames[-1].record.decision.observation
        assert seen is not None
        assert seen.arrivals_rps == pytest.approx(4.0, rel=0.05)
        assert seen.prompts is not None
        assert seen.prompts.mean == pytest.approx(1000.0, rel=1e-9)

    def test_the_same_seed_gives_the_same_records(self, loaded: LoadedService):
        runs = [
            [frame.record for frame in Replay(loaded, steady(8, rps=20.0), seed=s).frames()]
            for s in (1, 1, 2)
        ]
        assert runs[0] == runs[1]
        assert runs[0] != runs[2]

    def test_a_source_with_a_gateway_is_shown_one(self, loaded: LoadedService):
        service = replace(loaded.service, source="vllm-gateway")
        replay = Replay(replace(loaded, service=service), steady(3, rps=4.0))
        (*_, last) = replay.frames()
        seen = last.record.decision.observation
        assert seen is not None
        # A gateway counts arrivals, not what finished: exact to the request.
        assert seen.arrivals_rps == pytest.approx(4.0, abs=1.0 / 60.0)
        read = replay._metrics.read([service], last.at_s)[service.key]
        assert read.gateway.counters.keys() == {Signal.ARRIVALS}


class TestFirstPlan:
    def test_is_what_the_first_interval_needs(self, loaded: LoadedService):
        few = first_plan(loaded.service, steady(5, rps=1.0))
        many = first_plan(loaded.service, steady(5, rps=200.0))
        assert few == {"prefill": 1, "decode": 1}
        assert all(many[role] > few[role] for role in Role)

    def test_looks_at_no_later_interval(self, loaded: LoadedService):
        quiet = steady(1, rps=1.0)
        busy = make_trace("t", [*quiet.arrival_s, *np.linspace(61.0, 70.0, 9000)], 1000, 50)
        assert first_plan(loaded.service, busy) == first_plan(loaded.service, quiet)

    def test_is_the_floors_where_the_first_interval_is_out_of_scope(self, loaded: LoadedService):
        trace = make_trace("t", [0.0, 90.0, 200.0], [50_000, 100, 100], [5, 5, 5])
        trace = clip(trace, 16384)[0]
        pools = tuple(replace(pool, min_replicas=3) for pool in loaded.service.pools)
        service = replace(loaded.service, pools=pools)
        assert first_plan(service, trace) == {"prefill": 3, "decode": 3}
        assert len(list(Replay(loaded, trace).frames())) == 3


def test_the_plant_is_made_of_the_profile_and_the_spec(loaded: LoadedService):
    config = plant_config(loaded, {"prefill": 2, "decode": 3}, seed=7)
    prefill, decode = config.pools
    assert (prefill.initial_replicas, decode.initial_replicas) == (2, 3)
    assert (prefill.startup_s, config.seed) == (90.0, 7)
    assert config.kv_bytes_per_token == loaded.profiles["prefill"].kv_bytes_per_token
    assert config.transfer_bandwidth_bytes_per_s == loaded.service.transfer.bandwidth_bytes_per_s


# ── restart ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def remembering() -> Iterator[None]:
    # A Prometheus keeps days; the replay alone forgets after ten minutes to stay small.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RETENTION_S", 1e9)
        yield


@pytest.fixture(scope="module")
def undisturbed(loaded: LoadedService, trace: Trace, remembering: None) -> list[Frame]:
    return list(Replay(loaded, trace).frames())


def restarted(loaded: LoadedService, trace: Trace, tick: int) -> list[Frame]:
    """Return the frames of a replay whose loop was killed after so many ticks."""
    replay = Replay(loaded, trace)
    frames = []
    for frame in replay.frames():
        frames.append(frame)
        if len(frames) == tick:
            # The next tick is the first of the new loop.
            loop = Loop(replay.service, replay._cluster, [])
            alive = replay._cluster.fleets([replay.service], frame.at_s)[replay.service.key]
            next_s = frame.at_s + replay.service.interval_s
            loop.restore(replay._metrics, next_s, 240 * replay.service.interval_s, alive)
            replay._loop = loop
    return frames


def test_the_day_holds_what_a_restart_could_forget(undisturbed: list[Frame]):
    """Or the next test would prove little."""
    steps = np.diff([f.record.decision.pools["prefill"].desired for f in undisturbed])
    assert (steps > 0).sum() >= 2
    assert (steps < 0).sum() >= 1
    codes = {reason.code for frame in undisturbed for reason in frame.record.decision.reasons}
    assert "ScaleDownStabilized" in codes


@pytest.mark.parametrize("tick", RESTARTS)
def test_a_restart_at_any_tick_changes_no_later_record(
    loaded: LoadedService, trace: Trace, undisturbed: list[Frame], tick: int
):
    frames = restarted(loaded, trace, tick)
    assert [frame.record for frame in frames] == [frame.record for frame in undisturbed]
