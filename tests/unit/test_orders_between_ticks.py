"""An order between two ticks as everybody is told of it, and who is asked for it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from planner.adapters.http.health import Health
from planner.adapters.kubernetes.events import KubernetesEvents, notices_of
from planner.adapters.memory import MemoryCluster
from planner.adapters.metrics_export import MetricsExport
from planner.adapters.probe import NearestProbe, asked_of, sample_of, url_of
from planner.adapters.telemetry import RecordFile
from planner.errors import MetricsError
from planner.loop import Loop
from planner.model import (
    Decision,
    Endpoint,
    Mode,
    Patch,
    Pod,
    PodSample,
    PoolDecision,
    Reason,
    Role,
    Sample,
    Service,
    ServiceKey,
)
from planner.record import TickRecord
from planner.spec.resource import PDAutoscaler
from planner.spec.service import to_service
from planner.view.explain import explain
from planner.view.service_standing import standing
from tests.builders import START_S, Drive, assert_only_rises, fleet, pod_sample, sample, service

ROOT = Path(__file__).parents[2]
SERVICE = service(mode=Mode.ACT)
GROWING = Reason(
    "QueueGrowing",
    "pool prefill: 12 requests wait at 3 ready replicas; 3 → 5 replicas before the next tick",
    "prefill",
    {"waiting": 12.0, "ready": 3.0, "rate_rps": 14.0},
)
POOLS = {"prefill": PoolDecision(5, 5, 3, 3, 60.0), "decode": PoolDecision(2, 2, 2, 2, 60.0)}
CHECK = TickRecord(
    SERVICE.key,
    Decision(START_S + 315.0, POOLS, (GROWING,), patch=Patch({"prefill": 5})),
    applied=True,
)


def tick(*reasons: Reason) -> TickRecord:
    decided = Drive(SERVICE).run(5, rps=20.0)
    return TickRecord(SERVICE.key, replace(decided, reasons=reasons or decided.reasons))


def test_the_event_on_the_target_tells_why():
    (notice,) = notices_of(CHECK, "prefill")
    assert (notice.reason, notice.is_warning) == ("SuccessfulRescale", False)
    assert notice.message.startswith("New size: 5; reason: pool prefill: 12 requests wait")
    assert list(notices_of(CHECK, "decode")) == []


def test_what_a_tick_warned_of_is_not_told_again_after_an_order_between_two():
    posted: list[str] = []

    class Api:
        def post(self, _resource: object, _namespace: object, body: Mapping[str, str]) -> None:
            posted.append(body["reason"])

    events = KubernetesEvents(Api(), [SERVICE], lambda *_: None)  # type: ignore[arg-type]
    beyond = Reason("SLAUnreachable", "no number of replicas meets the SLA", "prefill")
    for record in (tick(beyond), CHECK, tick(beyond)):
        events.record(record)
    events.close()
    assert sorted(posted) == ["SLAUnreachable", "SuccessfulRescale"]


def test_metrics_tell_the_new_replicas_beside_what_the_tick_saw():
    export = MetricsExport([SERVICE])
    export.record(tick())
    before = export.exposition()[0].decode()
    export.record(CHECK)
    after = export.exposition()[0].decode()
    forecast = [line for line in before.splitlines() if "forecast_tokens" in line]
    assert forecast
    assert all(line in after for line in forecast)
    told = [
        line for line in after.splitlines() if "desired_replicas{" in line and "prefill" in line
    ]
    assert [line.split()[-1] for line in told] == ["5.0"]


def test_health_is_that_of_the_ticks():
    now_s = 0.0
    health = Health([SERVICE], lambda: now_s)
    health.record(CHECK)
    assert health.faults_of_readiness()
    health.record(tick())
    now_s = 10_000.0
    health.record(CHECK)
    assert health.faults_of_life()


def test_the_page_says_that_a_queue_grows():
    found = standing(SERVICE, CHECK)
    assert (found.word, found.kind) == ("queue growing", "limited")
    assert standing(SERVICE, replace(CHECK, error="denied")).word == "order refused"


def test_the_record_is_a_whole_line_and_explain_tells_it_in_words(tmp_path: Path):
    path = tmp_path / "record.jsonl"
    file = RecordFile(path)
    for record in (tick(), CHECK):
        file.record(record)
    file.close()
    lines = path.read_text(encoding="utf-8").splitlines()
    line = json.loads(lines[1])
    assert (line["applied"], line["patch"]["replicas"]) == (True, {"prefill": 5})
    told = " ".join(explain(lines, None).split())
    assert "prefill 3→5, decode stays at 2: pool prefill: 12 requests wait" in told
    assert "QueueGrowing: pool prefill: 12 requests wait at 3 ready replicas" in told
    assert "written: prefill to 5" in told
    assert "The file: 1 ticks" in told
    assert "1 orders asked for between them" in told


# ── who is asked ─────────────────────────────────────────────────────────────────────────────────


class Counting:
    """A source that remembers whom it was asked for, and when."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, list[str]]] = []

    def read(
        self, services: Sequence[Service], now_s: float
    ) -> Mapping[ServiceKey, Sample | MetricsError]:
        self.asked.append((now_s, [s.key.name for s in services]))
        return {s.key: sample(now_s) for s in services}

    def history(self, *_: object) -> list[Sample | MetricsError]:
        return []


