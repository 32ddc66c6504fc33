"""Between two ticks: what looks at the pods order, and what they never order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest

from planner.decision.decide import Inputs, State, rise
from planner.decision.looks import CHECK_S, Capacity, Look, LookMemory, arm, is_pressed, look
from planner.decision.rise import rises
from planner.model import Factors, Fleet, Mode, Pod, PoolFleet, Role, Sample, Service
from tests.builders import START_S, fleet, load, pod_sample, pool, service

# A replica of prefill takes 10 prompts/s, and prompts may wait 400 ms on average; one of decode
# runs 50 sequences.
CAPACITIES = {"prefill": Capacity(10.0, 0.4), "decode": Capacity(batch=50)}
SERVICE = service()
ONE_EACH = fleet(prefill=1, decode=1)


@dataclass(frozen=True)
class Seen:
    """What one pod of each pool shows at a look."""

    finished: float = 0.0
    waiting: float = 0.0
    running: float = 1.0
    decoding: float = 0.0


def sample(at_s: float, *pods: Seen, first: int = 0) -> Sample:
    """Return a sample of so many pods of prefill and one of decode."""
    prefill = tuple(
        pod_sample(f"prefill-{i}", at_s, p.finished, waiting=p.waiting, running=p.running)
        for i, p in enumerate(pods, first)
    )
    decode = pod_sample("decode-0", at_s, 0.0, Role.DECODE, running=pods[0].decoding)
    return Sample(at_s, {"prefill": prefill, "decode": (decode,)})


def looked(
    looks: Sequence[Sequence[Seen]], every_s: float = CHECK_S, of: Service = SERVICE
) -> LookMemory:
    memory = LookMemory(CAPACITIES)
    for k, pods in enumerate(looks):
        at_s = START_S + k * every_s
        memory = look(of, memory, sample(at_s, *pods), at_s)
    return memory


def queueing(
    rps: float = 30.0, served_rps: float = 10.0, looks: int = 4, every_s: float = CHECK_S
) -> list[list[Seen]]:
    """Return looks at one pod that serves so much of what comes; the rest waits."""
    return [
        [Seen(served_rps * every_s * k, max(rps - served_rps, 0.0) * every_s * k)]
        for k in range(looks)
    ]


def wanted(memory: LookMemory, now: Fleet | None = None, of: Service = SERVICE) -> dict[str, int]:
    found = rises(of, memory, now or fleet(prefill=1, decode=1))
    return {name: rise.replicas for name, rise in found.items()}


def test_a_queue_that_grows_orders_for_its_arrivals_and_for_what_will_wait():
    # Of 18/s 16.9 are sure: 1.8 replicas at 95 %. 120 wait and, as it grows, as many again will
    # before an order serves; 0.9 more work that off in 27 s.
    assert wanted(looked(queueing(18.0))) == {"prefill": 3}
    assert wanted(looked(queueing(18.0)), fleet(prefill=3)) == {}


def test_an_order_is_at_most_six_times_what_is_ready():
    assert wanted(looked(queueing(300.0))) == {"prefill": 6}
    assert wanted(looked(queueing(300.0)), fleet(prefill=6)) == {}


@pytest.mark.parametrize(
    ("age_s", "found"),
    [
        pytest.param(55.0, {}, id="serves soon and works the queue off"),
        pytest.param(0.0, {"prefill": 3}, id="serves no sooner than another order"),
    ],
)
def test_an_order_under_way_counts_from_when_it_serves(age_s: float, found: dict[str, int]):
    memory = looked(queueing(16.0))
    now_s = memory.looks["prefill"][-1].at_s
    ready = Pod("prefill-0", now_s - 3600.0, now_s - 3540.0)
    starting = Pod("prefill-1", now_s - age_s)
    two = PoolFleet(2, (ready, starting), is_listed=True)
    assert wanted(memory, Fleet(now_s, {"prefill": two, "decode": PoolFleet(1)})) == found


def test_what_is_ready_by_now_works_a_queue_off_without_an_order():
    """It waits since before they served; a replica ordered now would find nothing."""
    pods = [[Seen(50.0 * k, 200.0 - 25.0 * k), Seen(50.0 * k, 200.0 - 25.0 * k)] for k in range(4)]
    assert wanted(looked(pods), fleet(prefill=2)) == {}


def test_a_failure_that_is_dearer_works_the_queue_off_sooner():
    memory = looked(queueing(18.0))
    careful = service(caution=10.0)
    assert wanted(memory, of=careful)["prefill"] > wanted(memory)["prefill"]


def test_arrivals_that_come_in_bursts_are_less_sure():
    bursty = dict(CAPACITIES, prefill=replace(CAPACITIES["prefill"], dispersion=60.0))
    memory = looked(queueing(18.0))
    assert wanted(replace(memory, capacities=bursty))["prefill"] < wanted(memory)["prefill"]


def test_decode_is_ordered_for_what_prefill_will_hand_over():
    # 16.9 arrive surely and 8.9 more each second from the queue: with 95 %, of 5.3/s each.
    capacities = dict(CAPACITIES, decode=Capacity(5.3, batch=50))
    memory = replace(looked(queueing(18.0)), capacities=capacities)
    assert wanted(memory) == {"prefill": 3, "decode": 6}
    assert wanted(memory, fleet(prefill=3, decode=6)) == {}
    calm = replace(looked([[Seen(90.0 * k)] for k in range(4)]), capacities=capacities)
    assert wanted(calm) == {}


@pytest.mark.parametrize(
    ("most", "replicas"),
    [pytest.param(64, 6, id="six times as many"), pytest.param(2, 4, id="its maximum")],
)
def test_decode_is_not_ordered_for_what_prefill_can_not_hand_over(most: int, replicas: int):
    """Of 300/s one replica of prefill, and six of them, take 10/s each."""
    capacities = dict(CAPACITIES, decode=Capacity(5.3, batch=50))
    memory = replace(looked(queueing(300.0)), capacities=capacities)
    of = service(pools=(pool(max_replicas=most), pool(Role.DECODE)))
    handed_rps = 10.0 * min(most, 6)
    found = rises(of, memory, fleet(prefill=1, decode=1))
    assert found["decode"].rate_rps == pytest.approx(handed_rps)
    assert found["decode"].replicas == replicas


def test_what_decode_has_ordered_counts_before_it_serves():
    pools = (pool(), pool(Role.DECODE), pool(Role.DECODE, name="cheap"))
    capacities = dict(CAPACITIES, decode=Capacity(6.0, batch=50), cheap=Capacity(6.0, batch=50))
    memory = replace(looked(queueing(18.0)), capacities=capacities)
    now_s = memory.looks["prefill"][-1].at_s
    starting = tuple(Pod(f"cheap-{i}", now_s) for i in range(8))
    fleets = {
        "prefill": PoolFleet(1),
        "decode": PoolFleet(1),
        "cheap": PoolFleet(8, starting, is_listed=True),
    }
    found = wanted(memory, Fleet(now_s, fleets), service(pools=pools))
    assert found == {"prefill": 3}


def test_a_queue_that_nobody_joins_orders_nothing():
    assert wanted(looked([[Seen(0.0, 2000.0)]] * 4)) == {}


def test_less_sure_arrivals_never_order_more():
    orders = []
    for dispersion in (1.0, 5.0, 9.0, 10.0, 11.0, 50.0):
        capacity = replace(CAPACITIES["prefill"], rate_rps=0.2, dispersion=dispersion)
        memory = looked([[Seen(k * 0.2 * CHECK_S, 51.0 + 3.0 * k)] for k in range(4)])
        found = wanted(replace(memory, capacities=dict(CAPACITIES, prefill=capacity)))
        orders.append(found.get("prefill", 1))
    assert orders[0] > 1
    assert orders == sorted(orders, reverse=True)


def test_who_became_ready_is_not_charged_with_what_waited_before():
    """One served 10/s of 58/s; six serve since the last look, which is enough."""
    before = [[Seen(50.0 * k, 240.0 * k)] for k in range(1, 4)]
    serving = [Seen(200.0, 30.0), *[Seen(0.0, 190.0)] * 5]
    found = rises(SERVICE, looked([*before, serving]), fleet(prefill=6))
    assert found["prefill"].replicas < 20


def test_a_pod_without_a_node_serves_no_sooner_than_another_order():
    memory = looked(queueing(16.0))
    now_s = memory.looks["prefill"][-1].at_s
    ready = Pod("prefill-0", now_s - 3600.0, now_s - 3540.0)
    for why, found in ((None, {}), ("0/8 nodes are available", {"prefill": 3})):
        waiting = Pod("prefill-1", now_s - 300.0, unschedulable=why)
        two = PoolFleet(2, (ready, waiting), is_listed=True)
        assert wanted(memory, Fleet(now_s, {"prefill": two, "decode": PoolFleet(1)})) == found


def test_the_order_for_what_is_handed_over_says_so():
    capacities = dict(CAPACITIES, decode=Capacity(6.0, batch=50))
    of = service(mode=Mode.ACT)
    state, looks = State(looks=LookMemory(capacities)), queueing(18.0)
    for k, pods in enumerate(looks):
        at_s = START_S + k * CHECK_S
        inputs = Inputs(sample(at_s, *pods), fleet(at_s, prefill=1, decode=1))
        state, decision = rise(of, state, inputs, at_s)
    assert decision is not None
    told = {reason.pool: reason.message for reason in decision.reasons}
    assert "120 requests wait at 1 ready replicas; 1 → 3" in told["prefill"]
    assert "prefill will hand 28.1 requests/s to 1 ready replicas; 1 → 5" in told["decode"]


def test_pools_of_decode_share_what_comes_as_they_share_what_is_ordered():
    pools = (pool(), pool(Role.DECODE), pool(Role.DECODE, name="cheap"))
    capacities = dict(CAPACITIES, decode=Capacity(6.0, batch=50), cheap=Capacity(3.0, batch=25))
    memory = looked(queueing(18.0))
    looks = {**memory.looks, "decode": crowd(1.0), "cheap": crowd(1.0, pods=2)}
    memory = replace(memory, capacities=capacities, looks=looks)
    fleets = {"prefill": PoolFleet(1), "decode": PoolFleet(1), "cheap": PoolFleet(2)}
    now = Fleet(memory.looks["prefill"][-1].at_s, fleets)
    assert wanted(memory, now, service(pools=pools)) == {"prefill": 3, "decode": 3, "cheap": 5}


def test_sequences_that_grow_in_number_order_for_more_than_are_inside():
    still = replace(looked([[Seen()]] * 4), looks={"decode": crowd(200.0, pods=3)})
    growing = replace(still, looks={"decode": crowd(20.0, 80.0, 140.0, 200.0, pods=3)})
    now = fleet(decode=3)
    assert wanted(still, now)["decode"] < wanted(growing, now)["decode"]
    # As many again as are beyond the batches, at most.
    assert wanted(growing, now)["decode"] == 6


def test_a_slow_batch_orders_for_those_on_target_and_not_for_its_pile():
    even = LookMemory({"decode": Capacity(batch=20)}, {"decode": crowd(30.0)})
    slow = LookMemory(
        {"decode": Capacity(batch=20, itl_s=(0.01,) * 21 + (0.02,) * 100)}, {"decode": crowd(30.0)}
    )
    assert wanted(even) == {"decode": 2}
    assert wanted(slow) == {}


def crowd(*inside: float, pods: int = 1) -> tuple[Look, ...]:
    """Return looks at decode pods with so many sequences, four where one number is given."""
    numbers = inside if len(inside) > 1 else inside * 4
    done = {f"decode-{i}": 0.0 for i in range(pods)}
    return tuple(
        Look(START_S + k * CHECK_S, pods, 0.0, number, done) for k, number in enumerate(numbers)
    )


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_looks_order_nothing(count: int):
    assert wanted(looked(queueing(rps=90.0, looks=count))) == {}


def test_a_lone_burst_that_is_served_in_time_orders_nothing():
    assert wanted(looked([[Seen(10.0)], [Seen(60.0, 1.0)], [Seen(80.0, 1.0)], [Seen(90.0)]])) == {}


def test_what_waits_too_briefly_to_matter_orders_nothing():
    # One waits at 10 prompts/s: 100 ms, of 400 that it may.
    assert wanted(looked([[Seen(50.0 * k, 1.0)] for k in range(4)])) == {}


def test_longer_prompts_at_the_same_rate_order():
    """As many come as ever, and each takes three times as long as the profile says."""
    steady = [[Seen(10.0 * CHECK_S * k, 2.0)] for k in range(4)]
    longer = [[Seen(3.3 * CHECK_S * k, 1.0 + 6.0 * CHECK_S * k)] for k in range(4)]
    assert wanted(looked(steady)) == {}
    assert wanted(looked(longer))["prefill"] >= 3


def test_a_pod_that_started_anew_takes_nothing_from_the_rate():
    looks = queueing(30.0)
    pods = [[one[0], Seen(500.0 + 50.0 * k, 1.0)] for k, one in enumerate(looks)]
    again = [*pods[:-1], [pods[-1][0], Seen(20.0, 1.0)]]
    two = fleet(prefill=2)
    rates = [rises(SERVICE, looked(seen), two)["prefill"].rate_rps for seen in (again, pods)]
    assert 20.0 < rates[0] <= rates[1]


def test_a_pod_that_did_not_answer_at_first_is_no_burst():
    """Its whole life's count would else be a rate."""
    calm = [[Seen(50.0 * k, 3.0)] for k in range(3)]
    memory = looked(calm)
    at_s = START_S + 3 * CHECK_S
    late = sample(at_s, Seen(150.0, 3.0), Seen(9e6, 3.0))
    found = rises(SERVICE, look(SERVICE, memory, late, at_s), fleet(prefill=2))
    assert all(rise.rate_rps < 11.0 and rise.replicas <= 3 for rise in found.values())


