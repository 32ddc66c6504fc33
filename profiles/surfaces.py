"""Bounded interpolation of a profile: what one replica does at any load inside it. Pure.

Inputs outside the profiled range are clamped to it, never extrapolated, and `is_outside` says so.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from profiles.errors import Fault, ProfileError
from profiles.pchip import pchip_coefficients
from profiles.points import anchor_context
from profiles.rows import DecodeRow, FloatArray, decode_rows
from profiles.schema import Profile

EDGE_SLACK: Final = 1.0 + 1e-9
"""An edge is a product divided by one of its factors: 157 must not come back as 156.99…9."""


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """One way to run a decode replica."""

    throughput_tps: float
    """Output tokens of one replica [tokens/s]."""

    itl_s: float
    """Inter-token latency there [s], the running maximum over smaller batches."""

    concurrency: int
    """Sequences decoded together."""

    clamped: bool
    """Whether the context asked for lies outside the profile."""


@dataclass(frozen=True, slots=True, eq=False)
class PrefillSurface:
    """Service time of one prompt at batch 1 over its length: PCHIP through the points."""

    knots_tokens: FloatArray
    """Measured prompt lengths [tokens], shape (points,), ascending."""

    coefficients: FloatArray
    """Cubic of each interval, highest power first, shape (4, points − 1) [s/tokensᵏ]."""

    @property
    def isl_min_tokens(self) -> float:
        """Shortest profiled prompt [tokens]."""
        return float(self.knots_tokens[0])

    @property
    def isl_max_tokens(self) -> float:
        """Longest profiled prompt [tokens]."""
        return float(self.knots_tokens[-1])

    def is_outside(self, isl_tokens: ArrayLike) -> NDArray[np.bool_]:
        """Return whether each prompt length [tokens] lies outside the profile."""
        isl = np.asarray(isl_tokens, dtype=np.float64)
        return np.asarray((isl < self.knots_tokens[0]) | (isl > self.knots_tokens[-1]))

    def service_s(self, isl_tokens: ArrayLike) -> FloatArray:
        """Return the time to prefill one prompt of each length [tokens] alone [s], no queueing."""
        isl = self._clamp(isl_tokens)
        piece = np.searchsorted(self.knots_tokens[1:-1], isl, side="right")
        past = isl - self.knots_tokens[piece]
        cubic, square, slope, constant = self.coefficients[:, piece]
        return np.asarray(((cubic * past + square) * past + slope) * past + constant)

    def throughput_tps(self, isl_tokens: ArrayLike) -> FloatArray:
        """Return prompt tokens/s of one busy replica at each length: length / service time."""
        return np.asarray(self._clamp(isl_tokens) / self.service_s(isl_tokens))

    def _clamp(self, isl_tokens: ArrayLike) -> FloatArray:
        isl = np.asarray(isl_tokens, dtype=np.float64)
        return np.asarray(np.minimum(np.maximum(isl, self.knots_tokens[0]), self.knots_tokens[-1]))


@dataclass(frozen=True, slots=True, eq=False)
class DecodeSurface:
    """ITL over concurrency and context: linear along each measured context and between them.

    Rows end early where KV is full. Between two rows the profile ends at the KV use interpolated
    between their ends, and ITL stays there at what it is at that edge.
    """

    rows: tuple[DecodeRow, ...]
    """Measured or derived rows, contexts ascending, at least two."""

    contexts_tokens: FloatArray
    """Context of each row [tokens], shape (rows,)."""

    kv_ends_tokens: FloatArray
    """KV tokens in use at the end of each row, shape (rows,)."""

    itl_max_s: FloatArray
    """Largest ITL of each row and its successor [s], shape (rows − 1,)."""

    grid_s: FloatArray
    """ITL [s] of each row at each whole concurrency, shape (rows, n_max + 1)."""

    kv_capacity_tokens: int | None
    """Tokens the KV cache of one replica holds."""

    estimated: bool
    """Whether a direction comes from the stated roofline, or the whole profile is an estimate."""

    @property
    def n_max(self) -> int:
        """Largest batch, by the scheduler's limit and by what was measured."""
        return int(self.grid_s.shape[1]) - 1

    @property
    def context_min_tokens(self) -> float:
        """Shortest profiled context [tokens]."""
        return float(self.contexts_tokens[0])

    @property
    def context_max_tokens(self) -> float:
        """Longest profiled context [tokens]."""
        return float(self.contexts_tokens[-1])

    def is_outside(self, concurrency: ArrayLike, context_tokens: ArrayLike) -> NDArray[np.bool_]:
        """Return whether each point lies outside the profile, batches under 1 apart."""
        n, context = _pair(concurrency, context_tokens)
        inside = self._clamp(context)
        return np.asarray((context != inside) | (n > self._edges(inside)) | (n > self.n_max))

    def itl_s(self, concurrency: ArrayLike, context_tokens: ArrayLike) -> FloatArray:
        """Return the ITL [s] at each concurrency and context [tokens], broadcast, as measured."""
        if isinstance(concurrency, float | int) and isinstance(context_tokens, float | int):
            return np.asarray(self._point(concurrency, context_tokens))
        n, context = _pair(concurrency, context_tokens)
        context = self._clamp(context)
        n = np.maximum(np.minimum(np.minimum(n, self._edges(context)), self.n_max), 1.0)
        low = np.searchsorted(self.contexts_tokens[1:-1], context, side="right")
        left = self.contexts_tokens[low]
        weight = (context - left) / (self.contexts_tokens[low + 1] - left)
        return self._between(n, low, np.asarray(weight))

    def _point(self, concurrency: float, context_tokens: float) -> float:
        """Return the ITL [s] of one point: what arrays are given, without what they cost."""
        low, weight = self._bracket(context_tokens)
        n = max(min(concurrency, self._edge(context_tokens), self.n_max), 1.0)
        below, above = self.rows[low].at_one(n), self.rows[low + 1].at_one(n)
        return min(below + weight * (above - below), float(self.itl_max_s[low]))

    def _between(self, n: FloatArray, low: NDArray[np.intp], weight: FloatArray) -> FloatArray:
        """Return ITL [s] of the points between each row `low` and its successor."""
        itl_s = np.empty_like(n)
        for index in set(low.ravel().tolist()):
            here = low == index
            batch = n[here]
            below, above = self.rows[index].at(batch), self.rows[index + 1].at(batch)
            mixed = below + weight[here] * (above - below)
            itl_s[here] = np.minimum(mixed, self.itl_max_s[index])
        return itl_s

    def itl_running_max_s(self, concurrency: ArrayLike, context_tokens: ArrayLike) -> FloatArray:
        """Return the largest ITL [s] up to each concurrency, broadcast.

        Measured ITL is not monotone, and a batch on its way to n passes through every n′ < n.
        """
        n, context = _pair(concurrency, context_tokens)
        step = np.clip(np.floor(n), 0, self.n_max).astype(np.intp)
        largest = np.array(self.itl_s(n, context))
        for value in set(context.ravel().tolist()):
            here = context == value
            largest[here] = np.maximum(largest[here], self.curve(value)[step[here]])
        return largest

    def curve(self, context_tokens: float) -> FloatArray:
        """Return the running-maximum ITL [s] of every batch 0 … n_max at one context.

        Parameters
        ----------
        context_tokens : float
            Mean context per sequence [tokens], > 0; clamped to the profiled range.

        Returns
        -------
        FloatArray
            ITL [s], shape (n_max + 1,), never falling; an idle replica counts as one sequence.
        """
        low, weight = self._bracket(context_tokens)
        itl_s = self.grid_s[low] * (1.0 - weight)
        itl_s += self.grid_s[low + 1] * weight
        edge = self._edge(context_tokens)
        last = max(int(edge), 1)
        if last < self.n_max:
            itl_s[last + 1 :] = itl_s[last] + (edge - last) * (itl_s[last + 1] - itl_s[last])
        np.minimum(itl_s, self.itl_max_s[low], out=itl_s)
        return np.asarray(np.maximum.accumulate(itl_s, out=itl_s))

    def batch_limit(self, context_tokens: float) -> int:
        """Return the largest batch at a context [tokens] that is profiled and fits KV, or 0."""
        limit = min(self.n_max, int(self._edge(context_tokens)))
        if self.kv_capacity_tokens is None:
            return limit
        return min(limit, int(self.kv_capacity_tokens / context_tokens))

    def _bracket(self, context_tokens: float) -> tuple[int, float]:
        """Return the row at or below a context, and the share of the row above it."""
        first, last = float(self.contexts_tokens[0]), float(self.contexts_tokens[-1])
        context = min(max(context_tokens, first), last)
        low = int(self.contexts_tokens[1:-1].searchsorted(context, side="right"))
        left, right = self.contexts_tokens[low : low + 2].tolist()
        return low, (context - left) / (right - left)

    def _edge(self, context_tokens: float) -> float:
        """Return the concurrency at which the profile ends at a context [tokens], at least 1."""
        low, weight = self._bracket(context_tokens)
        left, right = self.contexts_tokens[low : low + 2].tolist()
        kv_left, kv_right = self.kv_ends_tokens[low : low + 2].tolist()
        kv_tokens = kv_left + weight * (kv_right - kv_left)
        return float(max(kv_tokens / (left + weight * (right - left)) * EDGE_SLACK, 1.0))

    def best_throughput(self, itl_s: float, context_tokens: float) -> OperatingPoint:
        """Return the highest decode throughput of one replica that keeps the ITL target.

        Parameters
        ----------
        itl_s : float
            Inter-token latency target [s], > 0, already divided by the correction factor.
        context_tokens : float
            Mean context per sequence, ISL + OSL / 2 [tokens]; clamped to the profiled range.

        Returns
        -------
        OperatingPoint
            Throughput [tokens/s], its ITL [s], and `clamped`: whether the context left the
            profile.

        Raises
        ------
        ProfileError
            If no batch that fits KV meets `itl_s`, or an input is not above 0.

        Notes
        -----
        Maximum of `n / ITL(n)` over the profiled batches n whose whole path n′ ≤ n meets the
        target and fits KV: that set shrinks with the target, so a tighter one never raises
        the result.
        """
        if not (itl_s > 0.0 and context_tokens > 0.0):
            raise ProfileError(_not_positive(itl_s, context_tokens))
        itl_by_n_s = self.curve(context_tokens)
        room = self.batch_limit(context_tokens)
        kept = int(np.count_nonzero(itl_by_n_s[1 : room + 1] <= itl_s))
        if kept == 0:
            raise ProfileError(_unreachable(itl_s, context_tokens, room, float(itl_by_n_s[1])))
        throughput_tps = np.arange(1, kept + 1) / itl_by_n_s[1 : kept + 1]
        n = kept - int(np.argmax(throughput_tps[::-1]))
        clamped = not self.context_min_tokens <= context_tokens <= self.context_max_tokens
        return OperatingPoint(float(throughput_tps[n - 1]), float(itl_by_n_s[n]), n, clamped)

    def _edges(self, context_tokens: FloatArray) -> FloatArray:
        """Return `_edge` of each context, all inside the profile."""
        kv_tokens = np.interp(context_tokens, self.contexts_tokens, self.kv_ends_tokens)
        return np.asarray(np.maximum(kv_tokens / context_tokens * EDGE_SLACK, 1.0))

    def _clamp(self, context_tokens: FloatArray) -> FloatArray:
        first, last = self.contexts_tokens[0], self.contexts_tokens[-1]
        return np.asarray(np.minimum(np.maximum(context_tokens, first), last))


