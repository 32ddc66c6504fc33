"""What is written, in which order, and what is done when somebody else wrote first."""

from collections.abc import Callable
from typing import Any

import pytest

from planner.adapters.kubernetes.faults import Resource
from planner.adapters.kubernetes.patches import Reading, reading
from planner.adapters.kubernetes.targets import TargetReader
from planner.adapters.kubernetes.writes import TargetWriter, drained_at_s
from planner.errors import ClusterError, ConflictError, RefusedError, TargetError
from planner.model import Target

Json = dict[str, Any]


def target(name: str, task: str = "prefill") -> Target:
    return Target("batch.volcano.sh/v1alpha1", "Job", name, task)


def job(name: str, *counts: int, version: int = 1, uid: str = "u") -> Json:
    names = ("prefill", "decode")
    tasks = [{"name": task, "replicas": n} for task, n in zip(names, counts, strict=False)]
    meta = {"name": name, "namespace": "s", "uid": uid, "resourceVersion": str(version)}
    return {"metadata": meta, "spec": {"tasks": tasks}}


class Jobs:
    """Holds Jobs, answers a stale version with a conflict, and logs every write."""

    def __init__(self, *held: Json) -> None:
        self.held = {one["metadata"]["name"]: one for one in held}
        self.refused: dict[str, ClusterError] = {}
        self.written: list[str] = []
        self.marks: list[tuple[str, Json]] = []
        self.meanwhile: Callable[[Json], None] = lambda _: None

    def get(self, _: Resource, __: str | None, name: str) -> Json:
        return self.held[name]

    def json_patch(self, _: Resource, __: str | None, name: str, patch: list[Json]) -> Json:
        if name in self.refused:
            raise self.refused[name]
        held = self.held[name]
        self.meanwhile(held)
        if patch[0]["value"] != held["metadata"]["resourceVersion"]:
            raise ConflictError("the object has been modified")
        counts = {one["path"]: one["value"] for one in patch if one["op"] == "add"}
        self.written.append(f"{name} {list(counts.values())}")
        return held

    def merge_patch(self, _: Resource, __: str | None, name: str, change: Json) -> Json:
        if name in self.refused:
            raise self.refused[name]
        self.marks.append((name, change["metadata"]))
        return {}


def writer(jobs: Jobs) -> TargetWriter:
    return TargetWriter(jobs, TargetReader(jobs))


def read(jobs: Jobs, name: str, task: str = "prefill") -> Reading:
    return reading(target(name, task), jobs.held[name])


def scale(jobs: Jobs, *wanted: tuple[Reading, int], may_shrink: bool = True) -> list[ClusterError]:
    return writer(jobs).scale("s", wanted, may_shrink=may_shrink)


def moved(by: int) -> Callable[[Json], None]:
    """Return a status controller that moves the version at each of the first `by` writes."""
    left = [by]

    def move(held: Json) -> None:
        if left[0]:
            left[0] -= 1
            held["metadata"]["resourceVersion"] += "1"

    return move


def test_two_tasks_of_a_job_are_one_write() -> None:
    jobs = Jobs(job("pd", 4, 6))
    assert scale(jobs, (read(jobs, "pd"), 5), (read(jobs, "pd", "decode"), 3)) == []
    assert jobs.written == ["pd [5, 3]"]


def test_what_grows_is_written_before_what_shrinks() -> None:
    jobs = Jobs(job("a", 4), job("b", 4), job("c", 4))
    scale(jobs, (read(jobs, "a"), 2), (read(jobs, "b"), 6), (read(jobs, "c"), 5))
    assert jobs.written == ["b [6]", "c [5]", "a [2]"]


def test_one_refusal_stops_no_other_growth_but_every_shrinking() -> None:
    jobs = Jobs(job("a", 4), job("b", 4), job("c", 4))
    jobs.refused["b"] = RefusedError("denied the request")
    faults = scale(jobs, (read(jobs, "a"), 2), (read(jobs, "b"), 6), (read(jobs, "c"), 5))
    assert [str(one) for one in faults] == ["denied the request"]
    assert jobs.written == ["c [5]"]


