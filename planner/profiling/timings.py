"""What a round of requests took, as the client saw it and as the engine counted. Pure.

Every time is of one monotonic clock, so that a wall clock that is set meanwhile does no harm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple, Protocol

Bodies = Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Timing:
    """One request that was answered.

    Attributes
    ----------
    prompt_tokens, output_tokens
        As the engine's `usage` counts them.
    sent_s
        When it was sent [s].
    events_s
        When each event that carries output arrived [s], ascending; mostly one token each.
    """

    prompt_tokens: int
    output_tokens: int
    sent_s: float
    events_s: tuple[float, ...]

    @property
    def ttft_s(self) -> float:
        """Time to the first token [s]."""
        return self.events_s[0] - self.sent_s

    def itl_s(self, window: "Window") -> float | None:
        """Return the mean inter-token latency within a window [s], None if it holds none."""
        inside = [at_s for at_s in self.events_s if window.start_s <= at_s <= window.end_s]
        # An engine may send two tokens in one event; `usage` knows how many there were.
        tokens = (len(inside) - 1) * self.output_tokens / len(self.events_s)
        return (inside[-1] - inside[0]) / tokens if len(inside) > 1 else None


class Window(NamedTuple):
    """A stretch of time [s]; empty if the end is not after the start."""

    start_s: float
    end_s: float


class Counters(NamedTuple):
    """What an engine has counted since it started; differences of two are a measurement."""

    ttft_sum_s: float
    ttft_count: float
    itl_sum_s: float
    itl_count: float
    queued_s: float
    prompt_tokens: float
    computed_tokens: float
    """Prompt tokens whose KV the engine computed itself: neither cached nor transferred."""

    def since(self, earlier: "Counters") -> "Counters":
        """Return what was counted after `earlier`."""
        return Counters(*(now - then for now, then in zip(self, earlier, strict=True)))

    @property
    def ttft_s(self) -> float | None:
        """Mean time to first token [s]."""
        return self.ttft_sum_s / self.ttft_count if self.ttft_count > 0 else None

    @property
    def itl_s(self) -> float | None:
        """Mean inter-token latency [s]."""
        return self.itl_sum_s / self.itl_count if self.itl_count > 0 else None

    @property
    def computed_ratio(self) -> float | None:
        """Share of prompt tokens that were computed."""
        return self.computed_tokens / self.prompt_tokens if self.prompt_tokens > 0 else None


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What an engine says of itself; None: it does not say.

    Attributes
    ----------
    model
        The name it serves.
    version
        Its version.
    longest_tokens
        Prompt and output together that it takes [tokens].
    kv_capacity_tokens, block_tokens, kv_bytes_per_token
        Of its KV cache; a sequence takes whole blocks. Bytes are those of one GPU.
    startup_s
        From the start of its process to the first token [s].
    engine
        Where it runs, or the command that started it.
    """

    model: str
    version: str | None = None
    longest_tokens: int | None = None
    kv_capacity_tokens: int | None = None
    block_tokens: int | None = None
    kv_bytes_per_token: float | None = None
    startup_s: float | None = None
    engine: str = ""


class Engine(Protocol):
    """An engine under measurement."""

    def bodies(self, prompts: Sequence[Sequence[int]], output_tokens: int) -> Bodies:
        """Return requests for so many output tokens [tokens], ready to be sent."""
        ...

    def together(self, bodies: Bodies) -> list[Timing]:
        """Send all at once and return when the last is answered.

        Raises
        ------
        PlannerError
            If one is not.
        """
        ...

    def counters(self, first_tokens: float = 0.0) -> Counters | None:
        """Return what it counted, None if it has no such metrics.

        It waits a moment until so many first tokens are counted: engines count after answering.
        """
        ...


def steady_window(timings: Sequence[Timing]) -> Window:
    """Return the time in which all of the requests were decoding."""
    return Window(max(t.events_s[0] for t in timings), min(t.events_s[-1] for t in timings))


def steady_ratio(timings: Sequence[Timing]) -> float:
    """Return the steady window over the shortest decode, below 0 if there is no such window."""
    window = steady_window(timings)
    shortest_s = min(t.events_s[-1] - t.events_s[0] for t in timings)
    return (window.end_s - window.start_s) / shortest_s if shortest_s > 0 else -1.0


def most_together(timings: Sequence[Timing]) -> int:
    """Return how many requests were decoding at the same time, at most.

    Examples
    --------
    >>> early, late = (Timing(8, 3, 0.0, times) for times in ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)))
    >>> most_together([early, early, late])
    2
    """
    changes = sorted(
        [(t.events_s[0], 1) for t in timings] + [(t.events_s[-1], -1) for t in timings]
    )
    running = most = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    return most


def sample_itl_s(timings: Sequence[Timing]) -> float | None:
    """Return the mean over requests of their mean latency while all were decoding [s].

    Notes
    -----
    Gaps of single tokens say nothing: a busy client reads several tokens at once. While the first
    requests still decode alone, and when the last ones do, the batch is not the one asked for.

    Examples
    --------
    >>> a = Timing(8, 5, 0.0, (1.0, 1.1, 1.3, 1.5, 1.7))
    >>> b = Timing(8, 5, 0.0, (1.1, 1.3, 1.5, 1.7, 1.8))
    >>> round(sample_itl_s([a, b]), 3)
    0.2
    """
    window = steady_window(timings)
    found = [itl_s for t in timings if (itl_s := t.itl_s(window)) is not None]
    return fmean(found) if found else None
