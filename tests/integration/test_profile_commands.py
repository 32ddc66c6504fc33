"""`pd-planner profile …` as it is typed: files in and out, one clear line for each fault."""

import json
import subprocess
from pathlib import Path

import pytest

from planner.__main__ import main
from profiles import profile_text, read_profile, sample

ROOT = Path(__file__).parents[2]
H200 = "llama-3.1-8b-fp8-h200"
SPEC = ROOT / "examples" / "llama-8b-h200.yaml"


@pytest.fixture(autouse=True)
def place(own_place: Path) -> Path:
    return own_place


def profile(*arguments: str | Path) -> int:
    return main(["profile", *map(str, arguments)])


def results(folder: Path) -> Path:
    folder.mkdir()
    for isl in (500, 2000, 8000):
        for n in (1, 4, 16):
            itl_ms = 5.0 + n * isl * 1e-4
            request_s = (isl / 25 + 63 * itl_ms) * 1e-3
            run = {
                "completed": 4 * n, "total_input_tokens": 4 * n * isl,
                "total_output_tokens": 4 * n * 64, "duration": 4 * request_s,
                "max_concurrency": n, "median_ttft_ms": isl / 25, "mean_tpot_ms": itl_ms,
                "model_id": "llama-8b",
            }  # fmt: skip
            (folder / f"{isl}-{n}.json").write_text(json.dumps(run))
    return folder


@pytest.mark.parametrize("fmt", ["dynamo", "dynamo-json", "configmap", "dynamo-configmap", "json"])
def test_what_is_exported_is_imported_again(fmt, place, capsys):
    assert profile("export", "--format", fmt, H200, "-o", "out") == 0
    lost = capsys.readouterr().err
    back = {"dynamo-json": "dynamo", "dynamo-configmap": "configmap"}.get(fmt, fmt)
    assert profile("import", "--format", back, "out", "-o", "back.json") == 0
    ours, found = sample(H200), read_profile("back.json")
    for role, value in (("prefill", "ttft_s"), ("decode", "itl_s")):
        assert [getattr(p, value) for p in getattr(found, role)] == pytest.approx([
            getattr(p, value) for p in getattr(ours, role)
        ])
    assert found.kv_capacity_tokens == ours.kv_capacity_tokens
    if fmt.startswith("dynamo"):
        assert "left out: max_sequences, kv_bytes_per_token, provenance" in lost
    else:
        assert (found, lost) == (ours, "")


def test_a_folder_of_bench_results_becomes_a_profile(place, capsys):
    arguments = ["--gpu", "h100", "--gpus-per-replica", "1", "--startup", "90s"]
    given = results(place / "results")
    assert profile("import", "--format", "vllm-bench", given, *arguments, "-o", "p.json") == 0
    found = read_profile("p.json")
    assert (len(found.prefill), len(found.decode), found.startup_s) == (3, 9, 90.0)
    assert found.provenance.gpu == "h100"
    told = capsys.readouterr()
    assert "8000-16.json: 16 requests at once were asked for" in told.err
    assert not told.out


def test_without_a_file_the_profile_is_all_there_is_on_stdout(capsys):
    assert profile("import", "--format", "json", write(H200)) == 0
    assert capsys.readouterr().out == profile_text(sample(H200))


def write(name: str, **over: object) -> Path:
    document = sample(name).model_dump(by_alias=True, mode="json") | over
    path = Path(f"{name}.json")
    path.write_text(json.dumps(document))
    return path


def test_odd_points_are_told_and_do_not_stop_an_import(capsys):
    path = write(H200, max_sequences=None)
    assert profile("import", "--format", "json", path, "-o", "out.json") == 0
    assert "odd: decode[5]: ITL falls from 46.65 ms at 1049 sequences" in capsys.readouterr().err


