"""Whether two services scale the same thing: no file shows it alone. Pure."""

from collections import defaultdict
from collections.abc import Sequence

from planner.check.finding import Finding, error
from planner.check.rules import Rule
from planner.model import Pool, Service, ServiceKey, Target

_Place = tuple[str, str, str, str, str | None]


def shared_targets(services: Sequence[Service]) -> dict[ServiceKey, list[Finding]]:
    """Return an error for each pool whose target another service scales too, by service.

    Versions of an API group name the same objects, so they are not compared.
    """
    owners: defaultdict[_Place, list[tuple[ServiceKey, Pool]]] = defaultdict(list)
    for service in services:
        for pool in service.pools:
            owners[_place(service.key.namespace, pool.target)].append((service.key, pool))
    found: dict[ServiceKey, list[Finding]] = {service.key: [] for service in services}
    for claims in owners.values():
        for key, pool in claims:
            found[key] += [_shared(pool, other) for other, _ in claims if other != key]
    return found


def _place(namespace: str, target: Target) -> _Place:
    group = target.api_version.rpartition("/")[0]
    return namespace, group, target.kind, target.name, target.task


def _shared(pool: Pool, other: ServiceKey) -> Finding:
    task = f" task {pool.target.task}" if pool.target.task else ""
    return error(
        f"pool {pool.name}: scaleTargetRef",
        f"{pool.target.kind} {pool.target.name}{task} is scaled by {other} too: each would undo "
        "what the other does",
        f"remove the pool from one of the two, or delete PDAutoscaler {other}",
        Rule.SHARED_TARGET,
    )
