"""Decode: the share of sequences whose batch is too full for the ITL target. Pure."""

from dataclasses import dataclass, replace

import numpy as np

from planner.model import FACTOR_RANGE, Factor, Load, Pool
from planner.sizing.queueing import OVERLOAD_SCORE, Floats, occupancy

# P(KV of a full batch exceeds the cache): the normal quantile 2.33 leaves 1 %.
KV_QUANTILE = 2.33

# Levels of the occupancy chain that are kept apart; more are merged into blocks.
GRID = 512

# Below this share of the offered work every batch is too full, and above that multiple none is,
# where the work is that of several replicas; not worth a chain.
HOPELESS, EASY, SEVERAL = 0.8, 2.0, 2.0


@dataclass(frozen=True)
class DecodeLoad:
    """What one decode pool must serve.

    Attributes
    ----------
    output_tps
        Output tokens/s demanded, λ E[OSL].
    itl_s
        Inter-token latency [s] at n = 0 … n_max sequences a replica at the mean context,
        running maximum, correction applied, shape (n_max + 1,).
    target_s
        ITL target [s].
    kv_capacity_tokens
        KV cache of one replica [tokens]; None if unknown.
    profiled_limit
        Most sequences a replica that the profile vouches for at this context.
    context_tokens, context_sd_tokens
        Mean context of a sequence in flight and its standard deviation [tokens].
    dispersion
        Variance of the sequences inside over that with Poisson arrivals, z (peakedness).
    """

    output_tps: float
    itl_s: Floats
    target_s: float
    kv_capacity_tokens: float | None
    context_tokens: float
    profiled_limit: int
    context_sd_tokens: float = 0.0
    dispersion: float = 1.0

    @property
    def is_feasible(self) -> bool:
        """Whether one sequence alone meets the target."""
        return bool(self.itl_s[1] <= self.target_s)

    @property
    def best_itl_s(self) -> float:
        """ITL [s] of one sequence alone."""
        return float(self.itl_s[1])


def batch_limit(load: DecodeLoad) -> int:
    """Return n*: the most sequences a replica may run with every n′ ≤ n* on target and KV room."""
    on_target = int(np.searchsorted(load.itl_s[1:], load.target_s, side="right"))
    return max(min(on_target, kv_limit(load), load.profiled_limit), 0)


def kv_limit(load: DecodeLoad) -> int:
    """Return the most sequences whose contexts fit the KV cache with 99 % probability.

    Notes
    -----
    Largest n with ``n μ + 2.33 σ √n ≤ KV``: a quadratic in √n.
    """
    n_max = load.itl_s.size - 1
    if load.kv_capacity_tokens is None:
        return n_max
    mean, sd = load.context_tokens, KV_QUANTILE * load.context_sd_tokens
    root = (-sd + np.sqrt(sd * sd + 4.0 * mean * load.kv_capacity_tokens)) / (2.0 * mean)
    return int(min(root * root, n_max))


def failure_shares(load: DecodeLoad, replicas: Floats) -> Floats:
    """Return the share of sequences above the batch limit, shape (c,).

    As `failure_table`, at the load itself.
    """
    (shares,) = failure_table(load, np.ones(1), replicas)
    return np.asarray(shares)


def failure_table(load: DecodeLoad, multiples: Floats, replicas: Floats) -> Floats:
    """Return the share of sequences above the batch limit, shape (m, c).

    Parameters
    ----------
    load
        What the pool must serve.
    multiples
        Of the tokens/s demanded, shape (m,).
    replicas
        Numbers of replicas c ≥ 0, ascending, shape (c,).

    Notes
    -----
    What is flat at 1 is ordered by the share a shedding pool could serve, as for prefill.
    """
    demanded_tps = (load.output_tps * multiples)[:, None]
    is_asked = demanded_tps > 0.0
    limit = batch_limit(load)
    if limit == 0:
        return np.broadcast_to(is_asked, (multiples.size, replicas.size)).astype(float)
    offered = demanded_tps / throughput_tps(load)
    easy = EASY * np.maximum(offered, SEVERAL)
    shares = np.where(replicas > easy, 0.0, 1.0)
    is_open = is_asked & (replicas > HOPELESS * offered) & (replicas <= easy)
    row, column = np.nonzero(is_open)
    if row.size:
        shares[is_open] = _overfilled(load, limit, demanded_tps[row, 0], replicas[column])
    ordered = 1.0 - OVERLOAD_SCORE * np.minimum(replicas / np.maximum(offered, 1e-12), 1.0)
    shares = np.where(is_asked, np.minimum(shares, ordered), 0.0)
    return np.minimum.accumulate(shares, axis=1)


