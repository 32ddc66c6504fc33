"""The pictures of the README, from a run of the demo's trace: ``python -m benchmarks.pictures``.

Writes docs/img/live.svg, the live view two thirds through, and docs/img/report.png, the head of
the report as Chromium draws it.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from rich.console import Console

from benchmarks.replays import example, scaled
from planner.model import Service
from planner.replay import Frame, Replay
from planner.simulation.results import summarise
from planner.view.grid import TREND_MAX
from planner.view.report import write_report
from planner.view.screen import CHANGES_SHOWN, Progress, Scene, SoFar, picture

FOLDER = Path(__file__).parents[1] / "docs/img"
TRACE, TITLE = "azure2023-conv", "azure2023-conv × 60"
SHOWN_SHARE = 2 / 3
# The demo takes some 24 s on a terminal, so that one can follow it.
ELAPSED_S = 24.0 * SHOWN_SHARE
WARMUP_INTERVALS = 10
COLUMNS, LINES = 100, 30
WIDE, HIGH = 1280, 1128
NOTE = "Requests: Azure LLM inference trace 2023, conversation, CC-BY-4.0."


def main() -> None:
    loaded = example()
    replay = Replay(loaded, scaled(TRACE, loaded))
    frames = list(replay.frames())
    FOLDER.mkdir(parents=True, exist_ok=True)
    live(FOLDER / "live.svg", loaded.service, frames)
    sla, from_s = loaded.service.sla, WARMUP_INTERVALS * loaded.service.interval_s
    results = replay.finish()
    summary = summarise(results, sla.ttft_s, sla.itl_s, from_s)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        write_report(page, loaded.service, TITLE, frames, results, summary, [NOTE])
        photograph(page, FOLDER / "report.png")


def live(path: Path, service: Service, frames: Sequence[Frame]) -> None:
    """Write the last picture of the live view as SVG."""
    shown = [frame.record for frame in frames[: round(SHOWN_SHARE * len(frames))]]
    ttft = itl = SoFar()
    for record in shown:
        if (seen := record.decision.observation) is not None:
            ttft, itl = ttft.plus(seen.ttft), itl.plus(seen.itl)
    scene = Scene(
        service,
        TITLE,
        Progress(len(shown), len(frames), shown[-1].decision.at_s, ELAPSED_S),
        recent=shown[-TREND_MAX:],
        changes=[record for record in shown if record.decision.patch][-CHANGES_SHOWN:],
        ttft=ttft,
        itl=itl,
    )
    paper = Console(file=StringIO(), record=True, width=COLUMNS, highlight=False)
    paper.print(picture(scene, COLUMNS, LINES))
    drawn = paper.export_svg(title="pd-planner demo")
    # Without the web fonts that rich asks for: a picture should fetch nothing.
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL), encoding="utf-8")


def photograph(page: Path, path: Path) -> None:
    """Draw a page with Chromium."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("chromium: not found; install it to draw the report: make test-deps")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
             "--virtual-time-budget=20000", f"--window-size={WIDE},{HIGH}")  # fmt: skip
    with tempfile.TemporaryDirectory() as home:
        subprocess.run(
            [browser, *flags, f"--user-data-dir={home}", f"--screenshot={path}", page.as_uri()],
            check=True,
            stderr=subprocess.DEVNULL,
        )


if __name__ == "__main__":
    main()
