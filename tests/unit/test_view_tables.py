"""Figures of a replay as JSON and as tables, and what `recommend` prints."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from planner.model import Hold, Reason
from planner.simulation.results import Shares, Summary
from planner.view.summary import results_json, reversals, scale_actions, tick_ms
from planner.view.tables import recommendation_json, recommendation_table, simulation_table
from tests.unit.test_view_series import Frame, held, plant_results, service, tick

ORDERS = {
    "prefill": ((0.0, 2), (120.0, 4), (660.0, 5), (720.0, 5), (900.0, 4), (1800.0, 6)),
    "decode": ((0.0, 1), (600.0, 2)),
}


def summary(both=0.985, **over):
    values = {
        "from_s": 600.0, "requests": 12_345, "attainment": Shares(both, 0.99, 0.995, 0.8),
        "refused": 1, "unfinished": 3, "gpu_hours": {"prefill": 2.5, "decode": 1.25}, "cost": 3.75,
    }  # fmt: skip
    return Summary(**(values | over))


def result(asked=None, **over):
    frames = [Frame(60.0 * k, tick(60.0 * k), tick_s=0.001 * k) for k in range(1, 101)]
    results = plant_results(orders=ORDERS, end_s=6000.0)
    return results_json(asked or service(), "a trace", 7, frames, results, summary(**over), 12.5)


def printed(renderable, width=80):
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


def test_the_object_has_every_promised_field():
    assert set(result()) == {
        "policy", "knob", "trace", "seed", "requests", "attainment", "gpu_hours", "cost", "oracle",
        "ratio_to_oracle", "best_static_gpu_hours", "scale_actions", "reversals", "unfinished",
        "tick_ms", "wall_s", "simulated_s",
    }  # fmt: skip
    assert json.loads(json.dumps(result(), allow_nan=False)) == result()


def test_the_object_says_what_was_measured():
    told = result()
    assert told["attainment"] == {"both": 0.985, "ttft": 0.99, "itl": 0.995, "worst_5min": 0.8}
    assert (told["gpu_hours"], told["unfinished"], told["simulated_s"]) == (3.75, 3, 6000.0)
    assert told["tick_ms"] == pytest.approx({"p50": 50.5, "p99": 99.01})
    assert told["oracle"] == dict.fromkeys(told["oracle"])


def test_a_cost_needs_a_price():
    free = service()
    priced = replace(free, pools=tuple(replace(p, gpu_hour_price=2.0) for p in free.pools))
    assert result(free)["cost"] is None
    assert result(priced)["cost"] == 3.75


def test_orders_count_from_the_end_of_the_warm_up():
    assert scale_actions(ORDERS) == 5
    assert scale_actions(ORDERS, 600.0) == 4
    assert scale_actions({"prefill": ((0.0, 3),)}) == 0


@pytest.mark.parametrize(
    ("orders", "count"),
    [
        (((0.0, 2), (60.0, 3), (660.0, 2)), 1),
        (((0.0, 2), (60.0, 3), (661.0, 2)), 0),
        (((0.0, 2), (60.0, 3), (120.0, 4)), 0),
        (((0.0, 3), (60.0, 2), (120.0, 4), (180.0, 1)), 2),
        (((0.0, 2), (60.0, 3), (120.0, 3), (180.0, 2)), 1),
    ],
    ids=["within 10 min", "later", "same way", "both ways", "over an order that changes nothing"],
)
def test_reversals(orders, count):
    assert reversals({"prefill": orders, "decode": ((0.0, 1),)}) == count


def test_a_reversal_in_the_warm_up_does_not_count():
    assert reversals({"prefill": ((0.0, 2), (60.0, 3), (120.0, 2))}, 600.0) == 0


def test_no_tick_has_no_percentiles():
    assert tick_ms([]) == {"p50": None, "p99": None}


def test_the_table_of_a_replay():
    text = printed(simulation_table(result(), 0.99))
    for told in (
        "98.5%, misses 99%", "80%", "12,345", "3.75", "pd-planner on a trace, seed 7", "50.5 ms",
        "1 h 40 min",
    ):  # fmt: skip
        assert told in text, told
    assert "Cost" not in text


def test_the_table_of_a_replay_without_requests():
    empty = Shares(None, None, None, None)
    assert "–" in printed(simulation_table(result(attainment=empty), 0.99))


def test_the_table_shows_cost_and_the_best_fixed_fleet_where_known():
    told = printed(simulation_table(result() | {"cost": 9.5, "best_static_gpu_hours": 7.25}))
    assert "9.50" in told
    assert "7.25" in told
    assert "misses" not in told


def test_a_cluster_that_cannot_be_read_is_a_row_without_pools():
    reason = Reason("ClusterUnavailable", "no answer; holding")
    record = tick(pools={}, hold=Hold(reason), observation=None, reasons=(reason,))
    text = printed(recommendation_table([record]))
    assert "inference/llama holds: no answer; holding" in text
    assert "TTFT –" in text


def test_the_table_of_recommendations():
    reason = Reason("TooManyReplicas", "pool prefill is capped at 9", "prefill")
    text = printed(recommendation_table([tick(60.0, (2, 1), (9, 1), [reason], 0.985), held(60.0)]))
    rows = [line.split() for line in text.splitlines()]
    assert ["inference/llama", "prefill", "2", "2", "9", "9", "90", "s"] in rows
    assert ["TTFT", "98.5%", "to", "99%", "decode", "1", "1", "1", "1", "90", "s"] in rows
    assert "inference/llama: pool prefill is capped at 9" in text
    assert text.count("metrics are 90 s old; holding") == 1
    assert "inference/llama holds: metrics are 90 s old; holding" in text


def test_recommendations_as_plain_values():
    (told,) = recommendation_json([tick(60.0, (2, 1), (3, 1), ttft=0.985)])
    assert told["pools"][0] == {
        "name": "prefill",
        "recommendedReplicas": 3,
        "desiredReplicas": 3,
        "currentReplicas": 2,
        "readyReplicas": 2,
        "leadTime": "1m30s",
        "domain": None,
    }
    assert told["attainment"]["ttft"] == {"lower": "0.985", "upper": "0.99"}
    assert (told["hold"], told["name"]) == (False, "llama")
    json.dumps(told, allow_nan=False)


def test_a_held_recommendation_knows_no_attainment():
    (told,) = recommendation_json([held()])
    assert told["hold"] is True
    assert told["attainment"] == {"ttft": None, "itl": None}
