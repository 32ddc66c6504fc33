"""Write the scenario's two profiles, estimated from one that was measured on an H200.

    python manifests/overlays/scenario/planner/inference/profiles/estimate.py

Prefill is bound by arithmetic, and an H100 has the H200's: its points are taken as they are.
Decode is bound by memory bandwidth: a step of an RTX 4090 takes longer by the ratio of the
bandwidths, with as many sequences as its memory holds. Good for trying the planner, not for sizing
a real service.
"""

from pathlib import Path
from typing import Any

import numpy as np

from profiles import decode_surface, sample
from profiles.schema import Profile, build_profile, write_profile

MEASURED = "llama-3.1-8b-fp8-h200"
FOLDER = Path(__file__).parent

# Data sheets: H200 4.8 TB/s, RTX 4090 1,008 GB/s and 24 GB.
BANDWIDTH_RATIO = 4.8e12 / 1.008e12
MEMORY_BYTES = 24e9
# Linear layers in 8 bits, embedding and output layer (128,256 × 4,096 each) in 16.
WEIGHT_BYTES = 9.1e9
# vLLM takes 90 % of the memory; activations and graphs are assumed to need 1 GB of it.
USED_RATIO, ACTIVATION_BYTES = 0.9, 1e9
# vLLM's default on a GPU with less than 70 GiB.
MAX_SEQUENCES = 256
KV_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def on_h100() -> Profile:
    """Return the prefill profile of an H100."""
    measured = sample(MEASURED)
    return _estimate(
        measured,
        "h100",
        "measured points of an H200, unchanged: both GPUs compute 1,979 TFLOPS dense in FP8",
        prefill=[point.model_dump() for point in measured.prefill],
    )


def on_rtx4090() -> Profile:
    """Return the decode profile of an RTX 4090."""
    measured = sample(MEASURED)
    assert measured.kv_bytes_per_token is not None
    kv_bytes = MEMORY_BYTES * USED_RATIO - WEIGHT_BYTES - ACTIVATION_BYTES
    capacity_tokens = int(kv_bytes / measured.kv_bytes_per_token)
    surface = decode_surface(measured)
    points = []
    for context_tokens in surface.contexts_tokens.tolist():
        most = min(capacity_tokens // context_tokens, MAX_SEQUENCES)
        batches = sorted({max(round(share * most), 1) for share in KV_SHARES})
        itl_s = BANDWIDTH_RATIO * surface.itl_s(np.array(batches), context_tokens)
        points += [
            {"concurrency": n, "context_tokens": int(context_tokens), "itl_s": round(float(s), 6)}
            for n, s in zip(batches, itl_s, strict=True)
        ]
    return _estimate(
        measured,
        "rtx4090",
        f"inter-token latencies of an H200 times {BANDWIDTH_RATIO:.3f}, the ratio of the memory "
        f"bandwidths; KV capacity from 24 GB less weights ({WEIGHT_BYTES / 1e9:g} GB) and "
        "activations (1 GB)",
        decode=points,
        kv_capacity_tokens=capacity_tokens,
        max_sequences=MAX_SEQUENCES,
    )


def _estimate(measured: Profile, gpu: str, how: str, **points: Any) -> Profile:
    provenance = {
        "how": "estimated",
        "tool": "manifests/overlays/scenario/planner/inference/profiles/estimate.py",
        "engine": measured.provenance.engine,
        "model": measured.provenance.model,
        "gpu": gpu,
        "gpusPerReplica": 1,
        "parallelism": "TP1",
        "command": f"from the sample {MEASURED}: {how}",
    }
    document = {
        "schemaVersion": "1",
        "provenance": provenance,
        "kv_bytes_per_token": measured.kv_bytes_per_token,
        **points,
    }
    return build_profile(document, f"{MEASURED} on {gpu}")


PROFILES = {"llama-8b-h100.json": on_h100, "llama-8b-rtx4090.json": on_rtx4090}

if __name__ == "__main__":
    for name, estimate in PROFILES.items():
        write_profile(estimate(), FOLDER / name)
