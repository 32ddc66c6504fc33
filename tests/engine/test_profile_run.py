"""The profiling Job's command on a real vLLM: the mini sweep, and vLLM's own benchmark beside."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from planner.__main__ import main
from planner.adapters.clock import stopwatch_s
from profiles import read_profile
from tests.engine.build import Engine
from tests.engine.server import MODEL_NAME, EngineServer, running

ROOT = Path(__file__).parents[2]
JOB = ROOT / "manifests" / "profiling" / "job.yaml"
MINI_S = 360.0
# Twelve points, and no more sequences than a core can step through.
MINI = [
    *("--samples", "3", "--output-tokens", "32", "--max-points", "12", "--isl-max", "2048"),
    *("--output", "tiny.json", "--gpu", "cpu"),
]
TINY = ["--load-format", "dummy", "--dtype", "bfloat16", "--max-num-seqs", "16"]
SPEC = """
apiVersion: pd-planner.io/v1alpha1
kind: PDAutoscaler
metadata: {name: tiny, namespace: test}
spec:
  sla: {ttft: 5s, itl: 500ms}
  metrics: {source: vllm, selector: {model_name: tiny}}
  pools:
    - name: prefill
      role: Prefill
      scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: prefill}
      profile: {file: tiny.json}
      maxReplicas: 64
    - name: decode
      role: Decode
      scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: decode}
      profile: {file: tiny.json}
      maxReplicas: 64
"""
# The `vllm` command looks for a package of that name, which the rebuild for CPUs does not have.
BENCH = (
    "import argparse; from vllm.benchmarks import serve; p = argparse.ArgumentParser(); "
    "serve.add_cli_args(p); serve.main(p.parse_args())"
)


def job_command(engine: Engine, *own: str) -> list[str]:
    """Return the command of the Job's container, with our model, our flags, our engine's flags."""
    job = yaml.safe_load(JOB.read_text(encoding="utf-8"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    values = {"MODEL": str(engine.model), "ENGINE_PYTHON": str(engine.python)}
    words = [
        re.sub(r"\$\((\w+)\)", lambda m: values[m[1]], word)
        for word in (*container["command"], *container["args"])
        if not word.startswith("--apply")  # tests/e2e/test_profiling_job.py does that
    ]
    assert words[0] == "pd-planner"
    end = words.index("--")
    served = [word for word in words[end:] if not word.startswith("--max-model-len")]
    return [*words[1:end], *own, *served]


@pytest.fixture
def place(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Path:
    # The engine inherits this: quiet, offline, small, its caches beside it.
    for name, value in EngineServer(engine, tmp_path / "log")._variables().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_twelve_points_of_a_real_engine_make_a_profile_that_simulate_takes(engine, place, capsys):
    took_s = stopwatch_s()
    assert main([*job_command(engine, *MINI), *TINY]) == 0
    wall_s = took_s()
    profile = read_profile("tiny.json")
    assert (len(profile.prefill), len(profile.decode)) == (3, 9)
    made = profile.provenance
    assert (made.how, made.engine, made.model) == ("measured", "vllm", "llama-8b, bfloat16")
    assert "decode with DecodeBenchConnector" in made.command
    assert "no prefill in ITL" in made.command
    assert profile.kv_capacity_tokens == 1 << 20
    assert profile.max_sequences == 16
    # Two layers, two heads of 64, two bytes, keys and values.
    assert profile.kv_bytes_per_token == 2 * 2 * 64 * 2 * 2
    assert 10.0 < profile.startup_s < wall_s
    shapes(profile)
    told = capsys.readouterr().err
    print(f"{wall_s:.0f} s; {made.command}\n{told}")
    simulated(place)


def shapes(profile) -> None:
    """Check orders and no numbers: on a busy machine single points are half or twice as much."""
    short, *_, long = sorted(profile.prefill, key=lambda p: p.isl_tokens)
    assert long.ttft_s > short.ttft_s
    most = [p.itl_s for p in profile.decode if p.concurrency == 16]
    one = [p.itl_s for p in profile.decode if p.concurrency == 1]
    # Sixteen together take longer than one, and far less than sixteen times as long.
    assert 0.5 * sum(one) < sum(most) < 16 * sum(one)


def simulated(place: Path) -> None:
    spec, trace = place / "tiny.yaml", place / "trace.csv"
    spec.write_text(SPEC, encoding="utf-8")
    rows = [f"{0.5 * i:.1f},300,40" for i in range(2400)]
    trace.write_text("\n".join(["t_s,isl,osl", *rows]), encoding="utf-8")
    # With the profile that was just measured, from a process of its own.
    command = [sys.executable, "-m", "planner", "simulate", "-f", str(spec), "-o", "json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--trace", str(trace)], capture_output=True, text=True, check=False,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["requests"] > 1000


def test_vllm_s_own_benchmark_finds_the_same(engine, place):
    server = EngineServer(engine, place / "server.log", flags=["--no-enable-prefix-caching"])
    own = ["--endpoint", server.url, "--isl-max", "512", "--samples", "7", "--gpu", "cpu"]
    with running(server):
        assert main(["profile", "run", *own, "--role", "prefill", "-o", "ours.json"]) == 0
        theirs_s = bench(server, place, isl=512, osl=1)["median_ttft_ms"] * 1e-3
    (ours_s,) = [p.ttft_s for p in read_profile("ours.json").prefill if p.isl_tokens == 512]
    print(f"TTFT at 512 tokens: {ours_s * 1e3:.1f} ms, vllm bench serve {theirs_s * 1e3:.1f} ms")
    # On a busy machine two medians of the same thing differ by half.
    assert 0.4 < ours_s / theirs_s < 2.5


def bench(server: EngineServer, place: Path, isl: int, osl: int) -> dict[str, float]:
    """Return the result of ``vllm bench serve``, one request at a time."""
    asked = [
        *("--backend", "openai", "--base-url", server.url, "--endpoint", "/v1/completions"),
        *("--model", MODEL_NAME, "--tokenizer", str(server.engine.model), "--seed", "1"),
        *("--dataset-name", "random", "--random-input-len", str(isl), "--ignore-eos"),
        *("--random-output-len", str(osl), "--num-prompts", "12", "--max-concurrency", "1"),
        *("--save-result", "--result-dir", str(place), "--result-filename", "bench.json"),
    ]
    command = [str(server.engine.python), "-c", BENCH, *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, float] = json.loads((place / "bench.json").read_text(encoding="utf-8"))
    return found
