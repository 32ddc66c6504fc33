"""Lines of aligned cells for a terminal of any width: what does not fit is left out, not wrapped.

Much cheaper than a rich Table, which measures every cell twice and may break lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.text import Text

GAP: Final = 2
"""Blanks between two columns."""

TREND_MAX, TREND_MIN = 60, 8
"""Width of the last column: the rest of the line within these bounds, or nothing."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of fixed width; where space is short the one of highest `rank` goes first."""

    title: str
    width: int
    rank: int = 0
    is_number: bool = True


@dataclass(frozen=True, slots=True)
class Cell:
    """Text and its style."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Cells by column, and the trend at the end of the line."""

    cells: Sequence[Cell]
    trend: Cell = Cell("")


def grid(columns: Sequence[Column], rows: Sequence[Row], width: int) -> list[Text]:
    """Return a line of titles and a line for every row, none wider than `width` cells."""
    shown, trend = _fitting(columns, width), trend_width(columns, width)
    titles = Row([Cell(column.title, "dim") for column in columns])
    return [_line(columns, shown, row, trend) for row in (titles, *rows)]


def trend_width(columns: Sequence[Column], width: int) -> int:
    """Return the cells that `grid` leaves for a trend."""
    rest = width - sum(columns[i].width + GAP for i in _fitting(columns, width))
    return min(rest, TREND_MAX) if rest >= TREND_MIN else 0


def clipped(text: str, width: int) -> str:
    """Return the text in at most `width` cells, with an ellipsis where it was cut."""
    return text if cell_len(text) <= width else set_cell_size(text, max(width - 1, 0)) + "…"


def _fitting(columns: Sequence[Column], width: int) -> list[int]:
    shown = list(range(len(columns)))
    while len(shown) > 1 and sum(columns[i].width + GAP for i in shown) - GAP > width:
        shown.remove(max(shown, key=lambda i: columns[i].rank))
    return shown


def _line(columns: Sequence[Column], shown: Sequence[int], row: Row, trend: int) -> Text:
    line = Text(no_wrap=True, overflow="crop")
    for place, index in enumerate(shown):
        column, cell = columns[index], row.cells[index]
        text = clipped(cell.text, column.width)
        blanks = " " * (column.width - cell_len(text))
        line.append(" " * GAP if place else "")
        line.append(blanks + text if column.is_number else text + blanks, cell.style or None)
    if trend:
        line.append(" " * GAP + row.trend.text[-trend:], row.trend.style or None)
    return line
