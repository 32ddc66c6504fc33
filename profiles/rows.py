"""Decode ITL over concurrency at one context, measured or derived from a roofline. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from profiles.points import DecodePoint, anchor_context, rows_by_context
from profiles.schema import Profile

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class DecodeRow:
    """ITL over concurrency at one context."""

    context_tokens: float
    """Mean context of a sequence [tokens]."""

    concurrency: FloatArray
    """Sequences decoded together, shape (points,), ascending."""

    itl_s: FloatArray
    """ITL [s] at each concurrency, shape (points,)."""

    chord_s: float
    """ITL added by one more sequence, over the whole row [s]; never negative."""

    @classmethod
    def through(
        cls, context_tokens: float, concurrency: FloatArray, itl_s: FloatArray
    ) -> "DecodeRow":
        """Return the row through these points, concurrency ascending."""
        width = float(concurrency[-1] - concurrency[0])
        rise = max(float(itl_s[-1] - itl_s[0]), 0.0)
        return cls(context_tokens, concurrency, itl_s, rise / width if width > 0.0 else 0.0)

    @property
    def kv_end_tokens(self) -> float:
        """KV tokens in use at the largest concurrency of the row."""
        return float(self.concurrency[-1]) * self.context_tokens

    def at(self, concurrency: FloatArray) -> FloatArray:
        """Return ITL [s], the row continued past its end along its chord.

        The continuation only serves interpolation towards a longer row, and is cut off by the
        surface before it is used as a value: a row that ends early because KV is full would else
        hold down all contexts between it and the row before.
        """
        inside = np.interp(concurrency, self.concurrency, self.itl_s)
        beyond = np.maximum(concurrency - self.concurrency[-1], 0.0)
        return np.asarray(inside + self.chord_s * beyond, dtype=np.float64)

    def at_one(self, concurrency: float) -> float:
        """Return `at` of one concurrency [s]."""
        inside = float(np.interp(concurrency, self.concurrency, self.itl_s))
        return inside + self.chord_s * max(concurrency - float(self.concurrency[-1]), 0.0)


def decode_rows(profile: Profile) -> tuple[DecodeRow, ...]:
    """Return the rows of a decode surface, contexts ascending: at least two."""
    rows = [_row(*item) for item in rows_by_context(profile.decode).items()]
    anchor = anchor_context(profile.decode, profile.kv_capacity_tokens)
    capacity, read = profile.kv_capacity_tokens, profile.kv_read_bytes_per_s
    # The schema refuses an L without its roofline.
    if anchor is None or capacity is None or read is None or profile.kv_bytes_per_token is None:
        return tuple(rows)
    return _roofline_rows(rows, anchor, float(capacity), profile.kv_bytes_per_token / read)


def _row(context_tokens: float, points: Sequence[DecodePoint]) -> DecodeRow:
    concurrency = np.array([point.concurrency for point in points])
    return DecodeRow.through(
        context_tokens, concurrency, np.array([point.itl_s for point in points])
    )


def _roofline_rows(
    rows: Sequence[DecodeRow], anchor_tokens: float, capacity_tokens: float, s_per_token: float
) -> tuple[DecodeRow, ...]:
    """Return measured rows of an L completed over concurrency, and one at a full KV cache."""
    anchor = next(row for row in rows if row.context_tokens == anchor_tokens)
    derived = [_derived(anchor, row, s_per_token) for row in rows]
    if derived[-1].context_tokens < capacity_tokens:
        derived.append(_beside(anchor, capacity_tokens, anchor.concurrency, s_per_token))
    return tuple(derived)


def _derived(anchor: DecodeRow, row: DecodeRow, s_per_token: float) -> DecodeRow:
    """Return `row` at the anchor's concurrencies too, through the points measured in it."""
    if row is anchor:
        return row
    measured = _beside(anchor, row.context_tokens, row.concurrency, s_per_token)
    concurrency = np.union1d(anchor.concurrency, row.concurrency)
    full = _beside(anchor, row.context_tokens, concurrency, s_per_token)
    offset_s = np.interp(concurrency, row.concurrency, row.itl_s - measured.itl_s)
    floor_s = min(anchor.itl_s.min(), row.itl_s.min())
    return DecodeRow.through(
        row.context_tokens, concurrency, np.maximum(full.itl_s + offset_s, floor_s)
    )


def _beside(
    anchor: DecodeRow, context_tokens: float, concurrency: FloatArray, s_per_token: float
) -> DecodeRow:
    """Return the anchor's ITL plus the time to read the KV beyond the anchor's context.

    `ITL(n, ctx) = ITL(n, anchor) + n max(ctx − anchor, 0) kv_bytes_per_token /
    kv_read_bytes_per_s`: decode attention is bound by memory bandwidth (Williams et al. 2009,
    Roofline). Contexts below the anchor keep its ITL, the safe side.
    """
    extra_tokens = concurrency * max(context_tokens - anchor.context_tokens, 0.0)
    return DecodeRow.through(
        context_tokens, concurrency, anchor.at(concurrency) + extra_tokens * s_per_token
    )
