"""Whether two services scale the same thing: no file shows it alone. Pure."""

from collections.abc import Sequence

from planner.check.finding import Finding, error, warning
from planner.check.rules import Rule
from planner.decision.contention import claims
from planner.model import Mode, Pool, Service, ServiceKey


def shared_targets(services: Sequence[Service]) -> dict[ServiceKey, list[Finding]]:
    """Return a finding for each pool whose target another service scales too, by service.

    Where both act it is an error: `run` leaves both alone. Advice undoes nothing yet.
    """
    found: dict[ServiceKey, list[Finding]] = {service.key: [] for service in services}
    for claimed in claims(services):
        for service, pool in claimed:
            others = [other for other, _ in claimed if other.key != service.key]
            found[service.key] += [_shared(service, pool, other) for other in others]
    return found


def _shared(service: Service, pool: Pool, other: Service) -> Finding:
    both_act = service.mode is other.mode is Mode.ACT
    task = f" task {pool.target.task}" if pool.target.task else ""
    where = f"pool {pool.name}: scaleTargetRef"
    what = f"{pool.target.kind} {pool.target.name}{task} is scaled by {other.key} too: "
    mend = f"remove the pool from one of the two, or delete PDAutoscaler {other.key}"
    if both_act:
        return error(where, what + "each would undo what the other does", mend, Rule.SHARED_TARGET)
    return warning(where, what + "only one of them may act", mend, Rule.SHARED_TARGET)
