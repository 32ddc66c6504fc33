"""Profiles that come with the package; `data/README.md` tells where their points are from."""

from importlib import resources
from typing import Final

from profiles.errors import Fault, ProfileError
from profiles.schema import Profile, parse_profile

_FOLDER: Final = resources.files("profiles") / "data"

SAMPLES: Final = tuple(
    sorted(
        entry.name.removesuffix(".json")
        for entry in _FOLDER.iterdir()
        if entry.name.endswith(".json")
    )
)
"""Names of the sample profiles."""


def sample(name: str) -> Profile:
    """Return the sample profile of that name.

    Raises
    ------
    ProfileError
        If there is no such sample.
    """
    if name not in SAMPLES:
        fault = Fault("sample", repr(name), ", ".join(SAMPLES), "choose one of them")
        raise ProfileError(fault.line(""))
    file = f"{name}.json"
    return parse_profile((_FOLDER / file).read_text("utf-8"), file)
