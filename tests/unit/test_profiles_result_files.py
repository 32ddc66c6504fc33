import json

import pytest

from profiles import ProfileError
from profiles.result_files import profile_from_results

BOTH = ("prefill", "decode")
ROOFLINE = {
    "kv_read_bytes_per_s": 2e12,
    "kv_bytes_per_token": 131_072,
    "kv_capacity_tokens": 400_000,
}


def vllm(isl=1000.0, osl=64.0, asked=1, *, ttft_ms=40.0, itl_ms=8.0, completed=20, **over):
    # A closed loop in its steady state: so many requests at once, one after the other.
    request_s = (ttft_ms + itl_ms * (osl - 1.0)) * 1e-3
    return {
        "completed": completed,
        "total_input_tokens": isl * completed,
        "total_output_tokens": osl * completed,
        "duration": completed * request_s / (asked or 1),
        "max_concurrency": asked,
        "median_ttft_ms": ttft_ms,
        "mean_ttft_ms": ttft_ms * 2.0,
        "mean_tpot_ms": itl_ms,
        "model_id": "llama",
    } | over


def grid(**over):
    return {
        f"{isl}-{n}.json": json.dumps(
            vllm(isl, 64.0, n, ttft_ms=isl / 25, itl_ms=5.0 + n * isl * 1e-4, **over)
        )
        for isl in (500, 2000, 8000)
        for n in (1, 4, 16)
    }


def aiperf(isl, osl, n, **over):
    made = vllm(isl, osl, n, ttft_ms=isl / 25, itl_ms=5.0 + n * isl * 1e-4)
    return {
        "input_sequence_length": {"unit": "tokens", "avg": isl},
        "output_sequence_length": {"unit": "tokens", "avg": osl},
        "time_to_first_token": {"unit": "ms", "avg": 999.0, "p50": made["median_ttft_ms"]},
        "inter_token_latency": {"unit": "ms", "avg": made["mean_tpot_ms"]},
        "request_throughput": {"unit": "requests/sec", "avg": 20.0 / made["duration"]},
        "input_config": {"loadgen": {"concurrency": n}, "endpoint": {"model_names": ["llama"]}},
    } | over


def guidellm(runs):
    def summary(value, **more):
        return {"successful": {"mean": value, "median": value, **more}}

    def benchmark(isl, osl, n):
        made = vllm(isl, osl, n, ttft_ms=isl / 25, itl_ms=5.0 + n * isl * 1e-4)
        return {
            "config": {"backend": {"kind": "openai_http", "model": "llama"}},
            "metrics": {
                "prompt_token_count": summary(isl),
                "output_token_count": summary(osl),
                "time_to_first_token_ms": summary(made["median_ttft_ms"]),
                "inter_token_latency_ms": summary(made["mean_tpot_ms"]),
                "requests_per_second": summary(20.0 / made["duration"]),
                "request_concurrency": summary(n),
            },
        }

    return {"benchmarks": [benchmark(*run) for run in runs]}


def test_a_grid_of_runs_becomes_points_of_both_roles():
    profile, notes = profile_from_results(grid(), "vllm-bench", BOTH, {})
    assert [(p.isl_tokens, p.ttft_s) for p in profile.prefill] == [
        (500, pytest.approx(0.020)),
        (2000, pytest.approx(0.080)),
        (8000, pytest.approx(0.320)),
    ]
    assert len(profile.decode) == 9
    last = max(profile.decode, key=lambda p: (p.context_tokens, p.concurrency))
    # 16 were asked for; a third of the time of each request at 8000 tokens is prefill.
    assert last.context_tokens == 8000 + 32
    assert last.itl_s == pytest.approx((5.0 + 16 * 8000 * 1e-4) * 1e-3)
    assert last.concurrency < 16
    assert any("8000-16.json: 16 requests at once" in note for note in notes)
    assert (profile.provenance.how, profile.provenance.tool) == ("imported", "vllm-bench")
    assert profile.provenance.model == "llama"


def test_aiperf_genai_perf_and_guidellm_give_the_same_points_as_vllm():
    runs = [(isl, 64.0, n) for isl in (500, 2000, 8000) for n in (1, 4, 16)]
    expected, _ = profile_from_results(grid(), "vllm-bench", BOTH, {})
    ours = {f"{run}": json.dumps(aiperf(*run)) for run in runs}
    before = {
        f"{run}": json.dumps(
            aiperf(*run, input_config={"perf_analyzer": {"stimulus": {"concurrency": run[2]}}})
        )
        for run in runs
    }
    # AIPerf from 0.13 on, as its file of a run against a stub server says it.
    now = {
        f"{run}": json.dumps(
            aiperf(
                *run,
                input_config={
                    "models": {"items": [{"name": "llama"}]},
                    "phases": [
                        {"name": "warmup", "kind": "warmup", "concurrency": 99},
                        {"name": "profiling", "kind": "profiling", "concurrency": run[2]},
                    ],
                },
            )
        )
        for run in runs
    }
    for fmt, texts in (
        ("aiperf", ours),
        ("aiperf", now),
        ("genai-perf", before),
        ("guidellm", {"report.json": json.dumps(guidellm(runs))}),
    ):
        found, _ = profile_from_results(texts, fmt, BOTH, {})
        for role in BOTH:
            assert [p.model_dump() for p in getattr(found, role)] == [
                pytest.approx(p.model_dump()) for p in getattr(expected, role)
            ], fmt
        named = None if fmt == "genai-perf" else "llama"
        assert found.provenance.model == named


