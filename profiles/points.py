"""Measured points, and which sets of them make a surface. Pure.

Every axis needs three points or more. A set shaped like an L (one axis varied at one value of the
other only) is legal: the missing direction is then a stated roofline term.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from profiles.errors import Fault

AXIS_POINTS_MIN: Final = 3
"""Fewer points say nothing about curvature."""

CONCURRENCY_MAX: Final = 65_536
"""Sequences in one batch; sixty times an engine's largest default, and a bound on memory."""


def _whole_as_int(value: float) -> int | float:
    return int(value) if value.is_integer() else value


PositiveFloat = Annotated[
    float,
    Field(gt=0, allow_inf_nan=False, strict=True),
    PlainSerializer(_whole_as_int, when_used="json"),
]
PositiveInt = Annotated[int, Field(gt=0)]

VALUE_CONFIG: Final = ConfigDict(
    frozen=True,
    extra="forbid",
    use_attribute_docstrings=True,
    validate_by_name=True,
    validate_by_alias=True,
)


class PrefillPoint(BaseModel):
    """One measured prefill pass."""

    model_config = VALUE_CONFIG

    isl_tokens: PositiveInt
    """Prompt length of each prompt in the pass [tokens]."""

    ttft_s: PositiveFloat
    """Time from the start of the pass to the first token [s], without queueing."""

    batch: PositiveInt = 1
    """Prompts in the pass."""


class DecodePoint(BaseModel):
    """One measured decode operating point."""

    model_config = VALUE_CONFIG

    concurrency: Annotated[PositiveFloat, Field(le=CONCURRENCY_MAX)]
    """Sequences decoded together; a mean over the measurement, so it may be fractional."""

    context_tokens: PositiveFloat
    """Mean context of a sequence, prompt plus half of the output [tokens]."""

    itl_s: PositiveFloat
    """Mean inter-token latency [s]."""


def rows_by_context(points: Iterable[DecodePoint]) -> dict[float, list[DecodePoint]]:
    """Return the points of each context [tokens], contexts and concurrencies ascending."""
    rows: dict[float, list[DecodePoint]] = defaultdict(list)
    for point in sorted(points, key=lambda p: (p.context_tokens, p.concurrency)):
        rows[point.context_tokens].append(point)
    return dict(rows)


def anchor_context(
    points: Iterable[DecodePoint], kv_capacity_tokens: int | None = None
) -> float | None:
    """Return the one context [tokens] an L-shaped set varies concurrency at, else None."""
    rows = rows_by_context(points)
    if len(rows) >= AXIS_POINTS_MIN and all(
        _is_full(context, row, kv_capacity_tokens) for context, row in rows.items()
    ):
        return None
    varied = [context for context, row in rows.items() if len(row) >= AXIS_POINTS_MIN]
    return varied[0] if len(varied) == 1 else None


def _is_full(context: float, row: Sequence[DecodePoint], kv_capacity_tokens: int | None) -> bool:
    # A cache that holds two sequences of this context cannot be measured at three.
    room = int(kv_capacity_tokens / context) if kv_capacity_tokens else AXIS_POINTS_MIN
    return len(row) >= min(AXIS_POINTS_MIN, max(1, room))


def prefill_faults(points: Sequence[PrefillPoint]) -> list[Fault]:
    """Return what keeps these points from making a prefill surface; no points are no fault."""
    if not points:
        return []
    faults = _duplicates("prefill", [(p.isl_tokens, p.batch) for p in points], "isl_tokens, batch")
    lengths = {p.isl_tokens for p in points if p.batch == 1}
    if len(lengths) < AXIS_POINTS_MIN:
        faults.append(_short("prefill", f"{len(lengths)} prompt length(s) at batch 1", "lengths"))
    batches: dict[int, set[int]] = defaultdict(set)
    for point in points:
        batches[point.isl_tokens].add(point.batch)
    most = max(map(len, batches.values()))
    if any(p.batch > 1 for p in points) and most < AXIS_POINTS_MIN:
        faults.append(_short("prefill", f"{most} batch size(s) at one prompt length", "batches"))
    return faults


def decode_faults(
    points: Sequence[DecodePoint],
    *,
    kv_capacity_tokens: int | None,
    kv_bytes_per_token: float | None,
    kv_read_bytes_per_s: float | None,
) -> list[Fault]:
    """Return what keeps these points from making a decode surface; no points are no fault."""
    if not points:
        return []
    pairs = [(p.concurrency, p.context_tokens) for p in points]
    faults = _duplicates("decode", pairs, "concurrency, context_tokens")
    anchor = anchor_context(points, kv_capacity_tokens)
    if anchor is None:
        return faults + _grid_faults(points, kv_capacity_tokens)
    if kv_read_bytes_per_s is None or kv_bytes_per_token is None or kv_capacity_tokens is None:
        faults.append(_no_roofline(anchor))
    elif kv_capacity_tokens <= anchor:
        legal = f"more than the {anchor:g} tokens of context measured"
        faults.append(Fault("kv_capacity_tokens", str(kv_capacity_tokens), legal, "correct it"))
    return faults


def _grid_faults(points: Sequence[DecodePoint], kv_capacity_tokens: int | None) -> list[Fault]:
    rows = rows_by_context(points)
    faults = [
        _short("decode", f"{len(row)} concurrency(ies) at {context:g} tokens", "concurrencies")
        for context, row in rows.items()
        if not _is_full(context, row, kv_capacity_tokens)
    ]
    if len(rows) < AXIS_POINTS_MIN:
        faults.append(_short("decode", f"{len(rows)} context length(s)", "contexts"))
    return faults


def _short(where: str, got: str, axis: str) -> Fault:
    return Fault(where, got, f"at least {AXIS_POINTS_MIN} {axis}", f"measure more {axis}")


def _no_roofline(anchor: float) -> Fault:
    return Fault(
        "decode",
        f"concurrency varied at one context only ({anchor:g} tokens)",
        f"at least {AXIS_POINTS_MIN} contexts, or a stated roofline",
        "measure more contexts, or give kv_read_bytes_per_s, kv_bytes_per_token and "
        "kv_capacity_tokens",
    )


def _duplicates(where: str, keys: Sequence[tuple[float, float]], names: str) -> list[Fault]:
    return [
        Fault(
            where,
            f"{count} points at ({names}) = ({key[0]:g}, {key[1]:g})",
            "one point each",
            "keep one, such as the median",
        )
        for key, count in Counter(keys).items()
        if count > 1
    ]
