"""Whether points can be true: what is odd is flagged, what physics forbids is refused. Pure.

Latencies that are not finite or not above 0 never get here: the schema refuses them.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from profiles.errors import Fault
from profiles.points import DecodePoint, rows_by_context
from profiles.schema import Profile

NOISE: Final = 0.05
"""A fall by less than this part may be noise: medians of a few warm samples repeat within it."""

ROOF_SLACK: Final = 0.95
"""A point this close below the bound passes: boost clocks and data sheets are a few % apart."""


class Gpu(NamedTuple):
    """Peak figures of one GPU by its data sheet, without sparsity."""

    bytes_per_s: float
    """Memory bandwidth [B/s]."""

    flops: float
    """16-bit tensor throughput [FLOP/s]."""

    low_precision: float
    """The fastest format there is, relative to 16 bits."""


GPUS: Final = {
    "a10": Gpu(600e9, 125e12, 4.0),
    "a100": Gpu(2039e9, 312e12, 4.0),
    "a800": Gpu(2039e9, 312e12, 4.0),
    "b200": Gpu(8000e9, 2250e12, 4.0),
    "gb200": Gpu(8000e9, 2500e12, 4.0),
    "h100": Gpu(3350e9, 989.4e12, 2.0),
    "h100nvl": Gpu(3938e9, 835e12, 2.0),
    "h20": Gpu(4000e9, 148e12, 2.0),
    "h200": Gpu(4800e9, 989.4e12, 2.0),
    "h800": Gpu(3350e9, 989.4e12, 2.0),
    "l4": Gpu(300e9, 121e12, 2.0),
    "l40s": Gpu(864e9, 362e12, 2.0),
    "mi300x": Gpu(5300e9, 1307.4e12, 2.0),
    "rtx4090": Gpu(1008e9, 330.3e12, 4.0),
}
"""By name as in `provenance.gpu`, in small letters and digits. Of several variants (memory, form)
that share a name, the fastest counts. Sources: NVIDIA's data sheets of A10, A100 80GB SXM, H100,
H200, L4, L40S and HGX B200, its Ada white paper (16-bit accumulation), AMD's of MI300X."""


@dataclass(frozen=True, slots=True)
class Oddity:
    """A point that may be true and hardly is; `name` is stable."""

    name: str
    where: str
    what: str
    mend: str

    @property
    def line(self) -> str:
        """One line for a person."""
        return f"{self.where}: {self.what}; {self.mend} ({self.name})"


def oddities(profile: Profile) -> tuple[Oddity, ...]:
    """Return the points that physics does not explain, beyond noise.

    Notes
    -----
    More prompt tokens are more work, more sequences in a batch and longer contexts more bytes to
    read: neither can take less time, but for noise, warm-up, prefix caching, or a batch that the
    engine did not run (more were asked for than its scheduler admits). Points above
    `max_sequences` are not used and not looked at.
    """
    return (*_ttft_falls(profile), *_itl_falls(profile), *_itl_falls_with_context(profile))


def _ttft_falls(profile: Profile) -> Iterator[Oddity]:
    points = sorted(
        ((p.isl_tokens, p.ttft_s, i) for i, p in enumerate(profile.prefill) if p.batch == 1)
    )
    for (isl, ttft_s, index), (above, longer_s) in _falls(points):
        yield Oddity(
            "ttft-falls",
            f"prefill[{index}]",
            f"TTFT falls from {_ms(longer_s)} at {above:g} tokens to {_ms(ttft_s)} at {isl:g}",
            "measure both again with prefix caching off and a warm engine",
        )


def _itl_falls(profile: Profile) -> Iterator[Oddity]:
    places, rows = _places(profile), _rows(profile)
    for context, row in rows.items():
        points = [(p.concurrency, p.itl_s, places[p.concurrency, context]) for p in row]
        for (n, itl_s, index), (fewer, more_s) in _falls(points):
            yield Oddity(
                "itl-falls",
                f"decode[{index}]",
                f"ITL falls from {_ms(more_s)} at {fewer:g} sequences to {_ms(itl_s)} at {n:g} "
                f"(context {context:g})",
                "measure both again, and see that so many really ran together (max_num_seqs)",
            )


def _itl_falls_with_context(profile: Profile) -> Iterator[Oddity]:
    places = _places(profile)
    by_batch: dict[float, list[tuple[float, float, int]]] = {}
    for context, row in _rows(profile).items():
        for point in row:
            key = places[point.concurrency, context]
            by_batch.setdefault(point.concurrency, []).append((context, point.itl_s, key))
    for n, points in by_batch.items():
        for (context, itl_s, index), (shorter, more_s) in _falls(points):
            yield Oddity(
                "itl-falls-with-context",
                f"decode[{index}]",
                f"ITL falls from {_ms(more_s)} at a context of {shorter:g} tokens to "
                f"{_ms(itl_s)} at {context:g} ({n:g} sequences)",
                "measure both again",
            )


def _rows(profile: Profile) -> dict[float, list[DecodePoint]]:
    most = profile.max_sequences or math.inf
    return rows_by_context(point for point in profile.decode if point.concurrency <= most)


def _places(profile: Profile) -> dict[tuple[float, float], int]:
    return {(p.concurrency, p.context_tokens): i for i, p in enumerate(profile.decode)}


def _falls(
    points: Sequence[tuple[float, float, int]],
) -> Iterator[tuple[tuple[float, float, int], tuple[float, float]]]:
    """Yield each point clearly below an earlier one, with the highest of those: x and value.

    Yields
    ------
    tuple
        The point, and x and value of the highest before it.
    """
    highest = (0.0, 0.0)
    for point in points:
        if point[1] < highest[1] * (1.0 - NOISE):
            yield point, highest
        highest = max(highest, point[:2], key=lambda pair: pair[1])


