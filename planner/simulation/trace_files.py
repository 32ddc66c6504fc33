"""Reading request traces; the format is recognised by its columns, gzip by its first bytes.

Bad input becomes one TraceError that names the file, the line, the column and the mend.
"""

import gzip
import json
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from planner.errors import TraceError
from planner.simulation.traces import Trace, make_trace

BLOCK_TOKENS: Final = 512
"""Prompt tokens behind one entry of a Mooncake trace's `hash_ids`."""

TOKENS_MAX: Final = 10_000_000
"""No model's context is near it: a larger number is a wrong column."""


@dataclass(frozen=True, slots=True)
class Format:
    """Columns of one known trace format; `unit_s` is that of the time column, None for dates.

    Where `failures_are_zero`, rows without output are requests that failed and are left out.
    """

    name: str
    time: str
    isl: str
    osl: str
    unit_s: float | None = 1.0
    failures_are_zero: bool = False

    @property
    def columns(self) -> tuple[str, str, str]:
        """The columns it is recognised by."""
        return self.time, self.isl, self.osl


FORMATS: Final = (
    Format("pd-planner", "t_s", "isl", "osl"),
    Format("Azure", "TIMESTAMP", "ContextTokens", "GeneratedTokens", unit_s=None),
    Format("BurstGPT", "Timestamp", "Request tokens", "Response tokens", failures_are_zero=True),
)
MOONCAKE: Final = Format("Mooncake", "timestamp", "input_length", "output_length", unit_s=1e-3)

BUILTIN: Final = {
    "azure2023-conv": "azure2023_conv.csv.gz",
    "servegen-m-large-6h": "servegen_m_large_6h.csv.gz",
}
"""Traces that come with the package; data/README.md tells where they are from."""


def open_trace(name_or_path: str | Path) -> Trace:
    """Return the built-in trace of that name, else the trace in that file (`read_trace`)."""
    name = str(name_or_path)
    return builtin_trace(name) if name in BUILTIN else read_trace(name_or_path)


def builtin_trace(name: str) -> Trace:
    """Return a trace that comes with the package.

    Raises
    ------
    TraceError
        If there is none of that name.
    """
    if name not in BUILTIN:
        raise TraceError(f"{name}: no built-in trace; legal: {', '.join(BUILTIN)}; choose one")
    with as_file(files("planner.simulation") / "data" / BUILTIN[name]) as path:
        return read_trace(path, name)


def read_trace(path: str | Path, name: str | None = None) -> Trace:
    """Return the requests in a file, in any of the known formats.

    Parameters
    ----------
    path
        CSV or JSON lines, gzipped or not.
    name
        Name of the trace; default: the file's.

    Raises
    ------
    TraceError
        If the file can't be read as a trace: one line with file, line, column and mend.
    """
    path = Path(path)
    with _readable(path), _open(path) as stream:
        first = stream.readline()
        if not first.strip():
            raise TraceError(
                _line(path, "an empty first line", "a header or a JSON object", "check the file")
            )
        lines = _Lines(path, name or path.name)
        if first.lstrip().startswith("{"):
            return _read_json_lines(lines, first, stream)
        return _read_csv(lines, first, stream)


@dataclass(frozen=True, slots=True)
class _Lines:
    """The file being read, and the name its trace gets."""

    path: Path
    name: str