def _unreachable(itl_s: float, context_tokens: float, room: int, lowest_s: float) -> str:
    if room < 1:
        got, legal = f"{context_tokens:g} tokens", "a context that fits the KV cache"
        return Fault("context_tokens", got, legal, "use replicas with more memory").line("")
    legal = f"{lowest_s:.6g} s or more at a context of {context_tokens:g} tokens"
    return Fault("itl_s", f"{itl_s:g} s", legal, "relax the target or use faster replicas").line("")


def _not_positive(itl_s: float, context_tokens: float) -> str:
    got = f"{itl_s:g} s and {context_tokens:g} tokens"
    return Fault("itl_s, context_tokens", got, "numbers above 0", "correct them").line("")


def _pair(concurrency: ArrayLike, context_tokens: ArrayLike) -> tuple[FloatArray, FloatArray]:
    n, context = np.broadcast_arrays(
        np.asarray(concurrency, dtype=np.float64), np.asarray(context_tokens, dtype=np.float64)
    )
    return n, context


def prefill_surface(profile: Profile) -> PrefillSurface:
    """Return the prefill surface of a profile.

    Raises
    ------
    ProfileError
        If the profile has no prefill points.
    """
    if not profile.prefill:
        raise ProfileError(_no_points("prefill"))
    points = sorted((p.isl_tokens, p.ttft_s) for p in profile.prefill if p.batch == 1)
    isl, ttft = np.array(points, dtype=np.float64).T
    return PrefillSurface(isl, pchip_coefficients(isl, ttft))


