"""Single requests and single orders, with times that can be added up by hand."""

import math

import numpy as np
import pytest

from planner.model import PodSample, Role, Signal
from planner.simulation import kernel
from planner.simulation.config import DecodeRouter, PlantConfig, PlantPool, PrefillRouter
from planner.simulation.plant import Plant
from planner.simulation.surface import DecodeTruth, PrefillTruth, Truth
from planner.simulation.traces import Trace, make_trace
from planner.simulation.warm import warm

MS_A_TOKEN = PrefillTruth(lambda tokens: tokens * 1e-3)
TEN_MS = DecodeTruth.constant(0.010)


def pool(name: str, surface: Truth, **over: object) -> PlantPool:
    role = Role.PREFILL if isinstance(surface, PrefillTruth) else Role.DECODE
    return PlantPool(**{"name": name, "role": role, "surface": surface, **over})  # type: ignore[arg-type]


def config(*pools: PlantPool, **over: object) -> PlantConfig:
    given = pools or (pool("prefill", MS_A_TOKEN), pool("decode", TEN_MS))
    exact = {"transfer_latency_s": 0.0, "startup_jitter": 0.0, "service_cv": 0.0}
    return PlantConfig(given, **{**exact, **over})  # type: ignore[arg-type]


def trace(*requests: tuple[float, int, int]) -> Trace:
    return make_trace("test", *np.array(requests, dtype=float).T)


def names(pods: tuple[PodSample, ...]) -> list[str]:
    return [sample.pod for sample in pods]


def test_one_request_is_the_sum_of_its_parts() -> None:
    link = {"kv_bytes_per_token": 1e6, "transfer_bandwidth_bytes_per_s": 1e9}
    plant = Plant(config(**link, transfer_latency_s=0.005), trace((0.0, 100, 11)))
    plant.drain()
    results = plant.results()
    # 100 ms prefill, 100 ms transfer and 5 ms latency, a step of 10 ms; ten more steps.
    assert results.ttft_s == pytest.approx([0.215])
    assert results.itl_s == pytest.approx([0.010])
    assert results.finished_s == pytest.approx([0.315])
    assert results.end_s == pytest.approx(0.315)


def test_cached_tokens_are_not_computed_but_moved() -> None:
    cached = make_trace("cached", [0.0], [1000], [1], cached_tokens=[900])
    plant = Plant(config(kv_bytes_per_token=1.0, transfer_bandwidth_bytes_per_s=1e4), cached)
    plant.drain()
    assert plant.results().ttft_s == pytest.approx([0.1 + 0.1 + 0.01])
    (sample,) = plant.scrape()["prefill"]
    assert sample.counters[Signal.COMPUTED_TOKENS] == 100


@pytest.mark.parametrize(
    ("router", "third_s"),
    # At 0.95 s one replica has 50 of 1000 tokens left, the other 550 of 600. A router that counts
    # tokens still sees 1000 against 600; from one queue the third goes to who is idle first.
    [(PrefillRouter.FEWEST_TOKENS, 1.6), (PrefillRouter.SHARED, 1.1)],
    ids=str,
)
def test_prompts_go_where_the_router_says(router: PrefillRouter, third_s: float) -> None:
    pools = (pool("prefill", MS_A_TOKEN, initial_replicas=2), pool("decode", TEN_MS))
    requests = trace((0.0, 1000, 1), (0.9, 600, 1), (0.95, 100, 1))
    plant = Plant(config(*pools, prefill_router=router), requests)
    plant.drain()
    assert plant.results().prefilled_s == pytest.approx([1.0, 1.5, third_s])


