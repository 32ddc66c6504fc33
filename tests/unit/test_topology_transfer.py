"""The path of a KV cache: by tier, by network type, and over the pairs of pods that use it."""

import pytest

from planner.inventory import Link, Network
from planner.model import Transfer
from planner.topology.transfer import link_transfer, paths_between
from tests.unit.topology_cluster import GIGABIT, NETWORK, TREE, name, node

BASE = Transfer(25e9, 0.005)
LABELS = {name(i): node(i).labels for i in range(256)}


@pytest.mark.parametrize(
    ("tier", "kind", "gigabits", "wire_s"),
    [
        pytest.param(1, "ib", 200, 2e-6, id="inside an IB leaf"),
        pytest.param(2, "ethernet", 10, 20e-6, id="between Ethernet switches"),
        pytest.param(3, None, 100, 10e-6, id="between types"),
        pytest.param(3, "ib", 100, 10e-6, id="the row for any type"),
        pytest.param(2, None, 200, 0.0, id="no row: the setting"),
        pytest.param(7, "ib", 200, 0.0, id="no tier: the setting"),
    ],
)
def test_the_most_specific_row_wins(tier, kind, gigabits, wire_s):
    found = link_transfer(NETWORK, tier, kind, BASE)
    assert found.bandwidth_bytes_per_s == pytest.approx(gigabits * GIGABIT)
    assert found.latency_s == pytest.approx(0.005 + wire_s)


def between(prefill, decode, network=NETWORK, labels=LABELS):
    spread = [{name(i): w for i, w in side.items()} for side in (prefill, decode)]
    return paths_between(*spread, TREE, network, labels, BASE)


@pytest.mark.parametrize(
    ("prefill", "decode", "gigabits", "mixed"),
    [
        pytest.param({0: 1}, {1: 1}, 200, 0.0, id="one leaf"),
        pytest.param({0: 1}, {64: 1}, 200, 0.0, id="two IB leaves"),
        pytest.param({128: 1}, {192: 1}, 10, 0.0, id="two Ethernet leaves"),
        pytest.param({0: 1}, {128: 1}, 100, 1.0, id="IB to Ethernet"),
        # Half of the prompts at 200, half at 100: the mean of 1/200 and 1/100 is 3/400.
        pytest.param({0: 1}, {1: 3, 128: 3}, 400 / 3, 0.5, id="half and half"),
    ],
)
def test_paths_where_the_pods_are(prefill, decode, gigabits, mixed):
    paths = between(prefill, decode)
    assert paths is not None
    assert paths.transfer.bandwidth_bytes_per_s == pytest.approx(gigabits * GIGABIT)
    assert paths.mixed_share == pytest.approx(mixed)


def test_together_is_the_better_of_the_two_networks():
    paths = between({0: 1, 64: 1}, {128: 1})
    assert paths.types == ("ethernet", "ib")
    assert paths.together == link_transfer(NETWORK, 2, "ib", BASE)
    same = between({0: 1}, {1: 1})
    assert same.together == same.transfer


@pytest.mark.parametrize(
    ("prefill", "decode"),
    [
        pytest.param({}, {1: 1}, id="no prefill"),
        pytest.param({0: 1}, {}, id="no decode"),
        pytest.param({0: 1}, {999: 1}, id="a node that is gone"),
        pytest.param({0: 0}, {1: 1}, id="no weight"),
    ],
)
def test_no_path_unless_both_ends_are_known(prefill, decode):
    assert between(prefill, decode) is None


def test_ends_without_a_type_are_not_called_mixed():
    paths = between({0: 1}, {128: 1}, labels={})
    assert paths.mixed_share == 0.0
    assert paths.types == ()
    assert paths.transfer.bandwidth_bytes_per_s == pytest.approx(100 * GIGABIT)


def test_the_time_of_a_prompt_is_the_mean_over_the_pairs():
    network = Network((Link(1, "ib", 1e9, 0.0), Link(2, "ib", 4e9, 0.01)))
    paths = between({0: 1}, {1: 1, 64: 1}, network)
    near, far = (link_transfer(network, tier, "ib", BASE) for tier in (1, 2))
    mean_s = (near.time_s(3000.0, 320_000.0) + far.time_s(3000.0, 320_000.0)) / 2.0
    assert paths.transfer.time_s(3000.0, 320_000.0) == pytest.approx(mean_s)
