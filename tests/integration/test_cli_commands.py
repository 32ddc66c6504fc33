"""The commands: what they hand to the application, their exit codes, and how they end."""

import importlib
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import planner
from planner.__main__ import main
from planner.cli import app
from planner.errors import MetricsError, TraceError
from planner.model import Service

ROOT = Path(__file__).parents[2]
EXAMPLE = str(ROOT / "examples" / "llama-8b-h200.yaml")
PAIR = ["-f", EXAMPLE, "-f", str(ROOT / "examples" / "llama-70b-h100-a100.yaml")]
COMMANDS = [
    "demo", "run", "recommend", "check", "simulate", "compare", "explain", "backtest", "schema",
]  # fmt: skip

APPLICATION = {
    "planner.app": ("demo", "simulate", "explain", "backtest"),
    "planner.controller": ("run", "recommend", "recommend_live"),
}
"""What the commands hand over to, by module."""

Calls = dict[str, dict[str, Any]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Stand in for the application; remember what each command handed over."""
    seen: Calls = {}

    def listener(name: str) -> Callable[..., int]:
        def listen(**given: Any) -> int:
            seen[name] = given
            return 0

        return listen

    for module, names in APPLICATION.items():
        double = ModuleType(module)
        for name in names:
            setattr(double, name, listener(name))
        monkeypatch.setitem(sys.modules, module, double)
        # What is imported already is also an attribute of its package.
        monkeypatch.setattr(planner, module.rpartition(".")[2], double, raising=False)
    return seen


def test_recommend_hands_over_services_settings_and_replicas(calls: Calls):
    replicas = "prefill=4,decode=6"
    arguments = ["recommend", "-f", EXAMPLE, "--current", replicas, "-o", "json", "--watch"]
    assert main([*arguments, "--prometheus", "http://p", "--record", "r.jsonl"]) == 0
    given = calls["recommend"]
    assert [type(service) for service in given["services"]] == [Service]
    assert given["running"] == {"prefill": 4, "decode": 6}
    assert (given["watch"], given["output"]) == (True, "json")
    assert given["settings"].prometheus.url == "http://p"
    assert given["settings"].log.record == Path("r.jsonl")


def test_simulate_hands_over_what_the_flags_say(calls: Calls):
    arguments = "--trace t.csv --scale 3 --seed 7 --start prefill=1,decode=2 --warmup 0"
    assert main(["simulate", "-f", EXAMPLE, *arguments.split(), "--report", "o.html"]) == 0
    given = calls["simulate"]
    assert (given["trace"], given["scale"], given["seed"], given["warmup"]) == ("t.csv", 3, 7, 0)
    assert given["start"] == {"prefill": 1, "decode": 2}
    assert (given["report"], given["settings"].log.record) == (Path("o.html"), None)
    assert given["prometheus_window_s"] is None
    assert set(given["service"].profiles) == {"prefill", "decode"}


def test_simulate_defaults_are_those_of_the_manual(calls: Calls):
    assert main(["simulate", "-f", EXAMPLE, "--trace", "t.csv"]) == 0
    given = calls["simulate"]
    assert (given["scale"], given["seed"], given["warmup"], given["start"]) == (1, 0, 10, None)
    assert given["output"] == "table"


def test_backtest_reads_quantities_and_names(calls: Calls):
    flags = "--from-prometheus 7d --prometheus http://p --predictors Kalman,LastValue --lead 3m"
    assert main(["backtest", *flags.split()]) == 0
    given = calls["backtest"]
    assert (given["trace"], given["prometheus_window_s"]) == (None, 604_800.0)
    assert given["predictors"] == ["Kalman", "LastValue"]
    assert (given["interval_s"], given["lead_s"], given["quantile"]) == (60.0, 180.0, 0.75)


def test_demo_and_explain_hand_over_what_the_flags_say(calls: Calls):
    assert main(["demo", "--scale", "2", "--no-live"]) == 0
    assert {key: calls["demo"][key] for key in ("scale", "seed", "report", "no_live")} == {
        "scale": 2,
        "seed": 0,
        "report": None,
        "no_live": True,
    }
    assert main(["explain", "r.jsonl", "--at", "10:00"]) == 0
    assert calls["explain"] == {"record": Path("r.jsonl"), "at": "10:00"}


def test_without_replicas_recommend_hands_over_the_files_for_a_cluster(calls: Calls):
    arguments = ["recommend", "-f", EXAMPLE, "--prometheus", "http://p", "--context", "lab"]
    assert main(arguments) == 0
    given = calls["recommend_live"]
    assert (given["files"], given["watch"], given["output"]) == ([Path(EXAMPLE)], False, "table")
    assert given["settings"].kubernetes.context == "lab"


def test_run_hands_over_files_and_settings(calls: Calls):
    arguments = ["run", *PAIR, "--prometheus", "http://p", "--listen", "127.0.0.1:8080"]
    assert main([*arguments, "--record", "r.jsonl", "--log-format", "json"]) == 0
    given = calls["run"]
    assert len(given["files"]) == 2
    assert given["settings"].http.listen == "127.0.0.1:8080"
    assert (given["settings"].log.record, given["settings"].log.format) == (Path("r.jsonl"), "json")


def test_application_takes_what_the_commands_hand_over(calls: Calls):
    for arguments in (
        ["demo"],
        ["run", "-f", EXAMPLE],
        ["recommend", "-f", EXAMPLE],
        ["recommend", "-f", EXAMPLE, "--current", "prefill=1,decode=1"],
        ["simulate", "-f", EXAMPLE, "--trace", "t"],
        ["explain", "r"],
        ["backtest", "--trace", "t"],
    ):
        assert main(arguments) == 0
    handed = dict(calls)
    for module in APPLICATION:
        del sys.modules[module]
    for module, names in APPLICATION.items():
        real = importlib.import_module(module)
        for name in names:
            inspect.signature(getattr(real, name)).bind(**handed[name])


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (TraceError("t.csv: row 3"), 2, "t.csv: row 3\n"),
        (MetricsError("http://p: refused"), 1, "http://p: refused\n"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 141, ""),
        (
            ModuleNotFoundError("no", name="numba.core"),
            2,
            "numba.core is not installed: pip install 'pd-planner[simulation]'\n",
        ),
        (
            PermissionError(13, "Permission denied", "/o.html"),
            2,
            "/o.html: Permission denied: give another path\n",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_expected_fault_has_its_code_and_line(
    calls: Calls,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    raised: BaseException,
    code: int,
    told: str,
):
    def fail(**_given: Any) -> int:
        raise raised

    monkeypatch.setattr(sys.modules["planner.app"], "explain", fail)
    monkeypatch.setattr("planner.__main__.os.dup2", lambda *_: None)
    assert main(["explain", "r"]) == code
    assert capfd.readouterr().err == told


def test_unexpected_fault_keeps_its_traceback(calls: Calls, monkeypatch: pytest.MonkeyPatch):
    def fail(**_given: Any) -> int:
        raise ModuleNotFoundError("no", name="planner.gone")

    monkeypatch.setattr(sys.modules["planner.app"], "explain", fail)
    with pytest.raises(ModuleNotFoundError):
        main(["explain", "r"])


def test_exit_code_of_the_application_is_that_of_the_command(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys.modules["planner.controller"], "recommend_live", lambda **_: 1)
    assert main(["recommend", "-f", EXAMPLE]) == 1


def test_check_prints_a_line_each_for_every_service(capsys: pytest.CaptureFixture[str]):
    assert main(["check", *PAIR, "--offline"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == {"ok", "warning"}
    assert {line.split()[1] for line in lines} == {"inference/llama-8b:", "inference/llama-70b:"}


def test_check_ends_with_1_on_an_error_and_prints_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    text = Path(EXAMPLE).read_text(encoding="utf-8").replace("../", f"{ROOT}/")
    path = tmp_path / "f.yaml"
    path.write_text(text.replace("ttft: 500ms", "ttft: 10ms"), encoding="utf-8")
    assert main(["check", "-f", str(path), "--offline", "-o", "json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    (bad,) = [row for row in rows if row["level"] == "error"]
    assert (bad["where"], bad["rule"]) == ("pool prefill: ttft", "ttft-reachable")
    assert bad["mend"].startswith("raise sla.ttft")


def test_schema_prints_what_kubectl_and_editors_read(capsys: pytest.CaptureFixture[str]):
    assert main(["schema", "crd"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["kind"] == "CustomResourceDefinition"
    assert main(["schema", "spec"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "PDAutoscaler"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example(command: str, capsys: pytest.CaptureFixture[str]):
    assert main([command, "--help"]) == 0
    assert f"Example: pd-planner {command}" in capsys.readouterr().out


def test_commands_are_those_of_the_manual():
    assert [command.callback.__name__ for command in app.registered_commands] == COMMANDS


def python(*arguments: str, **over: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-W", "error", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **over,
    )


def test_help_waits_for_no_library():
    script = (
        "import sys; from planner.__main__ import main; main(['--help']); "
        "print(sorted({'numpy', 'scipy', 'pydantic', 'yaml', 'rich'} & set(sys.modules)))"
    )
    out, err = python("-c", script).communicate(timeout=60)
    assert err == b""
    assert out.decode().splitlines()[-1] == "[]"


def test_reader_that_goes_away_ends_the_command_quietly():
    process = python("-m", "planner", "schema", "crd")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 141
