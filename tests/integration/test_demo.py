"""`demo` as scripts and impatient people meet it."""

import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.waiting import patience
from tests.integration.prometheus_server import wait_for
from tests.integration.recorded_past import EXAMPLE, ROOT

DEMO = ROOT / "planner" / "demo.yaml"
REPORT, PART = "pd-planner-demo.html", ".pd-planner-demo.html.part"
PATIENCE_S = 60.0


def demo(folder: Path, *arguments: str, **over: Any) -> "subprocess.Popen[str]":
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PD_PLANNER_")}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "planner", "demo", "--no-live", *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in the background pass on that Ctrl-C is ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads
        **over,
    )


def test_the_last_line_is_the_path_of_the_report(tmp_path: Path):
    process = demo(tmp_path)
    out, err = process.communicate(timeout=PATIENCE_S * patience())
    assert (process.returncode, err) == (0, "")
    *figures, last = out.splitlines()
    assert last == REPORT
    assert sorted(path.name for path in tmp_path.iterdir()) == [REPORT]
    page = (tmp_path / last).read_text(encoding="utf-8")
    assert page.rstrip().endswith("</html>")
    assert "Azure LLM inference trace 2023" in page
    assert any("meets 99%" in line for line in figures)
    assert max(map(len, figures)) <= 80


def test_the_report_goes_where_it_is_asked_to(tmp_path: Path):
    process = demo(tmp_path, "--scale", "1", "--report", "a b/r.html")
    _, err = process.communicate(timeout=PATIENCE_S * patience())
    assert process.returncode == 2
    assert err == "--report: a b/r.html: No such file or directory: give another path\n"
    (tmp_path / "a b").mkdir()
    process = demo(tmp_path, "--scale", "1", "--report", "a b/r.html")
    out, _ = process.communicate(timeout=PATIENCE_S * patience())
    assert out.splitlines()[-1] == "a b/r.html"
    assert (tmp_path / "a b" / "r.html").stat().st_size > 1000


def test_ctrl_c_ends_with_130_and_leaves_the_old_report(tmp_path: Path):
    (tmp_path / REPORT).write_text("the old one", encoding="utf-8")
    # So much load that it is still at it when the signal comes, however busy the machine is.
    process = demo(tmp_path, "--scale", "240")
    try:
        wait_for("the replay to begin", (tmp_path / PART).exists)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S * patience())
    finally:
        process.kill()
    # A Ctrl-C inside an import's `exec` makes Python end itself by the signal; a shell shows 130
    # for both.
    assert process.returncode in {130, -signal.SIGINT}
    assert (out, err) == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == [REPORT]
    assert (tmp_path / REPORT).read_text(encoding="utf-8") == "the old one"


def without_comments(path: Path) -> str:
    text = re.sub(r"(^|\s+)#.*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return "\n".join(line for line in text.splitlines() if line.strip())


def test_the_shipped_service_is_that_of_the_example():
    assert without_comments(DEMO) == without_comments(EXAMPLE)


@pytest.mark.parametrize("path", [DEMO, EXAMPLE], ids=lambda p: p.name)
def test_profiles_lie_where_the_file_says(path: Path):
    for name in re.findall(r"file: (\S+)", path.read_text(encoding="utf-8")):
        assert (path.parent / name).is_file()