def named(name: str, *probes: Endpoint | None) -> Service:
    base = service(key=ServiceKey("inference", name))
    pools = tuple(replace(p, probe=at) for p, at in zip(base.pools, probes, strict=True))
    return replace(base, pools=pools)


NEAR, FAR = named("near", Endpoint(), Endpoint(8200)), named("far", Endpoint(), None)


def test_prometheus_is_asked_once_a_scrape_and_pods_every_time():
    pods, metrics = Counting(), Counting()
    probe = NearestProbe(pods, metrics, 15.0)
    found = [set(probe.read([NEAR, FAR], at_s)) for at_s in (30.0, 35.0, 40.0, 45.1, 50.0)]
    assert pods.asked == [(at_s, ["near"]) for at_s in (30.0, 35.0, 40.0, 45.1, 50.0)]
    assert metrics.asked == [(30.0, ["far"]), (45.1, ["far"])]
    assert [FAR.key in keys for keys in found] == [True, False, False, True, False]


def test_without_a_list_of_pods_prometheus_is_asked_for_all():
    metrics = Counting()
    probe = NearestProbe(None, metrics, 15.0)
    probe.read([NEAR, FAR], 30.0)
    assert metrics.asked == [(30.0, ["near", "far"])]
    assert not probe.asks_pods_of(NEAR)


def test_pods_that_serve_and_have_an_address_are_asked_at_their_pools_port():
    pods = {
        "prefill": (Pod("p-0", 0.0, ready_s=1.0, ip="10.0.0.1"), Pod("p-1", 0.0, ip="10.0.0.2")),
        "decode": (Pod("d-0", 0.0, ready_s=1.0), Pod("d-1", 0.0, ready_s=1.0, ip="fd00::1")),
    }
    assert [one.url for one in asked_of(NEAR, pods)] == [
        "http://10.0.0.1:8000/metrics",
        "http://[fd00::1]:8200/metrics",
    ]
    assert asked_of(replace(NEAR, source="nobody's"), pods) == []
    assert url_of("10.0.0.1", Endpoint(9, "/m")) == "http://10.0.0.1:9/m"


@pytest.mark.parametrize(("answered", "is_enough"), [(0, False), (1, False), (2, True), (4, True)])
def test_half_of_a_pool_is_enough(answered: int, is_enough: bool):
    ready = tuple(Pod(f"p-{i}", 0.0, ready_s=1.0, ip=f"10.0.0.{i}") for i in range(4))
    asked = asked_of(NEAR, {"prefill": ready})
    answers: dict[object, PodSample | MetricsError] = {
        one: pod_sample(one.pod) for one in asked[:answered]
    }
    found = sample_of(NEAR, {"prefill": ready}, asked, answers, START_S)  # type: ignore[arg-type]
    assert isinstance(found, Sample) is is_enough
    if is_enough:
        assert len(found.pools["prefill"]) == answered
    else:
        assert f"pool prefill: {answered} of 4 pods answered, legal is half" in str(found)