def test_show_tells_and_draws(chromium_binary, place, capsys):
    flags = ["--ttft", "300ms", "--itl", "30ms", "--trace", "azure2023-conv", "-o", "show.html"]
    assert profile("show", H200, *flags) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "prefill: 17 points, prompts of 100 to 16372 tokens"
    assert told[-1] == "show.html"
    assert any(line.startswith("outside: ") for line in told)
    seen = subprocess.run(
        [chromium_binary, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--disable-background-networking", "--enable-logging=stderr",
         "--virtual-time-budget=20000", f"--user-data-dir={place / 'browser'}", "--dump-dom",
         (place / "show.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert 'data-drawn="4"' in seen.stdout
    assert ":CONSOLE" not in seen.stderr


def test_diff_prints_a_table_and_the_same_as_json(capsys):
    slow = [p | {"itl_s": p["itl_s"] * 2} for p in sample(H200).model_dump()["decode"]]
    slower = write(H200, decode=slow)
    flags = ["-f", SPEC, "--trace", "azure2023-conv", "--rps", "100"]
    # A file of that name hides the sample.
    assert profile("diff", H200 + ".json", slower, *flags, "-o", "json") == 0
    same = json.loads(capsys.readouterr().out)["decisions"][0]
    assert same["a"] == same["b"]
    assert profile("diff", H200, slower, *flags, "-o", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)["decisions"]
    before, after = (row[key]["replicas"]["decode"] for key in "ab")
    assert after > before
    assert profile("diff", H200, slower, *flags) == 0
    assert f"{before} → {after}" in capsys.readouterr().out


FAULTS = {
    "no file": (["import", "--format", "json", "none.json"], "none.json: got No such file"),
    "no results": (["import", "--format", "vllm-bench", "none.json"], "none.json: No such file"),
    "empty folder": (["import", "--format", "aiperf", "empty"], "empty: got no *.json"),
    "two": (["import", "--format", "json", "a", "b"], "--format json: got 2 paths; legal: one"),
    "no dynamo": (["import", "--format", "dynamo", "."], ".: got none of Dynamo's files"),
    "garbled": (["import", "--format", "guidellm", "broken.json"], "broken.json: got Expecting"),
    "manifest": (["import", "--format", "configmap", "broken.json"], "broken.json: line 1"),
    "unknown": (["import", "--format", "excel", "x"], "pd-planner profile import: Invalid value"),
    "startup": (["import", "--format", "json", "x", "--startup", "5"], "--startup: 5 has no unit"),
    "too fast": (
        ["import", "--format", "json", "good.json", "--gpu", "l4", "--role", "prefill"],
        "good.json: prefill[7].ttft_s: got 0.1433 s (and 15 more points alike); legal: 0.4773 s",
    ),
    "no role": (
        ["import", "--format", "json", "prefill.json", "--role", "decode"],
        "prefill.json: prefill, decode: got no points",
    ),
    "unwritable": (
        ["import", "--format", "json", "good.json", "-o", "none/p.json"],
        "none/p.json: No such file or directory: give a writable path",
    ),
    "dynamo folder": (["export", "--format", "dynamo", H200], "--format dynamo: got no folder"),
    "no gpus": (
        ["export", "--format", "dynamo", "unknown.json", "-o", "d"],
        "provenance.gpusPerReplica: got nothing",
    ),
    "name": (["export", "--format", "configmap", H200, "--name", "A"], "--name: got 'A'"),
    "picture": (["show", H200, "-o", "x.png"], "x.png: got a .png; legal: .html"),
    "ttft": (["show", H200, "--ttft", "300"], "--ttft: 300 has no unit"),
    "itl": (["show", H200, "--itl", "1h"], "--itl: 1h is out of range"),
    "trace": (["show", H200, "--trace", "none.csv"], "none.csv"),
    "load": (["diff", H200, H200, "--rps", "1,x"], "--rps: got 'x'; legal: above 0"),
    "one role": (["diff", "prefill.json", H200], "prefill.json: got no decode points"),
    "spec": (["diff", H200, H200, "-f", "none.yaml"], "none.yaml"),
    "cluster": (
        ["apply", H200, "--namespace", "a", "--name", "b", "--kubeconfig", "none"],
        "--kubeconfig or PD_PLANNER_KUBECONFIG: 'none' is no file",
    ),
}


@pytest.mark.parametrize(("arguments", "says"), FAULTS.values(), ids=FAULTS)
def test_bad_input_is_one_clear_line(arguments, says, place, capsys):
    Path("empty").mkdir()
    Path("broken.json").write_text("{")
    Path("good.json").write_text(profile_text(sample(H200)))
    Path("prefill.json").write_text(profile_text(sample("llama-2-70b-h100-tp4-prefill")))
    made = sample(H200).provenance.model_copy(update={"gpus_per_replica": None})
    unknown = sample(H200).model_copy(update={"provenance": made})
    Path("unknown.json").write_text(profile_text(unknown))
    assert profile(*arguments) == 2
    told = capsys.readouterr()
    assert told.err.startswith(says)
    assert told.err.count("\n") == 1
    assert not told.out
