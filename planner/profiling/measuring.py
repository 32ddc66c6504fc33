"""How one point is measured: warm, a few rounds, their median, and the engine's own count beside.

Prefill: one request at a time, one token out, a prompt never seen before. Decode: as many requests
at once as asked for, the same prompts each time, judged only while all of them decode.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import numpy as np

from planner.errors import PlannerError
from planner.model import Role
from planner.profiling.timings import (
    Bodies,
    Counters,
    Engine,
    Timing,
    most_together,
    sample_itl_s,
    steady_ratio,
)
from profiles.sweep import Place

STEADY_LEAST: Final = 0.25
"""Of the shortest request's decode: a shorter time with all together is no measurement."""

OUTPUT_GROWTH: Final = 4
"""So much longer outputs at most, where requests start too far apart to run together."""

QUEUED_LEAST: Final = 0.5
"""Waiting that amounts to this part of a request's life: the scheduler did not admit all."""

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
        TTFT, or mean ITL, of each round as the client saw it [s].
    server_s
        The engine's own mean over the same rounds [s], all of their tokens.
    computed_ratio
        Share of the prompt tokens of these rounds whose KV the engine computed itself.
    strangers
        Requests of the engine meanwhile that were not ours.
    """

    role: Role
    place: Place
    value_s: float
    samples_s: tuple[float, ...]
    server_s: float | None = None
    computed_ratio: float | None = None
    strangers: int = 0


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
        before = self._engine.counters()
        samples = tuple(
            self._sent(self._fresh(1, isl, 1), isl, 1)[0].ttft_s for _ in range(self._samples)
        )
        counted = self._counted(before, len(samples))
        _check_prefilled(counted)
        return self._measurement(Role.PREFILL, place, samples, counted)

    def decode(self, place: Place) -> Measurement | Cap:
        """Return the inter-token latency of so many sequences together, or how many ran."""
        asked, outputs = round(place.concurrency), self._output_tokens
        while True:
            prompt = round(place.context_tokens) - outputs // 2
            bodies = self._fresh(asked, prompt, outputs)
            self._sent(bodies, prompt, outputs)
            before = self._engine.counters()
            first = self._sent(bodies, prompt, outputs)
            _check_streamed(first)
            longest = outputs == self._output_tokens * OUTPUT_GROWTH
            if steady_ratio(first) >= STEADY_LEAST:
                break
            if longest or self._had_to_queue(first, before):
                if (ran := most_together(first)) < asked:
                    return Cap(ran)
                break
            outputs *= 2
        rounds = [first, *(self._sent(bodies, prompt, outputs) for _ in range(self._samples - 1))]
        counted = self._counted(before, len(rounds) * asked)
        samples = tuple(s for timings in rounds if (s := sample_itl_s(timings)) is not None)
        return self._measurement(Role.DECODE, place, samples, counted)

    def _fresh(self, count: int, prompt_tokens: int, output_tokens: int) -> Bodies:
        """Return requests with prompts that no cache knows."""
        drawn = self._drawn.integers(_FIRST_TOKEN, _LAST_TOKEN, (count, prompt_tokens))
        return self._engine.bodies(drawn.tolist(), output_tokens)

    def _sent(self, bodies: Bodies, prompt_tokens: int, output_tokens: int) -> list[Timing]:
        timings = self._engine.together(bodies)
        for timing in timings:
            _check_counts(timing, prompt_tokens, output_tokens)
        return timings

    def _had_to_queue(self, timings: list[Timing], before: Counters | None) -> bool:
        counted = self._counted(before, len(timings))
        shortest_s = min(t.events_s[-1] - t.events_s[0] for t in timings)
        return counted is not None and counted.queued_s >= QUEUED_LEAST * shortest_s

    def _counted(self, before: Counters | None, requests: int) -> Counters | None:
        if before is None:
            return None
        now = self._engine.counters(before.ttft_count + requests)
        return None if now is None else now.since(before)

    def _measurement(
        self, role: Role, place: Place, samples: tuple[float, ...], counted: Counters | None
    ) -> Measurement:
        server_s = ratio = None
        strangers = 0
        if counted is not None:
            server_s = counted.ttft_s if role is Role.PREFILL else counted.itl_s
            ratio = counted.computed_ratio
            ours = len(samples) * round(place.concurrency)
            strangers = max(round(counted.ttft_count) - ours, 0)
        return Measurement(role, place, median(samples), samples, server_s, ratio, strangers)


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


def _check_prefilled(counted: Counters | None) -> None:
    """Refuse a time to first token without the work for it.

    Raises
    ------
    MeasurementError
        If the engine did not compute the prompts.
    """
    ratio = None if counted is None else counted.computed_ratio
    if ratio is not None and ratio < COMPUTED_LEAST:
        raise MeasurementError(
            f"the engine computed {ratio:.0%} of the prompts' tokens; legal: {COMPUTED_LEAST:.0%} "
            "or more for prefill; measure one without a KV connector that brings them"
        )


def _check_streamed(timings: Sequence[Timing]) -> None:
    """Refuse answers that came in one piece.

    Raises
    ------
    MeasurementError
        If there are any.
    """
    if any(timing.events_s[-1] <= timing.events_s[0] for timing in timings):
        raise MeasurementError(
            "the engine sends an answer's tokens all at once; legal: a stream, token by token; "
            "take away the proxy or setting that gathers them"
        )