class _Fast(NamedTuple):
    """A point faster than physics allows [s]."""

    where: str
    got_s: float
    bound_s: float


def roofline_faults(profile: Profile) -> tuple[Fault, ...]:
    """Return what is faster than the named GPU can be: the worst point of each role.

    Notes
    -----
    Roofline (Williams et al. 2009), each time a lower bound with all else free:

    - prefill: ``2 · parameters · tokens / FLOP/s``, one multiply-add a parameter and token, in the
      format that the model's name tells, else the fastest of the GPU.
    - decode: ``(weights + n · context · kv_bytes_per_token) / bandwidth`` a step.

    Both shrink with the GPUs of a replica. Terms that are not known count as 0, and nothing is
    refused where the GPU is unknown. Speculative decoding gives several tokens a step: with that
    word in the provenance, decode is not bounded.
    """
    made = profile.provenance
    gpu = known_gpu(made.gpu)
    if gpu is None:
        return ()
    told = f"{made.tool} {made.engine} {made.parallelism} {made.command} {made.model}".lower()
    prefill = _too_fast(_prefill_bounds(profile, gpu))
    decode = [] if "speculat" in told else _too_fast(_decode_bounds(profile, gpu))
    return tuple(_fault(points, profile) for points in (prefill, decode) if points)


def _prefill_bounds(profile: Profile, gpu: Gpu) -> Iterator[_Fast]:
    made = profile.provenance
    size, width = parameters(made.model) or 0.0, _bytes_per_weight(made.model)
    speed = gpu.low_precision if width is None else min(2.0 / width, gpu.low_precision)
    flops = gpu.flops * speed * (made.gpus_per_replica or 1)
    for index, point in enumerate(profile.prefill):
        bound_s = 2.0 * size * point.isl_tokens * point.batch / flops
        yield _Fast(f"prefill[{index}].ttft_s", point.ttft_s, bound_s)


def _decode_bounds(profile: Profile, gpu: Gpu) -> Iterator[_Fast]:
    made = profile.provenance
    weights = (parameters(made.model) or 0.0) * (_bytes_per_weight(made.model) or 0.0)
    bandwidth = gpu.bytes_per_s * (made.gpus_per_replica or 1)
    for index, point in enumerate(profile.decode):
        # More than fit, or than the scheduler admits, did not run together, whatever was asked for.
        n = min(point.concurrency, profile.max_sequences or point.concurrency)
        tokens = min(n * point.context_tokens, profile.kv_capacity_tokens or math.inf)
        bound_s = (weights + tokens * (profile.kv_bytes_per_token or 0.0)) / bandwidth
        yield _Fast(f"decode[{index}].itl_s", point.itl_s, bound_s)


def _too_fast(points: Iterator[_Fast]) -> list[_Fast]:
    found = [point for point in points if point.got_s < point.bound_s * ROOF_SLACK]
    return sorted(found, key=lambda point: point.got_s / point.bound_s)


def _fault(points: Sequence[_Fast], profile: Profile) -> Fault:
    made, worst = profile.provenance, points[0]
    others = f" (and {len(points) - 1} more points alike)" if len(points) > 1 else ""
    return Fault(
        worst.where,
        f"{worst.got_s:.4g} s{others}",
        f"{worst.bound_s:.4g} s or more: {made.model or 'the model'} on "
        f"{made.gpus_per_replica or 1} x {made.gpu} can't be faster",
        "correct provenance.gpu, gpusPerReplica or model, or leave such points out",
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.4g} ms"


def known_gpu(name: str | None) -> Gpu | None:
    """Return the figures of a GPU by any usual spelling, such as ``NVIDIA H100-SXM5-80GB``.

    Examples
    --------
    >>> known_gpu("NVIDIA H100-SXM5-80GB") is GPUS["h100"], known_gpu("tpu-v5e")
    (True, None)
    """
    words = re.findall(r"[a-z0-9]+", (name or "").lower())
    spellings = {"".join(words[i : i + k]) for i in range(len(words)) for k in (1, 2)}
    known = [key for key in GPUS if key in spellings]
    return GPUS[max(known, key=len)] if known else None


def parameters(model: str | None) -> float | None:
    """Return the parameters that one token computes with, as the model's name tells them.

    Examples
    --------
    >>> parameters("Llama-3.1-8B-Instruct"), parameters("Qwen3-30B-A3B"), parameters("gpt-x")
    (8000000000.0, 3000000000.0, None)
    >>> parameters("Mixtral-8x7B"), parameters("gpt-oss-120b, experts mxfp4")
    (None, None)
    """
    found = re.findall(r"(?<![a-z0-9.])(a?)(\d+(?:\.\d+)?)b(?![a-z0-9])", (model or "").lower())
    if not found:
        return None
    active = [float(size) for mark, size in found if mark]
    # A token meets a few of the experts: all of them together bound nothing.
    if not active and "experts" in (model or "").lower():
        return None
    return (active[0] if active else float(found[0][1])) * 1e9


_WIDTHS: Final = (
    (r"fp4|int4|w4|awq|gptq|4[- ]?bit", 0.5),
    (r"fp8|int8|w8|8[- ]?bit", 1.0),
    (r"bf16|fp16|float16|16[- ]?bit", 2.0),
)


def _bytes_per_weight(model: str | None) -> float | None:
    """Return the bytes of one weight, as the model's name tells them."""
    for pattern, width in _WIDTHS:
        if re.search(pattern, (model or "").lower()):
            return width
    return None
