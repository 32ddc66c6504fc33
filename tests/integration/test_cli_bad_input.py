"""Bad input through the command: one clear line on stderr, nothing on stdout, exit code 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from planner.__main__ import main

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "llama-8b-h200.yaml"

SPEC = f"""
apiVersion: pd-planner.io/v1alpha1
kind: PDAutoscaler
metadata: {{name: llama}}
spec:
  interval: 60s
  sla: {{ttft: 500ms, itl: 25ms}}
  pools:
    - name: prefill
      role: Prefill
      scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: p}}
      profile: {{file: {ROOT}/profiles/data/llama-3.1-8b-fp8-h200.json}}
      maxReplicas: 8
    - name: decode
      role: Decode
      scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: d}}
      profile: {{file: {ROOT}/profiles/data/llama-3.1-8b-fp8-h200.json}}
      maxReplicas: 8
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PD_PLANNER_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(SPEC, encoding="utf-8")


def changed(old: str, new: str) -> str:
    assert old in SPEC
    return SPEC.replace(old, new, 1)


FILES = {
    "missing": (None, "f.yaml: no such file: give the path of a YAML file"),
    "empty": ("", "f.yaml: holds nothing: write a PDAutoscaler"),
    "bad yaml": (
        "spec: {",
        (
            "f.yaml: line 1, column 8: expected the node content, but found '<stream end>': "
            "correct the YAML there"
        ),
    ),
    "other kind": (
        "kind: Service",
        (
            'f.yaml: kind: "Service" is not handled here; legal: PDAutoscaler, or a List of '
            "them: move it to another file"
        ),
    ),
    "no unit": (
        changed("ttft: 500ms", "ttft: 500"),
        "f.yaml: spec.sla.ttft: 500 has no unit: write 500ms or 500s",
    ),
    "unknown unit": (
        changed("ttft: 500ms", "ttft: 500parsec"),
        ("f.yaml: spec.sla.ttft: 500parsec: unknown unit parsec; legal units: ns, us, ms, s, m, h"),
    ),
    "out of range": (
        changed("interval: 60s", "interval: 1h"),
        "f.yaml: spec.interval: 1h is out of range: write a value from 5s to 10m",
    ),
    "misspelt key": (
        changed("interval: 60s", "intervall: 60s"),
        (
            "f.yaml: spec.intervall: is no key here; legal: behavior, fallback, forecast, "
            "interval, limits, metrics, mode, pools, sla, topology; did you mean interval?"
        ),
    ),
    "no such profile": (
        changed("llama-3.1-8b-fp8-h200.json", "no.json"),
        (
            f"f.yaml: spec.pools[0].profile.file: {ROOT}/profiles/data/no.json: got No such file "
            "or directory; legal: a readable JSON file; give the path of a profile"
        ),
    ),
    "two faults": (
        changed("60s", "1s").replace("maxReplicas: 8", "maxReplicas: 0"),
        (
            "f.yaml: spec.interval: 1s is out of range: write a value from 5s to 10m\n"
            "f.yaml: spec.pools[0].maxReplicas: 0 is out of range: write a whole number from 1 to "
            "10000\n"
            "f.yaml: spec.pools[1].maxReplicas: 0 is out of range: write a whole number from 1 to "
            "10000"
        ),
    ),
}


@pytest.mark.parametrize(("text", "lines"), FILES.values(), ids=FILES.keys())
@pytest.mark.parametrize("command", ["check", "recommend"])
def test_bad_file_is_told_and_nothing_started(
    command: str, text: str | None, lines: str, capsys: pytest.CaptureFixture[str]
):
    if text is not None:
        Path("f.yaml").write_text(text, encoding="utf-8")
    assert main([command, "-f", "f.yaml"]) == 2
    assert capsys.readouterr() == ("", f"{lines}\n")