def test_a_new_pod_counts_what_it_has_done():
    memory = looked(queueing(30.0, looks=3))
    at_s = START_S + 3 * CHECK_S
    without = look(SERVICE, memory, sample(at_s, Seen(150.0, 300.0), Seen(0.0, 1.0)), at_s)
    served = look(SERVICE, memory, sample(at_s, Seen(150.0, 300.0), Seen(60.0, 1.0)), at_s)
    rate = [rises(SERVICE, m, fleet(prefill=2))["prefill"].rate_rps for m in (without, served)]
    assert rate[1] - rate[0] == pytest.approx(60.0 / (3 * CHECK_S))


def test_more_sequences_than_the_batches_hold_order_decode():
    looks = [[Seen(decoding=120.0)]] * 3
    assert wanted(looked(looks)) == {"decode": 3}
    assert wanted(looked([[Seen(decoding=50.0)]] * 3)) == {}


def test_nothing_ready_and_nothing_planned_order_nothing():
    memory = looked(queueing())
    starting = Fleet(START_S, {
        "prefill": PoolFleet(1, (Pod("prefill-0", 0.0),), is_listed=True),
        "decode": PoolFleet(1),
    })  # fmt: skip
    assert wanted(memory, starting) == {}
    assert wanted(replace(memory, capacities={})) == {}


