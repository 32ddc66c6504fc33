"""Which changes are told to the people of a scale target, and how often."""

import queue
import threading
from typing import Any

import pytest

from planner.adapters.kubernetes.events import KubernetesEvents, event_of, notices_of
from planner.adapters.kubernetes.faults import Resource
from planner.errors import ClusterError
from planner.model import (
    Decision,
    Hold,
    Patch,
    Pool,
    Reason,
    Role,
    Service,
    ServiceKey,
    Sla,
    Target,
)
from planner.record import TickRecord

KEY = ServiceKey("serving", "llama")
POOL = Pool("prefill", Role.PREFILL, Target("batch.volcano.sh/v1alpha1", "Job", "pd", "p"))
SERVICE = Service(KEY, Sla(0.5, 0.03), (POOL,))
SHORT = Reason("CapacityShortage", "4 GPUs are missing", "prefill")


def tick(
    *reasons: Reason,
    replicas: int | None = None,
    applied: bool | None = None,
    error: str | None = None,
    hold: Reason | None = None,
) -> TickRecord:
    patch = None if replicas is None else Patch({"prefill": replicas})
    held = None if hold is None else Hold(hold)
    return TickRecord(KEY, Decision(1795370400.0, {}, reasons, held, patch=patch), applied, error)


@pytest.mark.parametrize(
    ("told", "notices"),
    [
        pytest.param(tick(), [], id="nothing happened"),
        pytest.param(
            tick(Reason("LimitedByBudget", "the evening comes"), replicas=6, applied=True),
            [("SuccessfulRescale", "New size: 6; reason: the evening comes")],
            id="scaled",
        ),
        pytest.param(
            tick(replicas=6, applied=True), [("SuccessfulRescale", "New size: 6")], id="no reason"
        ),
        pytest.param(
            tick(replicas=6, applied=False, error="denied"),
            [("FailedRescale", "denied")],
            id="refused",
        ),
        pytest.param(tick(replicas=6), [], id="recommended only"),
        pytest.param(
            tick(hold=Reason("MetricsStale", "90 s old")),
            [("MetricsUnavailable", "90 s old")],
            id="metrics",
        ),
        pytest.param(
            tick(hold=Reason("TargetNotFound", "there is no Job")),
            [("FailedRescale", "there is no Job")],
            id="target",
        ),
        pytest.param(tick(hold=Reason("WarmingUp", "wait")), [], id="warming up"),
        pytest.param(
            tick(
                SHORT,
                Reason("SLAUnreachable", "at best 700 ms"),
                Reason("TopologyUnreadable", "two parents"),
                Reason("CapacityShortage", "of another pool", "decode"),
                Reason("RatioBound", "nobody's business"),
            ),
            [
                ("CapacityShortage", "4 GPUs are missing"),
                ("SLAUnreachable", "at best 700 ms"),
                ("TopologyUnreadable", "two parents"),
            ],
            id="conditions",
        ),
    ],
)
def test_what_a_tick_says(told: TickRecord, notices: list[tuple[str, str]]) -> None:
    assert [(one.reason, one.message) for one in notices_of(told, "prefill")] == notices


def test_the_event_is_on_the_target() -> None:
    (notice,) = notices_of(tick(replicas=6, applied=True), "prefill")
    event = event_of("serving", POOL, notice, 1795370400.0, "u1")
    assert event["involvedObject"] == {
        "apiVersion": "batch.volcano.sh/v1alpha1",
        "kind": "Job",
        "namespace": "serving",
        "name": "pd",
        "uid": "u1",
    }
    assert (event["type"], event["reportingComponent"]) == ("Normal", "pd-planner")
    assert event["message"] == "prefill: New size: 6"
    assert event["firstTimestamp"] == "2026-11-22T18:00:00Z"


def test_a_long_message_is_cut_to_what_the_api_takes() -> None:
    (notice,) = notices_of(tick(replicas=6, applied=False, error="x" * 5000), "prefill")
    event = event_of("serving", POOL, notice, 0.0, None)
    assert len(event["message"]) <= 1024
    assert event["type"] == "Warning"
    assert "uid" not in event["involvedObject"]


class Posted:
    """Takes events, fails on demand, or keeps its caller waiting."""

    def __init__(self) -> None:
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self.failing = False
        self.open = threading.Event()
        self.open.set()

    def post(self, _: Resource, __: str | None, body: dict[str, Any]) -> dict[str, Any]:
        self.open.wait()
        if self.failing:
            raise ClusterError("unreachable")
        self.events.put(body)
        return body


def reasons(posted: Posted, *ticks: TickRecord) -> list[str]:
    listener = KubernetesEvents(posted, [SERVICE], lambda *_: "u1")
    for one in ticks:
        listener.record(one)
    listener.close()
    return [posted.events.get_nowait()["reason"] for _ in range(posted.events.qsize())]


FAILED = tick(replicas=6, applied=False, error="was at version 17")


@pytest.mark.parametrize(
    ("ticks", "told"),
    [
        pytest.param([tick(SHORT)] * 3, ["CapacityShortage"], id="one a change"),
        pytest.param([tick(SHORT), tick(), tick(SHORT)], ["CapacityShortage"] * 2, id="again"),
        pytest.param(
            [tick(replicas=6, applied=True)] * 2, ["SuccessfulRescale"] * 2, id="every rescale"
        ),
        pytest.param(
            [FAILED, tick(replicas=6, applied=False, error="was at version 18")],
            ["FailedRescale"],
            id="the same failure with another number",
        ),
        pytest.param(
            [FAILED, tick(replicas=6, applied=False, error="denied")],
            ["FailedRescale"] * 2,
            id="another failure",
        ),
        pytest.param(
            [tick(SHORT, Reason("WaitingForNodes", "nodes come", "prefill"))],
            ["CapacityShortage"],
            id="two reasons, one event",
        ),
    ],
)
def test_an_event_is_one_a_change(ticks: list[TickRecord], told: list[str]) -> None:
    assert reasons(Posted(), *ticks) == told


def test_a_service_that_is_not_ours_is_passed_over() -> None:
    other = TickRecord(ServiceKey("x", "y"), tick(SHORT).decision)
    assert reasons(Posted(), other) == []


def test_an_api_server_that_is_away_costs_the_events_alone() -> None:
    posted = Posted()
    posted.failing = True
    assert reasons(posted, tick(SHORT), tick(replicas=6, applied=True)) == []


def test_a_slow_api_server_never_keeps_a_tick_waiting() -> None:
    posted = Posted()
    posted.open.clear()
    listener = KubernetesEvents(posted, [SERVICE], lambda *_: "u1")
    for _ in range(1500):  # more than wait for it: the rest is lost
        listener.record(tick(replicas=6, applied=True))
    posted.open.set()
    for _ in range(1000):
        posted.events.get(timeout=10.0)
    listener.close()
