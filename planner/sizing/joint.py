"""The joint choice: the cheapest prefill and decode fleets that share one failure budget. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from planner.model import Limits, Pool
from planner.sizing.queueing import Floats

# Options that are evaluated at once beyond the offered work.
BLOCK = 4
# A goodput that differs by less than this is the same: then the cheaper fleet wins.
TIE = 1e-9

# Ways to staff a role that are looked at all; a matrix of this by 64 takes 10 MB.
MAX_WAYS = 20_000


@dataclass(frozen=True, slots=True)
class Option:
    """One way to staff a role: replicas of each of its pools, and what they are worth.

    `equivalent` counts in replicas of the role's first pool.
    """

    replicas: tuple[int, ...]
    equivalent: float


@dataclass(frozen=True, slots=True, eq=False)
class Options:
    """Ways to staff a role, ascending in what they are worth.

    Attributes
    ----------
    replicas
        Of each pool, shape (options, pools).
    equivalents
        What they are worth in replicas of the role's first pool, shape (options,).
    """

    replicas: NDArray[np.int64]
    equivalents: Floats

    def __len__(self) -> int:
        return self.equivalents.size

    def __getitem__(self, index: int) -> Option:
        return Option(tuple(self.replicas[index].tolist()), float(self.equivalents[index]))

    def first(self, count: int) -> "Options":
        """Return the first of them."""
        return Options(self.replicas[:count], self.equivalents[:count])


@dataclass(frozen=True)
class Frontier:
    """The ways to staff one role, least capacity first, with the share of requests each fails.

    Attributes
    ----------
    pools
        The role's pools, in the order of `Option.replicas`.
    options
        Floors first, ascending in equivalent replicas.
    failure_shares
        Shape (options,), falling.
    """

    pools: tuple[Pool, ...]
    options: Options
    failure_shares: Floats

    @cached_property
    def costs(self) -> Floats:
        """Price of each option an hour, shape (options,)."""
        return np.asarray(self.options.replicas @ [p.price_per_replica for p in self.pools], float)

    def gpus(self, gpu_type: str) -> Floats:
        """Return the GPUs of one type by option, shape (options,)."""
        per_replica = [p.gpus_per_replica if p.gpu_type == gpu_type else 0 for p in self.pools]
        return np.asarray(self.options.replicas @ per_replica, dtype=float)


@dataclass(frozen=True, slots=True)
class Choice:
    """A pair of options and what it is expected to fail; `within_budget` says if ε is met."""

    prefill: Option
    decode: Option
    prefill_failures: float
    decode_failures: float
    within_budget: bool

    @property
    def goodput(self) -> float:
        """Share of requests that are expected to meet both targets."""
        return (1.0 - self.prefill_failures) * (1.0 - self.decode_failures)


def staffing(
    pools: tuple[Pool, ...],
    worth: Mapping[str, float],
    ceilings: Mapping[str, int],
) -> Options:
    """Return the ways to staff a role: floors first, then one replica more of the best pool.

    Parameters
    ----------
    pools
        Pools of one role.
    worth
        Capacity of one replica by pool name, in replicas of the first pool.
    ceilings
        Most replicas by pool name, ≥ the pool's floor.

    Notes
    -----
    Greedy by price for capacity; exact for one pool, and for several up to the last replica
    where nothing but the ceilings limits them. Each way holds the one before, so that a load that
    moves a little moves few replicas.
    """
    order = sorted(pools, key=lambda p: (p.price_per_replica / worth[p.name], p.name))
    place = {pool.name: i for i, pool in enumerate(pools)}
    # The pool that each further replica is of.
    added = [place[p.name] for p in order for _ in range(p.min_replicas, ceilings[p.name])]
    floors = np.array([[p.min_replicas for p in pools]], dtype=np.int64)
    one_more = np.eye(len(pools), dtype=np.int64)[added]
    replicas = np.cumsum(np.concatenate((floors, one_more)), axis=0)
    return Options(replicas, replicas @ np.array([worth[p.name] for p in pools]))


def every_staffing(
    pools: tuple[Pool, ...],
    worth: Mapping[str, float],
    ceilings: Mapping[str, int],
) -> Options:
    """Return all ways to staff a role, ascending in capacity; takes what `staffing` takes.

    Notes
    -----
    For limits that cut across the chain: where two pools share a scarce GPU type, the best split
    may use the pool that the chain turns to last. Its frontier has to `keep_all`: a way of more
    capacity may be the legal or the cheaper one. Beyond `MAX_WAYS` it is the chain after all.
    """
    floors = [p.min_replicas for p in pools]
    ranges = [max(ceilings[p.name] - p.min_replicas, 0) + 1 for p in pools]
    if prod(ranges) > MAX_WAYS:
        return staffing(pools, worth, ceilings)
    replicas = np.indices(ranges).reshape(len(pools), -1).T + floors
    equivalents = replicas @ np.array([worth[p.name] for p in pools])
    order = np.lexsort((replicas @ [p.price_per_replica for p in pools], equivalents))
    return Options(replicas[order], equivalents[order])


def frontier(
    pools: tuple[Pool, ...],
    options: Options,
    shares: Callable[[Floats], Floats],
    negligible: float,
    *,
    offered: float = 0.0,
    keep_all: bool = False,
) -> Frontier:
    """Evaluate the failing share of every option that matters.

    Parameters
    ----------
    pools, options
        As `staffing` gives them.
    shares
        Failing share at ascending numbers of equivalent replicas.
    negligible
        A share below which more replicas are not worth looking at; options beyond the first
        below it are dropped.
    offered
        Work that is offered, in equivalent replicas: looking starts there.
    keep_all
        Keep them, at that share: a ratio bound may ask for replicas that the load does not.
    """
    equivalents = options.equivalents
    known = int(np.searchsorted(equivalents, offered)) + BLOCK
    evaluated = shares(equivalents[:known])
    while evaluated[-1] > negligible and evaluated.size < equivalents.size:
        known += BLOCK
        evaluated = shares(equivalents[:known])
    last = int(np.argmax(evaluated <= negligible)) if evaluated[-1] <= negligible else known
    evaluated = evaluated[: last + 1]
    if not keep_all:
        return Frontier(pools, options.first(last + 1), evaluated)
    rest = np.full(equivalents.size - evaluated.size, evaluated[-1])
    return Frontier(pools, options, np.concatenate((evaluated, rest)))


def choose(
    prefill: Frontier, decode: Frontier, failure_budget: float, limits: Limits | None
) -> Choice:
    """Return the cheapest pair within the failure budget, or the best goodput that is legal.

    Parameters
    ----------
    prefill, decode
        Frontiers of the two roles.
    failure_budget
        Share of requests that may fail, ε, for both targets together (union bound).
    limits
        GPU, cost and ratio limits; None: the unconstrained need.

    Notes
    -----
    Every pair is looked at, so no legal split serves more. A limit that not even the floors keep
    is not enforced here: the floors win and the caller says so.
    """
    failing = prefill.failure_shares[:, None] + decode.failure_shares[None, :]
    cost = prefill.costs[:, None] + decode.costs[None, :]
    legal = np.ones(failing.shape, bool) if limits is None else _legal(prefill, decode, limits)
    if not legal.any():
        legal = np.zeros(failing.shape, bool)
        legal[0, 0] = True
    meets = legal & (failing <= failure_budget)
    if meets.any():
        value = np.where(meets, cost, np.inf)
        value = np.where(value <= value.min() + TIE, failing, np.inf)
    else:
        goodput = (1.0 - prefill.failure_shares)[:, None] * (1.0 - decode.failure_shares)[None, :]
        best = goodput[legal].max()
        value = np.where(legal & (goodput >= best - TIE), cost, np.inf)
    i, j = np.unravel_index(int(np.argmin(value)), value.shape)
    return Choice(
        prefill.options[int(i)],
        decode.options[int(j)],
        float(prefill.failure_shares[i]),
        float(decode.failure_shares[j]),
        bool(meets.any()),
    )


def _legal(prefill: Frontier, decode: Frontier, limits: Limits) -> np.ndarray:
    """Return which pairs keep all limits, shape (prefill options, decode options)."""
    legal = np.ones((len(prefill.options), len(decode.options)), dtype=bool)
    for gpu_type, ceiling in limits.gpus.items():
        legal &= prefill.gpus(gpu_type)[:, None] + decode.gpus(gpu_type)[None, :] <= ceiling
    if limits.cost_per_hour is not None:
        legal &= prefill.costs[:, None] + decode.costs[None, :] <= limits.cost_per_hour + TIE
    p = prefill.options.replicas.sum(axis=1)[:, None]
    d = decode.options.replicas.sum(axis=1)[None, :]
    if limits.ratio_min is not None:
        legal &= p >= limits.ratio_min * d - TIE
    if limits.ratio_max is not None:
        legal &= p <= limits.ratio_max * d + TIE
    return legal
