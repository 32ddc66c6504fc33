"""What `check` found: one line each. Pure."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: where, what was found, and the mend if it is not ok."""

    level: Level
    where: str
    what: str
    mend: str = ""

    @property
    def line(self) -> str:
        """The finding in one line, without its level."""
        mend = f"; mend: {self.mend}" if self.mend else ""
        return f"{self.where}: {self.what}{mend}"


def ok(where: str, what: str) -> Finding:
    """Return a finding with nothing to mend."""
    return Finding(Level.OK, where, what)


def warning(where: str, what: str, mend: str) -> Finding:
    """Return a finding that may be meant so."""
    return Finding(Level.WARNING, where, what, mend)


def error(where: str, what: str, mend: str) -> Finding:
    """Return a finding that keeps the planner from doing what is asked."""
    return Finding(Level.ERROR, where, what, mend)