@pytest.mark.parametrize(
    ("router", "second"),
    [(DecodeRouter.FEWEST_TOKENS, "decode-1"), (DecodeRouter.FEWEST_SEQUENCES, "decode-0")],
    ids=str,
)
def test_sequences_go_where_the_router_says(router: DecodeRouter, second: str) -> None:
    pools = (
        pool("prefill", PrefillTruth.constant(0.0)),
        pool("decode", TEN_MS, initial_replicas=2),
    )
    # One long on decode-0, two short on decode-1; the fourth goes by tokens or by number.
    requests = trace((0.0, 5000, 900), (0.1, 10, 900), (0.2, 10, 900), (0.3, 10, 900))
    plant = Plant(config(*pools, decode_router=router), requests)
    plant.advance(0.4)
    running = {s.pod: s.gauges[Signal.RUNNING] for s in plant.scrape()["decode"]}
    if router is DecodeRouter.FEWEST_SEQUENCES:
        assert running == {"decode-0": 2, "decode-1": 2}
    else:
        assert running == {"decode-0": 1, "decode-1": 3}
    assert running[second] == max(running.values())


@pytest.mark.parametrize(
    "room",
    [{"max_sequences": 1}, {"kv_capacity_tokens": 219}],
    ids=["by number", "by reserved KV"],
)
def test_a_sequence_waits_for_room(room: dict[str, int]) -> None:
    pools = (pool("prefill", PrefillTruth.constant(0.0)), pool("decode", TEN_MS, **room))
    plant = Plant(config(*pools), trace((0.0, 100, 10), (0.0, 100, 10)))
    plant.advance(0.05)
    (sample,) = plant.scrape()["decode"]
    assert (sample.gauges[Signal.RUNNING], sample.gauges[Signal.WAITING]) == (1, 1)
    plant.drain()
    # The second joins at the very boundary at which the first leaves.
    assert plant.results().ttft_s == pytest.approx([0.01, 0.11])


def test_a_sequence_joins_at_the_next_step() -> None:
    pools = (pool("prefill", PrefillTruth.constant(0.0)), pool("decode", TEN_MS))
    plant = Plant(config(*pools), trace((0.0, 1, 100), (0.033, 1, 3)))
    plant.drain()
    # Waits for the step that ends at 40 ms, has its first token at 50 ms.
    assert plant.results().ttft_s == pytest.approx([0.010, 0.017])
    assert plant.results().finished_s[1] == pytest.approx(0.070)


def test_what_can_never_fit_is_refused() -> None:
    pools = (pool("prefill", MS_A_TOKEN), pool("decode", TEN_MS, kv_capacity_tokens=100))
    plant = Plant(config(*pools), trace((0.0, 90, 10), (0.0, 90, 11)))
    plant.drain()
    assert plant.results().status.tolist() == [kernel.SERVED, kernel.REFUSED]
    assert plant.gateway().counters[Signal.ARRIVALS] == 2


def test_requests_wait_for_the_first_replica() -> None:
    pools = (
        pool("prefill", MS_A_TOKEN, initial_replicas=0, startup_s=30.0),
        pool("decode", TEN_MS, initial_replicas=0, startup_s=50.0),
    )
    plant = Plant(config(*pools), trace((0.0, 100, 1), (1.0, 100, 1)))
    plant.advance(2.0)
    assert plant.scrape() == {"prefill": (), "decode": ()}
    plant.order("prefill", 1)
    plant.order("decode", 1)
    plant.drain()
    assert plant.results().prefilled_s == pytest.approx([32.1, 32.2])
    assert plant.results().ttft_s == pytest.approx([52.01, 51.01])


def test_a_request_nobody_serves_stays_unfinished() -> None:
    plant = Plant(config(), trace((0.0, 100, 1), (10.0, 100, 1)))
    plant.advance(5.0)
    plant.order("decode", 0)
    plant.drain(bound_s=60.0)
    assert plant.results().status.tolist() == [kernel.SERVED, kernel.UNFINISHED]
    assert plant.now_s == pytest.approx(10.1)  # the last thing that happened


def test_the_first_replicas_are_there_from_the_start() -> None:
    plant = Plant(config(), trace((0.0, 1, 1)))
    assert [pod.ready_s for pod in plant.pods("prefill")] == [0.0]
    assert names(plant.scrape()["decode"]) == ["decode-0"]


