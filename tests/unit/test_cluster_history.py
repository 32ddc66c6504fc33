"""The rules by which fault tests judge a history: each finds what it is there for."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.cluster.history import DRAIN_MARK, History, breaches

START_S, DRAIN_S = 1_000_000.0, 10.0
MARKED_UNTIL = "1970-01-12T13:46:50+00:00"  # START_S + 10 s


class Past(History):
    """A history that is told instead of watched; `at` moves its clock."""

    def __init__(self) -> None:
        self.now_s = START_S
        self._version = 0
        super().__init__(lambda: self.now_s)

    def at(self, after_s: float) -> "Past":
        self.now_s = START_S + after_s
        return self

    def _meta(self, name: str, **more: Any) -> dict[str, Any]:
        self._version += 1
        return {"name": name, "uid": name, "resourceVersion": str(self._version), **more}

    def job(self, replicas: int, minimum: int = 1, status: Mapping[str, int] | None = None) -> None:
        spec = {"minAvailable": minimum, "tasks": [{"replicas": replicas, "minAvailable": minimum}]}
        job = {"metadata": self._meta("pd"), "spec": spec, "status": status or {}}
        self.take_job({"type": "MODIFIED", "object": job})

    def pod(self, index: int, mark: str | None = None, kind: str = "MODIFIED") -> None:
        notes = {} if mark is None else {DRAIN_MARK: mark}
        labels = {"volcano.sh/job-name": "pd"}
        pod = {
            "metadata": self._meta(f"pd-w-{index}", annotations=notes, labels=labels),
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }
        self.take_pod({"type": kind, "object": pod})


def drained(mark: str | None, marked_s: float, lowered_s: float) -> Past:
    past = Past()
    past.job(2)
    past.pod(1)
    past.at(marked_s).pod(1, mark)
    past.at(lowered_s).job(1)
    return past


def one_job(*counts: int, **more: Any) -> Past:
    past = Past()
    for count in counts:
        past.job(count, **more)
    return past


def minima(*found: int) -> Past:
    past = Past()
    for minimum in found:
        past.job(3, minimum)
    return past


@pytest.mark.parametrize(
    ("past", "told"),
    [
        pytest.param(drained(MARKED_UNTIL, 0.0, 11.0), [], id="well drained"),
        pytest.param(drained(None, 0.0, 11.0), ["served and was not marked"], id="not marked"),
        pytest.param(drained(MARKED_UNTIL, 0.0, 8.0), ["2.0 s more", "for 8.0 s"], id="too early"),
        pytest.param(drained(MARKED_UNTIL, 6.0, 11.0), ["for 5.0 s only"], id="marked late"),
        pytest.param(one_job(1, 3, 6), ["had 6 replicas, not 1 to 5"], id="too many"),
        pytest.param(one_job(1, 0), ["had 0 replicas, not 1 to 5"], id="too few"),
        pytest.param(
            one_job(1, status={"version": 1}), ["restarted: version 1"], id="restarted"
        ),
        pytest.param(minima(2, 1, 1), [], id="minimum lowered"),
        pytest.param(minima(1, 2), ["raised from 1 to 2"] * 2, id="minimum raised"),
    ],
)  # fmt: skip
def test_breaches_are_found(past: Past, told: list[str]):
    found = breaches(past, {"pd": (1, 5)}, DRAIN_S)
    assert len(found) == len(told)
    assert all(part in line for part, line in zip(told, found, strict=True))


@pytest.mark.parametrize(("blind", "count"), [((3.0, 20.0), 1), ((11.0, 20.0), 0), ((0.0, 9.0), 0)])
def test_a_decrease_without_metrics_is_found(blind: tuple[float, float], count: int):
    past = drained(MARKED_UNTIL, 0.0, 11.0)
    spans = [(START_S + blind[0], START_S + blind[1])]
    assert len(breaches(past, {"pd": (1, 5)}, DRAIN_S, spans)) == count


def test_counts_and_marks_are_told_in_order():
    past = drained(MARKED_UNTIL, 0.0, 11.0)
    assert past.all_counts() == {"pd": [2, 1]}
    assert past.marks() == {"pd-w-1": START_S + 10.0}
    past.pod(1, MARKED_UNTIL, kind="DELETED")
    assert past.marks() == {}
    assert past.serving("pd") == []
