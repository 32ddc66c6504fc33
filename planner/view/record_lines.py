"""Records read back from a file of JSON lines, and one of them picked by time. Pure.

Lines may be short (what they lack is None) and of several services; a rotated file starts late.
A line that is no record is an InputError that names it.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from planner.errors import InputError
from planner.model import Decision, ServiceKey, Sla
from planner.record import SCHEMA_VERSION, TickRecord
from planner.view.notation import CALENDAR_FROM_S, moment

DAY_S: Final = 86_400.0
CLOCK_TIME: Final = re.compile(r"(\d{1,4}):([0-5]\d)(?::([0-5]\d(?:\.\d+)?))?")
LEGAL_TIMES: Final = "seconds since the start, HH:MM, HH:MM:SS or 2026-11-22T10:00:00Z"


@dataclass(frozen=True, slots=True)
class RecordLine:
    """One line of the file: its number, what was read, and the targets if it tells them."""

    number: int
    record: TickRecord
    sla: Sla | None = None

    @property
    def at_s(self) -> float:
        """Time of the decision [s]."""
        return self.record.decision.at_s


def read_lines(lines: Iterable[str], name: str) -> list[RecordLine]:
    """Return the records of all lines that are not blank, in the order of the file.

    Parameters
    ----------
    lines
        JSON lines.
    name
        Name of the file, for messages.

    Raises
    ------
    InputError
        If a line is no record of this version, or there is none.
    """
    found = [
        _read_line(line, number, f"{name}, line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not found:
        raise InputError(f"{name}: no records; legal: one or more JSON lines written by --record")
    return found


def pick(lines: Sequence[RecordLine], at: str | None, name: str) -> list[RecordLine]:
    """Return the last record of each service at or before `at`; default: at the end.

    Raises
    ------
    InputError
        If `at` is no time, or before the first record.
    """
    first_s, last_s = min(line.at_s for line in lines), max(line.at_s for line in lines)
    at_s = last_s if at is None else read_time_s(at, first_s, last_s)
    latest: dict[ServiceKey, RecordLine] = {}
    for line in lines:
        held = latest.get(line.record.service)
        if line.at_s <= at_s and (held is None or line.at_s >= held.at_s):
            latest[line.record.service] = line
    if not latest:
        legal = f"{moment(first_s)} to {moment(last_s)}"
        raise InputError(f"--at {at}: before the first record of {name}; legal: {legal}")
    return list(latest.values())


def read_time_s(at: str, first_s: float, last_s: float) -> float:
    """Return the moment that `at` means in records from `first_s` to `last_s` [s].

    A number counts from the start: time 0 of a simulation, else the first record. A clock time is
    the simulation's clock, else UTC on the latest day that has it. Anything else is an InputError.

    Examples
    --------
    >>> read_time_s("90", 60.0, 600.0), read_time_s("00:05", 60.0, 600.0)
    (90.0, 300.0)
    """
    is_calendar = first_s >= CALENDAR_FROM_S
    clock = CLOCK_TIME.fullmatch(at.strip())
    if clock is not None:
        hours, minutes, seconds = clock.groups(default="0")
        of_day_s = int(hours) * 3600.0 + int(minutes) * 60.0 + float(seconds)
        if not is_calendar:
            return of_day_s
        # Midnight of the last day, or of the day before where that lies past the end.
        at_s = last_s - last_s % DAY_S + of_day_s
        return at_s if at_s <= last_s else at_s - DAY_S
    try:
        number_s = float(at)
    except ValueError:
        return _read_date_s(at, is_calendar=is_calendar)
    return first_s + number_s if is_calendar and number_s < CALENDAR_FROM_S else number_s


def _read_date_s(at: str, *, is_calendar: bool) -> float:
    try:
        date = datetime.fromisoformat(at.strip())
    except ValueError:
        raise InputError(f"--at {at}: no time; legal: {LEGAL_TIMES}; write one of these") from None
    if not is_calendar:
        raise InputError(
            f"--at {at}: a date, and these records tell simulated time; legal: seconds since the "
            "start, HH:MM or HH:MM:SS; write one of these"
        )
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def _read_line(line: str, number: int, where: str) -> RecordLine:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise _broken(where, f"no JSON ({error})") from None
    if not isinstance(value, dict):
        raise _broken(where, f"a JSON {type(value).__name__} and no object")
    if value.get("schemaVersion") != SCHEMA_VERSION:
        found = value.get("schemaVersion")
        raise _broken(where, f"schemaVersion {found}, this program reads {SCHEMA_VERSION}")
    # What was not finite was written as null: absent is what it means.
    value = {"pools": {}} | _without_nulls(value)
    try:
        key = _adapter(ServiceKey).validate_python(value)
        decision = _adapter(Decision).validate_python(value)
        sla = _adapter(Sla).validate_python(value["sla"]) if "sla" in value else None
    except ValidationError as error:
        fault = error.errors()[0]
        path = ".".join(str(part) for part in fault["loc"])
        raise _broken(where, f"{path}: {fault['msg']}") from None
    record = TickRecord(key, decision, value.get("applied"), value.get("error"))
    return RecordLine(number, record, sla)


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _broken(where: str, what: str) -> InputError:
    return InputError(f"{where}: {what}; legal: a line written by --record; remove the line")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