FLAGS = {
    "unknown pool": (
        "recommend -f good.yaml --current prefil=4",
        "--current: no pool is called 'prefil'; legal: prefill, decode",
    ),
    "negative replicas": (
        "recommend -f good.yaml --current prefill=-1,decode=2",
        (
            "--current: prefill=-1 is no number of replicas: write a whole number of 0 or more, "
            "such as prefill=4"
        ),
    ),
    "no number": (
        "recommend -f good.yaml --current prefill,decode=2",
        (
            "--current: prefill= is no number of replicas: write a whole number of 0 or more, "
            "such as prefill=4"
        ),
    ),
    "pool twice": (
        "recommend -f good.yaml --current prefill=1,prefill=2",
        "--current: prefill is given twice: keep one",
    ),
    "pool left out": (
        "simulate -f good.yaml --trace t.csv --start prefill=1",
        "--start: decode is missing: give every pool",
    ),
    "no trace": (
        "simulate -f good.yaml",
        "--trace, --from-prometheus: give exactly one of them",
    ),
    "history without an address": (
        "simulate -f good.yaml --from-prometheus 7d",
        "--from-prometheus: no address: give --prometheus URL",
    ),
    "history of a bad length": (
        "backtest --from-prometheus 7y --prometheus http://localhost:1",
        "--from-prometheus: 7y: unknown unit y; legal units: ns, us, ms, s, m, h, d, w",
    ),
    "history of no length": (
        "backtest --from-prometheus 0d --prometheus http://localhost:1",
        "--from-prometheus: 0d is out of range: write a duration above 0, such as 7d",
    ),
    "bad address": (
        "recommend -f good.yaml --prometheus localhost:9090",
        (
            "--prometheus or PD_PLANNER_PROMETHEUS: 'localhost:9090' is no address: write "
            "http://HOST:PORT or https://HOST:PORT"
        ),
    ),
    "unknown predictor": (
        "backtest --trace t.csv --predictors Kalman,Oracle",
        "--predictors: 'Oracle' is unknown; legal: Kalman, Arima, LastValue, Prophet",
    ),
    "interval": (
        "backtest --trace t.csv --interval 60",
        "--interval: 60 has no unit: write 60ms or 60s",
    ),
    "quantile": (
        "backtest --trace t.csv --quantile 10%",
        "--quantile: 10% is out of range: write a value from 50% to 99.9%",
    ),
    "unknown option": (
        "check --fast",
        "pd-planner check: No such option: --fast: see pd-planner check --help",
    ),
    "missing file": (
        "check",
        "pd-planner check: Missing option '-f' / '--file': see pd-planner check --help",
    ),
    "unknown command": (
        "scale",
        "pd-planner: No such command 'scale': see pd-planner --help",
    ),
    "unknown schema": (
        "schema xml",
        (
            "pd-planner schema: Invalid value for 'which': 'xml' is not one of 'crd', 'spec': "
            "see pd-planner schema --help"
        ),
    ),
    "scale below one": (
        "simulate -f good.yaml --trace t.csv --scale 0",
        (
            "pd-planner simulate: Invalid value for '--scale': Input should be greater than or "
            "equal to 1: see pd-planner simulate --help"
        ),
    ),
}


@pytest.mark.parametrize(("command", "line"), FLAGS.values(), ids=FLAGS.keys())
def test_bad_flag_is_one_line(command: str, line: str, capsys: pytest.CaptureFixture[str]):
    assert main(command.split()) == 2
    assert capsys.readouterr() == ("", f"{line}\n")


def test_two_services_are_too_many_for_simulate(capsys: pytest.CaptureFixture[str]):
    second = SPEC.replace("name: llama}", "name: other}")
    Path("two.yaml").write_text(f"{SPEC}---\n{second}", encoding="utf-8")
    assert main(["simulate", "-f", "two.yaml", "--trace", "t.csv"]) == 2
    assert capsys.readouterr().err == (
        "two.yaml: holds 2 services (default/llama, default/other): give a file with one\n"
    )


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "planner", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_real_command_tells_one_line_without_a_traceback():
    done = run("check", "-f", "no-such.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "no-such.yaml: no such file: give the path of a YAML file\n"


def test_real_command_checks_the_example():
    done = run("check", "-f", str(EXAMPLE), "--offline")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(line.startswith(("ok ", "warning ")) for line in done.stdout.splitlines())


def test_real_command_refuses_an_unknown_option_with_code_2():
    done = run("check", "--fast")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
