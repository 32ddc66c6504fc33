"""What can be wrong with a profile, told in one line per fault."""

from typing import NamedTuple


class Fault(NamedTuple):
    """One thing wrong with a profile: where, what was found, what is legal, how to mend it."""

    where: str
    """Path in the document, such as `decode[3].itl_s`; empty for the document as a whole."""

    got: str
    """What was found there, in words."""

    legal: str
    """The legal range, in words."""

    mend: str
    """What to do about it."""

    def line(self, source: str) -> str:
        """Return the fault as one line that begins with the file or ConfigMap it is in."""
        place = ": ".join(part for part in (source, self.where) if part)
        text = f"{place}: got {self.got}; legal: {self.legal}; {self.mend}"
        return " ".join(text.split())


class ProfileError(ValueError):
    """A profile that cannot be read, written or used; its message is one line per fault.

    ValueError
    └── ProfileError
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))

    @property
    def faults(self) -> tuple[str, ...]:
        """One line per fault."""
        return tuple(str(self).splitlines())
