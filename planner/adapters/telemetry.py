"""Where finished ticks go: a rotated file of JSON lines, and the log. Writes files."""

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
# What an unchanged tick still says.
SHORT_KEYS = ("schemaVersion", "namespace", "name", "at_s", "sentence", "pools", "applied", "error")


class RecordFile:
    """Appends one JSON line a tick: whole where something changed and hourly, else short.

    Parameters
    ----------
    path
        The file; older ones are named `path.1`, `path.2`, …

    Raises
    ------
    InputError
        If the file can't be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = RotatingFileHandler(
                path, maxBytes=ROTATE_BYTES, backupCount=KEEP_FILES, encoding="utf-8"
            )
        except OSError as error:
            raise InputError(f"--record: {path}: {error.strerror}: give another path") from None
        self._told: dict[tuple[str, str], tuple[Any, float]] = {}

    def record(self, tick: TickRecord) -> None:
        """Write one tick; a full disk is logged by the handler and never raised."""
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
        self._file.emit(logging.makeLogRecord({"msg": text}))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


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
    # The scheduler tells of every run; a tick has its own line.
    logging.getLogger("apscheduler").setLevel(logging.WARNING)


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
