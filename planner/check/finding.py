"""What `check` found: one line each. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from planner.check.rules import Rule


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: where, what was found, and the mend if it is not ok.

    `rule` names what docs/check.md says about it; what is as it should be needs none.
    """

    level: Level
    where: str
    what: str
    mend: str = ""
    rule: Rule | None = None

    @property
    def line(self) -> str:
        """The finding in one line, without its level."""
        mend = f"; mend: {self.mend}" if self.mend else ""
        return f"{self.where}: {self.what}{mend}"


def ok(where: str, what: str, rule: Rule | None = None) -> Finding:
    """Return a finding with nothing to mend."""
    return Finding(Level.OK, where, what, rule=rule)


def warning(where: str, what: str, mend: str, rule: Rule | None = None) -> Finding:
    """Return a finding that may be meant so."""
    return Finding(Level.WARNING, where, what, mend, rule)


def error(where: str, what: str, mend: str, rule: Rule | None = None) -> Finding:
    """Return a finding that keeps the planner from doing what is asked."""
    return Finding(Level.ERROR, where, what, mend, rule)