def test_nothing_shrinks_where_the_marks_failed() -> None:
    jobs = Jobs(job("a", 4), job("b", 4))
    assert scale(jobs, (read(jobs, "a"), 2), (read(jobs, "b"), 5), may_shrink=False) == []
    assert jobs.written == ["b [5]"]


@pytest.mark.parametrize("times", [1, 3])
def test_a_status_that_moved_the_version_is_read_again_and_written(times: int) -> None:
    jobs = Jobs(job("pd", 4))
    jobs.meanwhile = moved(times)
    assert scale(jobs, (read(jobs, "pd"), 5)) == []
    assert jobs.written == ["pd [5]"]


def test_a_version_that_never_rests_is_left_to_the_next_tick() -> None:
    jobs = Jobs(job("pd", 4))
    jobs.meanwhile = moved(4)
    assert [type(one) for one in scale(jobs, (read(jobs, "pd"), 5))] == [ConflictError]
    assert jobs.written == []


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(job("pd", 7, version=2), id="another count"),
        pytest.param(job("pd", 4, version=2, uid="new"), id="another object"),
        pytest.param(job("pd", 4, 1, version=2), id="another task"),
    ],
)
def test_a_decision_on_something_else_is_not_written(other: Json) -> None:
    jobs = Jobs(job("pd", 4))
    decided = read(jobs, "pd")
    jobs.held["pd"] = other
    (fault,) = scale(jobs, (decided, 5))
    assert isinstance(fault, ConflictError)
    assert "Job s/pd was at 4 of prefill" in str(fault)
    assert jobs.written == []


def test_a_lost_answer_is_not_sent_again() -> None:
    jobs = Jobs(job("pd", 4))
    jobs.refused["pd"] = ClusterError("no answer within 10 s")
    assert len(scale(jobs, (read(jobs, "pd"), 5))) == 1


@pytest.mark.parametrize(
    ("until_s", "has_cost", "annotations"),
    [
        pytest.param(
            1795370400.0,
            False,
            {"pd-planner.io/drain-until": "2026-11-22T18:00:00Z"},
            id="marked",
        ),
        pytest.param(
            1795370400.0,
            True,
            {
                "pd-planner.io/drain-until": "2026-11-22T18:00:00Z",
                "controller.kubernetes.io/pod-deletion-cost": "-2147483647",
            },
            id="of a deployment",
        ),
        pytest.param(
            None,
            True,
            {
                "pd-planner.io/drain-until": None,
                "controller.kubernetes.io/pod-deletion-cost": None,
            },
            id="taken off",
        ),
    ],
)
def test_a_mark(until_s: float | None, has_cost: bool, annotations: Json) -> None:
    jobs = Jobs()
    writer(jobs).mark("s", "pd-0", "u1", until_s, has_cost=has_cost)
    assert jobs.marks == [("pd-0", {"annotations": annotations, "uid": "u1"})]


@pytest.mark.parametrize("error", [TargetError("gone"), ConflictError("another uid")], ids=str)
def test_a_pod_that_has_gone_needs_no_mark(error: ClusterError) -> None:
    jobs = Jobs()
    jobs.refused["pd-0"] = error
    writer(jobs).mark("s", "pd-0", "u1", None, has_cost=False)


def test_a_mark_that_is_forbidden_is_told() -> None:
    jobs = Jobs()
    jobs.refused["pd-0"] = ClusterError("may not patch pods")
    with pytest.raises(ClusterError, match="may not patch pods"):
        writer(jobs).mark("s", "pd-0", None, 0.0, has_cost=False)


@pytest.mark.parametrize(
    ("written_s", "expected_s"),
    [
        pytest.param(1000.4, 1030.0, id="at once"),
        pytest.param(1050.4, 1080.0, id="a first tick, as of the last whole interval"),
        pytest.param(999.0, 1030.0, id="a clock that was set back"),
    ],
)
def test_a_drain_lasts_its_time_from_when_it_is_written(written_s, expected_s):
    assert drained_at_s(1030.0, 1000.0, written_s) == expected_s
