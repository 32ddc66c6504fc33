"""What every policy to compare with is: a pure machine over an immutable state, one call a tick.

All see the same: counters scraped every 15 s, and the profile that the planner gets.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from planner.model import Role

StateT = TypeVar("StateT")
Wanted = Mapping[Role, int]
"""Replicas by role, limits aside."""


@dataclass(frozen=True, slots=True)
class Knob:
    """The one setting by which a policy buys attainment; `grid` runs from bold to careful."""

    name: str
    shipped: float
    grid: tuple[float, ...]


HEADROOM_GRID = (0.8, 1.0, 1.15, 1.3, 1.45, 1.6, 1.8, 2.1, 2.5, 3.0, 3.7, 4.6)


def headroom(shipped: float) -> Knob:
    """Return the knob of policies that follow load: capacity kept over the load seen."""
    return Knob("headroom", shipped, tuple(sorted({*HEADROOM_GRID, shipped})))


@dataclass(frozen=True, slots=True)
class RoleView:
    """One pool as its metrics and its scale target show it.

    Attributes
    ----------
    ordered, ready
        Replicas asked for, and those that serve.
    running, waiting
        Requests inside all pods at the last scrape.
    kv_ratio
        KV cache in use over that of the ready replicas; 0 for prefill.
    work_tps
        Tokens computed (prefill) or generated (decode) [tokens/s].
    """

    ordered: int
    ready: int
    running: float
    waiting: float
    kv_ratio: float
    work_tps: float


@dataclass(frozen=True, slots=True)
class View:
    """One interval of a service.

    Attributes
    ----------
    at_s, span_s
        Time of the decision [s] and time between the two scrapes [s].
    requests
        Requests that arrived: prompts finished, and the change of those inside prefill.
    isl_tokens, osl_tokens
        Mean lengths of the requests that finished [tokens]; the last known where none did.
    ttft_s, itl_s
        Mean latencies [s]; None where no request finished.
    """

    at_s: float
    span_s: float
    requests: float
    isl_tokens: float
    osl_tokens: float
    ttft_s: float | None
    itl_s: float | None
    roles: Mapping[Role, RoleView]

    @property
    def rps(self) -> float:
        """Requests that arrived a second."""
        return self.requests / self.span_s

    @property
    def context_tokens(self) -> float:
        """Mean context of a sequence in decode, ISL + OSL / 2 [tokens]."""
        return self.isl_tokens + 0.5 * self.osl_tokens

    @property
    def ordered(self) -> Wanted:
        """What is asked for now."""
        return {role: seen.ordered for role, seen in self.roles.items()}


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one replica can do, from the coarse profile that the planner gets too.

    Attributes
    ----------
    ttft_s, itl_s
        Target latencies [s].
    prefill_s
        Prompt [tokens] → its prefill time alone [s].
    decode_itl_s
        Sequences, context [tokens] → ITL [s].
    decode_best
        ITL target [s], context [tokens] → best tokens/s within it and the sequences there;
        those of one sequence where none is.
    """

    ttft_s: float
    itl_s: float
    prefill_s: Callable[[float], float]
    decode_itl_s: Callable[[float, float], float]
    decode_best: Callable[[float, float], tuple[float, float]]

    def prefill_tps(self, isl_tokens: float) -> float:
        """Return the prompt tokens/s of a replica that is never idle."""
        return isl_tokens / self.prefill_s(isl_tokens)

    def decode_tps(self, context_tokens: float) -> float:
        """Return the output tokens/s of a replica at the ITL target."""
        return self.decode_best(self.itl_s, context_tokens)[0]

    def sequences(self, context_tokens: float) -> float:
        """Return the sequences of a replica at the ITL target."""
        return self.decode_best(self.itl_s, context_tokens)[1]


@dataclass(frozen=True, slots=True)
class Hindsight:
    """What only policies may know that claim no foresight of their own: figures of the trace.

    `peak_tps` are the highest tokens/s of a minute by role, lengths are means [tokens].
    """

    isl_tokens: float
    osl_tokens: float
    peak_tps: Mapping[Role, float]


class Policy(Protocol[StateT]):
    """Decides on replicas of one prefill and one decode pool."""

    @property
    def interval_s(self) -> float:
        """Time between decisions [s]."""
        ...

    def start(self) -> StateT:
        """Return the state before the first decision."""
        ...

    def decide(self, view: View, state: StateT) -> tuple[StateT, Wanted]:
        """Return the next state and the replicas wanted, before floors and ceilings."""
        ...
