"""`pd-planner profile run` as it is typed, against a scripted engine: its profile, each fault."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

from planner.__main__ import main
from planner.adapters.clock import stopwatch_s
from profiles import Profile, read_profile
from tests.cluster.certificates import make_certificates
from tests.cluster.waiting import wait_for
from tests.integration.scripted_engine import DIES_AFTER, ScriptedEngine, serving
from tests.loopback import free_port

SCRIPT = Path(__file__).with_name("scripted_engine.py")
SMALL = [
    *("--samples", "1", "--output-tokens", "8", "--max-points", "12", "--isl-max", "1024"),
    *("--max-sequences", "8", "--ttft", "100ms", "--itl", "10ms", "--gpus-per-replica", "1"),
]
STATE = "p.measured.jsonl"


@pytest.fixture(autouse=True)
def place(own_place: Path) -> Path:
    return own_place


def run(*arguments: str | Path) -> int:
    return main(["profile", "run", *SMALL, "-o", "p.json", *map(str, arguments)])


def starting(*arguments: str) -> list[str]:
    """Return flags that have the command start the scripted engine."""
    engine = " ".join([sys.executable, str(SCRIPT), *arguments])
    return ["--model", "llama", "--engine-command", engine]


def points(path: str = STATE) -> int:
    # While it is written, the last line may have no end yet.
    lines = Path(path).read_text(encoding="utf-8").split("\n")[:-1]
    return sum(json.loads(line)["kind"] == "point" for line in lines)


def check(profile: Profile) -> None:
    """Check against the speed that is scripted; a busy machine adds to it."""
    assert (len(profile.prefill), len(profile.decode)) == (3, 9)
    for point in profile.prefill:
        assert point.ttft_s >= 0.02 + 2e-5 * point.isl_tokens
    for point in profile.decode:
        # 5 ms are scripted; a first token that is late at the client makes the rest look faster.
        assert 0.002 <= point.itl_s < 1.0
    assert 0.0045 <= median(point.itl_s for point in profile.decode) < 0.1
    assert profile.kv_capacity_tokens == 65_536


def test_an_engine_that_runs_is_measured(capsys):
    with serving(ScriptedEngine()) as url:
        assert run("--endpoint", url, "--gpu", "h100") == 0
    profile = read_profile("p.json")
    check(profile)
    made = profile.provenance
    assert (made.how, made.model, made.engine_version, made.gpu) == (
        "measured", "tiny", "0.32.0", "h100",
    )  # fmt: skip
    assert "TTFT by the engine's own metrics" in made.command
    told = capsys.readouterr().err
    assert told.count("prefill, ") == 3
    assert told.count("decode, ") == 9
    assert points() == 12


def test_an_engine_is_started_for_each_role_and_ended(capsys):
    assert run(*starting()) == 0
    profile = read_profile("p.json")
    check(profile)
    assert profile.startup_s < 30
    assert "decode with DecodeBenchConnector" in profile.provenance.command
    told = capsys.readouterr().err
    assert told.count("starting the engine") == 2
    assert not children()


def children() -> list[str]:
    """Return the scripted engines that run."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if f"{SCRIPT} --model" in line]


def test_what_is_measured_is_not_measured_again(capsys):
    engine = ScriptedEngine()
    with serving(engine) as url:
        assert run("--endpoint", url, "--role", "prefill") == 0
        before = engine.requests
        assert run("--endpoint", url) == 0
        assert run("--endpoint", url) == 0
        assert "prefill: measured already, 3 points" in capsys.readouterr().err
    assert points() == 12
    # Each prefill point is one request to warm and one that counts.
    assert before == 6
    check(read_profile("p.json"))


def killed_and_resumed(number: int, code: int) -> None:
    command = [sys.executable, "-m", "planner", "profile", "run", *SMALL, "-o", "p.json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with Path("err").open("wb") as err:
        child = subprocess.Popen([*command, *starting()], stderr=err, env=environment)
        try:
            wait_for("four points are measured", lambda: Path(STATE).exists() and points() >= 4)
        finally:
            child.send_signal(number)
            assert child.wait(60) == code
    wait_for("the engine has ended", lambda: not children())
    kept = points()
    assert 4 <= kept < 12
    assert run(*starting()) == 0
    assert points() == 12
    check(read_profile("p.json"))


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)],
    ids=["Ctrl-C", "SIGTERM", "SIGKILL"],
)
def test_killed_at_any_point_it_goes_on_and_leaves_no_engine_behind(number, code):
    killed_and_resumed(number, code)
    told = Path("err").read_text(encoding="utf-8")
    assert ("are kept in p.measured.jsonl" in told) is (number != signal.SIGKILL)
    assert "Traceback" not in told


def test_an_engine_that_dies_is_told_with_its_last_lines_and_what_was_measured_is_kept(capsys):
    assert run(*starting("--fault", "dies")) == 1
    told = capsys.readouterr().err
    assert f"{points()} points are kept" in told
    assert "engine: ended with exit code 1 while it was measured" in told
    assert "RuntimeError: engine core died" in told
    assert DIES_AFTER > points() > 3
    # An engine that lives goes on from them; but it is another command.
    assert run(*starting()) == 2
    assert "prefill engine" in one_line(capsys)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("memory", "before it served: out of memory; give it another --gpu-memory-utilization"),
        ("model", "before it served: the model does not load; give --model"),
    ],
)
def test_an_engine_that_does_not_start_says_why(fault, words, capsys):
    assert run(*starting("--fault", fault)) == 1
    told = capsys.readouterr().err
    assert words in told
    assert "\n  Traceback (most recent call last):" in told
    assert "p.measured.prefill.log" in told
    assert not Path("p.json").exists()


