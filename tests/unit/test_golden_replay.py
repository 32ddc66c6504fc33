"""Twenty minutes of real requests, decision by decision, as tests/data holds them.

The only test that sees a change of behaviour which every property allows. `make golden` writes
the file anew; the diff is what the change does to a service.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from planner import replay as module
from planner.record import TickRecord
from planner.replay import Replay
from planner.simulation.trace_files import open_trace
from planner.simulation.traces import Trace, clip, make_trace, scale_trace
from planner.spec.service import load_services

GOLDEN = "golden_azure2023_conv_x10.jsonl"
DATA = Path(__file__).parents[1] / "data"
DEMO = Path(module.__file__).with_name("demo.yaml")
MINUTES, COPIES = 20, 10


def first_minutes() -> Trace:
    trace = clip(open_trace("azure2023-conv"), 16384)[0]
    early = trace.arrival_s < 60.0 * MINUTES
    columns = (trace.arrival_s, trace.isl_tokens, trace.osl_tokens)
    return scale_trace(make_trace(trace.name, *(c[early] for c in columns)), COPIES)


def as_line(record: TickRecord) -> str:
    """Return what of a tick would concern an operator."""
    decision = record.decision
    told = {
        "at_s": decision.at_s,
        "sentence": record.sentence,
        "pools": {
            name: [pool.current, pool.ready, pool.recommended, pool.desired]
            for name, pool in decision.pools.items()
        },
        "reasons": [[reason.code, reason.pool] for reason in decision.reasons],
        "hold": decision.hold is not None,
    }
    return json.dumps(told, ensure_ascii=False)


@pytest.fixture(scope="module")
def records() -> list[TickRecord]:
    (loaded,) = load_services([DEMO])
    return [frame.record for frame in Replay(loaded, first_minutes()).frames()]


def test_every_decision_is_the_golden_one(
    records: Sequence[TickRecord], matches_golden: Callable[[str, str], None]
):
    matches_golden(GOLDEN, "".join(f"{as_line(record)}\n" for record in records))


def test_the_golden_file_is_small_enough_to_review():
    assert (DATA / GOLDEN).stat().st_size < 60_000


def test_the_golden_minutes_hold_orders_and_reasons(records: Sequence[TickRecord]):
    """Or a change of behaviour would pass unseen."""
    assert len(records) == MINUTES - 1
    moves = [
        name
        for record in records
        for name, pool in record.decision.pools.items()
        if pool.desired != pool.current
    ]
    assert {"prefill", "decode"} <= set(moves)
    assert any(record.decision.reasons for record in records)
