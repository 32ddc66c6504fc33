"""Whether two services scale the same thing: no file shows it alone. Pure."""

from collections.abc import Sequence

from planner.check.finding import Finding, error
from planner.check.rules import Rule
from planner.decision.contention import claims
from planner.model import Pool, Service, ServiceKey


def shared_targets(services: Sequence[Service]) -> dict[ServiceKey, list[Finding]]:
    """Return an error for each pool whose target another service scales too, by service."""
    found: dict[ServiceKey, list[Finding]] = {service.key: [] for service in services}
    for claimed in claims(services):
        for service, pool in claimed:
            others = [other.key for other, _ in claimed if other.key != service.key]
            found[service.key] += [_shared(pool, other) for other in others]
    return found


def _shared(pool: Pool, other: ServiceKey) -> Finding:
    task = f" task {pool.target.task}" if pool.target.task else ""
    return error(
        f"pool {pool.name}: scaleTargetRef",
        f"{pool.target.kind} {pool.target.name}{task} is scaled by {other} too: each would undo "
        "what the other does",
        f"remove the pool from one of the two, or delete PDAutoscaler {other}",
        Rule.SHARED_TARGET,
    )