def _line(where: object, got: str, legal: str, mend: str) -> str:
    return " ".join(f"{where}: got {got}; legal: {legal}; {mend}".split())


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    # Whatever keeps a file from being read becomes one line.
    mend = f"give a file, or one of the built-in traces: {', '.join(BUILTIN)}"
    try:
        yield
    except FileNotFoundError:
        raise TraceError(_line(path, "no such file", "a trace file", mend)) from None
    except IsADirectoryError:
        raise TraceError(_line(path, "a directory", "a trace file", mend)) from None
    except UnicodeDecodeError:
        raise TraceError(
            _line(path, "bytes that are no UTF-8 text", "CSV or JSON lines", mend)
        ) from None
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        text = str(error).removeprefix("Error tokenizing data. C error: ").strip()
        raise TraceError(
            _line(path, f"a broken row ({text})", "one value a column", "mend it")
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise TraceError(
            _line(path, f"an unreadable file ({error})", "a trace file", mend)
        ) from None


def _open(path: Path) -> IO[str]:
    with path.open("rb") as raw:
        is_gzip = raw.read(2) == b"\x1f\x8b"
    if is_gzip:
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


# ── CSV ──────────────────────────────────────────────────────────────────────────────────────────


def _read_csv(lines: _Lines, header: str, stream: IO[str]) -> Trace:
    columns = [column.strip().strip('"') for column in header.rstrip("\r\n").split(",")]
    layout = _recognise(lines.path, columns)
    stream.seek(0)
    with warnings.catch_warnings():
        # A first row with more values than the header; later ones are errors by themselves.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        # Blank lines stay, so that the number of a row tells its line in the file.
        table = pd.read_csv(
            stream,
            header=0,
            names=columns,
            dtype=dict.fromkeys(set(columns) - set(layout.columns), "category"),
            index_col=False,
            low_memory=False,
            skip_blank_lines=False,
        )
    while len(table) and table.iloc[-1].isna().all():
        table = table.iloc[:-1]
    return _trace_of(lines, layout, table)


def _recognise(path: Path, columns: list[str]) -> Format:
    # Among formats that miss columns the nearest one tells which are lacking.
    found = {layout: [c for c in layout.columns if c not in columns] for layout in FORMATS}
    layout = min(FORMATS, key=lambda known: len(found[known]))
    if not found[layout]:
        return layout
    known = " | ".join(f"{f.name}: {', '.join(f.columns)}" for f in (*FORMATS, MOONCAKE))
    missing = "" if len(found[layout]) == 3 else f" without {', '.join(found[layout])}"
    got = f"columns {', '.join(columns)[:120]}{missing}"
    raise TraceError(_line(path, got, known, "rename or add the columns"))


def _trace_of(lines: _Lines, layout: Format, table: pd.DataFrame) -> Trace:
    # Row 0 is line 2 of the file.
    if not len(table):
        raise TraceError(
            _line(lines.path, "no requests", "1 or more", "give a trace that has some")
        )
    numbers = np.arange(len(table)) + 2
    notes: tuple[str, ...] = ()
    if layout.failures_are_zero:
        failed = (pd.to_numeric(table[layout.osl], errors="coerce") == 0).to_numpy()
        notes = (f"left out {failed.sum()} requests without output",) if failed.any() else ()
        table, numbers = table[~failed], numbers[~failed]
    isl = _tokens(lines.path, table, layout.isl, numbers)
    osl = _tokens(lines.path, table, layout.osl, numbers)
    times = _times(lines.path, table, layout, numbers)
    return make_trace(lines.name, times, isl, osl, notes=notes)


def _tokens(
    path: Path, table: pd.DataFrame, column: str, numbers: NDArray[np.int64]
) -> NDArray[np.int32]:
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=float)
    with np.errstate(invalid="ignore"):
        wrong = ~((values >= 1) & (values <= TOKENS_MAX) & (values == np.floor(values)))
    if wrong.any():
        row = int(np.argmax(wrong))
        where = f"{path}, line {numbers[row]}, column {column}"
        legal = f"a whole number of tokens from 1 to {TOKENS_MAX}"
        raise TraceError(
            _line(where, _shown(table[column].iloc[row]), legal, "correct or remove the row")
        )
    return values.astype(np.int32)


def _times(
    path: Path, table: pd.DataFrame, layout: Format, numbers: NDArray[np.int64]
) -> NDArray[np.float64]:
    column = table[layout.time]
    if layout.unit_s is None:
        moments = pd.to_datetime(column, format="ISO8601", errors="coerce", utc=True)
        seconds = (moments - moments.iloc[0]).dt.total_seconds().to_numpy(dtype=float)
        legal = "a date and time such as 2023-11-16 18:15:46.68"
    else:
        seconds = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float) * layout.unit_s
        legal = "a finite number"
    wrong = ~np.isfinite(seconds)
    if not wrong.any():
        wrong = np.diff(seconds, prepend=seconds[:1]) < 0.0
        legal = "not before the row above"
    if wrong.any():
        row = int(np.argmax(wrong))
        where = f"{path}, line {numbers[row]}, column {layout.time}"
        raise TraceError(
            _line(where, _shown(column.iloc[row]), legal, "correct the row or sort by time")
        )
    return np.asarray(seconds, dtype=np.float64)


def _shown(value: object) -> str:
    is_missing = value is None or (isinstance(value, float) and np.isnan(value))
    return "nothing or NaN" if is_missing else repr(str(value))


# ── JSON lines ───────────────────────────────────────────────────────────────────────────────────


def _read_json_lines(lines: _Lines, first: str, stream: IO[str]) -> Trace:
    rows: list[tuple[Any, Any, Any]] = []
    cached: list[int] = []
    seen: set[int] = set()
    for number, line in enumerate((first, *stream), start=1):
        if not line.strip():
            continue
        record = _parse(lines.path, number, line)
        rows.append((record["timestamp"], record["input_length"], record["output_length"]))
        cached.append(_cached_tokens(record.get("hash_ids") or [], seen))
    numbers = np.arange(len(rows)) + 1
    table = pd.DataFrame(rows, columns=list(MOONCAKE.columns))
    isl = _tokens(lines.path, table, MOONCAKE.isl, numbers)
    osl = _tokens(lines.path, table, MOONCAKE.osl, numbers)
    return make_trace(lines.name, _times(lines.path, table, MOONCAKE, numbers), isl, osl, cached)


def _parse(path: Path, number: int, line: str) -> dict[str, Any]:
    where = f"{path}, line {number}"
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise TraceError(
            _line(where, f"broken JSON ({error.msg})", "one object a line", "mend it")
        ) from None
    missing = [c for c in MOONCAKE.columns if not isinstance(record, dict) or c not in record]
    if missing:
        legal = f"an object with {', '.join(MOONCAKE.columns)}, optionally hash_ids"
        raise TraceError(_line(where, f"no {', '.join(missing)}", legal, "add the key"))
    return dict(record)


def _cached_tokens(blocks: list[int], seen: set[int]) -> int:
    """Return the tokens of the leading blocks that came before: caches hold prefixes."""
    known = next((i for i, block in enumerate(blocks) if block not in seen), len(blocks))
    seen.update(blocks)
    return known * BLOCK_TOKENS
