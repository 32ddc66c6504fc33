"""Composition root of `profile`: files and ConfigMaps in and out, drawn, compared, applied."""

import contextlib
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.errors import InputError, ProfileError
from planner.profiling.manifest import dynamo_entries, manifest_text, profile_manifest
from planner.profiling.reading import Facts, read_named, read_results, read_whole
from planner.profiling.region import Targets, operating_region, traffic_outside
from profiles import Profile, profile_text, read_profile, write_dynamo
from profiles.result_formats import FORMATS
from profiles.sanity import oddities, roofline_faults

if TYPE_CHECKING:
    from planner.model import Service
    from planner.settings import Settings
    from planner.spec.pools import PoolSpec


def import_profile(
    paths: Sequence[Path], fmt: str, roles: Sequence[str], facts: Facts, output: Path | None
) -> int:
    """Read another format, refuse what can't be true, and write the profile."""
    read = read_results if fmt in FORMATS else read_whole
    found = read(paths, fmt, roles, facts)
    refuse_impossible(found.profile, str(paths[0]))
    for line in (*found.notes, *(f"odd: {odd.line}" for odd in oddities(found.profile))):
        _tell(line)
    _write(profile_text(found.profile), output)
    return 0


def refuse_impossible(profile: Profile, source: str) -> None:
    """Refuse points that are faster than the named GPU can be.

    Raises
    ------
    ProfileError
        If there are any: one line each.
    """
    faults = roofline_faults(profile)
    if faults:
        raise ProfileError(*(fault.line(source) for fault in faults))


def export_profile(
    source: str, fmt: str, output: Path | None, namespace: str, name: str | None
) -> int:
    """Write a profile in another format, and say what has no place there.

    Raises
    ------
    InputError
        If the format is a folder and none is given.
    """
    profile = read_named(source)
    if fmt in {"dynamo", "dynamo-json"}:
        if output is None:
            raise InputError(f"--format {fmt}: got no folder; legal: a new or old folder; give -o")
        write_dynamo(profile, output, "npz" if fmt == "dynamo" else "json")
    elif fmt == "json":
        _write(profile_text(profile), output)
    else:
        entries = dynamo_entries(profile) if fmt == "dynamo-configmap" else None
        manifest = profile_manifest(profile, namespace, name or _slug(source), entries)
        _write(manifest_text(manifest), output)
    if fmt.startswith("dynamo") and (lost := _no_place_in_dynamo(profile)):
        _tell(f"{source}: not in this format and left out: {', '.join(lost)}")
    return 0


def _no_place_in_dynamo(profile: Profile) -> list[str]:
    keys = ("max_sequences", "kv_bytes_per_token", "kv_read_bytes_per_s", "startup_s")
    lost = [key for key in keys if getattr(profile, key) is not None]
    batched = sum(point.batch > 1 for point in profile.prefill)
    told = profile.provenance.model_dump(exclude={"how", "gpus_per_replica"}, exclude_none=True)
    return [
        *([f"{batched} batched prefill points"] if batched else []),
        *lost,
        *(["provenance"] if told else []),
    ]


def _slug(source: str) -> str:
    """Return a file's name as the name of an object."""
    return (
        re.sub(r"[^a-z0-9]+", "-", Path(source).name.removesuffix(".json").lower()).strip("-")
        or "profile"
    )


def apply_profile(
    source: str, namespace: str, name: str, settings: "Settings", *, dry_run: bool, force: bool
) -> int:
    """Write the profile as a ConfigMap, by server-side apply; `dry_run`: all but the last step."""
    from planner.adapters.kubernetes.api import KubernetesAccess
    from planner.adapters.kubernetes.apply import ApplyingApi

    profile = read_named(source)
    refuse_impossible(profile, source)
    manifest = profile_manifest(profile, namespace, name)
    cluster = settings.kubernetes
    access = KubernetesAccess(cluster.kubeconfig, cluster.context)
    with contextlib.closing(ApplyingApi(access)) as api:
        answer = api.apply(manifest, dry_run=dry_run, force=force)
    version = answer["metadata"].get("resourceVersion", "")
    done = "would be applied (dry run on the server)" if dry_run else f"applied, version {version}"
    print(f"configmap/{name} in namespace {namespace}: {done}")  # noqa: T201
    return 0


