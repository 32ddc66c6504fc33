"""Profiles out of files: ours, other formats, results of load generators, the samples by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.errors import InputError
from planner.profiling.manifest import read_manifest
from profiles import SAMPLES, Profile, read_dynamo, read_profile, sample
from profiles.result_files import profile_from_results
from profiles.schema import build_profile

Facts = Mapping[str, Any]
"""Keys of the profile document that the user gives, `provenance` among them."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A profile that was read, and what is worth telling about it, one line each."""

    profile: Profile
    notes: tuple[str, ...]


def read_results(paths: Sequence[Path], fmt: str, roles: Sequence[str], facts: Facts) -> Imported:
    """Return the profile of the results of several runs."""
    files = [file for path in paths for file in _files(path)]
    texts = {str(path): _text(path) for path in files}
    return Imported(*profile_from_results(texts, fmt, roles, facts))


def _files(path: Path) -> list[Path]:
    """Return a file, or all JSON files of a folder.

    Raises
    ------
    InputError
        If the folder has none.
    """
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.json"))
    if not found:
        raise InputError(f"{path}: got no *.json; legal: a folder of result files; give another")
    return found


def _text(path: Path) -> str:
    """Return the text of a file.

    Raises
    ------
    InputError
        If it can't be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "bytes that are not UTF-8 text"
        raise InputError(f"{path}: {why}: give a readable text file") from error


def read_whole(paths: Sequence[Path], fmt: str, roles: Sequence[str], facts: Facts) -> Imported:
    """Return a profile that is in one file or folder.

    Raises
    ------
    InputError
        If several are given.
    """
    if len(paths) > 1:
        raise InputError(f"--format {fmt}: got {len(paths)} paths; legal: one; import one by one")
    readers: dict[str, Callable[[Path], Profile]] = {
        "dynamo": read_dynamo,
        "json": read_profile,
        "configmap": lambda path: read_manifest(_text(path), str(path)),
    }
    return Imported(_with_facts(readers[fmt](paths[0]), roles, facts, str(paths[0])), ())


def _with_facts(profile: Profile, roles: Sequence[str], facts: Facts, source: str) -> Profile:
    document = profile.model_dump(by_alias=True)
    provenance = document["provenance"] | dict(facts.get("provenance", {}))
    left_out: dict[str, Any] = {role: () for role in ("prefill", "decode") if role not in roles}
    return build_profile(document | dict(facts) | {"provenance": provenance} | left_out, source)


def read_named(source: str) -> Profile:
    """Return the profile in a file, or the sample of that name."""
    if not Path(source).exists() and source in SAMPLES:
        return sample(source)
    return read_profile(source)
