"""Kubernetes' notations as numbers: quantities, times, and what a pod asks of a node. Pure."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from planner.inventory import Amounts

Json = dict[str, Any]

_QUANTITY = re.compile(
    r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))([eE][+-]?[0-9]+|[numkMGTPE]|[KMGTPE]i)?"
)
_SCALES = {
    suffix: Decimal(10) ** power
    for suffix, power in zip("numkMGTPE", (-9, -6, -3, 3, 6, 9, 12, 15, 18), strict=True)
} | {f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", 1)}


@lru_cache(maxsize=4096)
def quantity(text: str) -> float:
    """Return a Kubernetes quantity in base units (cores, bytes, pieces).

    Raises
    ------
    ValueError
        If the text is none.

    Notes
    -----
    Decimal until the last step: ``500m`` is 0.5. Notation: Kubernetes API conventions, Quantity.

    Examples
    --------
    >>> quantity("500m"), quantity("16Gi"), quantity("1e3"), quantity("2E")
    (0.5, 17179869184.0, 1000.0, 2e+18)
    """
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no quantity: write a number such as 4, 500m or 16Gi")
    number, suffix = found.group(1), found.group(2) or ""
    if suffix in _SCALES:
        return float(Decimal(number) * _SCALES[suffix])
    return float(Decimal(number + suffix))


def amounts(quantities: Mapping[str, Any] | None) -> Amounts:
    """Return quantities by resource as numbers."""
    return {name: quantity(str(text)) for name, text in (quantities or {}).items()}


def unix_s(rfc3339: str | None) -> float | None:
    """Return a time of the API [s, Unix], None where there is none."""
    return datetime.fromisoformat(rfc3339).timestamp() if rfc3339 else None


def rfc3339(at_s: float) -> str:
    """Return a time [s, Unix] as the API writes it, rounded up to a whole second."""
    return datetime.fromtimestamp(-(-at_s // 1), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod_requests(spec: Mapping[str, Any]) -> Amounts:
    """Return what a pod asks of a node; ``pods`` counts the pod itself.

    Notes
    -----
    The containers and restartable init containers (sidecars) run together; an ordinary init
    container runs beside the sidecars started before it; the pod needs the larger of both and its
    overhead. Resources given for the pod as a whole win. Source: Kubernetes, "Resource Management
    for Pods", "Sidecar Containers", "Pod Overhead".

    Examples
    --------
    >>> gpus = {"nvidia.com/gpu": "4"}
    >>> pod_requests({"containers": [{"resources": {"limits": gpus}}]})
    {'nvidia.com/gpu': 4.0, 'pods': 1.0}
    """
    running: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers") or ():
        asked = _asked(container)
        if container.get("restartPolicy") == "Always":
            running = _sum(running, asked)
            peak = _largest(peak, running)
        else:
            peak = _largest(peak, _sum(running, asked))
    for container in spec.get("containers") or ():
        running = _sum(running, _asked(container))
    whole = {**_largest(peak, running), **_asked(spec)}
    return {**_sum(whole, amounts(spec.get("overhead"))), "pods": 1.0}


def total(parts: Iterable[Amounts]) -> Amounts:
    """Return the sum by resource."""
    found: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            found[name] = found.get(name, 0.0) + value
    return found


def _asked(of: Mapping[str, Any]) -> Amounts:
    # A template is not defaulted by the API server: a limit alone asks for as much.
    resources = of.get("resources") or {}
    return {**amounts(resources.get("limits")), **amounts(resources.get("requests"))}


def _sum(one: Amounts, other: Amounts) -> Amounts:
    return total((one, other))


def _largest(one: Amounts, other: Amounts) -> Amounts:
    return {name: max(one.get(name, 0.0), other.get(name, 0.0)) for name in {**one, **other}}