def decode_surface(profile: Profile) -> DecodeSurface:
    """Return the decode surface of a profile.

    Raises
    ------
    ProfileError
        If the profile has no decode points.
    """
    if not profile.decode:
        raise ProfileError(_no_points("decode"))
    rows = decode_rows(profile)
    measured = max(float(row.concurrency[-1]) for row in rows)
    # Beyond the largest measured batch ITL is unknown, whatever the scheduler would run.
    n_max = max(1, int(min(profile.max_sequences or measured, measured)))
    batches = np.maximum(np.arange(n_max + 1, dtype=np.float64), 1.0)
    tops = np.array([row.itl_s.max() for row in rows])
    is_derived = anchor_context(profile.decode, profile.kv_capacity_tokens) is not None
    return DecodeSurface(
        rows=rows,
        contexts_tokens=np.array([row.context_tokens for row in rows]),
        kv_ends_tokens=np.array([row.kv_end_tokens for row in rows]),
        itl_max_s=np.maximum(tops[:-1], tops[1:]),
        grid_s=np.array([row.at(batches) for row in rows]),
        kv_capacity_tokens=profile.kv_capacity_tokens,
        estimated=is_derived or profile.provenance.how == "estimated",
    )


def _no_points(role: str) -> str:
    mend = f"use a profile measured as a {role} engine"
    return Fault(role, "no points", f"{role} points", mend).line("")
