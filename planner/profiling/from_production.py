"""Composition root of `profile refine`: history and a profile in, factors shown, a profile out."""

from importlib.metadata import version
from pathlib import Path

from planner.app import log_warnings, own_past
from planner.controller import load_from_cluster
from planner.errors import InputError
from planner.model import Role
from planner.past_traffic import Past, moment
from planner.printing import print_table
from planner.profiling.commands import refuse_impossible
from planner.profiling.evidence import Evidence, evidence
from planner.profiling.refine import Bucket, buckets, provenance, refined
from planner.settings import Settings
from planner.spec.service import LoadedService
from planner.view.refine_table import refine_table, used_line
from profiles import Profile, write_profile


def refine_profile(
    file: Path, pool_name: str, settings: Settings, window_s: float, output: Path | None
) -> int:
    """Show how far a pool is off its profile, and write the corrected one where asked to."""
    log_warnings(settings)
    loaded, pool = _pool(file, pool_name, settings)
    past = own_past(loaded.service, settings, window_s)
    found = evidence(loaded.service.pool(pool), past.seen)
    factors = buckets(found)
    profile = loaded.profiles[pool]
    title = f"{loaded.service.key}, pool {pool}: measured over profiled latency by {found.name}"
    print_table(refine_table(title, found, factors))
    print(used_line(found))  # noqa: T201
    role = loaded.service.pool(pool).role
    corrected = _corrected(profile, role, past, found, factors)
    refuse_impossible(corrected, "the refined profile")
    if output is None:
        print("nothing is written: give -o FILE for the corrected profile")  # noqa: T201
        return 0
    write_profile(corrected, output)
    print(f"{output}: what it changes: pd-planner profile diff OLD {output} -f {file}")  # noqa: T201
    return 0


def _pool(file: Path, name: str, settings: Settings) -> tuple[LoadedService, str]:
    """Return the service of a file and the name of its pool.

    Raises
    ------
    InputError
        If the file holds several services, or none of its pools is called so.
    """
    services = load_from_cluster([file], settings)
    if len(services) != 1:
        raise InputError(f"{file}: holds {len(services)} services: give a file with one")
    names = [pool.name for pool in services[0].service.pools]
    if name not in names:
        raise InputError(f"--pool: no pool is called {name!r}; legal: {', '.join(names)}")
    return services[0], name


def _corrected(
    profile: Profile, role: Role, past: Past, found: Evidence, factors: tuple[Bucket, ...]
) -> Profile:
    begin_s = past.start_s - past.step_s
    end_s = begin_s + len(past.seen) * past.step_s
    own = [bucket.factor for bucket in factors if bucket.is_known] or [
        bucket.factor for bucket in factors
    ]
    told = (
        f"production {moment(begin_s)} to {moment(end_s)}: {len(found.ratios)} intervals, "
        f"{found.requests.sum():.0f} requests, {role} factors {min(own):.2f} to {max(own):.2f}"
    )
    tool = f"pd-planner {version('pd-planner')} profile refine"
    return refined(profile, role, factors, provenance(profile, told, moment(end_s)[:10], tool))