def test_an_engine_that_is_not_there_to_start_says_so(capsys):
    assert run("--model", "m", "--engine-command", "/no/engine") == 2
    assert "/no/engine: No such file or directory; legal" in capsys.readouterr().err


def test_an_engine_that_hangs_is_given_up_and_ended(capsys):
    took_s = stopwatch_s()
    assert run(*starting("--fault", "hangs"), "--start-timeout", "1s") == 1
    assert took_s() < 30
    assert "does not serve 1 s after its start; give it more by --start-timeout" in (
        capsys.readouterr().err
    )
    assert not children()


def one_line(capsys) -> str:
    told = capsys.readouterr().err
    assert told.count("\n") == 1, told
    return told


@pytest.mark.parametrize(
    ("fault", "flags", "code", "words"),
    [
        ("other", [], 1, "no OpenAI-compatible answer at /v1/models"),
        ("", ["--model", "gpt"], 1, "model 'gpt' is not served; legal: tiny"),
        ("long", [], 1, "answers 400 at /v1/completions: maximum context length is 1 token"),
        ("silent", ["--role", "decode"], 2, "--kv-capacity-tokens: the engine does not say"),
    ],
    ids=["not OpenAI", "wrong model", "refused", "no metrics"],
)
def test_what_is_wrong_with_an_endpoint_is_one_line(fault, flags, code, words, capsys):
    with serving(ScriptedEngine(fault=fault)) as url:
        assert run("--endpoint", url, *flags) == code
    assert words in one_line(capsys)


def test_without_metrics_flags_say_what_the_engine_does_not():
    with serving(ScriptedEngine(fault="silent")) as url:
        assert run("--endpoint", url, "--kv-capacity-tokens", "65536") == 0
    profile = read_profile("p.json")
    check(profile)
    assert "unknown how much prefill" in profile.provenance.command


def test_an_engine_that_is_not_there_is_one_line(capsys):
    port = free_port()
    assert run("--endpoint", f"http://127.0.0.1:{port}") == 1
    assert f"127.0.0.1:{port}: Failed to establish" in (told := one_line(capsys))
    assert "Connection refused; see that it runs" in told


def test_a_token_is_asked_for_and_taken(place, capsys):
    (place / "token").write_text("open sesame\n")
    with serving(ScriptedEngine(token="open sesame")) as url:
        assert run("--endpoint", url) == 1
        assert "refuses the token (401" in one_line(capsys)
        assert run("--endpoint", url, "--token-file", "none") == 2
        assert "--token-file: none: No such file" in one_line(capsys)
        assert run("--endpoint", url, "--token-file", "token", "--role", "prefill") == 0


def test_a_certificate_is_asked_for_and_trusted(place, require, capsys):
    require("openssl", "your package manager: openssl")
    made = make_certificates(place)
    with serving(ScriptedEngine(), (made.certificate, made.key)) as url:
        assert run("--endpoint", url) == 1
        told = one_line(capsys)
        assert "TLS failed" in told
        assert "give its CA certificate with --ca" in told
        assert run("--endpoint", url, "--ca", made.ca, "--role", "prefill") == 0


def test_a_port_in_use_is_refused(capsys):
    engine = ScriptedEngine()
    with serving(engine):
        port = engine.server_address[1]
        assert run(*starting(), "--port", str(port)) == 2
    assert f"--port: {port} is in use" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--model: not given"),
        (["--model", "m", "--python", "/no/python"], "--python: /no/python: No such file"),
        (["--model", "m", "--python", sys.executable], "has no vLLM"),
        (["--endpoint", "ftp://x"], "--endpoint: got 'ftp://x'; legal: http"),
        (["--endpoint", "http://x", "--", "-tp", "2"], "got arguments for an engine too (-tp"),
        (["--decode-endpoint", "http://x"], "--endpoint: not given for prefill"),
        (["--model", "m", "--apply", "name"], "--apply: got 'name'; legal: NAMESPACE/NAME"),
        (["--model", "m", "--apply", "in/A_b"], "--apply: got 'in/A_b'"),
        (["--model", "m", "--ttft", "5"], "--ttft: 5 has no unit"),
        (["--model", "m", "--max-points", "11"], "--max-points: got 11; legal: 12 or more"),
        (["--endpoint", "http://x", "--state", "/no/s"], "/no/s: No such file or directory"),
        (["--endpoint", "http://x", "--ca", "/no/ca"], "--ca: /no/ca: No such file"),
    ],
)
def test_what_is_typed_wrong_is_one_line(flags, words, capsys):
    assert run(*flags) == 2
    assert words in one_line(capsys)


def test_what_is_faster_than_the_named_gpu_is_refused_and_kept(capsys):
    with serving(ScriptedEngine()) as url:
        assert run("--endpoint", url) == 0
    lines = Path(STATE).read_text(encoding="utf-8").replace('"model": "tiny"', '"model": "a-70b"')
    Path(STATE).write_text(lines.replace('"GPU": null', '"GPU": "l4"'), encoding="utf-8")
    Path("p.json").unlink()
    capsys.readouterr()
    assert run("--endpoint", url, "--gpu", "l4") == 2
    assert "l4 can't be faster" in capsys.readouterr().err
    assert not Path("p.json").exists()
    assert points() == 12


def test_hadolint_finds_nothing_in_the_image_of_the_job(require):
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    hadolint = hadolint or require("hadolint", "make install")
    recipe = Path(__file__).parents[2] / "manifests" / "profiling" / "Dockerfile"
    done = subprocess.run([hadolint, recipe], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
