"""One picture of a running replay for a terminal, from 40 columns up. Pure: size is an argument."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from planner.model import Attainment, Role, Service
from planner.record import TickRecord
from planner.view.grid import TREND_MAX, Cell, Column, Row, clipped, grid, trend_width
from planner.view.notation import (
    UNKNOWN,
    milliseconds,
    moment,
    ratio_to_profile,
    share,
    span,
    thousands,
)
from planner.view.series import Series, series_of
from planner.view.sparkline import highest, sparkline

ROLE_STYLES: Final = {Role.PREFILL: "cyan", Role.DECODE: "magenta"}
MET, MISSED = "green", "bold red"
MISSED_MARK: Final = " !"
"""Beside the colour, for whoever can't see it or has none."""

CHANGES_SHOWN: Final = 4

LOAD: Final = (
    Column("tokens/s", 9, rank=-1, is_number=False),
    Column("seen", 6),
    Column("forecast", 8, rank=2),
    Column("up to", 7, rank=1),
)
REPLICAS: Final = (
    Column("replicas", 9, rank=-1, is_number=False),
    Column("wanted", 6, rank=1),
    Column("ordered", 7),
    Column("ready", 8),
    Column("profile", 7, rank=2),
)
TARGETS: Final = (
    Column("target", 14, rank=-1, is_number=False),
    Column("mean", 7, rank=2),
    Column("on target", 9, rank=1),
    Column("so far", 8),
)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a replay stands: ticks done of all, simulated time [s], and time spent on it [s]."""

    done: int
    total: int
    at_s: float = 0.0
    elapsed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SoFar:
    """Requests on one target since the start: those surely on it, and those that may be."""

    on_target: float = 0.0
    requests: float = 0.0
    perhaps: float = 0.0

    def plus(self, seen: Attainment | None) -> "SoFar":
        """Return the count with one more tick."""
        if seen is None:
            return self
        return SoFar(
            self.on_target + seen.lower * seen.requests,
            self.requests + seen.requests,
            self.perhaps + (seen.upper - seen.lower) * seen.requests,
        )

    @property
    def attainment(self) -> Attainment | None:
        """Their share of all as an interval, None before the first request."""
        if self.requests <= 0.0:
            return None
        lower = self.on_target / self.requests
        return Attainment(lower, lower + self.perhaps / self.requests, self.requests)


@dataclass(frozen=True, slots=True)
class Scene:
    """What there is to draw.

    Attributes
    ----------
    title
        What is being replayed.
    recent
        The last ticks, oldest first.
    changes
        The last ticks that ordered something or held, oldest first.
    ttft, itl
        Since the start.
    """

    service: Service
    title: str
    progress: Progress
    recent: Sequence[TickRecord] = ()
    changes: Sequence[TickRecord] = ()
    ttft: SoFar = SoFar()
    itl: SoFar = SoFar()


def picture(scene: Scene, width: int, height: int) -> Group:
    """Return the scene in at most `height` lines of at most `width` cells.

    Where lines are short the second trend of each row goes first, then the blank lines.
    """
    lines: list[Text] = []
    for second, blanks in ((True, 1), (False, 1), (False, 0)):
        lines = _lines(scene, width, second=second, blanks=blanks)
        if len(lines) <= height:
            break
    room = min(height - len(lines), CHANGES_SHOWN)
    lines += [_change(record, width) for record in scene.changes[::-1][: max(room, 0)]]
    return Group(*lines[:height])


def _lines(scene: Scene, width: int, *, second: bool, blanks: int) -> list[Text]:
    """Return the picture without the list of changes."""
    gap = [Text("")] * blanks
    lines = [*_head(scene, width), *gap]
    if not scene.recent:
        return [*lines, _text("waiting for the first tick …", "dim", width)]
    series = series_of(scene.service, scene.recent)
    lines += [*_load(series, width, second=second), *gap]
    lines += [*_replicas(scene, series, width, second=second), *gap]
    return [*lines, *_targets(scene, width), *gap, *_sentence(scene.recent[-1], width)]


def _head(scene: Scene, width: int) -> list[Text]:
    """Return the title with the promise, and the progress bar."""
    sla = scene.service.sla
    promise = f"TTFT {milliseconds(sla.ttft_s)} · ITL {milliseconds(sla.itl_s)}"
    promise += f" · {share(sla.attainment_ratio)}"
    room = width - cell_len(promise) - 2
    title = scene.title if room < 16 else clipped(scene.title, room)
    line = _text(title, "bold", width)
    if room >= 16:
        line.append(" " * (width - cell_len(title) - cell_len(promise)) + promise, "dim")
    return [line, _bar(scene.progress, width)]


def _bar(progress: Progress, width: int) -> Text:
    """Return the progress bar with the simulated clock, its speed and the time left."""
    part = min(progress.done / progress.total, 1.0) if progress.total > 0 else 1.0
    words = [moment(progress.at_s)]
    if progress.done and progress.elapsed_s > 0.0:
        left_s = progress.elapsed_s * (1.0 - part) / part
        words.append(f"{span(left_s)} left" if part < 1.0 else f"took {span(progress.elapsed_s)}")
        if width >= 60:
            words.append(f"{thousands(progress.at_s / progress.elapsed_s)} times real time")
    told = clipped(" · ".join(words), width)
    length = max(width - cell_len(told) - 2, 0)
    done = round(part * length)
    bar = Text(no_wrap=True, overflow="crop")
    bar.append("━" * done, "green").append("─" * (length - done), "bright_black")
    return bar.append("  " if length else "").append(told)


def _load(series: Series, width: int, *, second: bool) -> list[Text]:
    """Return tokens/s by role; the trends of what was seen and of the band share a scale."""
    rows: list[Row] = []
    for role, load in series.roles.items():
        style, top = ROLE_STYLES[role], highest(load.seen_tps, load.up_tps)
        now = (load.seen_tps[-1], load.mean_tps[-1], load.up_tps[-1])
        cells = [Cell(role.value, style), *(Cell(thousands(tps)) for tps in now)]
        rows.append(Row(cells, Cell(sparkline(load.seen_tps, TREND_MAX, 0.0, top), style)))
        if second and trend_width(LOAD, width):
            band = sparkline(load.up_tps, TREND_MAX, 0.0, top)
            rows.append(Row([Cell("  up to", "dim")] + [Cell("")] * 3, Cell(band, "bright_black")))
    return grid(LOAD, rows, width)


def _replicas(scene: Scene, series: Series, width: int, *, second: bool) -> list[Text]:
    """Return replicas by pool; the trends of those ordered and those ready share a scale."""
    rows: list[Row] = []
    for name, pool in series.pools.items():
        style = ROLE_STYLES[scene.service.pool(name).role]
        top = highest(pool.desired, pool.ready)
        behind = pool.ready[-1] < pool.desired[-1]
        cells = [
            Cell(name, style),
            Cell(_whole(pool.wanted[-1])),
            Cell(_whole(pool.desired[-1])),
            Cell(_whole(pool.ready[-1]), "yellow" if behind else ""),
            Cell(ratio_to_profile(pool.factor[-1])),
        ]
        rows.append(Row(cells, Cell(sparkline(pool.desired, TREND_MAX, 0.0, top), style)))
        if second and trend_width(REPLICAS, width):
            ready = sparkline(pool.ready, TREND_MAX, 0.0, top)
            rows.append(Row([Cell("  ready", "dim")] + [Cell("")] * 4, Cell(ready, "bright_black")))
    return grid(REPLICAS, rows, width)


def _targets(scene: Scene, width: int) -> list[Text]:
    """Return the latencies against their targets: last tick, trend, and since the start."""
    sla = scene.service.sla
    seen = [record.decision.observation for record in scene.recent]
    last = seen[-1]
    rows = [
        _target(scene, f"TTFT {milliseconds(sla.ttft_s)}", last.ttft_mean_s if last else None,
                [o.ttft if o else None for o in seen], scene.ttft),
        _target(scene, f"ITL  {milliseconds(sla.itl_s)}", last.itl_mean_s if last else None,
                [o.itl if o else None for o in seen], scene.itl),
    ]  # fmt: skip
    return grid(TARGETS, rows, width)


def _target(
    scene: Scene,
    label: str,
    mean_s: float | None,
    shares: Sequence[Attainment | None],
    so_far: SoFar,
) -> Row:
    """Return one target's row; the trend spans twice the permitted failures."""
    asked = scene.service.sla.attainment_ratio
    now = shares[-1]
    lows = [s.lower if s else math.nan for s in shares]
    floor = max(1.0 - 2.0 * scene.service.sla.failure_budget, 0.0)
    return Row(
        [
            Cell(label),
            Cell(milliseconds(mean_s)),
            _verdict(now, asked),
            _verdict(so_far.attainment, asked),
        ],
        Cell(sparkline(lows, TREND_MAX, floor, 1.0), MET if (now is None or now.lower >= asked)
             else MISSED),
    )  # fmt: skip


def _verdict(seen: Attainment | None, asked: float) -> Cell:
    """Return a share: met, missed, or "at least" where no bucket ends at the target."""
    if seen is None:
        return Cell(UNKNOWN)
    if seen.lower >= asked:
        return Cell(share(seen.lower), MET)
    if seen.upper < asked:
        return Cell(share(seen.upper) + MISSED_MARK, MISSED)
    return Cell(f"≥{share(seen.lower)}")


def _sentence(record: TickRecord, width: int) -> list[Text]:
    """Return the last decision in at most two lines."""
    lines = textwrap.wrap(record.sentence, width, max_lines=2, placeholder=" …")
    return [_text(line, "yellow" if record.decision.hold else "", width) for line in lines]


def _change(record: TickRecord, width: int) -> Text:
    line = _text(f"{moment(record.decision.at_s)}  ", "dim", width)
    return line.append(clipped(record.sentence, max(width - len(line), 0)), "dim")


def _text(text: str, style: str, width: int) -> Text:
    return Text(clipped(text, width), style, no_wrap=True, overflow="crop")


def _whole(replicas: float) -> str:
    return f"{replicas:.0f}" if math.isfinite(replicas) else UNKNOWN