def test_a_wide_replica_is_counted_in_replicas():
    wide = service(pools=(pool(Role.PREFILL, pods_per_replica=2), pool(Role.DECODE)))
    pods = [[one[0], Seen(one[0].finished, one[0].waiting)] for one in queueing(30.0)]
    found = wanted(looked(pods, of=wide), fleet(prefill=4), wide)
    assert found["prefill"] > 2


def test_looks_a_scrape_apart_make_a_rate_too():
    for every_s in (15.0, 30.0):
        found = rises(SERVICE, looked(queueing(18.0, looks=3, every_s=every_s), every_s), ONE_EACH)
        assert found["prefill"].rate_rps == pytest.approx(18.0)
    assert wanted(looked(queueing(18.0, looks=3, every_s=45.0), 45.0)) == {}


def test_the_same_scrape_seen_twice_is_one_look():
    memory = LookMemory(CAPACITIES)
    for k, pods in enumerate(queueing(30.0, looks=2)):
        for again_s in (0.0, 1.0, 2.0):
            at_s = START_S + 15.0 * k
            memory = look(SERVICE, memory, sample(at_s, *pods), at_s + again_s)
    assert len(memory.looks["prefill"]) == 2


def test_old_looks_are_forgotten():
    memory = looked(queueing(looks=20))
    assert [round(seen.at_s - START_S) for seen in memory.looks["prefill"]] == [75, 80, 85, 90, 95]


