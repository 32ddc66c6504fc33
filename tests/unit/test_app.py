"""What runs without a cluster: files that are whole or not there, requests in scope."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planner import app, rehearsal
from planner.simulation.traces import make_trace
from tests.builders import service


class TestWholeFile:
    def test_takes_its_place_when_it_is_whole(self, tmp_path: Path):
        path = tmp_path / "r.html"
        path.write_text("old", encoding="utf-8")
        with rehearsal.whole_file(path) as part:
            assert part is not None
            part.write_text("new", encoding="utf-8")
            assert path.read_text(encoding="utf-8") == "old"
        assert path.read_text(encoding="utf-8") == "new"
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("fault", [KeyboardInterrupt(), ValueError("x")], ids=repr)
    def test_leaves_nothing_of_a_half(self, tmp_path: Path, fault: BaseException):
        path = tmp_path / "r.html"

        def write_half() -> None:
            with rehearsal.whole_file(path) as part:
                assert part is not None
                part.write_text("ha", encoding="utf-8")
                raise fault

        with pytest.raises(type(fault)):
            write_half()
        assert not list(tmp_path.iterdir())

    def test_writes_straight_into_what_is_no_file(self):
        with rehearsal.whole_file(Path("/dev/null")) as part:
            assert part == Path("/dev/null")

    def test_nothing_asked_for_is_nothing_written(self):
        with rehearsal.whole_file(None) as part:
            assert part is None


def test_what_is_not_finite_is_null():
    row = {"a": float("inf"), "b": float("nan"), "c": 0.5, "d": "x", "e": {"mean": 1.0}}
    assert app._finite(row) == {"a": None, "b": None, "c": 0.5, "d": "x", "e": {"mean": 1.0}}


@pytest.mark.parametrize(
    ("longest", "left", "notes"),
    [
        pytest.param(None, 3, ("told",), id="no scope"),
        pytest.param(500, 3, ("told",), id="all within"),
        pytest.param(
            200,
            2,
            ("told", "Prompts above 200 tokens are out of scope; left out: 1."),
            id="one beyond",
        ),
    ],
)
def test_requests_in_scope_are_kept_and_the_rest_is_told(
    longest: int | None, left: int, notes: tuple[str, ...]
):
    asked = service(sla=replace(service().sla, max_input_tokens=longest))
    requests = make_trace("t", [0.0, 1.0, 2.0], [100, 300, 200], np.ones(3))
    found, told = rehearsal._in_scope(requests, asked, ("told",))
    assert (len(found), told) == (left, notes)