def test_warming_up_runs_a_request() -> None:
    warm()


class TestOrders:
    """Replicas come late and leave when they are done."""

    def test_new_pods_are_ready_after_the_start_up(self) -> None:
        plant = Plant(
            config(pool("prefill", MS_A_TOKEN, startup_s=90.0), pool("decode", TEN_MS)),
            trace((0.0, 1, 1)),
        )
        plant.advance(10.0)
        plant.order("prefill", 2)
        plant.advance(99.9)
        old, new = plant.pods("prefill")
        assert (old.name, old.created_s, old.ready_s) == ("prefill-0", 0.0, 0.0)
        assert (new.name, new.created_s, new.ready_s) == ("prefill-1", 10.0, None)
        assert names(plant.scrape()["prefill"]) == ["prefill-0"]
        plant.advance(100.0)
        assert plant.pods("prefill")[1].ready_s == 100.0
        assert names(plant.scrape()["prefill"]) == ["prefill-0", "prefill-1"]

    def test_start_up_times_spread_as_told_and_stay_with_the_seed(self) -> None:
        def ready(seed: int) -> list[float]:
            jitter = {"startup_jitter": 0.3, "seed": seed}
            plant = Plant(
                config(
                    pool("prefill", MS_A_TOKEN, startup_s=100.0), pool("decode", TEN_MS), **jitter
                ),
                trace((0.0, 1, 1)),
            )
            plant.order("prefill", 201)
            plant.advance(200.0)
            return [pod.ready_s or 0.0 for pod in plant.pods("prefill")[1:]]

        seen = ready(1)
        assert ready(1) == seen != ready(2)
        assert 70.0 <= min(seen) < 73.0
        assert 127.0 < max(seen) <= 130.0
        assert np.mean(seen) == pytest.approx(100.0, abs=4.0)

    def test_the_starting_one_is_cancelled_first(self) -> None:
        plant = Plant(config(), trace((0.0, 1, 1)))
        plant.advance(5.0)
        plant.order("prefill", 3)
        plant.advance(15.0)
        plant.order("prefill", 1)
        assert [pod.name for pod in plant.pods("prefill")] == ["prefill-0"]
        plant.order("prefill", 2)
        assert [pod.name for pod in plant.pods("prefill")] == ["prefill-0", "prefill-3"]

    @pytest.mark.parametrize("role", ["prefill", "decode"])
    def test_draining_finishes_what_it_has_and_takes_no_more(self, role: str) -> None:
        pools = (
            pool("prefill", MS_A_TOKEN, initial_replicas=2),
            pool("decode", TEN_MS, initial_replicas=2),
        )
        early = [(0.0, 1000, 200)] * 4
        plant = Plant(config(*pools), trace(*early, (2.5, 1000, 200), (2.5, 1000, 200)))
        plant.advance(2.4 if role == "decode" else 0.4)
        before = plant.light_scrape()[1][role][f"{role}-1"]
        plant.order(role, 1)
        old, leaving = plant.pods(role)
        assert (old.terminating, leaving.terminating) == (False, True)
        plant.drain()
        results = plant.results()
        assert (results.status == kernel.SERVED).all()
        life = next(life for life in results.lifetimes if life.pod == f"{role}-1")
        assert life.released_s == pytest.approx(2.0 if role == "prefill" else 4.0, abs=0.03)
        assert before == 0

    def test_idle_pods_leave_at_once(self) -> None:
        plant = Plant(config(), trace((0.0, 1, 1), (50.0, 1, 1)))
        plant.advance(20.0)
        plant.order("decode", 0)
        assert plant.pods("decode") == ()
        assert plant.replicas("decode") == 0

    def test_orders_say_what_is_wrong(self) -> None:
        plant = Plant(config(), trace((0.0, 1, 1)))
        with pytest.raises(ValueError, match=r"pool decoder: unknown; legal: prefill, decode"):
            plant.order("decoder", 1)
        with pytest.raises(ValueError, match="got -1; legal: 0 or more"):
            plant.order("decode", -1)

    def test_pools_of_one_role_share_its_traffic_and_keep_their_speed(self) -> None:
        slow = PrefillTruth(lambda tokens: tokens * 2e-3)
        pools = (
            pool("fast", MS_A_TOKEN),
            pool("slow", slow, gpus_per_replica=2),
            pool("decode", TEN_MS),
        )
        plant = Plant(config(*pools), trace((0.0, 100, 1), (0.0, 100, 1)))
        plant.drain()
        results = plant.results()
        assert results.prefilled_s == pytest.approx([0.1, 0.2])
        assert results.gpu_seconds() == pytest.approx({"fast": 0.21, "slow": 0.42, "decode": 0.21})

    def test_room_grows_with_the_fleet(self) -> None:
        plant = Plant(config(), trace(*[(float(i), 100, 20) for i in range(400)]))
        for i, replicas in enumerate([40, 3, 90, 1, 60]):
            plant.advance(60.0 * (i + 1))
            plant.order("prefill", replicas)
            plant.order("decode", replicas)
        plant.drain()
        assert (plant.results().status == kernel.SERVED).all()
        assert len({life.pod for life in plant.results().lifetimes}) == 2 * (1 + 39 + 87 + 59)


