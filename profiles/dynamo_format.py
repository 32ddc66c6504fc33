"""NVIDIA Dynamo's profile files, read and written: npz folders or JSON. I/O at the edge only.

Their decode axis is the share of the KV cache in use, `concurrency × context / max_kv_tokens`, and
their latencies are in milliseconds. Batched prefill points and most of the provenance have no place
in them; throughput follows from the latencies and is not read back.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from profiles.errors import Fault, ProfileError
from profiles.schema import SCHEMA_VERSION, Profile, build_profile

FloatArray = NDArray[np.float64]
RawArrays = Mapping[str, Any]
"""Dynamo's arrays by key: numpy arrays, lists or numbers."""

MS_PER_S: Final = 1000.0


class _RoleFiles(NamedTuple):
    """Where one role's points lie in a folder."""

    npz: str
    json: str


PREFILL_FILES: Final = _RoleFiles(
    "selected_prefill_interpolation/raw_data.npz", "prefill_raw_data.json"
)
DECODE_FILES: Final = _RoleFiles(
    "selected_decode_interpolation/raw_data.npz", "decode_raw_data.json"
)


def read_dynamo(directory: str | os.PathLike[str]) -> Profile:
    """Return the profile in a folder of Dynamo's npz or JSON files, of one role or both.

    Raises
    ------
    ProfileError
        If no file of either role is there, or one of them is garbled.
    """
    folder = Path(directory)
    prefill, decode = (_read_role(folder, files) for files in (PREFILL_FILES, DECODE_FILES))
    if prefill is None and decode is None:
        legal = f"a folder with {PREFILL_FILES.npz} or {PREFILL_FILES.json}, or those of decode"
        fault = Fault("", "none of Dynamo's files", legal, "give the profiler's output folder")
        raise ProfileError(fault.line(str(folder)))
    return profile_from_arrays(prefill, decode, str(folder))


def profile_from_arrays(
    prefill: RawArrays | None, decode: RawArrays | None, source: str
) -> Profile:
    """Return the profile of Dynamo's raw arrays of one role or both; `source` names them."""
    document: dict[str, Any] = {"schemaVersion": SCHEMA_VERSION}
    gpus: set[int | None] = set()
    if prefill is not None:
        isl, ttft = _columns(prefill, ("prefill_isl", "prefill_ttft"), f"{source}: prefill")
        document["prefill"] = _prefill_points(isl, ttft)
        gpus.add(_prefill_gpus(prefill, isl, ttft))
    if decode is not None:
        names = ("x_kv_usage", "y_context_length", "z_itl")
        capacity = _capacity(decode, f"{source}: decode")
        points = _decode_points(_columns(decode, names, f"{source}: decode"), capacity)
        document |= {"kv_capacity_tokens": capacity, "decode": points}
        gpus.add(_decode_gpus(decode, points))
    # A profile tells the size of one kind of replica; two sizes are two profiles.
    one_size = gpus.pop() if len(gpus) == 1 else None
    document["provenance"] = {"how": "imported", "gpusPerReplica": one_size}
    return build_profile(document, source)


def _prefill_points(isl_tokens: FloatArray, ttft_ms: FloatArray) -> list[dict[str, float]]:
    return [
        {"isl_tokens": isl, "ttft_s": ttft / MS_PER_S, "batch": 1}
        for isl, ttft in zip(isl_tokens.tolist(), ttft_ms.tolist(), strict=True)
    ]


def _decode_points(columns: list[FloatArray], capacity: int) -> list[dict[str, float]]:
    kv_usage, context_tokens, itl_ms = columns
    with np.errstate(all="ignore"):  # the schema names a point that is 0, negative or NaN
        concurrency = kv_usage * capacity / context_tokens
        # Whole batches come back within rounding: 263 sequences as 263.00000000000006.
        nearest = np.rint(concurrency)
        is_whole = np.abs(concurrency - nearest) < 1e-6 * nearest
    concurrency = np.where(is_whole, nearest, concurrency)
    rows = np.column_stack((concurrency, context_tokens, itl_ms / MS_PER_S)).tolist()
    return [dict(zip(("concurrency", "context_tokens", "itl_s"), row, strict=True)) for row in rows]


def _prefill_gpus(raw: RawArrays, isl_tokens: FloatArray, ttft_ms: FloatArray) -> int | None:
    """Return GPUs per replica: tokens/s of the replica by tokens/s of one GPU."""
    with np.errstate(all="ignore"):
        return _gpus(isl_tokens / ttft_ms * MS_PER_S, raw.get("prefill_thpt_per_gpu"))


def _decode_gpus(raw: RawArrays, points: list[dict[str, float]]) -> int | None:
    with np.errstate(all="ignore"):
        n, itl_s = (np.array([point[key] for point in points]) for key in ("concurrency", "itl_s"))
        return _gpus(n / itl_s, raw.get("z_thpt_per_gpu"))


