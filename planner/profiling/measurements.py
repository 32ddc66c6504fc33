"""The file of measurements: one JSON line a finished point, so that a cut-off run goes on from it.

The first line says what is measured and how; another model, engine or flag is another file.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from planner.errors import InputError
from planner.model import Role
from planner.profiling.measuring import Cap, Measurement
from planner.profiling.timings import EngineFacts
from profiles.sweep import Place

FORMAT: Final = 1
_LONGEST: Final = 200

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known so far.

    Attributes
    ----------
    facts
        What the engine of each role said of itself when it was first measured.
    points
        All points, in the order they were measured.
    max_sequences
        Where more were sent than the engine runs, how many ran.
    """

    facts: Mapping[Role, EngineFacts]
    points: tuple[Measurement, ...] = ()
    max_sequences: int | None = None

    def of(self, role: Role) -> dict[Place, Measurement]:
        """Return the points of a role by place."""
        return {point.place: point for point in self.points if point.role is role}

    def with_line(self, line: Line) -> "Measured":
        """Return what is known with one line more."""
        kind = line["kind"]
        if kind == "point":
            return replace(self, points=(*self.points, _point(line)))
        if kind == "cap":
            return replace(self, max_sequences=int(line["max_sequences"]))
        role, facts = Role(line["role"]), EngineFacts(**line["facts"])
        return replace(self, facts={role: facts, **self.facts})


def _point(line: Line) -> Measurement:
    values = {**line, "role": Role(line["role"]), "place": Place(*line["place"])}
    values["samples_s"] = tuple(line["samples_s"])
    del values["kind"]
    return Measurement(**values)


def point_line(found: Measurement | Cap) -> Line:
    """Return a point, or a cap, as a line of the file."""
    if isinstance(found, Cap):
        return {"kind": "cap", **asdict(found)}
    return {"kind": "point", **asdict(found), "role": found.role.value, "place": [*found.place]}


def facts_line(role: Role, facts: EngineFacts) -> Line:
    """Return what an engine said of itself as a line of the file."""
    return {"kind": "engine", "role": role.value, "facts": asdict(facts)}


class MeasurementFile:
    """The file, opened to go on; whatever is appended is on the disk when `append` returns."""

    def __init__(self, path: Path, subject: Mapping[str, Any]) -> None:
        """Open a file, or begin it, for measuring `subject`; another subject is refused."""
        self._path = path
        self.measured = Measured({})
        header = {"kind": "run", "format": FORMAT, "subject": dict(subject)}
        text = self._text()
        # A line without its end was cut off in writing: its point is measured again.
        whole = text[: text.rfind(b"\n") + 1]
        if not whole:
            self._begin(text, header)
            return
        first, *rest = self._lines(whole)
        self._refuse_other(first, header)
        for line in rest:
            self.measured = self.measured.with_line(line)
        if whole != text:
            os.truncate(path, len(whole))

    def append(self, line: Line) -> None:
        """Add what was found."""
        self._append(line)
        self.measured = self.measured.with_line(line)

    def _append(self, line: Line) -> None:
        try:
            with self._path.open("ab") as file:
                file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(self._unusable(str(error.strerror))) from error

    def _text(self) -> bytes:
        """Return what is there.

        Raises
        ------
        InputError
            If it can't be read.
        """
        try:
            return self._path.read_bytes() if self._path.exists() else b""
        except OSError as error:
            raise InputError(self._unusable(str(error.strerror))) from error

    def _begin(self, text: bytes, header: Line) -> None:
        """Write the first line; `text` is what there is of it.

        Raises
        ------
        InputError
            If that is something else.
        """
        if not json.dumps(header).encode().startswith(text):
            raise InputError(self._unusable("it is no file of measurements"))
        self._path.unlink(missing_ok=True)
        self._append(header)

    def _lines(self, text: bytes) -> Sequence[Line]:
        """Return all lines.

        Raises
        ------
        InputError
            If one is none of ours.
        """
        found: list[Line] = []
        for number, line in enumerate(text.splitlines(), 1):
            try:
                found.append(json.loads(line))
                if number > 1:
                    Measured({}).with_line(found[-1])
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(self._unusable(f"line {number} is no measurement")) from error
        return found

    def _unusable(self, what: str) -> str:
        return f"{self._path}: {what}: give --state a new file, or one to go on from"

    def _refuse_other(self, found: Line, header: Line) -> None:
        if not isinstance(found, dict) or (found.get("kind"), found.get("format")) != (
            "run",
            FORMAT,
        ):
            raise InputError(self._unusable("it is no file of measurements"))
        before, now = found["subject"], header["subject"]
        for key in sorted(before.keys() | now.keys()):
            refuse_other(self._path, key, before.get(key), now.get(key))


def refuse_other(path: Path, what: str, before: object, now: object) -> None:
    """Refuse to go on with a file of measurements of something else.

    Raises
    ------
    InputError
        If `what` was another one before.
    """
    if before != now:
        raise InputError(
            f"{path}: holds measurements with {what} {_short(before)}, this run has {_short(now)}; "
            "legal: the same; go on with that, or give --state another file"
        )


def _short(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
