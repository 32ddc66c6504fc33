"""The true performance of a replica, as the plant knows it: finer than any planner's. Pure.

Built from a profile's points by an interpolation of its own, times a smooth seeded wiggle that the
planner is never told of; or from plain functions, for checks against theory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from profiles.points import DecodePoint
from profiles.schema import Profile

Floats = NDArray[np.float64]

WIGGLE: Final = 0.04
"""Largest relative deviation of the truth from the profile's points."""

CONTEXT_STEPS: Final = 1024
"""Contexts in the table of decode times, less one; the compiled look-up is linear between them."""


@dataclass(frozen=True, slots=True)
class PrefillTruth:
    """Prefill time [s] of one prompt as a function of its computed tokens."""

    seconds: Callable[[Floats], Floats]

    @classmethod
    def constant(cls, seconds: float) -> "PrefillTruth":
        """Return a replica that takes the same time [s] for every prompt."""
        return cls(lambda tokens: np.full(tokens.shape, seconds))

    @classmethod
    def of(cls, profile: Profile, wiggle: float = WIGGLE, seed: int = 0) -> "PrefillTruth":
        """Return the truth behind a profile's prefill points (batch 1).

        Parameters
        ----------
        profile
            At least three prompt lengths at batch 1.
        wiggle
            Bound on the relative deviation from the points; 0 switches it off.
        seed
            Fixes the wiggle.

        Raises
        ------
        ValueError
            If there are too few points.
        """
        points = sorted((p.isl_tokens, p.ttft_s) for p in profile.prefill if p.batch == 1)
        if len(points) < 3:
            raise ValueError(
                f"prefill: {len(points)} prompt length(s) at batch 1; legal: 3 or more; "
                "measure more lengths"
            )
        curve = _prefill_curve(*np.asarray(points, dtype=float).T)
        sway = _wiggle(wiggle, seed)
        return cls(lambda tokens: curve(tokens) * sway(np.log(np.maximum(tokens, 1.0)), 0.0))

    def table(self, tokens_max: int) -> Floats:
        """Return the time [s] of every prompt of 0 … `tokens_max` tokens, shape (tokens,)."""
        return self.seconds(np.arange(tokens_max + 1, dtype=float))


@dataclass(frozen=True, slots=True)
class DecodeTruth:
    """Time of a decode step [s] as a function of the sequences in it and their mean context."""

    seconds: Callable[[Floats, Floats], Floats]

    @classmethod
    def constant(cls, seconds: float) -> "DecodeTruth":
        """Return a replica whose every step takes the same time [s]."""
        return cls(
            lambda sequences, context: np.full(np.broadcast(sequences, context).shape, seconds)
        )

    @classmethod
    def of(cls, profile: Profile, wiggle: float = WIGGLE, seed: int = 0) -> "DecodeTruth":
        """Return the truth behind a profile's decode points.

        Parameters
        ----------
        profile
            A grid of contexts and concurrencies; or one context with the stated speed at which
            KV is read: every further token of context costs its bytes over that speed.
        wiggle
            Bound on the relative deviation from the points; 0 switches it off.
        seed
            Fixes the wiggle.

        Raises
        ------
        ValueError
            If there are no decode points.
        """
        if not profile.decode:
            raise ValueError("decode: no points; legal: 3 or more; measure decode")
        rows = _rows(profile)
        curve = _roofline_curve(profile, rows) if len(rows) == 1 else _grid_curve(rows)
        sway = _wiggle(wiggle, seed)
        return cls(lambda n, context: curve(n, context) * sway(0.5 * n**0.5, np.log1p(context)))

    def table(self, sequences_max: int, context_max: float) -> Floats:
        """Return step times [s], shape (sequences 0 … max, CONTEXT_STEPS + 1 contexts 0 … max)."""
        sequences = np.arange(sequences_max + 1, dtype=float)[:, None]
        contexts = np.linspace(0.0, context_max, CONTEXT_STEPS + 1)[None, :]
        return self.seconds(sequences, contexts)


Truth = PrefillTruth | DecodeTruth