def test_results_appended_to_one_file_are_several_runs():
    text = "\n".join(grid().values()) + "\n"
    profile, _ = profile_from_results({"all.json": text}, "vllm-bench", BOTH, {})
    assert (len(profile.prefill), len(profile.decode)) == (3, 9)


def test_lengths_that_differ_by_a_few_tokens_are_one_row_and_repeats_are_medians():
    texts = {
        f"{isl}-{n}-{i}": json.dumps(vllm(isl + i, 2.0, n, ttft_ms=1e-3, itl_ms=itl))
        for isl in (500, 2000, 8000)
        for n in (1, 4, 16)
        for i, itl in enumerate((9.0, 5.0, 6.0))
    }
    profile, _ = profile_from_results(texts, "vllm-bench", ("decode",), {})
    assert {p.context_tokens for p in profile.decode} == {502.0, 2002.0, 8002.0}
    assert {p.itl_s for p in profile.decode} == {0.006}
    assert {p.concurrency for p in profile.decode} == {1, 4, 16}


def test_runs_with_one_output_token_are_prefill_alone():
    texts = {f"{isl}": json.dumps(vllm(isl, 1.0, 1)) for isl in (100, 1000, 4000)}
    queued = {"queued": json.dumps(vllm(1000, 1.0, 8, ttft_ms=300.0))}
    profile, notes = profile_from_results(texts | queued, "vllm-bench", BOTH, {})
    assert [p.isl_tokens for p in profile.prefill] == [100, 1000, 4000]
    assert (profile.decode, len(notes)) == ((), 1)
    assert notes[0].startswith("queued: left out")


def test_a_load_given_as_a_rate_is_placed_by_littles_law():
    run = vllm(1000, 101.0, None, ttft_ms=1.0, itl_ms=10.0, completed=100, duration=25.0)
    texts = {"rate": json.dumps(run)} | {
        f"{n}": json.dumps(vllm(1000, 101.0, n, ttft_ms=1.0, itl_ms=9.0)) for n in (1, 16)
    }
    profile, _ = profile_from_results(texts, "vllm-bench", ("decode",), ROOFLINE)
    # 4 requests/s, each a second in decode.
    assert [p.concurrency for p in profile.decode] == [1, 4, 16]


def test_what_files_cannot_know_is_given():
    facts = {**ROOFLINE, "provenance": {"gpu": "h100", "model": "Llama-3.1-8B"}}
    texts = {f"{n}": json.dumps(vllm(1000, 64.0, n, ttft_ms=1.0)) for n in (1, 4, 16)}
    profile, _ = profile_from_results(texts, "vllm-bench", ("decode",), facts)
    assert (profile.provenance.gpu, profile.provenance.model) == ("h100", "Llama-3.1-8B")
    assert profile.kv_capacity_tokens == 400_000


@pytest.mark.parametrize(
    ("text", "fmt", "says"),
    [
        ("{", "vllm-bench", "r.json: got Expecting"),
        ("", "vllm-bench", "r.json: got Expecting"),
        ("[1]", "vllm-bench", "r.json: got list; legal: a JSON object"),
        ("{}", "vllm-bench", "r.json: completed: got nothing; legal: a number"),
        (json.dumps(vllm(completed=0, duration=1.0)), "vllm-bench", "completed: got 0"),
        (json.dumps(vllm(median_ttft_ms=float("nan"))), "vllm-bench", "median_ttft_ms: got nan"),
        (json.dumps(vllm(mean_tpot_ms=-1)), "vllm-bench", "mean_tpot_ms: got -1"),
        (json.dumps(vllm(mean_tpot_ms="8")), "vllm-bench", "mean_tpot_ms: got '8'"),
        (json.dumps(vllm(max_concurrency=True)), "vllm-bench", "max_concurrency: got True"),
        ("{}", "guidellm", "r.json: benchmarks: got no list"),
        ('{"benchmarks": []}', "guidellm", "r.json: got no run"),
        ('{"benchmarks": [1]}', "guidellm", "r.json: benchmarks[0]: metrics: got nothing"),
        ("{}", "aiperf", "output_sequence_length.avg: got nothing"),
        (
            json.dumps(aiperf(1, 2, 1, time_to_first_token={"unit": "days", "p50": 1})),
            "aiperf",
            "time_to_first_token.unit: got 'days'; legal: ns, us, ms",
        ),
        (json.dumps(vllm()), "vllm-bench", "at least 3 lengths"),
    ],
    ids=lambda value: None if value and value[0] in "{[" else value,
)
def test_what_is_no_result_is_refused_in_clear_lines(text, fmt, says):
    with pytest.raises(ProfileError) as refused:
        profile_from_results({"r.json": text}, fmt, BOTH, {})
    assert any(line.startswith("r.json") and says in line for line in refused.value.faults)


def test_runs_of_two_models_are_no_profile():
    texts = grid() | {"other": json.dumps(vllm(model_id="qwen"))}
    with pytest.raises(ProfileError, match=r"model: got llama, qwen; legal: one model"):
        profile_from_results(texts, "vllm-bench", BOTH, {})