@pytest.mark.parametrize(
    ("seen", "pressed"),
    [
        (Seen(waiting=0.0), False),
        (Seen(waiting=1.0), True),
        (Seen(decoding=50.0), False),
        (Seen(decoding=51.0), True),
    ],
    ids=["calm", "waiting", "full", "too full"],
)
def test_a_service_is_pressed_where_somebody_waits(seen: Seen, pressed: bool):
    memory = looked([[Seen()]] * 3)
    assert is_pressed(SERVICE, memory, sample(START_S + 15.0, seen)) is pressed


def test_what_is_not_pressed_orders_nothing():
    """So the fleet need not be read for it: here it is as small as can be."""
    for make in CALM:
        looks = make()
        memory, last = looked(looks[:-1]), looks[-1]
        at_s = START_S + CHECK_S * (len(looks) - 1)
        if not is_pressed(SERVICE, memory, sample(at_s, *last)):
            assert wanted(look(SERVICE, memory, sample(at_s, *last), at_s)) == {}


CALM: list[Callable[[], list[list[Seen]]]] = [
    lambda: [*queueing(90.0, looks=3), [Seen(1500.0, 0.0)]],
    lambda: [[Seen(decoding=500.0)], [Seen(decoding=500.0)], [Seen(decoding=50.0)]],
    lambda: queueing(90.0, looks=2),
]


def test_a_plan_arms_the_check_with_what_a_replica_can_do():
    armed = arm(SERVICE, LookMemory(), load(10.0), Factors()).capacities
    assert 5.0 < armed["prefill"].rate_rps < 100.0
    assert 0.0 < armed["prefill"].slack_s < SERVICE.sla.ttft_s
    assert armed["decode"].batch > 10
