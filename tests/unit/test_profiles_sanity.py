import pytest

from profiles import Profile, sample
from profiles.sanity import GPUS, known_gpu, oddities, parameters, roofline_faults

PREFILL = [(100, 0.02), (1000, 0.05), (4000, 0.2)]
DECODE = [(n, c, 0.005 + n * c * 1e-8) for c in (500, 2000, 8000) for n in (1, 8, 32)]


def profile(prefill=PREFILL, decode=DECODE, *, max_sequences=None, kv_bytes=None, **made):
    return Profile.model_validate({
        "schemaVersion": "1",
        "provenance": {"how": "measured", **made},
        "prefill": [{"isl_tokens": isl, "ttft_s": ttft} for isl, ttft in prefill],
        "decode": [{"concurrency": n, "context_tokens": c, "itl_s": itl} for n, c, itl in decode],
        "max_sequences": max_sequences,
        "kv_bytes_per_token": kv_bytes,
    })


def changed(n, context, itl_s):
    return [(a, c, itl_s if (a, c) == (n, context) else itl) for a, c, itl in DECODE]


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (profile(), []),
        (profile(prefill=[*PREFILL, (8000, 0.15)]), [("ttft-falls", "prefill[3]")]),
        (profile(prefill=[(100, 0.0205), *PREFILL[1:], (8000, 0.196)]), []),
        (
            profile(prefill=[(8000, 0.15), *PREFILL, (6000, 0.1)]),
            [("ttft-falls", "prefill[4]"), ("ttft-falls", "prefill[0]")],
        ),
        (profile(decode=changed(8, 2000, 0.004)), [("itl-falls", "decode[4]"),
                                                   ("itl-falls-with-context", "decode[4]")]),
        (profile(decode=changed(1, 8000, 0.004)), [("itl-falls-with-context", "decode[6]")]),
        (profile(decode=changed(32, 8000, 0.0051)), [("itl-falls", "decode[8]"),
                                                     ("itl-falls-with-context", "decode[8]")]),
        (profile(decode=changed(32, 8000, 0.0051), max_sequences=16), []),
    ],
    ids=["sane", "ttft", "noise", "two", "itl", "context", "both", "beyond-the-scheduler"],
)  # fmt: skip
def test_odd_points_are_flagged_by_name(made, expected):
    assert [(odd.name, odd.where) for odd in oddities(made)] == expected


def test_a_line_tells_both_points_and_the_mend():
    (odd,) = oddities(profile(prefill=[*PREFILL, (8000, 0.15)]))
    assert odd.line == (
        "prefill[3]: TTFT falls from 200 ms at 4000 tokens to 150 ms at 8000; measure both again "
        "with prefix caching off and a warm engine (ttft-falls)"
    )


def test_the_published_points_of_the_h200_are_true_and_one_row_is_odd_beyond_its_scheduler():
    made = sample("llama-3.1-8b-fp8-h200")
    assert oddities(made) == ()
    assert roofline_faults(made) == ()
    everything = made.model_copy(update={"max_sequences": None})
    assert {odd.name for odd in oddities(everything)} == {"itl-falls"}


@pytest.mark.parametrize(
    ("gpu", "gpus", "model", "where"),
    [
        ("h100", 1, "Llama-3.1-8B", []),
        (None, 1, "Llama-3.1-8B", []),
        ("abacus", 1, "Llama-3.1-8B", []),
        ("h100", 1, "a model", []),
        # 2 · 70e9 · 1000 / (2 · 989.4e12) = 71 ms, and 50 ms were measured.
        ("NVIDIA-H100-80GB-HBM3", 1, "Llama-3-70B", ["prefill"]),
        ("h100", 2, "Llama-3-70B", []),
        ("h100", 2, "Llama-3-70B BF16", ["prefill", "decode"]),
        # 140e9 B / (8 · 3.35e12 B/s) = 5.2 ms a token: 5 ms is within the slack.
        ("h100", 8, "Llama-3-70B BF16", []),
        ("l4", 1, "Llama-3.1-8B FP8", ["prefill", "decode"]),
    ],
)
def test_what_the_named_gpu_cannot_do_is_refused(gpu, gpus, model, where):
    faults = roofline_faults(profile(gpu=gpu, gpusPerReplica=gpus, model=model))
    assert [fault.where.split("[")[0] for fault in faults] == where


def test_reading_the_cache_bounds_decode_too():
    # 32 · 8000 tokens · 128 KiB / 3.35e12 B/s = 10 ms, and 7.6 ms were measured.
    (fault,) = roofline_faults(profile(gpu="h100", kv_bytes=131_072))
    assert fault.where == "decode[8].itl_s"
    assert "0.01002 s or more" in fault.legal
    assert not roofline_faults(profile(gpu="h100", kv_bytes=131_072, max_sequences=8))


def test_speculative_decoding_gives_several_tokens_a_step():
    assert roofline_faults(profile(gpu="l4", model="8B FP8", prefill=[]))
    assert not roofline_faults(
        profile(gpu="l4", model="8B FP8", prefill=[], command="vllm --speculative-config …")
    )


def test_a_mixture_of_experts_is_not_bounded_by_the_size_of_all_its_experts():
    dense, mixed = (
        roofline_faults(profile(gpu="h100", model=model))
        for model in ("gpt-oss-120b FP8", "gpt-oss-120b FP8, experts FP8")
    )
    assert [fault.where.split("[")[0] for fault in dense] == ["prefill", "decode"]
    assert mixed == ()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NVIDIA H100-SXM5-80GB", "h100"),
        ("h200_sxm", "h200"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("H100 NVL", "h100nvl"),
        ("MI300X", "mi300x"),
        ("", None),
        ("tpu-v5e", None),
    ],
)
def test_gpus_are_known_by_any_usual_spelling(name, key):
    assert known_gpu(name) is (GPUS[key] if key else None)


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", 8e9),
        ("Qwen3-30B-A3B", 3e9),
        ("qwen2.5-0.5b", 0.5e9),
        ("Mixtral-8x7B", None),
        ("Qwen3-30B-A3B, experts fp8", 3e9),
        ("openai/gpt-oss-120b (experts mxfp4)", None),
        ("gpt-x", None),
        (None, None),
    ],
)
def test_the_size_of_a_model_is_read_from_its_name(model, size):
    assert parameters(model) == size
