"""Where finished ticks go: a rotated file of JSON lines, and the log. Writes files."""

import contextlib
import json
import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from planner.errors import InputError
from planner.record import TickRecord

log = logging.getLogger("pd-planner")

# Size at which the file is rotated, and the files kept [bytes, files].
ROTATE_BYTES, KEEP_FILES = 64 * 1024 * 1024, 8
# A whole record at least this often, so that any hour of the file explains itself [s].
WHOLE_EVERY_S = 3600.0
# What an unchanged tick still says: what was decided and why, without the evidence.
SHORT_KEYS = (
    "schemaVersion",
    "namespace",
    "name",
    "at_s",
    "sentence",
    "pools",
    "hold",
    "reasons",
    "applied",
    "error",
)


class RecordFile:
    """Appends one JSON line a tick: whole where something changed and hourly, else short.

    Parameters
    ----------
    path
        The file; older ones are named `path.1`, `path.2`, …
    anew
        Begin an empty file, for a run whose time has nothing to do with that of earlier ones.

    Raises
    ------
    InputError
        If the file can't be opened.
    """

    def __init__(self, path: Path, *, anew: bool = False) -> None:
        try:
            is_used = path.is_file() and path.stat().st_size > 0
            self._file = _Rotated(
                path, maxBytes=ROTATE_BYTES, backupCount=KEEP_FILES, encoding="utf-8"
            )
            if anew and is_used:
                self._file.doRollover()
        except OSError as error:
            raise InputError(f"--record: {path}: {error.strerror}: give another path") from None
        self._path, self._is_failing = path, False
        self._told: dict[tuple[str, str], tuple[Any, float]] = {}

    def record(self, tick: TickRecord) -> None:
        """Write one tick; a full disk is logged once and stops nobody."""
        line = tick.to_dict()
        key = (tick.service.namespace, tick.service.name)
        reasons = sorted((r.code, r.pool or "") for r in tick.decision.reasons)
        moved = any(p.desired != p.current for p in tick.decision.pools.values())
        told, whole_s = self._told.get(key, (None, 0.0))
        at_s = tick.decision.at_s
        if moved or told != reasons or at_s - whole_s >= WHOLE_EVERY_S:
            self._told[key] = (reasons, at_s)
        else:
            line = {name: line[name] for name in SHORT_KEYS}
        text = json.dumps(line, separators=(",", ":"), allow_nan=False)
        self._write(text)

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):  # `record` has told of it
            self._file.close()

    def _write(self, text: str) -> None:
        try:
            self._file.emit(logging.makeLogRecord({"msg": text}))
        except OSError as error:
            if not self._is_failing:
                log.error(  # noqa: TRY400 - one line for an operator, no traceback
                    "--record: %s: %s: decisions go on unrecorded", self._path, error.strerror
                )
            self._is_failing = True
        else:
            self._is_failing = False


class _Rotated(RotatingFileHandler):
    """A rotated file that leaves its errors to who writes, instead of printing tracebacks."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - logging's
        """Raise again what `emit` met."""
        raise  # noqa: PLE0704 - called while it is handled


class TickLog:
    """One INFO line a tick; WARNING where an operator should act."""

    def record(self, tick: TickRecord) -> None:
        """Log one tick."""
        worrying = tick.error is not None or tick.decision.hold is not None
        log.log(
            logging.WARNING if worrying else logging.INFO,
            "%s: %s",
            tick.service,
            tick.error or tick.sentence,
            extra={"service": str(tick.service)},
        )


def configure_logging(level: str, style: str) -> None:
    """Send the log to stderr, as lines for a person or as one JSON object a line."""
    handler = logging.StreamHandler()
    if style == "json":
        handler.setFormatter(_JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # The scheduler tells of every run and the compiler of every step; a tick has its own line.
    for talkative in ("apscheduler", "numba"):
        logging.getLogger(talkative).setLevel(logging.WARNING)


class _JsonLines(logging.Formatter):
    """Formats a log record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        service = getattr(record, "service", None)
        return json.dumps(line | ({"service": service} if service else {}))
