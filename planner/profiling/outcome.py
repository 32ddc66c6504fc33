"""From measurements to the profile, with what they cost in truth in its provenance. Pure."""

import math
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from planner.model import Role
from planner.profiling.measurements import Measured
from profiles import Profile
from profiles.schema import SCHEMA_VERSION, build_profile

PURE_LEAST: Final = 0.05
"""A share of computed prompt tokens below this is the last block or token of each prompt."""

DISAGREEMENT_TOLD: Final = 0.1
"""Client and server this far apart is worth a line of its own."""


@dataclass(frozen=True, slots=True)
class About:
    """What the provenance says and no measurement does."""

    tool: str
    date: str
    command: str
    model: str
    gpu: str | None
    gpus_per_replica: int
    parallelism: str | None
    max_sequences: int | None
    kv_capacity_tokens: int | None


def measured_profile(measured: Measured, about: About, source: str) -> Profile:
    """Return the profile of all measured points; `source` names them in messages."""
    facts = [measured.facts[role] for role in Role if role in measured.facts]
    decode = measured.facts.get(Role.DECODE) or facts[0]
    each = decode.kv_bytes_per_token
    startups_s = [f.startup_s for f in facts if f.startup_s is not None]
    document: dict[str, Any] = {
        "schemaVersion": SCHEMA_VERSION,
        "provenance": {
            "how": "measured",
            "tool": about.tool,
            "engine": "vllm" if facts[0].version else None,
            "engineVersion": facts[0].version,
            "model": about.model,
            "gpu": about.gpu,
            "gpusPerReplica": about.gpus_per_replica,
            "parallelism": about.parallelism,
            "date": about.date,
            "command": f"{about.command}; {'; '.join(remarks(measured))}",
        },
        "prefill": [
            {"isl_tokens": round(place.context_tokens), "ttft_s": point.value_s}
            for place, point in sorted(measured.of(Role.PREFILL).items())
        ],
        "decode": [
            {**place._asdict(), "itl_s": point.value_s}
            for place, point in sorted(measured.of(Role.DECODE).items())
        ],
        "kv_capacity_tokens": decode.kv_capacity_tokens or about.kv_capacity_tokens,
        "max_sequences": measured.max_sequences or about.max_sequences,
        "kv_bytes_per_token": None if each is None else each * about.gpus_per_replica,
        "startup_s": max(startups_s, default=None),
    }
    return build_profile(document, source)


def remarks(measured: Measured) -> list[str]:
    """Return what a reader of the profile should know about its points, a phrase each."""
    found = [f"median of {_samples(measured)} warm samples a point"]
    found += [phrase for role in Role if (phrase := _disagreement(measured, role))]
    ratios = [p.computed_ratio for p in measured.points
              if p.role is Role.DECODE and p.computed_ratio is not None]  # fmt: skip
    if measured.of(Role.DECODE) and not ratios:
        found.append("decode: unknown how much prefill of other requests is in ITL")
    elif ratios and (most := max(ratios)) > PURE_LEAST:
        found.append(f"decode: ITL holds prefill of other requests (up to {most:.0%} of prompts)")
    elif ratios:
        found.append("decode: no prefill in ITL")
    if held_up := sum(point.held_up for point in measured.points):
        found.append(f"{held_up} rounds left out whose tokens reached the client late or in bursts")
    if strangers := sum(point.strangers for point in measured.points):
        found.append(f"{strangers} requests of others ran meanwhile")
    return found


def _samples(measured: Measured) -> int:
    return min((len(point.samples_s) for point in measured.points), default=0)


def _disagreement(measured: Measured, role: Role) -> str | None:
    """Return how far the engine's own means are from the client's, of all points of a role."""
    ratios = [
        point.server_s / point.value_s - 1.0
        for point in measured.of(role).values()
        if point.server_s is not None
    ]
    if not ratios:
        return None
    latency = "TTFT" if role is Role.PREFILL else "ITL"
    furthest = max(ratios, key=math.fabs)
    return (
        f"{latency} by the engine's own metrics {median(ratios):+.1%} of the client's in the "
        f"median, {furthest:+.1%} at the furthest point"
    )