class TestScrape:
    """Samples are what vLLM would show."""

    def test_counters_of_a_pair(self) -> None:
        plant = Plant(config(transfer_latency_s=0.005), trace((0.0, 100, 21), (0.3, 300, 1)))
        plant.drain()
        (prefill,), (decode,) = plant.scrape().values()
        assert prefill.counters == {Signal.COMPUTED_TOKENS: 400}
        assert prefill.histograms[Signal.PROMPT_TOKENS].sum == 400
        assert prefill.histograms[Signal.TTFT].sum == pytest.approx(0.4)
        assert prefill.histograms[Signal.PREFILL_TIME].mean == pytest.approx(0.2)
        assert prefill.gauges == {Signal.RUNNING: 0, Signal.WAITING: 0}
        assert decode.counters == {Signal.GENERATED_TOKENS: 22}
        assert decode.histograms[Signal.OUTPUT_TOKENS].sum == 22
        gaps = decode.histograms[Signal.TOKEN_GAP]
        assert (gaps.count, gaps.sum) == (20, pytest.approx(0.2))
        handover = decode.histograms[Signal.TTFT]
        assert (handover.count, handover.sum) == (2, pytest.approx(0.03))
        assert decode.gauges == {Signal.RUNNING: 0, Signal.WAITING: 0, Signal.KV_USAGE: 0}
        # One output token: a zero, as vLLM counts it.
        itl = decode.histograms[Signal.ITL]
        assert (itl.count, itl.sum, itl.cumulative[0]) == (2, pytest.approx(0.01), 2)

    def test_progress_shows_between_events(self) -> None:
        pools = (
            pool("prefill", PrefillTruth.constant(0.0)),
            pool("decode", TEN_MS, kv_capacity_tokens=1000),
        )
        plant = Plant(config(*pools), trace((0.0, 100, 100)))
        plant.advance(0.505)
        (sample,) = plant.scrape()["decode"]
        assert sample.counters[Signal.GENERATED_TOKENS] == 50
        assert sample.histograms[Signal.TOKEN_GAP].count == 49
        assert sample.histograms[Signal.TOKEN_GAP].sum == pytest.approx(0.49)
        assert sample.gauges[Signal.KV_USAGE] == pytest.approx(0.150)
        assert sample.histograms[Signal.OUTPUT_TOKENS].count == 0

    def test_buckets_are_cumulative_and_hold_their_bound(self) -> None:
        plant = Plant(config(), trace((0.0, 100, 1), (10.0, 101, 1)))
        plant.drain()
        (sample,) = plant.scrape()["prefill"]
        lengths = sample.histograms[Signal.PROMPT_TOKENS]
        at = dict(zip(lengths.upper_bounds, lengths.cumulative, strict=True))
        assert (at[50.0], at[100.0], at[200.0], at[math.inf]) == (0, 1, 2, 2)
        assert lengths.upper_bounds[-2] == 100_000.0

    def test_a_shared_queue_is_shown_evenly(self) -> None:
        pools = (
            pool("prefill", PrefillTruth.constant(0.0)),
            pool("decode", TEN_MS, initial_replicas=2, max_sequences=1),
        )
        plant = Plant(config(*pools), trace(*[(0.0, 10, 100)] * 5))
        plant.advance(0.5)
        assert [s.gauges[Signal.WAITING] for s in plant.scrape()["decode"]] == [2, 1]

    def test_the_gateway_sees_clients(self) -> None:
        plant = Plant(config(), trace((0.0, 100, 11), (5.0, 100, 11)))
        plant.advance(3.0)
        gateway = plant.gateway()
        assert gateway.counters[Signal.ARRIVALS] == 1
        assert gateway.histograms[Signal.TTFT].sum == pytest.approx(0.11)
        assert gateway.histograms[Signal.ITL].sum == pytest.approx(0.01)

    def test_a_snapshot_stays_while_the_plant_goes_on(self) -> None:
        plant = Plant(config(), trace(*[(float(i), 100, 10) for i in range(20)]))
        plant.advance(5.5)
        snapshot, samples = plant.snapshot(), plant.scrape()
        plant.advance(15.0)
        plant.order("decode", 0)
        assert snapshot.samples() == samples
        assert snapshot.finished() == {"prefill": {"prefill-0": 6}, "decode": {"decode-0": 6}}
        assert plant.light_scrape() == (15.0, {"prefill": {"prefill-0": 15}, "decode": {}})

    def test_a_new_pod_starts_at_zero(self) -> None:
        plant = Plant(config(), trace(*[(float(i), 100, 10) for i in range(20)]))
        plant.advance(5.5)
        plant.order("decode", 0)
        plant.order("decode", 1)
        plant.advance(100.0)
        (sample,) = plant.scrape()["decode"]
        assert sample.pod == "decode-1"
        assert sample.histograms[Signal.OUTPUT_TOKENS].count == 14


