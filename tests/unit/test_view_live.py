"""The live view: fits every terminal, is silent where there is none, and paints at its own rate."""

import io
import itertools
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from planner.model import Attainment
from planner.view.grid import Cell, Column, Row, clipped, grid
from planner.view.live import PAINT_EVERY_S, LiveView
from planner.view.screen import Progress, Scene, SoFar, _verdict, picture
from tests.unit.test_view_series import frames, held, observation, service, tick

SIZES = [(79, 23), (119, 39), (39, 23), (59, 13), (24, 10), (10, 4)]


def scene(*records, **over):
    records = records or tuple(tick(60.0 * k, now=(2, 1), desired=(3, 1)) for k in range(1, 70))
    values = {
        "title": "llama · a trace", "progress": Progress(31, 58, 1860.0, 6.0), "recent": records,
        "changes": records[-4:], "ttft": SoFar(960.0, 1000.0), "itl": SoFar(1000.0, 1000.0),
    }  # fmt: skip
    return Scene(service(), **(values | over))


def drawn(scene, width, height):
    console = Console(file=io.StringIO(), width=width + 1, height=height + 1)
    console.print(picture(scene, width, height))
    return console.file.getvalue().removesuffix("\n").split("\n")


def row(lines, label):
    return next(line for line in lines if line.startswith(label))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_it_fits(width, height):
    lines = drawn(scene(), width, height)
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_it_fits_before_the_first_tick(width, height):
    lines = drawn(scene(recent=[], changes=[], progress=Progress(0, 58)), width, height)
    assert len(lines) <= height
    assert "waiting" in "".join(lines)


def test_it_shows_what_was_asked_seen_and_done():
    lines = drawn(scene(), 79, 23)
    assert "TTFT 500 ms · ITL 15 ms · 99%" in lines[0]
    assert "00:31:00 · 5 s left · 310 times real time" in lines[1]
    assert row(lines, "prefill").split()[:4] == ["prefill", "1k", "1.1k", "1.3k"]
    replicas = lines[lines.index(row(lines, "replicas")) :]
    assert row(replicas, "prefill").split()[:5] == ["prefill", "4", "3", "2", "×1.05"]
    assert row(lines, "TTFT 500 ms ").split()[3:7] == ["72.7", "ms", "100%", "96%"]
    assert "prefill 2→3, decode stays at 1: the load to come needs 4 of prefill" in lines


def test_a_missed_target_has_a_mark_and_not_colour_alone():
    lines = drawn(scene(), 79, 23)
    assert "96% !" in row(lines, "TTFT 500 ms ")
    assert "!" not in row(lines, "ITL  15 ms ")


def test_narrow_terminals_lose_columns_and_not_lines_of_them():
    lines = drawn(scene(), 39, 23)
    assert row(lines, "prefill").split() == ["prefill", "1k", "1.1k", "1.3k"]
    assert not any(line.startswith("  up to") for line in lines)


def test_a_row_keeps_its_name_to_the_last():
    lines = drawn(scene(), 24, 23)
    for name in ("prefill", "decode", "TTFT 500 ms", "ITL  15 ms"):
        assert row(lines, name)


def test_low_terminals_lose_the_second_trends_first():
    assert any(line.startswith("  up to") for line in drawn(scene(), 79, 23))
    assert not any(line.startswith("  up to") for line in drawn(scene(), 79, 17))


def test_a_hold_says_so_and_leaves_gaps():
    lines = drawn(scene(tick(60.0), held(120.0)), 79, 23)
    assert "metrics are 90 s old; holding" in lines
    assert row(lines, "prefill").split()[:4] == ["prefill", "–", "–", "–"]
    assert row(lines, "TTFT 500 ms ").split()[3:5] == ["–", "–"]


def test_the_share_so_far_weighs_ticks_by_their_requests():
    so_far = SoFar().plus(observation(ttft=0.9).ttft).plus(None).plus(observation(ttft=1.0).ttft)
    assert so_far.attainment.lower == pytest.approx(0.95)
    assert SoFar().attainment is None