def show_profile(source: str, targets: Targets, trace: str | None, output: Path | None) -> int:
    """Tell what a profile holds and where it keeps the targets, and draw it if asked to."""
    from planner.view.profile_lines import profile_lines

    _refuse_other_pictures(output)
    profile = read_named(source)
    requests = None if trace is None else open_lengths(trace)
    region = operating_region(profile, targets)
    outside = () if requests is None else traffic_outside(profile, targets, *requests)
    odd = oddities(profile)
    lines = tuple(profile_lines(profile, targets, region, outside, odd))
    for line in lines:
        print(line)  # noqa: T201
    if output is not None:
        from planner.view.profile_page import profile_page

        name = Path(source).name.removesuffix(".json")
        _write(profile_page(name, profile, targets, region, requests, lines), output)
        print(output)  # noqa: T201
    return 0


def _refuse_other_pictures(output: Path | None) -> None:
    """Refuse what can't be drawn: a browser photographs the page, nothing here does.

    Raises
    ------
    InputError
        If the name of the picture is not that of a page.
    """
    if output is not None and output.suffix.lower() not in {".html", ".htm"}:
        raise InputError(
            f"{output}: got a {output.suffix or 'name without ending'}; legal: .html, a page that "
            "a browser saves as PNG; give one"
        )


def open_lengths(trace: str) -> tuple[Any, Any]:
    """Return prompt and output lengths of a trace [tokens], int32[request] each."""
    from planner.simulation.trace_files import open_trace

    requests = open_trace(trace)
    return requests.isl_tokens, requests.osl_tokens


def diff_profiles(
    a: str,
    b: str,
    file: Path | None,
    targets: Targets,
    lengths: tuple[float, float],
    trace: str | None,
    loads_rps: Sequence[float],
    output: str,
) -> int:
    """Print what profile B changes in decisions that profile A led to."""
    from planner.printing import print_json, print_table
    from planner.profiling.diff import Side, fixed_traffic, profile_diff, trace_traffic
    from planner.view.profile_lines import diff_table

    profiles = read_named(a), read_named(b)
    services = [
        _service(name, profile, file, targets)
        for name, profile in zip((a, b), profiles, strict=True)
    ]
    sides = Side(a, profiles[0], services[0]), Side(b, profiles[1], services[1])
    if trace is None:
        traffic = fixed_traffic(*lengths)
    else:
        traffic = trace_traffic(trace, *open_lengths(trace))
    diff = profile_diff(sides, traffic, loads_rps)
    if output == "json":
        print_json(diff)
    else:
        print_table(diff_table(diff))
    return 0


def _service(name: str, profile: Profile, file: Path | None, targets: Targets) -> "Service":
    """Return the service on this profile: that of the file, else a plain one.

    Raises
    ------
    InputError
        If the file holds several services.
    """
    from planner.profiling.diff import plain_service
    from planner.spec.files import load_documents
    from planner.spec.service import DEFAULT_TRANSFER, build_service

    if file is None:
        return plain_service(name, profile, targets)
    documents = load_documents([file])
    if len(documents) != 1:
        raise InputError(f"{file}: holds {len(documents)} services: give a file with one")
    spec, folder = documents[0].spec, documents[0].folder
    pools = {pool.name: _pool_profile(pool, profile, folder) for pool in spec.spec.pools}
    service = build_service(spec, pools, DEFAULT_TRANSFER)
    sla = service.sla
    asked = replace(sla, ttft_s=targets.ttft_s or sla.ttft_s, itl_s=targets.itl_s or sla.itl_s)
    return replace(service, sla=asked)


def _pool_profile(pool: "PoolSpec", profile: Profile, folder: Path) -> Profile:
    """Return the profile where it has points of the pool's role, else the pool's own.

    Raises
    ------
    InputError
        If that is in a cluster.
    """
    if getattr(profile, pool.role.lower()):
        return profile
    if pool.profile.file is None:
        raise InputError(
            f"pool {pool.name}: its profile is in a cluster and the compared ones have no "
            f"{pool.role.lower()} points: write file: and the path of a profile"
        )
    return read_profile(folder / pool.profile.file)


def _write(text: str, output: Path | None) -> None:
    """Write to a file, whole or not at all, or to stdout.

    Raises
    ------
    InputError
        If the file can't be written.
    """
    if output is None:
        print(text, end="", flush=True)  # noqa: T201
        return
    draft = output.with_name(f".{output.name}.tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(output)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise InputError(f"{output}: {error.strerror}: give a writable path with -o") from error


def _tell(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201
