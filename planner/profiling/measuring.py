"""How one point is measured: warm, a few rounds, their median, and the engine's own count beside.

Prefill: one request at a time, one token out, a prompt never seen before. Decode: as many requests
at once as asked for, the same prompts each time, judged only while all of them decode.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final

import numpy as np

from planner.errors import PlannerError
from planner.model import Role
from planner.profiling.rounds import Round
from planner.profiling.timings import (
    Bodies,
    Counters,
    Engine,
    Timing,
)
from profiles.sweep import Place

OUTPUT_GROWTH: Final = 4
"""So much longer outputs at most, where requests start too far apart to run together."""

COMPUTED_LEAST: Final = 0.9
"""Of the tokens of prompts never seen before, which an engine that prefills computes itself."""

# Ids that any vocabulary of a language model has, and that are no control tokens.
_FIRST_TOKEN, _LAST_TOKEN = 300, 1000
_COUNT_SLACK: Final = 0.02


class MeasurementError(PlannerError):
    """An engine that answers, but not what a measurement needs."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measured point.

    Attributes
    ----------
    role
        Which of the two latencies it is.
    place
        Sequences together, and mean context [tokens]; of prefill 1 and the prompt.
    value_s
        Median of the samples [s].
    samples_s
        TTFT, or mean ITL, of each round as the client saw it [s]; the engine's own where all of
        the client's are left out.
    server_s
        The engine's own mean over the same rounds [s], all of their tokens.
    computed_ratio
        Share of the prompt tokens of these rounds whose KV the engine computed itself.
    strangers
        Requests of the engine meanwhile that were not ours.
    held_up
        Rounds left out because tokens reached the client late or in bursts.
    """

    role: Role
    place: Place
    value_s: float
    samples_s: tuple[float, ...]
    server_s: float | None = None
    computed_ratio: float | None = None
    strangers: int = 0
    held_up: int = 0


@dataclass(frozen=True, slots=True)
class Cap:
    """More requests were sent at once than the engine runs; so many ran."""

    max_sequences: int


class Meter:
    """Measures points on one engine; `samples` rounds each, decode with so long outputs."""

    def __init__(self, engine: Engine, samples: int, output_tokens: int) -> None:
        self._engine = engine
        self._samples = samples
        self._output_tokens = output_tokens
        self._drawn = np.random.default_rng(0)

    def prefill(self, place: Place) -> Measurement:
        """Return the time to first token of a prompt alone on the engine."""
        isl = round(place.context_tokens)
        self._sent(self._fresh(1, isl, 1), isl, 1)
        return _prefilled(
            place, [self._round(self._fresh(1, isl, 1), isl, 1) for _ in range(self._samples)]
        )

    def decode(self, place: Place) -> Measurement | Cap:
        """Return the inter-token latency of so many sequences together, or how many ran."""
        asked, outputs = round(place.concurrency), self._output_tokens
        while True:
            prompt = round(place.context_tokens) - outputs // 2
            bodies = self._fresh(asked, prompt, outputs)
            self._sent(bodies, prompt, outputs)
            first = self._round(bodies, prompt, outputs)
            longest = outputs == self._output_tokens * OUTPUT_GROWTH
            if first.ran < asked and (longest or first.counted is not None):
                return Cap(first.ran)
            if first.is_steady or longest:
                break
            outputs *= 2
        others = [self._round(bodies, prompt, outputs) for _ in range(self._samples - 1)]
        return _decoded(place, [first, *others])

    def _round(self, bodies: Bodies, prompt_tokens: int, output_tokens: int) -> Round:
        before = self._engine.counters()
        timings = self._sent(bodies, prompt_tokens, output_tokens)
        return Round(timings, self._counted(before, len(timings)))

    def _fresh(self, count: int, prompt_tokens: int, output_tokens: int) -> Bodies:
        """Return requests with prompts that no cache knows."""
        drawn = self._drawn.integers(_FIRST_TOKEN, _LAST_TOKEN, (count, prompt_tokens))
        return self._engine.bodies(drawn.tolist(), output_tokens)

    def _sent(self, bodies: Bodies, prompt_tokens: int, output_tokens: int) -> list[Timing]:
        timings = self._engine.together(bodies)
        for timing in timings:
            _check_counts(timing, prompt_tokens, output_tokens)
        return timings

    def _counted(self, before: Counters | None, requests: int) -> Counters | None:
        if before is None:
            return None
        now = self._engine.counters(before.ttft_count + requests)
        return None if now is None else now.since(before)


def _prefilled(place: Place, rounds: Sequence[Round]) -> Measurement:
    """Return the point of some rounds: by the client, by the engine where it can't tell."""
    server = [s for each in rounds if (s := each.server_ttft_s) is not None]
    client = [s for each in rounds if (s := each.ttft_s) is not None]
    found = _measurement(Role.PREFILL, place, rounds, client, server)
    _check_prefilled(found.computed_ratio)
    return found


def _decoded(place: Place, rounds: Sequence[Round]) -> Measurement:
    """Return the point of some rounds: by the client, by the engine where it can't tell.

    Raises
    ------
    MeasurementError
        If neither can.
    """
    server = [s for each in rounds if (s := each.server_itl_s) is not None]
    client = [s for each in rounds if (s := each.itl_s) is not None]
    if not client and not server:
        raise MeasurementError(
            "the engine sends an answer's tokens all at once; legal: a stream, token by token; "
            "take away the proxy or setting that gathers them"
        )
    return _measurement(Role.DECODE, place, rounds, client, server)


def _measurement(
    role: Role,
    place: Place,
    rounds: Sequence[Round],
    client: Sequence[float],
    server: Sequence[float],
) -> Measurement:
    samples = tuple(client or server)
    known = [each.counted for each in rounds if each.counted is not None]
    ratios = [ratio for each in known if (ratio := each.computed_ratio) is not None]
    requests = sum(len(each.timings) for each in rounds)
    strangers = round(sum(each.ttft_count for each in known)) - requests if known else 0
    return Measurement(
        role=role,
        place=place,
        value_s=median(samples),
        samples_s=samples,
        server_s=fmean(server) if server else None,
        computed_ratio=fmean(ratios) if ratios else None,
        strangers=max(strangers, 0),
        held_up=len(rounds) - len(client),
    )


def _check_counts(timing: Timing, prompt_tokens: int, output_tokens: int) -> None:
    """Refuse an answer to something else than was asked.

    Raises
    ------
    MeasurementError
        If prompt or output are of another length.
    """
    for what, asked, got, mend in (
        ("prompt", prompt_tokens, timing.prompt_tokens, "it has to take token ids as the prompt"),
        ("output", output_tokens, timing.output_tokens, "it has to know ignore_eos"),
    ):
        if abs(got - asked) > max(_COUNT_SLACK * asked, 1):
            raise MeasurementError(
                f"the engine counts {got} {what} tokens; legal: the {asked} asked for; {mend}"
            )


def _check_prefilled(ratio: float | None) -> None:
    """Refuse a time to first token without the work for it.

    Raises
    ------
    MeasurementError
        If the engine did not compute the prompts.
    """
    if ratio is not None and ratio < COMPUTED_LEAST:
        raise MeasurementError(
            f"the engine computed {ratio:.0%} of the prompts' tokens; legal: {COMPUTED_LEAST:.0%} "
            "or more for prefill; measure one without a KV connector that brings them"
        )
