"""A report of a real, short replay in a real browser: drawn, without errors, at every width."""

import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from planner.simulation.results import summarise
from planner.spec.service import load_services
from planner.view.report import write_report

pytest.importorskip("numba", reason="the plant is compiled")
pytest.importorskip("plotly", reason="the report draws with it")

ROOT = Path(__file__).parents[2]
PICTURES = 9
# No sandbox: root has none. Virtual time lets every timer of the page run out.
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    "--allow-file-access-from-files", "--enable-logging=stderr", "--virtual-time-budget=20000",
)  # fmt: skip
# A window can't be as narrow as a phone, a frame in it can.
PHONE = """<!doctype html><body style="margin:0">
<iframe src="report.html" style="border:0;width:390px;height:800px"></iframe>
<script>
const wait = setInterval(() => {
  const page = document.querySelector("iframe").contentDocument?.documentElement;
  if (!page?.dataset.drawn) return;
  clearInterval(wait);
  document.body.dataset.wide = page.scrollWidth;
}, 50);
</script>"""


@dataclass(frozen=True)
class Seen:
    """What the browser made of a page."""

    dom: str
    log: str

    @property
    def console(self):
        """What the page's scripts logged, security violations included."""
        return [line for line in self.log.splitlines() if ":CONSOLE" in line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with the report of a quarter of an hour."""
    from planner.replay import Replay
    from planner.simulation.trace_files import builtin_trace

    loaded = load_services([ROOT / "examples/llama-8b-h200.yaml"])[0]
    trace, sla = builtin_trace("azure2023-conv"), loaded.service.sla
    early = trace.arrival_s < 900.0
    columns = ("arrival_s", "isl_tokens", "osl_tokens", "cached_tokens")
    replay = Replay(loaded, replace(trace, **{c: getattr(trace, c)[early] for c in columns}))
    frames = list(replay.frames())
    results = replay.finish()
    summary = summarise(results, sla.ttft_s, sla.itl_s, from_s=300.0)
    folder = tmp_path_factory.mktemp("report")
    notes = ["Requests: Azure LLM inference trace 2023, conversation, CC-BY-4.0."]
    write_report(
        folder / "report.html", loaded.service, trace.name, frames, results, summary, notes
    )
    (folder / "phone.html").write_text(PHONE, encoding="utf-8")
    return folder


def look(browser, folder, page, *flags):
    command = [str(browser), *FLAGS, f"--user-data-dir={folder / 'browser'}", *flags]
    done = subprocess.run(
        [*command, (folder / page).as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return Seen(done.stdout, done.stderr)


@pytest.fixture(scope="module")
def seen(chromium_binary, folder):
    return look(chromium_binary, folder, "report.html", "--window-size=1280,1600", "--dump-dom")


def test_every_picture_is_drawn(seen):
    assert f'data-drawn="{PICTURES}"' in seen.dom
    assert len(re.findall(r'<svg class="main-svg"[^>]*style="background', seen.dom)) >= PICTURES
    # A line with nothing in it would have no path.
    assert len(re.findall(r'class="js-line"[^>]* d="M', seen.dom)) >= PICTURES


def test_nothing_is_wrong_in_the_console(seen):
    assert not seen.console


def test_the_page_says_what_it_is(seen):
    assert "<title>llama-8b · azure2023-conv</title>" in seen.dom
    assert "CC-BY-4.0" in seen.dom


def test_the_table_of_decisions_counts_its_rows(seen):
    rows = seen.dom.count("<tr data-kind=")
    assert rows >= 10
    assert f"{rows} of {rows}</output>" in seen.dom


def test_a_phone_scrolls_in_one_direction_only(chromium_binary, folder):
    phone = look(chromium_binary, folder, "phone.html", "--window-size=800,900", "--dump-dom")
    assert re.search(r'data-wide="(\d+)"', phone.dom)[1] == "390"


def test_it_can_be_photographed(chromium_binary, folder):
    shot = folder / "report.png"
    look(chromium_binary, folder, "report.html", "--window-size=1280,2600", f"--screenshot={shot}")
    # An empty page compresses to a few kilobytes.
    assert shot.stat().st_size > 100_000


def test_an_error_would_be_seen(chromium_binary, folder):
    broken = (folder / "report.html").read_text(encoding="utf-8").replace("draw();", "drew();")
    (folder / "broken.html").write_text(broken, encoding="utf-8")
    seen = look(chromium_binary, folder, "broken.html", "--dump-dom")
    assert any("drew is not defined" in line for line in seen.console)
    assert "data-drawn" not in seen.dom.split("<script")[0]