@pytest.mark.parametrize(
    ("lower", "upper", "shown"),
    [(0.995, 0.995, "99.5%"), (0.5, 0.9, "90% !"), (0.6, 1.0, "≥60%")],
    ids=["met", "missed", "no bucket ends at the target"],
)
def test_a_share_is_missed_only_if_its_upper_bound_is(lower, upper, shown):
    assert _verdict(Attainment(lower, upper, 100.0), 0.99).text == shown


def terminal(**over):
    values = {
        "file": io.StringIO(),
        "force_terminal": True,
        "width": 80,
        "height": 24,
        "_environ": {},
        "get_time": itertools.count(0.0, 1.0).__next__,
    }
    return Console(**(values | over))


def replay(console, ticks=5):
    with LiveView(service(), ticks, "a trace", console) as view:
        for frame in frames(*(tick(60.0 * (k + 1)) for k in range(ticks))):
            view.show(frame)
    return console.file.getvalue()


def ticking(each_s):
    return terminal(get_time=itertools.count(0.0, each_s).__next__)


def test_it_paints_on_a_terminal_and_leaves_the_last_picture():
    text = replay(terminal())
    last = text[text.rindex("a trace") :]
    assert "00:05:00" in last
    assert text.count("a trace") > 5


@pytest.mark.parametrize(
    "console",
    [
        terminal(force_terminal=False),
        terminal(_environ={"TERM": "dumb"}),
        terminal(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii")),
    ],
    ids=["a pipe", "a dumb terminal", "no block characters"],
)
def test_it_is_silent_where_it_cannot_draw(console):
    with LiveView(service(), 1, "a trace", console) as view:
        view.show(frames(tick())[0])
    console.file.seek(0)
    assert not console.file.read()


def test_without_colours_there_are_none():
    text = replay(terminal(_environ={"NO_COLOR": "1"}))
    assert "a trace" in text
    assert not re.search(r"\x1b\[(?:\d+;)*3[0-7]", text)
    assert re.search(r"\x1b\[(?:\d+;)*3[0-7]", replay(terminal(_environ={"TERM": "xterm"})))


def test_frames_are_dropped_when_they_come_too_fast():
    slow = replay(ticking(2.0 * PAINT_EVERY_S), ticks=60).count("a trace")
    fast = replay(ticking(PAINT_EVERY_S / 100.0), ticks=60).count("a trace")
    assert slow >= 60
    assert fast <= 5


def test_dropped_frames_are_still_counted():
    text = replay(ticking(PAINT_EVERY_S / 1000.0), ticks=60)
    assert "01:00:00" in text[text.rindex("a trace") :]


def test_orders_and_holds_are_listed_latest_first():
    console = terminal()
    with LiveView(service(), 4, "a trace", console) as view:
        for frame in frames(tick(60.0), tick(120.0, (2, 1), (3, 1)), held(180.0), tick(240.0)):
            view.show(frame)
    text = console.file.getvalue()
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text[text.rindex("a trace") :])
    told = [line.rstrip() for line in last.splitlines() if line.startswith("00:0")]
    assert told == [
        "00:03:00  metrics are 90 s old; holding",
        "00:02:00  prefill 2→3, decode stays at 1: the load to come needs 4 of prefill",
    ]


def test_an_error_leaves_the_terminal_usable():
    console = terminal()
    with pytest.raises(KeyboardInterrupt), LiveView(service(), 3, "a trace", console):
        raise KeyboardInterrupt
    assert console.file.getvalue().rindex("\x1b[?25h") > console.file.getvalue().rindex("\x1b[?25l")


def test_the_column_of_highest_rank_goes_first():
    columns = [Column("name", 6, is_number=False), Column("a", 4, rank=2), Column("b", 4, rank=1)]
    rows = [Row([Cell("x"), Cell("1"), Cell("2")], Cell("▁▂▃▄▅▆▇█"))]
    assert [line.plain for line in grid(columns, rows, 40)] == [
        "name       a     b  ",
        "x          1     2  ▁▂▃▄▅▆▇█",
    ]
    assert grid(columns, rows, 12)[1].plain == "x          2"
    assert grid(columns, rows, 3)[1].plain == "x     "


@pytest.mark.parametrize(
    ("text", "width", "cut"),
    [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("日本語", 4, "日 …"), ("a", 0, "…")],
    ids=["fits", "cut", "wide letters", "no room"],
)
def test_clipping(text, width, cut):
    assert clipped(text, width) == cut
