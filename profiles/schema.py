"""The profile document: what one engine on one kind of replica was measured to do.

Points are raw measurements; surfaces are derived from them on load. Reading and writing files is
the only I/O here; whatever is wrong becomes one ProfileError that lists every fault.
"""

import json
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from profiles.errors import Fault, ProfileError
from profiles.points import (
    VALUE_CONFIG,
    DecodePoint,
    PositiveFloat,
    PositiveInt,
    PrefillPoint,
    decode_faults,
    prefill_faults,
)

SCHEMA_VERSION: Final = "1"


class Provenance(BaseModel):
    """Where the points come from; null is what nobody knows."""

    model_config = VALUE_CONFIG

    how: Literal["measured", "estimated", "imported"]
    """`measured` on the engine, `estimated` by a model of it, `imported` from elsewhere."""

    tool: str | None = None
    """Program that made the points, with its version."""

    engine: str | None = None
    """Inference engine, such as `vllm`."""

    engine_version: Annotated[str | None, Field(alias="engineVersion")] = None
    """Version of the engine."""

    model: str | None = None
    """Model, with its number format."""

    gpu: str | None = None
    """GPU type."""

    gpus_per_replica: Annotated[PositiveInt | None, Field(alias="gpusPerReplica")] = None
    """GPUs of one replica."""

    parallelism: str | None = None
    """How the model is split over them, such as `TP4`."""

    date: str | None = None
    """Day of the measurement, ISO 8601."""

    command: str | None = None
    """Command, or source, to get the points again."""


class Profile(BaseModel):
    """Measured performance of one replica: prefill points, decode points, or both."""

    model_config = VALUE_CONFIG

    schema_version: Annotated[Literal["1"], Field(alias="schemaVersion")]
    """Version of this format."""

    provenance: Provenance
    """Where the points come from."""

    prefill: tuple[PrefillPoint, ...] = ()
    """Prefill passes; at least three prompt lengths at batch 1, or none."""

    decode: tuple[DecodePoint, ...] = ()
    """Decode points; at least three contexts of three concurrencies, an L, or none."""

    kv_capacity_tokens: PositiveInt | None = None
    """Tokens the KV cache of one replica holds."""

    max_sequences: PositiveInt | None = None
    """Largest batch the engine's scheduler runs."""

    kv_bytes_per_token: PositiveFloat | None = None
    """KV cache of one token over all layers and GPUs of a replica [B]."""

    kv_read_bytes_per_s: PositiveFloat | None = None
    """Effective memory bandwidth of one replica when reading KV [B/s]: the roofline of the
    context direction where decode was measured at one context only."""

    startup_s: PositiveFloat | None = None
    """Time from the creation of a replica to its readiness [s]."""

    @model_validator(mode="after")
    def _check_points(self) -> Self:
        faults = prefill_faults(self.prefill) + decode_faults(
            self.decode,
            kv_capacity_tokens=self.kv_capacity_tokens,
            kv_bytes_per_token=self.kv_bytes_per_token,
            kv_read_bytes_per_s=self.kv_read_bytes_per_s,
        )
        if not self.prefill and not self.decode:
            legal = "points of at least one role"
            faults.append(Fault("prefill, decode", "no points", legal, "measure one of them"))
        if faults:
            lines = "; ".join(fault.line("") for fault in faults)
            raise PydanticCustomError("profile_points", "{lines}", {"lines": lines, "all": faults})
        return self


def read_profile(path: str | os.PathLike[str]) -> Profile:
    """Return the profile in a JSON file.

    Raises
    ------
    ProfileError
        If the file cannot be read, or is no profile: one line per fault.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "bytes that are not UTF-8 text"
        fault = Fault("", str(reason), "a readable JSON file", "give the path of a profile")
        raise ProfileError(fault.line(str(path))) from error
    return parse_profile(text, str(path))


def parse_profile(text: str, source: str) -> Profile:
    """Return the profile in a JSON text; `source` names it in messages.

    Raises
    ------
    ProfileError
        If the text is no profile: one line per fault.
    """
    try:
        return Profile.model_validate_json(text)
    except ValidationError as error:
        raise ProfileError(*_fault_lines(error, source)) from error


def build_profile(document: Mapping[str, Any], source: str) -> Profile:
    """Return the profile of a document already in Python values; `source` names it in messages.

    Raises
    ------
    ProfileError
        If the document is no profile: one line per fault.
    """
    try:
        return Profile.model_validate(document)
    except ValidationError as error:
        raise ProfileError(*_fault_lines(error, source)) from error


def profile_text(profile: Profile) -> str:
    """Return the profile as JSON text, one point a line so that changes read well in a diff."""
    document = profile.model_dump(mode="json", by_alias=True)
    body = ",\n".join(f"  {json.dumps(key)}: {_json(value)}" for key, value in document.items())
    return f"{{\n{body}\n}}\n"


def _json(value: object) -> str:
    if isinstance(value, list) and value:
        rows = ",\n".join(f"    {json.dumps(row, allow_nan=False)}" for row in value)
        return f"[\n{rows}\n  ]"
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False).replace("\n", "\n  ")


def write_profile(profile: Profile, path: str | os.PathLike[str]) -> None:
    """Write the profile as JSON; a reader sees the old file or the new one, never half of it.

    Raises
    ------
    ProfileError
        If the file cannot be written.
    """
    target = Path(path)
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(profile_text(profile), encoding="utf-8")
        draft.replace(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        fault = Fault("", str(error.strerror), "a writable path", "give another path")
        raise ProfileError(fault.line(str(path))) from error


def _fault_lines(error: ValidationError, source: str) -> list[str]:
    details = error.errors(include_url=False)
    return [fault.line(source) for detail in details for fault in _faults(detail)]


_LEGAL: Final[dict[str, tuple[str, str]]] = {
    "missing": ("a required key", "add it"),
    "extra_forbidden": ("only keys of the schema", "remove the key or correct its spelling"),
    "finite_number": ("a finite number above 0", "measure this point again or leave it out"),
    "greater_than": ("above 0", "correct the value or leave the point out"),
    "json_invalid": ("a JSON document", "correct the text"),
}


def _faults(detail: ErrorDetails) -> list[Fault]:
    kind = detail["type"]
    if kind == "profile_points":
        return list(detail["ctx"]["all"])
    legal, mend = _LEGAL.get(kind, (_plain(detail["msg"]), "correct the value"))
    got = {"missing": "nothing", "json_invalid": _plain(detail["msg"])}.get(kind)
    return [Fault(_path(detail["loc"]), got or reprlib.repr(detail["input"]), legal, mend)]


def _plain(message: str) -> str:
    return message.removeprefix("Input should be ").removeprefix("Invalid JSON: ")


def _path(location: tuple[int | str, ...]) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return "".join(steps).removeprefix(".")
