"""`profile offline` with the real AI Configurator, and the samples it made in use."""

import json
import subprocess
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from planner.__main__ import main
from profiles import SAMPLES, Profile, decode_surface, prefill_surface, sample
from profiles.schema import parse_profile
from tests.conftest import LeaveOut
from tests.integration.environments import AICONFIGURATOR, programs_of

ROOT = Path(__file__).parents[2]
SPEC = str(ROOT / "examples" / "qwen3-8b-h100-l40s.yaml")
ESTIMATED = [name for name in SAMPLES if sample(name).provenance.how == "estimated"]
# One process for all: the library takes longer to import than to estimate.
DRIVER = """
import contextlib, io, json, sys
from planner.__main__ import main
for arguments in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["profile", "offline", *arguments])
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""

SMALL = {
    "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 4, "num_attention_heads": 32,
    "num_key_value_heads": 8, "hidden_size": 4096, "intermediate_size": 14336,
    "vocab_size": 32000, "max_position_embeddings": 2048, "torch_dtype": "bfloat16",
    "model_type": "llama",
}  # fmt: skip

LLAMA = SMALL | {
    "num_hidden_layers": 32, "vocab_size": 128256, "max_position_embeddings": 131072,
}  # fmt: skip
MEASURED = "llama-3.1-8b-fp8-h200"

REFUSED = {
    "unknown model": (
        "--model Qwen/Qwen3-9B --gpu h100",
        "--model: got 'Qwen/Qwen3-9B'; legal: a folder with the model's config.json, or one of",
    ),
    "unknown GPU": (
        "--model Qwen/Qwen3-8B --gpu tpu-v5e",
        "--gpu: got 'tpu-v5e'; legal with vllm: a100_sxm, b200_sxm, ",
    ),
    "GPU without data": ("--model Qwen/Qwen3-8B --gpu l4", "--gpu: got 'l4'; legal with vllm: "),
    "GPU without data of the engine": (
        "--model Qwen/Qwen3-8B --gpu b60 --engine sglang",
        "--gpu: got 'b60'; legal with sglang: ",
    ),
    "too large": ("--model Qwen/Qwen3-32B --gpu l40s", "Qwen/Qwen3-32B over 1 x l40s: "),
    "heads that do not divide": (
        "--model Qwen/Qwen3-32B --gpu h100 --tensor-parallel 3",
        "num_heads 64 should be divisible by tp_size 3; choose another",
    ),
    "number format the GPU lacks": (
        "--model Qwen/Qwen3-32B-FP8 --gpu a100 --tensor-parallel 4",
        "AI Configurator has no estimate: missing system flops",
    ),
    "prompt past the model": (
        "--model Qwen/Qwen3-8B --gpu h100 --isl-max 65536",
        "--isl-max: got 65536; legal: 512 to 40960",
    ),
}
ANSWERED = {
    "a folder": "--model small --gpu h100 --ttft 20ms",
    "experts": "--model Qwen/Qwen3-30B-A3B --gpu H200-SXM --role prefill",
    "measured too": "--model Llama-3.1-8B-FP8 --gpu h200 --kv-cache-dtype bfloat16 "
    "--max-sequences 1024",
    "sliding windows": "--model google/gemma-4-26B-A4B --gpu h100 --max-sequences 16",
}

Answer = tuple[int, str, str]


@pytest.fixture(scope="module")
def answers(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config, leave_out: LeaveOut
) -> dict[str, Answer]:
    """Return exit code, stdout and stderr of every command of this module."""
    programs = programs_of(AICONFIGURATOR, pytestconfig, leave_out)
    folder = tmp_path_factory.mktemp("models")
    _write_model(folder / "small", SMALL)
    _write_model(folder / "Llama-3.1-8B-FP8", LLAMA, quant_algo="FP8")
    commands = {name: line.split() for name, (line, _) in REFUSED.items()}
    commands |= {name: line.split() for name, line in ANSWERED.items()}
    commands |= {name: _made_by(sample(name)) for name in ESTIMATED}
    python = str(programs / "python")
    done = subprocess.run(
        [python, "-c", DRIVER],
        input=json.dumps(list(commands.values())),
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    # What the library prints past Python's streams would be here.
    assert (done.returncode, done.stderr) == (0, "")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return {name: tuple(answer) for name, answer in zip(commands, told, strict=True)}


def _write_model(folder: Path, config: dict[str, Any], **quantization: str) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    if quantization:
        text = json.dumps({"quantization": quantization})
        (folder / "hf_quant_config.json").write_text(text)


def _made_by(profile: Profile) -> list[str]:
    return profile.provenance.command.removeprefix("pd-planner profile offline ").split()


@pytest.mark.parametrize("name", ESTIMATED)
def test_a_sample_is_what_the_command_in_its_provenance_prints(name, answers):
    code, out, _ = answers[name]
    assert code == 0
    made, shipped = parse_profile(out, name).model_dump(), sample(name).model_dump()
    assert made["provenance"] == shipped["provenance"]
    for role, value in (("prefill", "ttft_s"), ("decode", "itl_s")):
        found, points = made.pop(role), shipped.pop(role)
        # The last digit may differ by processor.
        assert [point.pop(value) for point in found] == pytest.approx(
            [point.pop(value) for point in points], rel=1e-3
        )
        assert found == points
    assert made == shipped


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_estimated_is_refused_in_one_line(name, answers):
    code, out, err = answers[name]
    assert (code, out) == (2, "")
    assert REFUSED[name][1] in err
    assert len(err.splitlines()) == 1


def test_a_folder_is_a_model_and_only_its_name_is_told(answers):
    code, out, err = answers["a folder"]
    assert code == 0
    made = parse_profile(out, "stdout")
    assert made.provenance.model == "small, bfloat16"
    # Keys and values of 8 heads of 128, 2 bytes each, over 4 layers.
    assert made.kv_bytes_per_token == 2 * 8 * 128 * 2 * 4
    assert made.prefill[-1].isl_tokens == 2048
    assert "TTFT 20 ms: prompts up to 2048 tokens, alone in a replica" in err


def test_only_lines_of_ours_are_told(answers):
    for name in (*ANSWERED, *ESTIMATED):
        first, *rest = answers[name][2].splitlines()
        assert first.startswith("estimated by aiconfigurator 0.12.0, its data of vllm ")
        begins = ("prefill: ", "decode: ", "TTFT ", "ITL ", "odd: ")
        assert all(line.startswith(begins) or " is null: " in line for line in rest)


def test_estimates_are_near_what_was_measured_and_faster(answers):
    code, out, _ = answers["measured too"]
    assert code == 0
    made, measured = parse_profile(out, "stdout"), sample(MEASURED)
    assert made.provenance.model == "Llama-3.1-8B-FP8, fp8_static, KV cache bfloat16"
    assert made.kv_bytes_per_token == measured.kv_bytes_per_token
    assert made.kv_capacity_tokens == pytest.approx(measured.kv_capacity_tokens, rel=0.03)
    prefill, decode = prefill_surface(made), decode_surface(made)
    ttft = [
        float(prefill.service_s(point.isl_tokens)) / point.ttft_s
        for point in measured.prefill
        if point.isl_tokens > 3000
    ]
    itl = [
        float(decode.itl_s(point.concurrency, point.context_tokens)) / point.itl_s
        for point in measured.decode
        if point.context_tokens > 2000
    ]
    for what, ratios in (("TTFT", ttft), ("ITL", itl)):
        print(
            f"{what} estimated over measured: {min(ratios):.2f} to {max(ratios):.2f}, "
            f"median {median(ratios):.2f}, {len(ratios)} points"
        )
        assert all(0.6 < ratio < 1.0 for ratio in ratios)


def test_experts_are_split_like_the_rest_and_the_gpu_may_be_spelt_freely(answers):
    code, out, _ = answers["experts"]
    assert code == 0
    made = parse_profile(out, "stdout")
    assert (made.provenance.gpu, made.decode) == ("h200_sxm", ())
    # Keys and values of 4 heads of 128, 2 bytes each, over 48 layers.
    assert made.kv_bytes_per_token == 2 * 4 * 128 * 2 * 48


def test_a_cache_that_grows_unevenly_is_null_and_said(answers):
    code, out, err = answers["sliding windows"]
    assert code == 0
    made = parse_profile(out, "stdout")
    assert (made.kv_bytes_per_token, made.kv_capacity_tokens) == (None, None)
    assert "kv_bytes_per_token is null: " in err


def test_the_mixed_example_passes_check(own_place, capsys):
    assert main(["check", "-f", SPEC, "--offline"]) == 0
    told = capsys.readouterr().out
    assert "pool prefill-h100: profile: agrees with the spec (estimated)" in told
    assert "pool decode-l40s: profile: agrees with the spec (estimated)" in told
    assert "error" not in told


def test_recommend_accepts_the_mixed_example(own_place, capsys):
    # Port 9 is discard: nobody answers there, and with no evidence what runs is kept.
    running = ["--current", "prefill-h100=1,decode-l40s=2"]
    code = main([
        "recommend", "-f", SPEC, *running, "--prometheus", "http://127.0.0.1:9", "-o", "json"
    ])  # fmt: skip
    (service,) = json.loads(capsys.readouterr().out)
    assert (code, service["hold"]) == (1, True)
    assert [pool["desiredReplicas"] for pool in service["pools"]] == [1, 2]


def test_the_mixed_example_keeps_its_sla_on_real_traffic(own_place, capsys):
    trace = ["--trace", "azure2023-conv"]
    assert main(["simulate", "-f", SPEC, *trace, "--scale", "3", "-o", "json"]) == 0
    run: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert run["attainment"]["both"] >= 0.99
    assert run["scale_actions"] > 0
