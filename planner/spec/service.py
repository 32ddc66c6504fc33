"""From a PDAutoscaler to the loop's Service: profiles loaded, defaults filled in. Reads files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from planner.errors import ProfileError, SpecError, TargetError
from planner.model import (
    Behavior,
    Fallback,
    Limits,
    Pool,
    Role,
    Service,
    ServiceKey,
    Sla,
    Target,
    Topology,
    Transfer,
)
from planner.spec.contradictions import Floor, footprint_faults
from planner.spec.files import load_documents
from planner.spec.pools import PoolSpec, ProbeSpec
from planner.spec.resource import FallbackSpec, LimitsSpec, PDAutoscaler, SlaSpec
from profiles import Profile, decode_surface, prefill_surface, read_profile
from profiles.configmap import from_configmap_data

STARTUP_S: Final = 60.0
"""Where neither spec nor profile says how long a replica takes to start [s]."""


NODE_STARTUP_S: Final = 300.0
"""How long a cluster autoscaler takes to add a node where no setting says so [s]."""

DEFAULT_TRANSFER: Final = Transfer()

ConfigMaps = Callable[[str, str], Mapping[str, str]]
"""Namespace and name of a ConfigMap → its data; raises ClusterError."""


@dataclass(frozen=True, slots=True)
class LoadedService:
    """A service with what it was made from; `profiles` are by pool name."""

    spec: PDAutoscaler
    service: Service
    profiles: Mapping[str, Profile]
    source: str


def load_services(
    paths: Sequence[Path],
    transfer: Transfer = DEFAULT_TRANSFER,
    node_startup_s: float = NODE_STARTUP_S,
    config_maps: ConfigMaps | None = None,
) -> list[LoadedService]:
    """Return the services of all PDAutoscaler files.

    Parameters
    ----------
    paths
        The files.
    transfer
        How KV caches move where the topology does not tell.
    node_startup_s
        How long a cluster autoscaler takes to add a node [s].
    config_maps
        Reads the profiles that are in a cluster; None: there is none. Its ClusterError passes,
        but for a ConfigMap that does not exist.

    Raises
    ------
    SpecError
        If anything is wrong with a file or a profile it names: one line a fault.
    """
    loaded: list[LoadedService] = []
    faults: list[str] = []
    for document in load_documents(paths):
        try:
            profiles = load_profiles(document.spec, document.folder, config_maps)
            service = build_service(document.spec, profiles, transfer, node_startup_s)
        except SpecError as error:
            faults.extend(f"{document.source}: {line}" for line in str(error).splitlines())
        else:
            loaded.append(LoadedService(document.spec, service, profiles, document.source))
    if faults:
        raise SpecError("\n".join(faults))
    return loaded


def to_service(
    spec: PDAutoscaler, base_dir: Path, transfer: Transfer = DEFAULT_TRANSFER
) -> Service:
    """Return the service; profile files are relative to `base_dir`. SpecError as below."""
    return build_service(spec, load_profiles(spec, base_dir), transfer)


def load_profiles(
    spec: PDAutoscaler, base_dir: Path, config_maps: ConfigMaps | None = None
) -> dict[str, Profile]:
    """Return the profiles by pool name.

    Raises
    ------
    SpecError
        If one can't be read: one line a fault.
    """
    found: dict[str, Profile] = {}
    faults: list[str] = []
    for index, pool in enumerate(spec.spec.pools):
        where = f"spec.pools[{index}].profile"
        try:
            if pool.profile.file is not None:
                where += ".file"
                found[pool.name] = read_profile(base_dir / pool.profile.file)
            else:
                where += ".configMap"
                found[pool.name] = _profile_in_cluster(spec, pool, config_maps)
        except (ProfileError, TargetError, SpecError) as error:
            faults.extend(f"{where}: {line}" for line in str(error).splitlines())
    if faults:
        raise SpecError("\n".join(faults))
    return found


def _profile_in_cluster(
    spec: PDAutoscaler, pool: PoolSpec, config_maps: ConfigMaps | None
) -> Profile:
    """Return the profile in a ConfigMap beside the PDAutoscaler.

    Raises
    ------
    SpecError
        If there is no cluster to read it from.
    """
    name, namespace = pool.profile.config_map, spec.metadata.namespace
    assert name is not None
    if config_maps is None:
        raise SpecError(
            f"{name!r} is in a cluster and this command reads files only: write file: and the "
            "path of the profile"
        )
    return from_configmap_data(config_maps(namespace, name), f"ConfigMap {namespace}/{name}")


def build_service(
    spec: PDAutoscaler,
    profiles: Mapping[str, Profile],
    transfer: Transfer,
    node_startup_s: float = NODE_STARTUP_S,
) -> Service:
    """Return the service from its spec and the profiles by pool name.

    SpecError if a profile lacks the role of its pool, or the floors exceed a limit with the
    replica sizes that the profiles tell.
    """
    asked = spec.spec
    defaults = asked.behavior.over(Behavior())
    pools = tuple(
        _pool(pool, f"spec.pools[{index}]", profiles[pool.name], defaults, asked.metrics.probe)
        for index, pool in enumerate(asked.pools)
    )
    limits = _limits(asked.limits)
    fallback = None if asked.fallback is None else _fallback(asked.fallback, pools)
    _check_floors(pools, limits, fallback)
    return Service(
        key=ServiceKey(spec.metadata.namespace, spec.metadata.name),
        sla=_sla(asked.sla),
        pools=pools,
        mode=asked.mode,
        interval_s=asked.interval_s,
        source=asked.metrics.source,
        selector=dict(asked.metrics.selector),
        limits=limits,
        fallback=fallback,
        predictor=asked.forecast.predictor,
        caution=asked.forecast.caution,
        transfer=transfer,
        topology=Topology(
            highest_tier=asked.topology.highest_tier_allowed,
            is_elastic=asked.topology.capacity == "Elastic",
            node_startup_s=node_startup_s,
        ),
    )


def _pool(
    pool: PoolSpec, where: str, profile: Profile, defaults: Behavior, probe: ProbeSpec | None
) -> Pool:
    role = Role(pool.role.lower())
    ref, endpoint = pool.scale_target_ref, pool.metrics.probe or probe
    try:
        prefill = prefill_surface(profile) if role is Role.PREFILL else None
        decode = decode_surface(profile) if role is Role.DECODE else None
    except ProfileError as error:
        raise SpecError(f"{where}.profile: {pool.profile.file}: {error}") from error
    return Pool(
        name=pool.name,
        role=role,
        target=Target(ref.api_version, ref.kind, ref.name, ref.task),
        prefill=prefill,
        decode=decode,
        min_replicas=pool.min_replicas,
        max_replicas=pool.max_replicas,
        pods_per_replica=pool.pods_per_replica,
        gpus_per_replica=pool.gpus_per_replica or profile.provenance.gpus_per_replica or 1,
        gpu_type=pool.gpu_type,
        gpu_hour_price=pool.gpu_hour_price,
        startup_s=pool.startup_s or profile.startup_s or STARTUP_S,
        drain_s=pool.drain_s,
        kv_bytes_per_token=profile.kv_bytes_per_token,
        behavior=pool.behavior.over(defaults),
        selector=dict(pool.metrics.selector),
        probe=endpoint.to_model() if endpoint is not None else None,
    )


def _sla(sla: SlaSpec) -> Sla:
    return Sla(
        ttft_s=sla.ttft_s,
        itl_s=sla.itl_s,
        attainment_ratio=sla.attainment_ratio,
        statistic=sla.statistic,
        max_input_tokens=sla.scope.max_input_tokens,
    )


def _limits(limits: LimitsSpec) -> Limits:
    ratio = limits.prefill_decode_ratio
    return Limits(dict(limits.gpus), limits.cost_per_hour, ratio.min, ratio.max)


def _fallback(fallback: FallbackSpec, pools: Sequence[Pool]) -> Fallback:
    """Return the fallback by pool: floors first, then each pool of the role up to its ceiling."""
    replicas = {pool.name: pool.min_replicas for pool in pools}
    for role, total in ((Role.PREFILL, fallback.prefill), (Role.DECODE, fallback.decode)):
        own = [pool for pool in pools if pool.role is role]
        left = total - sum(pool.min_replicas for pool in own)
        for pool in own:
            more = max(0, min(left, pool.max_replicas - pool.min_replicas))
            replicas[pool.name] += more
            left -= more
    return Fallback(fallback.after_s, replicas)


def floors_of(pools: Sequence[Pool], replicas: Mapping[str, int] | None = None) -> list[Floor]:
    """Return what the floor of each pool needs, or so many `replicas` by pool name instead."""
    return [
        Floor(
            p.name,
            p.min_replicas if replicas is None else replicas[p.name],
            p.gpus_per_replica,
            p.gpu_type,
            p.gpu_hour_price,
        )
        for p in pools
    ]


def _check_floors(pools: Sequence[Pool], limits: Limits, fallback: Fallback | None) -> None:
    """Refuse limits below what must run: the floors, and what metrics that are gone rise to.

    Raises
    ------
    SpecError
        If a limit is below either.
    """
    faults = footprint_faults(floors_of(pools), limits.gpus, limits.cost_per_hour)
    if fallback is not None and not faults:
        risen = floors_of(pools, fallback.replicas)
        faults = footprint_faults(
            risen, limits.gpus, limits.cost_per_hour, "fallback's replicas", "fallback"
        )
    if faults:
        raise SpecError(
            "\n".join(f"spec.{'.'.join(map(str, f.where))}: {f.message}" for f in faults)
        )