def _prefill_curve(tokens: Floats, seconds: Floats) -> Callable[[Floats], Floats]:
    """Return PCHIP between the points, flat below; above, the larger of line and parabola."""
    inside = PchipInterpolator(tokens, seconds)
    slope = _last_slope(tokens, seconds)
    parabola = np.polynomial.Polynomial.fit(tokens[-3:], seconds[-3:], 2)

    def curve(at: Floats) -> Floats:
        within: Floats = inside(np.clip(at, tokens[0], tokens[-1]))
        beyond = np.maximum(seconds[-1] + slope * (at - tokens[-1]), parabola(at))
        return np.where(at > tokens[-1], beyond, within)

    return curve


def _last_slope(x: Floats, y: Floats) -> float:
    """Return the slope of the last two points; a falling one is noise and counts as level."""
    return max(float((y[-1] - y[-2]) / (x[-1] - x[-2])), 0.0) if len(x) > 1 else 0.0


def _line(x: Floats, y: Floats) -> Callable[[Floats], Floats]:
    """Return linear interpolation, flat below the points and along the last slope above."""
    slope = _last_slope(x, y)

    def line(at: Floats) -> Floats:
        inside = np.interp(at, x, y)
        return np.asarray(inside + slope * np.maximum(at - x[-1], 0.0), dtype=np.float64)

    return line


def _rows(profile: Profile) -> dict[float, list[DecodePoint]]:
    """Return the points by context, ascending; of an L, the one context with a full row."""
    rows: dict[float, list[DecodePoint]] = {}
    for point in sorted(profile.decode, key=lambda p: (p.context_tokens, p.concurrency)):
        rows.setdefault(point.context_tokens, []).append(point)
    longest = max(rows, key=lambda context: len(rows[context]))
    others_short = all(len(row) < 3 for context, row in rows.items() if context != longest)
    is_corner = profile.kv_read_bytes_per_s is not None and others_short
    return {longest: rows[longest]} if is_corner else rows


def _by_concurrency(row: Sequence[DecodePoint]) -> Callable[[Floats], Floats]:
    return _line(np.array([p.concurrency for p in row]), np.array([p.itl_s for p in row]))


def _grid_curve(rows: dict[float, list[DecodePoint]]) -> Callable[[Floats, Floats], Floats]:
    """Return interpolation over concurrency in every row, then linear over context."""
    contexts = np.array(list(rows))
    lines = [_by_concurrency(row) for row in rows.values()]

    def curve(sequences: Floats, context: Floats) -> Floats:
        n, at = np.broadcast_arrays(sequences, np.maximum(context, contexts[0]))
        i = np.clip(np.searchsorted(contexts, at, side="right") - 1, 0, len(contexts) - 2)
        values = np.stack([line(n) for line in lines])
        low = np.take_along_axis(values, i[None], axis=0)[0]
        high = np.take_along_axis(values, i[None] + 1, axis=0)[0]
        share = (at - contexts[i]) / (contexts[i + 1] - contexts[i])
        rise = high - low
        # Beyond the last context a fall would end below zero: level there, as in `_last_slope`.
        share = np.where((rise < 0.0) & (share > 1.0), 1.0, share)
        return np.asarray(low + rise * share, dtype=np.float64)

    return curve


def _roofline_curve(
    profile: Profile, rows: dict[float, list[DecodePoint]]
) -> Callable[[Floats, Floats], Floats]:
    """Return the one row plus the time to read the KV of every token of context beyond it."""
    ((anchor, row),) = rows.items()
    line = _by_concurrency(row)
    speed, width = profile.kv_read_bytes_per_s, profile.kv_bytes_per_token
    per_token_s = width / speed if speed is not None and width is not None else 0.0
    return lambda n, context: line(n) + per_token_s * n * np.maximum(context - anchor, 0.0)


def _wiggle(amplitude: float, seed: int) -> Callable[[Floats, Floats | float], Floats]:
    """Return 1 ± at most `amplitude`: the mean of five waves of random direction and phase."""
    rng = np.random.default_rng([seed, 4])
    # Two to six radians a unit: one to three waves over a decade of length.
    speed, angle = rng.uniform(2.0, 6.0, 5), rng.uniform(0.0, np.pi, 5)
    phase = rng.uniform(0.0, 2.0 * np.pi, 5)

    def sway(x: Floats, y: Floats | float) -> Floats:
        waves = (
            np.sin(k * (x * np.cos(a) + y * np.sin(a)) + p)
            for k, a, p in zip(speed, angle, phase, strict=True)
        )
        return 1.0 + amplitude * sum(waves, start=np.zeros(1)) / len(speed)

    return sway
