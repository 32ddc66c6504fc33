"""One tick as one line that explains itself."""

import json
import math

import pytest

from planner.model import (
    Decision,
    Factor,
    Factors,
    Hold,
    Mode,
    Patch,
    PoolDecision,
    Reason,
    ServiceKey,
)
from planner.record import SCHEMA_VERSION, TickRecord
from tests.builders import START_S, Drive, load, observation, service

KEY = ServiceKey("inference", "llama-8b")


def pools(**steps: tuple[int, int]):
    return {name: PoolDecision(b, b, a, a, 60.0) for name, (a, b) in steps.items()}


CAP = Reason("CapacityShortage", "only 3 fit", "decode", {"wanted": 5, "capped": 3})
GONE = Reason("MetricsMissing", "no metrics; holding")
RISE = Reason("Fallback", "no usable metrics for 600 s: rising to the fallback")


@pytest.mark.parametrize(
    ("decision", "sentence"),
    [
        pytest.param(Decision(START_S, pools(prefill=(2, 2), decode=(1, 1))),
                     "prefill stays at 2, decode stays at 1", id="steady"),
        pytest.param(Decision(START_S, pools(prefill=(2, 4), decode=(1, 3)), (CAP,)),
                     "prefill 2→4, decode 1→3: only 3 fit", id="change and cap"),
        pytest.param(Decision(START_S, pools(prefill=(2, 2)), (GONE,), Hold(GONE)),
                     "no metrics; holding", id="hold"),
        pytest.param(Decision(START_S, {}, (GONE,), Hold(GONE)),
                     "no metrics; holding", id="hold without a fleet"),
        pytest.param(Decision(START_S, pools(prefill=(2, 8)), (GONE, RISE), Hold(GONE)),
                     "prefill 2→8: " + RISE.message, id="rise to the fallback"),
    ],
)  # fmt: skip
def test_sentence(decision, sentence):
    assert TickRecord(KEY, decision).sentence == sentence


def test_a_record_is_one_line_of_plain_json():
    decision = Decision(
        START_S,
        pools(prefill=(2, 4)),
        (CAP,),
        observation=observation(ttft_mean_s=math.nan),
        factors=Factors({"prefill": Factor(1.23456789)}, ("decode",)),
        load=load(),
        patch=Patch({"prefill": 4}),
    )
    line = TickRecord(KEY, decision, applied=False, error="409 conflict").to_json()
    assert "\n" not in line
    found = json.loads(line)
    assert found["schemaVersion"] == SCHEMA_VERSION
    assert (found["namespace"], found["name"]) == ("inference", "llama-8b")
    assert (found["applied"], found["error"]) == (False, "409 conflict")
    assert found["patch"] == {"replicas": {"prefill": 4}, "drain": {}, "keep": []}
    assert found["factors"] == {
        "pools": {"prefill": {"level": 1.234568, "slope": 0.0}}, "frozen": ["decode"]
    }  # fmt: skip
    assert found["observation"]["ttft_mean_s"] is None
    assert found["observation"]["pools"]["prefill"]["changed"] is False
    assert found["reasons"][0]["values"] == {"wanted": 5, "capped": 3}
    assert set(found["load"]["tokens"]) == {"prefill", "decode"}
    assert not {"prompts", "outputs", "arrival_bins"} & set(found["observation"])


def test_a_whole_tick_can_be_written():
    drive = Drive(service(mode=Mode.ACT))
    for decision in (drive.tick(), drive.tick(40.0)):
        found = json.loads(TickRecord(KEY, decision).to_json())
        assert found["at_s"] == decision.at_s
        assert found["sentence"]
