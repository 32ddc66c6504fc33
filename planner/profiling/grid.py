"""Which points are worth measuring on an engine, and which comes next. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from planner.errors import InputError
from planner.model import Role
from planner.profiling.measurements import Measured
from planner.profiling.measuring import OUTPUT_GROWTH
from planner.profiling.timings import EngineFacts
from profiles.points import AXIS_POINTS_MIN
from profiles.sweep import (
    Goal,
    Place,
    candidate_lengths,
    candidate_places,
    next_isl_tokens,
    next_place,
)

SHORTEST_PROMPT_TOKENS: Final = 128
CONTEXTS: Final = 6
CONCURRENCIES: Final = 7
LENGTHS: Final = 17

SEQUENCES_ASSUMED: Final = 1024
"""Where nobody says how many the scheduler runs: vLLM's largest default; measuring finds fewer."""

PREFILL_SHARE: Final = 0.25
"""Of a limited number of points: prefill has one axis, decode two."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How far the measurement goes.

    Attributes
    ----------
    isl_max_tokens
        Longest prompt [tokens].
    output_tokens
        Of each decode request, before it had to be lengthened [tokens].
    max_points
        Over both roles; None: until the goal's error is reached.
    max_sequences, kv_capacity_tokens
        What the engine does not say of itself.
    """

    isl_max_tokens: int
    output_tokens: int
    max_points: int | None = None
    max_sequences: int | None = None
    kv_capacity_tokens: int | None = None


def grid(role: Role, facts: EngineFacts, reach: Reach, max_sequences: int | None) -> list[Place]:
    """Return all points that may be measured of a role.

    Parameters
    ----------
    role
        Which.
    facts
        Of its engine.
    reach
        How far to go.
    max_sequences
        What was found to run together, None if nothing is found yet.

    Raises
    ------
    InputError
        If the engine takes too little for a surface, or does not say how much.
    """
    if role is Role.PREFILL:
        longest = min(reach.isl_max_tokens, (facts.longest_tokens or reach.isl_max_tokens + 1) - 1)
        if longest < AXIS_POINTS_MIN:
            raise InputError(f"--isl-max: got {longest}; legal: 3 or more; give longer prompts")
        shortest = min(SHORTEST_PROMPT_TOKENS, max(longest // 8, 1))
        return [Place(1.0, float(isl)) for isl in candidate_lengths(shortest, longest, LENGTHS)]
    capacity = facts.kv_capacity_tokens or reach.kv_capacity_tokens
    if capacity is None:
        raise InputError(
            "--kv-capacity-tokens: the engine does not say how much its KV cache holds; legal: "
            "what its log says; give it"
        )
    most = max_sequences or reach.max_sequences or SEQUENCES_ASSUMED
    return [
        place
        for context in _contexts(facts, reach, capacity)
        for place in candidate_places(
            [context], _usable(capacity, context, facts, reach), most, CONCURRENCIES
        )
    ]


def _contexts(facts: EngineFacts, reach: Reach, capacity: int) -> list[float]:
    """Return mean contexts, each with room for the longest outputs and for three sequences.

    Raises
    ------
    InputError
        If there is no room.
    """
    spare = reach.output_tokens * OUTPUT_GROWTH // 2
    room = capacity // AXIS_POINTS_MIN - (facts.block_tokens or 1)
    engine = facts.longest_tokens or reach.isl_max_tokens + 2 * spare
    longest = min(reach.isl_max_tokens, engine - spare, room - spare)
    shortest = max(min(2 * SHORTEST_PROMPT_TOKENS, longest // 8), spare + 1)
    if longest < shortest + AXIS_POINTS_MIN:
        raise InputError(
            f"engine: takes {engine} tokens a sequence and holds {capacity}; legal: {3 * spare} "
            f"and {9 * spare} for outputs of {reach.output_tokens}; give it a larger "
            "--max-model-len or KV cache, or us a smaller --output-tokens"
        )
    return [float(round(float(c))) for c in np.geomspace(shortest, longest, CONTEXTS)]


def _usable(capacity: int, context: float, facts: EngineFacts, reach: Reach) -> int:
    """Return the capacity [tokens] that holds no more sequences than fit when they are longest."""
    block = facts.block_tokens or 1
    longest = context + reach.output_tokens * OUTPUT_GROWTH / 2
    held = -(-longest // block) * block
    return int(int(capacity / held) * context)


def next_point(
    role: Role, places: list[Place], measured: Measured, goal: Goal, reach: Reach
) -> Place | None:
    """Return the point to measure next, None if the role is known well enough."""
    found = {place: point.value_s for place, point in measured.of(role).items()}
    if len(found) >= most_points(role, places, measured, reach):
        return None
    if role is Role.DECODE:
        return next_place(places, _within(places, found), goal)
    lengths = {round(place.context_tokens): value for place, value in found.items()}
    isl = next_isl_tokens([round(p.context_tokens) for p in places], lengths, goal)
    return None if isl is None else Place(1.0, float(isl))


def _within(places: list[Place], found: Mapping[Place, float]) -> dict[Place, float]:
    """Return the points of the grid: a cap found later takes some out of it."""
    return {place: value for place, value in found.items() if place in set(places)}


def most_points(role: Role, places: list[Place], measured: Measured, reach: Reach) -> int:
    """Return how many points of a role are measured at most."""
    if reach.max_points is None:
        return len(places)
    prefill = max(AXIS_POINTS_MIN, round(reach.max_points * PREFILL_SHARE))
    if role is Role.PREFILL:
        return prefill
    return reach.max_points - (len(measured.of(Role.PREFILL)) or prefill)