def _gpus(replica_tps: FloatArray, per_gpu_tps: object) -> int | None:
    """Return the whole number of GPUs the two throughputs agree on, or None."""
    try:
        per_gpu = np.asarray(per_gpu_tps, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        return None
    if per_gpu.shape != replica_tps.shape:
        return None
    with np.errstate(all="ignore"):
        ratio = float(np.median(replica_tps / per_gpu)) if per_gpu.size else 0.0
    if not 0.9 <= ratio < np.inf:
        return None
    # Measured decode throughput counts the ramp, so it is a few per cent below n / ITL.
    return round(ratio) if abs(ratio - round(ratio)) < 0.1 * ratio else None


def _columns(raw: RawArrays, keys: tuple[str, ...], source: str) -> list[FloatArray]:
    columns = [_column(raw, key, source) for key in keys]
    lengths = [column.size for column in columns]
    if len(set(lengths)) > 1:
        got = f"lengths {', '.join(map(str, lengths))}"
        fault = Fault(", ".join(keys), got, "one length", "export the profile again")
        raise ProfileError(fault.line(source))
    return columns


def _column(raw: RawArrays, key: str, source: str) -> FloatArray:
    if key not in raw:
        known = ", ".join(sorted(raw)) or "none"
        fault = Fault(key, f"no such key among {known}", "the key", "export the profile again")
        raise ProfileError(fault.line(source))
    try:
        return np.asarray(raw[key], dtype=np.float64).ravel()
    except (TypeError, ValueError) as error:
        fault = Fault(key, str(error), "an array of numbers", "export the profile again")
        raise ProfileError(fault.line(source)) from error


def _capacity(raw: RawArrays, source: str) -> int:
    column = _column(raw, "max_kv_tokens", source)
    if column.size != 1 or not np.isfinite(column[0]) or column[0] < 1:
        fault = Fault("max_kv_tokens", str(column.tolist()), "one number above 0", "correct it")
        raise ProfileError(fault.line(source))
    return int(column[0])


def _read_role(folder: Path, files: _RoleFiles) -> RawArrays | None:
    npz, text = folder / files.npz, folder / files.json
    try:
        if npz.is_file():
            with npz.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        return parse_arrays(text.read_text("utf-8"), str(text)) if text.is_file() else None
    except ProfileError:
        raise
    except (OSError, ValueError, TypeError, EOFError, BadZipFile) as error:
        place, what = (npz, "npz archive") if npz.is_file() else (text, "JSON file")
        fault = Fault("", str(error), f"an {what} of numbers", "export the profile again")
        raise ProfileError(fault.line(str(place))) from error


def parse_arrays(text: str, source: str) -> RawArrays:
    """Return the arrays of one of Dynamo's JSON files.

    Raises
    ------
    ProfileError
        If the text is no JSON object.
    """
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        fault = Fault("", str(error), "a JSON object", "export the profile again")
        raise ProfileError(fault.line(source)) from error
    if not isinstance(raw, dict):
        fault = Fault("", type(raw).__name__, "a JSON object", "export the profile again")
        raise ProfileError(fault.line(source))
    return raw


def write_dynamo(
    profile: Profile, directory: str | os.PathLike[str], fmt: Literal["npz", "json"] = "npz"
) -> None:
    """Write the profile as a folder of Dynamo's files, one for each role it has points of.

    Raises
    ------
    ProfileError
        If the profile lacks what the format needs, or the folder cannot be written.
    """
    folder = Path(directory)
    roles = zip((PREFILL_FILES, DECODE_FILES), arrays_from_profile(profile), strict=True)
    try:
        for files, arrays in roles:
            if arrays:
                _write_role(folder / getattr(files, fmt), arrays)
    except OSError as error:
        fault = Fault("", str(error.strerror), "a writable folder", "give another folder")
        raise ProfileError(fault.line(str(folder))) from error


def _write_role(path: Path, arrays: Mapping[str, FloatArray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, allow_pickle=False, **arrays)
    else:
        plain: dict[str, Any] = {key: array.tolist() for key, array in arrays.items()}
        if "max_kv_tokens" in plain:
            (plain["max_kv_tokens"],) = plain["max_kv_tokens"]
        path.write_text(json.dumps(plain, allow_nan=False) + "\n", encoding="utf-8")


def arrays_from_profile(profile: Profile) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Return Dynamo's prefill and decode arrays; empty for a role without points.

    Raises
    ------
    ProfileError
        If GPUs per replica or the KV capacity is unknown: the format cannot be written without.
    """
    gpus = profile.provenance.gpus_per_replica
    if gpus is None:
        raise ProfileError(_unknown("provenance.gpusPerReplica"))
    return _prefill_arrays(profile, gpus), _decode_arrays(profile, gpus)


def _prefill_arrays(profile: Profile, gpus: int) -> dict[str, FloatArray]:
    points = sorted((p.isl_tokens, p.ttft_s) for p in profile.prefill if p.batch == 1)
    if not points:
        return {}
    isl, ttft_s = np.array(points, dtype=np.float64).T
    return {
        "prefill_isl": isl.astype(np.int64),
        "prefill_ttft": ttft_s * MS_PER_S,
        "prefill_thpt_per_gpu": isl / ttft_s / gpus,
    }


def _decode_arrays(profile: Profile, gpus: int) -> dict[str, FloatArray]:
    if not profile.decode:
        return {}
    capacity = profile.kv_capacity_tokens
    if capacity is None:
        raise ProfileError(_unknown("kv_capacity_tokens"))
    points = [(p.concurrency, p.context_tokens, p.itl_s) for p in profile.decode]
    n, context, itl_s = np.array(points, dtype=np.float64).T
    return {
        "x_kv_usage": n * context / capacity,
        "y_context_length": context,
        "z_itl": itl_s * MS_PER_S,
        "z_thpt_per_gpu": n / itl_s / gpus,
        "max_kv_tokens": np.array([capacity]),
    }


def _unknown(key: str) -> str:
    return Fault(key, "nothing", "a whole number above 0", "add it to the profile").line("")
