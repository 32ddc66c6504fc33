"""Whatever pods show: an order between two ticks only adds, within every limit."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.decision.decide import Inputs, State, rise
from planner.decision.looks import CHECK_S, Capacity, LookMemory, look
from planner.decision.rise import rises
from planner.model import Limits, Mode, Role, Sample, Service
from tests.builders import START_S, fleet, pod_sample, pool, service

MAX = 9
BUDGET = 12
SERVICE = service(
    mode=Mode.ACT,
    pools=(pool(Role.PREFILL, max_replicas=MAX), pool(Role.DECODE, max_replicas=MAX)),
    limits=Limits(gpus={"h200": BUDGET}),
)
CAPACITIES = {"prefill": Capacity(10.0, 0.4), "decode": Capacity(batch=20)}

counts = st.floats(0.0, 1e5)
# By pod: finished since the last look, waiting, running.
shown = st.tuples(st.floats(0.0, 2000.0), counts, st.floats(0.0, 500.0))
looks = st.lists(st.lists(shown, min_size=1, max_size=4), min_size=0, max_size=6)
steady = st.integers(1, 3).flatmap(
    lambda n: st.lists(st.lists(shown, min_size=n, max_size=n), min_size=3, max_size=6)
)
fleets = st.tuples(st.integers(0, MAX), st.integers(0, MAX)).filter(lambda n: sum(n) <= BUDGET)
rooms = st.dictionaries(st.sampled_from(["prefill", "decode"]), st.integers(0, 12))


def samples(seen: list[list[tuple[float, float, float]]]) -> list[Sample]:
    """Return samples of both roles; a pod's counter grows as long as it is shown."""
    done: dict[str, float] = {}
    found = []
    for k, pods in enumerate(seen):
        at_s = START_S + k * CHECK_S
        by_role = {}
        for role in Role:
            of_role = []
            for i, (finished, waiting, running) in enumerate(pods):
                name = f"{role}-{i}"
                done[name] = done.get(name, 0.0) + finished
                shows = {"waiting": waiting, "running": running}
                of_role.append(pod_sample(name, at_s, done[name], role, **shows))
            by_role[str(role)] = tuple(of_role)
        found.append(Sample(at_s, by_role))
    return found


def ordered(
    seen: list[Sample], prefill: int, decode: int, room: dict[str, int], of: Service = SERVICE
) -> tuple[State, list[dict[str, int]]]:
    """Return the state and what each check patched, the fleet following at once."""
    state = State(looks=LookMemory(CAPACITIES))
    now, patches = {"prefill": prefill, "decode": decode}, []
    for sample in seen:
        inputs = Inputs(sample, fleet(sample.at_s, room, **now))
        state, decision = rise(of, state, inputs, sample.at_s)
        if decision is None:
            continue
        assert all(p.desired >= p.current for p in decision.pools.values())
        assert decision.patch is not None
        patches.append(dict(decision.patch.replicas))
        now |= decision.patch.replicas
    return state, patches


@given(looks, fleets, rooms)
@settings(max_examples=150, deadline=None)
def test_it_only_adds_and_stays_within_maximum_room_and_budget(seen, size, room):
    read = samples(seen)
    now = dict(zip(("prefill", "decode"), size, strict=True))
    _, patches = ordered(read, *size, room)
    for patch in patches:
        for name, replicas in patch.items():
            assert replicas > now[name]
            assert replicas <= MAX
            assert replicas <= max(room.get(name, math.inf), now[name])
        now |= patch
        assert sum(now.values()) <= BUDGET


@given(looks, fleets)
@settings(max_examples=50, deadline=None)
def test_it_is_the_same_for_the_same(seen, size):
    assert ordered(samples(seen), *size, {}) == ordered(samples(seen), *size, {})


@given(st.lists(st.lists(shown, min_size=1, max_size=3), max_size=2), fleets)
def test_two_looks_order_nothing(seen, size):
    assert ordered(samples(seen), *size, {})[1] == []


@given(steady, st.floats(1.0, 1e4), st.integers(1, MAX))
@settings(max_examples=150, deadline=None)
def test_more_waiting_at_every_look_never_orders_less(seen, more, size):
    # At every look, so that arrivals are the same; somebody waits at all of them both times.
    few = [[(done, waiting + 1.0, running) for done, waiting, running in pods] for pods in seen]
    many = [[(done, waiting + more, running) for done, waiting, running in pods] for pods in few]
    now = fleet(prefill=size, decode=1)
    one, other = (rises(SERVICE, looked(samples(s)), now) for s in (few, many))
    assert all(other[name].replicas >= found.replicas for name, found in one.items())


def looked(read: list[Sample]) -> LookMemory:
    memory = LookMemory(CAPACITIES)
    for sample in read:
        memory = look(SERVICE, memory, sample, sample.at_s)
    return memory


@pytest.mark.parametrize("mode", [Mode.RECOMMEND, Mode.OFF], ids=str)
def test_only_acting_patches(mode: Mode):
    seen = samples([[(50.0, 100.0 * k, 1.0)] for k in range(5)])
    of = replace(SERVICE, mode=mode)
    state = State(looks=LookMemory(CAPACITIES))
    told = []
    for sample in seen:
        inputs = Inputs(sample, fleet(sample.at_s))
        state, decision = rise(of, state, inputs, sample.at_s)
        told += [decision] if decision else []
    assert told
    assert all(decision.patch is None for decision in told)