def _overfilled(load: DecodeLoad, limit: int, output_tps: Floats, replicas: Floats) -> Floats:
    """Return the failing share at pairs of tokens/s and possibly fractional replicas, shape (r,).

    Notes
    -----
    The exact occupancy of the pool as one processor-sharing system, stretched about its mean
    by the square root of the variance ratio z that bursty arrivals add; with z = 1 it is exact
    (sizing §3). A level between c n* and c (n* + 1) overfills the share of replicas that it has to.
    """
    most = min(load.itl_s.size - 1, 2 * limit + 16)
    levels, pi = pool_occupancy(load, output_tps, replicas, most)
    # Failures count sequences, not moments: a fuller moment holds more of them.
    weight = pi * levels
    mean = np.sum(weight, axis=1)
    stretch = np.sqrt(load.dispersion)
    threshold = mean + (replicas * limit - mean) / stretch
    above = np.clip((levels - threshold[:, None]) * (stretch / replicas)[:, None], 0.0, 1.0)
    return np.asarray(np.sum(weight * above, axis=1) / np.maximum(mean, 1e-12))


def pool_occupancy(
    load: DecodeLoad, output_tps: Floats, replicas: Floats, most: int
) -> tuple[Floats, Floats]:
    """Return levels n of whole pools and their stationary probabilities, both shape (r, k).

    Parameters
    ----------
    load
        What the pools are made of.
    output_tps
        Output tokens/s demanded of each, shape (r,).
    replicas
        Number of replicas c > 0 of each, shape (r,).
    most
        Sequences a replica at which the chain is cut off.

    Notes
    -----
    ``π(n) ∝ Π_k λ E[OSL] ITL(k / c) / k``. Above `GRID` levels the product is taken over blocks
    of equal width, its logarithm by the mid-point rule. Shorter chains end in levels of no weight.
    """
    top = np.maximum((replicas * most).astype(int), 1)[:, None]
    block = -(-top // GRID)
    steps = np.arange(int(np.max(-(-top // block))))
    below = steps * block.astype(float)
    # Births into the block's middle levels; block = 1 is the exact chain.
    middles = below + (0.5 * (block - 1) + 1.0)
    itl_s = np.interp(middles / replicas[:, None], np.arange(load.itl_s.size), load.itl_s)
    ratios = np.where(below < top, output_tps[:, None] * itl_s / middles, 0.0)
    levels = np.arange(steps.size + 1) * block.astype(float)
    return levels, occupancy(ratios, block)


def decode_load(
    pool: Pool, load: Load, factor: Factor, output_tps: float, target_s: float
) -> DecodeLoad:
    """Return what a role's pools must serve, as if all were like `pool`.

    Parameters
    ----------
    pool
        A decode pool; its profile, corrected by `factor`, gives the inter-token latency.
    load
        Lengths and dispersion.
    factor
        Correction of the pool's profile.
    output_tps
        Output tokens/s to size for.
    target_s
        ITL target [s].

    Notes
    -----
    With residence times of cv² near 1 the peakedness is ``z = 1 + (I − 1) / 2``, I the index of
    dispersion of arrivals at the mean residence time: who came in one burst leaves one by one
    (Eckberg, 1983; Whitt, 1984).
    """
    assert pool.decode is not None
    lengths = load.lengths
    profiled_s = pool.decode.curve(lengths.context_tokens)
    fill = np.minimum(profiled_s / target_s, 2.0)
    ratio = np.clip(factor.level + factor.slope * fill, *FACTOR_RANGE)
    itl_s = np.maximum.accumulate(profiled_s * ratio)
    bare = DecodeLoad(
        output_tps=output_tps,
        itl_s=itl_s,
        target_s=target_s,
        kv_capacity_tokens=pool.decode.kv_capacity_tokens,
        context_tokens=lengths.context_tokens,
        profiled_limit=max(pool.decode.batch_limit(lengths.context_tokens), 1),
        context_sd_tokens=lengths.context_sd_tokens,
    )
    residence_s = lengths.osl_mean_tokens * float(itl_s[max(batch_limit(bare), 1)])
    log_s = np.log(max(residence_s, 1e-3))
    index = float(np.interp(log_s, np.log(load.scales_s), load.dispersion))
    return replace(bare, dispersion=1.0 + 0.5 * (index - 1.0))


def throughput_tps(load: DecodeLoad) -> float:
    """Return the output tokens/s of one replica with its batch full to the limit."""
    limit = batch_limit(load)
    return limit / float(load.itl_s[limit]) if limit > 0 else 0.0
