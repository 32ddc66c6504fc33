"""`compare` as users meet it: figures, page, workers, a Ray cluster, and every bad input."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from planner.__main__ import main
from planner.comparison.contest import Plan, contest
from planner.comparison.recipes import CaseRecipe
from tests.integration.recorded_past import conversations, example

MINUTES = 12
SHORT = CaseRecipe("conv", 0, until_s=900.0)
COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
FIGURES = ("gpu_hours", "attainment", "reversals", "scale_actions", "unfinished")

Out = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _files(own_place: Path) -> None:
    trace = conversations(1)
    rows = zip(trace.arrival_s, trace.isl_tokens, trace.osl_tokens, strict=True)
    lines = [f"{at_s:.6f},{isl},{osl}" for at_s, isl, osl in rows if at_s < 60.0 * MINUTES]
    (own_place / "f.yaml").write_text(example(), encoding="utf-8")
    (own_place / "day.csv").write_text("\n".join(["t_s,isl,osl", *lines, ""]), encoding="utf-8")
    (own_place / "short.csv").write_text(
        "\n".join(["t_s,isl,osl", *lines[:100], ""]), encoding="utf-8"
    )


def compare(*more: str, trace: str = "day.csv") -> int:
    common = ["compare", "-f", "f.yaml", "--trace", trace, "--warmup", "3", "--scale", "2"]
    return main([*common, "--policy", "pd-planner,hpa-tokens", "--jobs", "1", *more])


def figures(rows: Any) -> list[tuple[Any, ...]]:
    """Return what does not depend on the machine, in the order of the rows."""
    named = [(row["policy"], row["knob"]["value"], row["seed"]) for row in rows]
    return [(*name, *(row[key] for key in FIGURES)) for name, row in zip(named, rows, strict=True)]


@pytest.mark.slow
def test_the_object_holds_rows_frontier_and_a_page(own_place: Path, capsys: Out):
    assert compare("--points", "2", "-o", "json", "--report", "out.html") == 0
    found = json.loads(capsys.readouterr().out)
    policies = [row["policy"] for row in found["rows"]]
    assert policies == ["pd-planner", "hpa-tokens", "static-best"]
    assert len(found["frontier"]) > len(found["rows"])
    row = found["rows"][0]
    assert row["ratio_to_oracle"] == pytest.approx(
        row["gpu_hours"] / row["oracle"]["same_lag_gpu_hours"]
    )
    assert row["best_static_gpu_hours"] > 0.0
    assert {price["attainment"] for price in found["prices"]} == {0.9, 0.95, 0.99}
    page = (own_place / "out.html").read_text(encoding="utf-8")
    assert "frontier-0" in page
    assert "<td>static-best</td>" in page
    assert "Prefill against the need, as shipped" in page
    assert all(set(row["elasticity"]) == {"prefill", "decode"} for row in found["frontier"])
    assert "https://" not in page.split('<script type="application/json"')[0]


def test_the_table_names_every_policy(capsys: Out):
    assert compare("--points", "1", "--no-oracles", "--seeds", "2") == 0
    out = capsys.readouterr().out
    for word in ("pd-planner", "hpa-tokens", "as shipped", "at equal attainment"):
        assert word in out
    assert "O2, all known" not in out


def test_processes_give_the_figures_of_one():
    plan = Plan(["kpa", "without-corrections"], points=2, refine=False, oracles=False, draws=0)
    alone, together = contest([SHORT], plan, 1), contest([SHORT], plan, 2)
    assert figures(alone.frontier) == figures(together.frontier)


@pytest.mark.parametrize(
    ("flags", "trace", "line"),
    [
        pytest.param(
            ("--policy", "hap"), "day.csv", "--policy: 'hap' is unknown; legal:", id="name"
        ),
        pytest.param((), "short.csv", "takes 90 s to start", id="shorter-than-a-start"),
        pytest.param(("--warmup", "20"), "day.csv", "--warmup: 20 intervals", id="all-warm-up"),
        pytest.param(("-o", "xml"), "day.csv", "--output: 'xml' is unknown", id="output"),
        pytest.param((), "gone.csv", "gone.csv", id="no-trace"),
        pytest.param(("--points", "0"), "day.csv", "--points", id="no-points"),
        pytest.param(("--start", "prefill=1"), "day.csv", "decode is missing", id="half-a-start"),
    ],
)
def test_bad_input_is_one_line(flags: tuple[str, ...], trace: str, line: str, capsys: Out):
    assert compare(*flags, trace=trace) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert line in err
    assert len(err.splitlines()) == 1


def test_a_sweep_that_never_attains_is_told(capsys: Out):
    assert compare("--policy", "saturation", "--points", "1", "--scale", "20", "--no-oracles") == 0
    err = capsys.readouterr().err
    assert "saturation: no saturation_scale of the sweep reaches 0.99: the best is" in err


@contextlib.contextmanager
def under_way() -> Iterator[tuple["subprocess.Popen[str]", int, list[str]]]:
    """Start a comparison on two processes; go on as soon as a run is finished.

    Yields
    ------
    tuple
        The process, the terminal that it draws on, and what was drawn so far.
    """
    terminal, stderr = os.openpty()
    asked = ("compare", "-f", "f.yaml", "--trace", "day.csv", "--warmup", "3", "--scale", "2",
             "--policy", "kpa,without-corrections", "--points", "12", "--no-oracles",
             "--jobs", "2", "-o", "json")  # fmt: skip
    run = subprocess.Popen(
        [sys.executable, "-m", "planner", *asked],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm"},
        text=True, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True,
    )  # fmt: skip
    os.close(stderr)
    shown: list[str] = []
    try:
        for piece in pieces(terminal):
            shown.append(piece)
            if re.search(r" [1-9]/\d+ \d:\d\d:\d\d left", COLOURS.sub("", "".join(shown))):
                break
        yield run, terminal, shown
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        os.close(terminal)


@pytest.mark.slow
def test_the_time_left_is_shown_and_ctrl_c_keeps_what_is_finished(own_place: Path):
    with under_way() as (run, terminal, shown), ThreadPoolExecutor(1) as reader:
        # A terminal that nobody reads is soon full, and whoever draws on it waits for ever.
        rest = reader.submit(lambda: [*pieces(terminal)])
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does, to all of the group
        out, _ = run.communicate()
        told = "".join([*shown, *rest.result()])
    assert run.returncode == 0, told
    assert re.search(r"stopped by Ctrl-C: \d+ of \d+ runs are left", told)
    assert "Traceback" not in told
    assert json.loads(out)["frontier"]


@pytest.mark.slow
def test_whoever_plays_ends_when_the_comparison_is_killed(own_place: Path):
    with under_way() as (run, _, __):
        run.kill()
        # Whoever plays holds its end of the pipe.
        run.communicate(timeout=60.0)


def pieces(terminal: int) -> Iterator[str]:
    """Return what is written to a terminal until nobody has it open any more.

    Yields
    ------
    str
        As it comes.
    """
    while True:
        try:
            yield os.read(terminal, 65536).decode(errors="replace")
        except OSError:
            return


def test_without_ray_it_says_how_to_get_it(capsys: Out, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert compare("--ray", "127.0.0.1:1", "--points", "1") == 2
    assert "pip install 'pd-planner[ray]'" in capsys.readouterr().err