@pytest.mark.parametrize(
    ("of_service", "of_decode", "expected"),
    [
        (None, None, (None, None)),
        ({}, None, (Endpoint(), Endpoint())),
        ({"port": 9000, "path": "/m"}, {"port": 8200}, (Endpoint(9000, "/m"), Endpoint(8200))),
        (None, {}, (None, Endpoint())),
    ],
    ids=["none", "defaults", "overridden", "one pool"],
)
def test_a_pools_probe_is_its_own_or_its_services(
    of_service: dict[str, object] | None,
    of_decode: dict[str, object] | None,
    expected: tuple[Endpoint | None, Endpoint | None],
):
    assert tuple(p.probe for p in to_service(spec(of_service, of_decode), ROOT).pools) == expected


@pytest.mark.parametrize(
    "probe",
    [{"port": 0}, {"port": 65536}, {"path": "metrics"}, {"path": "/m?x=1"}, {"scheme": "https"}],
    ids=str,
)
def test_a_probe_that_can_not_be_asked_is_refused(probe: dict[str, object]):
    with pytest.raises(ValueError, match=r"probe"):
        spec(probe, None)


def spec(of_service: dict[str, object] | None, of_decode: dict[str, object] | None) -> PDAutoscaler:
    def asked(role: Role) -> dict[str, object]:
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"llama-{role}"}
        file = {"file": "profiles/data/llama-3.1-8b-fp8-h200.json"}
        own = (
            {"metrics": {"probe": of_decode}}
            if role is Role.DECODE and of_decode is not None
            else {}
        )
        return {
            "name": str(role),
            "role": role.value.capitalize(),
            "scaleTargetRef": target,
            "profile": file,
            "maxReplicas": 8,
            **own,
        }

    metrics = {} if of_service is None else {"metrics": {"probe": of_service}}
    return PDAutoscaler.model_validate({
        "apiVersion": "pd-planner.io/v1alpha1",
        "kind": "PDAutoscaler",
        "metadata": {"name": "llama"},
        "spec": {
            "sla": {"ttft": "500ms", "itl": "30ms"},
            "pools": [asked(role) for role in Role],
            **metrics,
        },
    })  # fmt: skip


# ── the loop ─────────────────────────────────────────────────────────────────────────────────────


def test_a_loop_orders_for_a_queue_before_its_next_tick_and_once():
    loop = Loop(SERVICE, MemoryCluster({SERVICE.key: {"prefill": 1, "decode": 1}}), [])
    loop.tick(sample(START_S), fleet(START_S), START_S)
    loop.tick(sample(START_S + 60.0, 300.0), fleet(START_S), START_S + 60.0)
    decisions = []
    for k in range(1, 8):
        at_s = START_S + 60.0 + 5.0 * k
        seen = queue(at_s, 300.0 + 100.0 * k, waiting=300.0 * max(k - 3, 0))
        if loop.notice(seen, at_s):
            decisions.append((k, loop.check(seen, fleet(at_s), at_s)))
    told = {k: asked(d) for k, d in decisions if d is not None}
    assert min(told) == 4  # five seconds after the first of them waited
    assert_only_rises(list(told.values()))
    # The tick starts afresh: what is still needed is said again.
    loop.tick(sample(START_S + 120.0, 600.0), fleet(START_S), START_S + 120.0)
    at_s = START_S + 125.0
    assert loop.check(queue(at_s, 1500.0, waiting=3000.0), fleet(at_s), at_s) is not None


def asked(decision: Decision) -> tuple[int, int]:
    """Return the replicas of prefill and of decode."""
    return decision.pools["prefill"].desired, decision.pools["decode"].desired


def test_what_can_not_be_read_is_no_order():
    loop = Loop(SERVICE, MemoryCluster({}), [])
    assert loop.check(MetricsError("no answer"), fleet(START_S), START_S) is None


def queue(at_s: float, finished: float, waiting: float) -> Sample:
    seen = sample(at_s, finished)
    prefill = pod_sample("prefill-0", at_s, finished, waiting=waiting, running=1.0)
    return replace(seen, pools={**seen.pools, "prefill": (prefill,)})