@pytest.mark.parametrize(
    ("over", "error", "message"),
    [
        ({"surface": TEN_MS}, TypeError, "pool p: got a DecodeTruth; legal: PrefillTruth"),
        ({"startup_s": -1.0}, ValueError, r"pool p: startup_s: got -1.0; legal: 0 to inf"),
        ({"startup_s": math.nan}, ValueError, "startup_s: got nan"),
        ({"initial_replicas": -1}, ValueError, "initial_replicas: got -1"),
        ({"max_sequences": 0}, ValueError, "max_sequences: got 0; legal: 1"),
    ],
    ids=["surface", "negative start-up", "nan start-up", "negative replicas", "no batch"],
)
def test_pools_say_what_is_wrong(
    over: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        PlantPool(**{"name": "p", "role": Role.PREFILL, "surface": MS_A_TOKEN, **over})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pools", "over", "message"),
    [
        (("prefill",), {}, "none of role decode"),
        (("prefill", "prefill", "decode"), {}, "each once"),
        (("prefill", "decode"), {"startup_jitter": 1.5}, "startup_jitter: got 1.5; legal: 0 to 1"),
        (("prefill", "decode"), {"transfer_bandwidth_bytes_per_s": 0.0}, "bandwidth.*got 0.0"),
    ],
    ids=["no decode", "twice the name", "jitter", "bandwidth"],
)
def test_configurations_say_what_is_wrong(
    pools: tuple[str, ...], over: dict[str, object], message: str
) -> None:
    made = {"prefill": pool("prefill", MS_A_TOKEN), "decode": pool("decode", TEN_MS)}
    with pytest.raises(ValueError, match=message):
        config(*(made[name] for name in pools), **over)
