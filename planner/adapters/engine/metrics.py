"""vLLM's own `/metrics`: what it counted, and the size of its KV cache. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from planner.profiling.timings import Counters

_TTFT: Final = ("vllm:time_to_first_token_seconds",)
# The second is the name before vLLM 0.11.
_ITL: Final = ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds")
_QUEUE: Final = ("vllm:request_queue_time_seconds",)
_BY_SOURCE: Final = "vllm:prompt_tokens_by_source_total"
_CACHE: Final = "vllm:cache_config_info"
_OURS: Final = "local_compute"


def counters(text: str) -> Counters | None:
    """Return what is counted in a scrape, over all engines of it; None if that is not vLLM's."""
    samples = _samples(text)
    if not any(sample.name.startswith(_TTFT[0]) for sample in samples):
        return None
    sources = [s for s in samples if s.name == _BY_SOURCE]
    return Counters(
        ttft_sum_s=_total(samples, _TTFT, "_sum"),
        ttft_count=_total(samples, _TTFT, "_count"),
        itl_sum_s=_total(samples, _ITL, "_sum"),
        itl_count=_total(samples, _ITL, "_count"),
        queued_s=_total(samples, _QUEUE, "_sum"),
        prompt_tokens=sum(s.value for s in sources),
        computed_tokens=sum(s.value for s in sources if s.labels.get("source") == _OURS),
    )


def facts_of_cache(text: str) -> dict[str, Any]:
    """Return the facts on the KV cache in a scrape, by the names of `EngineFacts`.

    Notes
    -----
    Capacity is ``kv_cache_size_tokens``, before vLLM named that ``block_size · num_gpu_blocks``.
    With several engines in one process (data parallelism) the first one counts.
    """
    labels = next((s.labels for s in _samples(text) if s.name == _CACHE), {})
    block, blocks = _whole(labels, "block_size"), _whole(labels, "num_gpu_blocks")
    capacity = _whole(labels, "kv_cache_size_tokens")
    if capacity is None and block is not None and blocks is not None:
        capacity = block * blocks
    memory = _whole(labels, "kv_cache_memory_bytes")
    each = memory / capacity if memory is not None and capacity is not None else None
    return {
        "kv_capacity_tokens": capacity,
        "block_tokens": block,
        "kv_bytes_per_token": each,
    }


def _samples(text: str) -> list[Sample]:
    try:
        families = list(text_string_to_metric_families(text))
    except ValueError:  # a page of something else
        return []
    return [sample for family in families for sample in family.samples]


def _total(samples: Iterable[Sample], names: Iterable[str], part: str) -> float:
    """Return the sum over all label sets, of the first name that is there."""
    for name in names:
        if found := [s.value for s in samples if s.name == name + part]:
            return float(sum(found))
    return 0.0


def _whole(labels: Mapping[str, str], name: str) -> int | None:
    value = labels.get(name, "")
    return int(value) if value.isdigit() and int(value) > 0 else None
