"""`simulate` as users meet it: figures, files, every trace format, and every bad input."""

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.__main__ import main
from planner.adapters.exposition import openmetrics_format
from planner.simulation.traces import Trace
from tests.integration.prometheus_server import backfill, prometheus
from tests.integration.recorded_past import (
    ROOT,
    conversations,
    example,
    live_through,
    loaded_example,
    wall_clock_s,
)
from tests.loopback import free_port

MINUTES = 20
PROFILE = ROOT / "profiles" / "data" / "llama-3.1-8b-fp8-h200.json"
COPIES = "4"

Out = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def requests() -> Trace:
    """Return the first minutes of an hour of real requests."""
    return conversations(1)


def as_csv(requests: Trace, minutes: float = MINUTES) -> str:
    rows = zip(requests.arrival_s, requests.isl_tokens, requests.osl_tokens, strict=True)
    lines = [f"{at_s:.6f},{isl},{osl}" for at_s, isl, osl in rows if at_s < 60.0 * minutes]
    return "\n".join(["t_s,isl,osl", *lines, ""])


@pytest.fixture(scope="module")
def trace_text(requests: Trace) -> str:
    return as_csv(requests)


@pytest.fixture(autouse=True)
def _files(own_place: Path, trace_text: str) -> None:
    (own_place / "f.yaml").write_text(example(), encoding="utf-8")
    (own_place / "day.csv").write_text(trace_text, encoding="utf-8")


def simulate(capsys: Out, *more: str, trace: str = "day.csv") -> dict[str, Any]:
    """Run the command; return the object that it prints."""
    assert main(["simulate", "-f", "f.yaml", "--trace", trace, "-o", "json", *more]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = json.loads(out)
    assert isinstance(found, dict)
    return found


def refused(capsys: Out, *arguments: str, code: int = 2) -> str:
    """Return the one line with which a command refuses its input, having left nothing behind."""
    before = sorted(Path.cwd().iterdir())
    assert main([*arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert sorted(Path.cwd().iterdir()) == before
    return err.rstrip("\n")


# ── figures ──────────────────────────────────────────────────────────────────────────────────────


def test_the_object_has_the_keys_of_the_manual(capsys: Out):
    found = simulate(capsys, "--scale", COPIES)
    assert set(found) == {
        *("policy", "knob", "trace", "seed", "requests", "attainment", "gpu_hours", "cost"),
        *("oracle", "ratio_to_oracle", "best_static_gpu_hours", "scale_actions", "reversals"),
        *("unfinished", "tick_ms", "wall_s", "simulated_s"),
    }
    assert set(found["attainment"]) == {"both", "ttft", "itl", "worst_5min"}
    assert found["oracle"] == dict.fromkeys((
        "zero_lag_gpu_hours",
        "same_lag_gpu_hours",
        "same_lag_attainment",
    ))
    for alone in ("knob", "ratio_to_oracle", "best_static_gpu_hours", "cost"):
        assert found[alone] is None
    assert set(found["tick_ms"]) == {"p50", "p99"}
    assert (found["policy"], found["trace"], found["seed"]) == ("pd-planner", "day.csv x 4", 0)


def test_the_figures_are_sane(capsys: Out, requests: Trace):
    found = simulate(capsys, "--scale", COPIES)
    shares = found["attainment"]
    assert 0.98 <= shares["both"] <= min(shares["ttft"], shares["itl"]) <= 1.0
    assert 0.8 <= shares["worst_5min"] <= shares["both"]
    assert found["unfinished"] == 0
    assert found["requests"] == 4 * int(
        ((requests.arrival_s >= 600.0) & (requests.arrival_s < 60.0 * MINUTES)).sum()
    )
    # From 2 to 8 GPUs over the ten minutes after the warm-up.
    assert 2 * 10 / 60 <= found["gpu_hours"] <= 8 * 10 / 60
    assert 60.0 * (MINUTES - 1) < found["simulated_s"] < 60.0 * (MINUTES + 2)
    assert 0.0 < found["tick_ms"]["p50"] <= found["tick_ms"]["p99"]


def test_the_same_seed_gives_the_same_figures(capsys: Out):
    first, again, other = (
        {
            key: value
            for key, value in simulate(capsys, "--scale", "2", "--seed", seed).items()
            if key not in {"wall_s", "tick_ms", "seed"}
        }
        for seed in ("3", "3", "4")
    )
    assert first == again
    assert first["simulated_s"] != other["simulated_s"]


def test_the_fleet_starts_where_it_is_told(capsys: Out, own_place: Path):
    lean = simulate(capsys, "--warmup", "0")
    rich = simulate(capsys, "--warmup", "0", "--start", "prefill=5,decode=7", "--record", "r.jsonl")
    first = json.loads((own_place / "r.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert {name: pool["current"] for name, pool in first["pools"].items()} == {
        "prefill": 5,
        "decode": 7,
    }
    assert rich["gpu_hours"] > 2 * lean["gpu_hours"]


def test_the_warm_up_is_left_out(capsys: Out, requests: Trace):
    all_of_it = simulate(capsys, "--warmup", "0")
    rest = simulate(capsys, "--warmup", "15")
    assert all_of_it["requests"] == int((requests.arrival_s < 60.0 * MINUTES).sum())
    assert rest["requests"] == int(
        ((requests.arrival_s >= 900.0) & (requests.arrival_s < 60.0 * MINUTES)).sum()
    )
    assert rest["gpu_hours"] < 0.5 * all_of_it["gpu_hours"]


def test_prices_become_a_cost(capsys: Out, own_place: Path):
    text = example().replace("gpuType: h200", 'gpuType: h200\n      gpuHourPrice: "2.5"')
    (own_place / "f.yaml").write_text(text, encoding="utf-8")
    found = simulate(capsys)
    assert found["cost"] == pytest.approx(2.5 * found["gpu_hours"], rel=1e-9)


def test_an_sla_beyond_reach_is_an_answer(own_place: Path, capsys: Out):
    (own_place / "f.yaml").write_text(example(itl="1ms"), encoding="utf-8")
    assert main(["simulate", "-f", "f.yaml", "--trace", "day.csv"]) == 0
    out, err = capsys.readouterr()
    assert "0%, misses 99%" in out
    assert err.count("\n") == 1
    assert "the SLA is beyond reach in 18 of 19 ticks: " in err


def test_prompts_out_of_scope_are_left_out_from_the_first_interval_on(own_place: Path, capsys: Out):
    # None is left of the first minute, from which the start would be planned.
    rows = ["0,50000,10", "30,50000,10", *(f"{70 + i},1000,50" for i in range(700))]
    (own_place / "long.csv").write_text("\n".join(["t_s,isl,osl", *rows]), encoding="utf-8")
    found = simulate(capsys, "--warmup", "0", trace="long.csv")
    assert (found["requests"], found["unfinished"]) == (700, 0)


# ── files ────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_recorded_can_be_explained(own_place: Path, capsys: Out):
    simulate(capsys, "--scale", COPIES, "--record", "r.jsonl")
    assert main(["explain", "r.jsonl", "--at", "00:02"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("inference/llama-8b at 00:02:00\n")
    for part in ("Seen ", "Coming ", "Needs ", "Decided ", "Because ", "Order "):
        assert f"\n{part}" in told
    assert "\nThe file: 19 ticks from 00:01:00 to 00:19:00" in told


def test_a_replay_begins_its_record_anew_and_keeps_the_old_one(own_place: Path, capsys: Out):
    for _ in range(2):
        simulate(capsys, "--record", "r.jsonl")
    for name in ("r.jsonl", "r.jsonl.1"):
        assert len((own_place / name).read_text(encoding="utf-8").splitlines()) == 19


def test_the_report_is_one_whole_file(own_place: Path, capsys: Out):
    simulate(capsys, "--report", "out.html")
    text = (own_place / "out.html").read_text(encoding="utf-8")
    assert text.lower().startswith("<!doctype html>")
    assert text.rstrip().endswith("</html>")
    assert not list(own_place.glob(".*"))


def test_a_full_disk_costs_the_record_and_not_the_figures(capsys: Out):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    arguments = ["simulate", "-f", "f.yaml", "--trace", "day.csv", "-o", "json"]
    assert main([*arguments, "--record", "/dev/full"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["unfinished"] == 0
    assert err.count("\n") == 1
    assert "--record: /dev/full: No space left on device: decisions go on unrecorded" in err


# ── traces ───────────────────────────────────────────────────────────────────────────────────────


def azure(requests: Trace) -> str:
    moments = np.datetime64("2023-11-16T18:15:46") + (requests.arrival_s * 1e3).astype(
        "timedelta64[ms]"
    )
    rows = zip(moments, requests.isl_tokens, requests.osl_tokens, strict=True)
    lines = [f"{str(at).replace('T', ' ')},{isl},{osl}" for at, isl, osl in rows]
    return "\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines[:4000], ""])


def burstgpt(requests: Trace) -> str:
    rows = zip(requests.arrival_s, requests.isl_tokens, requests.osl_tokens, strict=True)
    lines = [f"{at:.3f},ChatGPT,{i},{o},{i + o},Conversation log" for at, i, o in rows]
    header = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
    return "\n".join([header, *lines[:4000], ""])


def mooncake(requests: Trace) -> str:
    rows = zip(requests.arrival_s, requests.isl_tokens, requests.osl_tokens, strict=True)
    entries = [
        {
            "timestamp": int(at * 1e3),
            "input_length": int(i),
            "output_length": int(o),
            "hash_ids": [],
        }
        for at, i, o in rows
    ]
    return "".join(f"{json.dumps(entry)}\n" for entry in entries[:4000])


FORMATS = {
    "azure.csv": azure,
    "burstgpt.csv": burstgpt,
    "mooncake.jsonl": mooncake,
    "ours.csv": lambda requests: "\n".join(as_csv(requests, 60.0).splitlines()[:4001]),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("is_zipped", [False, True], ids=["plain", "gz"])
def test_every_trace_format_is_read(
    name: str, is_zipped: bool, requests: Trace, own_place: Path, capsys: Out
):
    content = FORMATS[name](requests).encode()
    path = own_place / (f"{name}.gz" if is_zipped else name)
    path.write_bytes(gzip.compress(content) if is_zipped else content)
    found = simulate(capsys, "--warmup", "0", trace=path.name)
    assert (found["requests"], found["unfinished"]) == (4000, 0)
    assert found["attainment"]["both"] > 0.9


# ── bad input ────────────────────────────────────────────────────────────────────────────────────

HEAD = "t_s,isl,osl\n0,100,10\n"
TRACES = {
    "a column is missing": ("t_s,isl\n0,100\n", "t.csv: got columns t_s, isl without osl; legal: "),
    "negative tokens": (f"{HEAD}1,-5,3\n", "t.csv, line 3, column isl: got '-5'; legal: "),
    "no tokens": (f"{HEAD}1,5,0\n", "t.csv, line 3, column osl: got '0'; legal: "),
    "half a token": (f"{HEAD}1,5.5,3\n", "t.csv, line 3, column isl: got '5.5'; legal: "),
    "NaN tokens": (f"{HEAD}1,NaN,3\n", "t.csv, line 3, column isl: got nothing or NaN; legal: "),
    "NaN time": (f"{HEAD}nan,5,3\n", "t.csv, line 3, column t_s: got nothing or NaN; legal: "),
    "endless time": (f"{HEAD}inf,5,3\n", "t.csv, line 3, column t_s: got 'inf'; legal: "),
    "time goes back": (f"{HEAD}-1,5,3\n", "t.csv, line 3, column t_s: got '-1'; legal: not before"),
    "empty": ("", "t.csv: got an empty first line; legal: "),
    "a header alone": ("t_s,isl,osl\n", "t.csv: got no requests; legal: 1 or more; "),
    "broken JSON": ('{"timestamp": 0,\n', "t.csv, line 1: got broken JSON"),
    "no text": ("\udcff\udcfe", "t.csv: got bytes that are no UTF-8 text; legal: "),
    "missing": (None, "t.csv: got no such file; legal: a trace file; "),
    "out of scope": (
        "t_s,isl,osl\n0,99999,1\n",
        "t.csv: every prompt is above 16384 tokens; legal: at least one within; ",
    ),
    "shorter than the warm-up": (
        HEAD,
        "--warmup: 10 intervals of 60 s leave nothing of t.csv, 0 s long: give fewer, or a longer",
    ),
}


@pytest.mark.parametrize(("text", "line"), TRACES.values(), ids=TRACES.keys())
def test_a_bad_trace_is_one_line(text: str | None, line: str, own_place: Path, capsys: Out):
    if text is not None:
        (own_place / "t.csv").write_bytes(text.encode(errors="surrogateescape"))
    files = ["--record", "r.jsonl", "--report", "out.html"]
    assert refused(capsys, "simulate", "-f", "f.yaml", "--trace", "t.csv", *files).startswith(line)


PROFILES = {
    "NaN": (
        lambda p: p["prefill"][0].update(ttft_s=float("nan")),
        "prefill[0].ttft_s: got nan; legal: a finite number above 0; ",
    ),
    "zero": (
        lambda p: p["prefill"][0].update(ttft_s=0),
        "prefill[0].ttft_s: got 0; legal: above 0; ",
    ),
    "negative": (
        lambda p: p["decode"][3].update(itl_s=-0.01),
        "decode[3].itl_s: got -0.01; legal: above 0; ",
    ),
    "two lengths": (
        lambda p: p.update(prefill=p["prefill"][:2]),
        "prefill: got 2 prompt length(s) at batch 1; legal: at least 3 lengths; ",
    ),
    "two contexts": (
        lambda p: p.update(decode=[
            d for d in p["decode"]
            if d["context_tokens"] in sorted({d["context_tokens"] for d in p["decode"]})[:2]
        ]),
        "decode: got 2 context length(s); legal: at least 3 contexts; ",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "line"), PROFILES.values(), ids=PROFILES.keys())
def test_a_bad_profile_is_one_line(spoil: Any, line: str, own_place: Path, capsys: Out):
    profile = json.loads(PROFILE.read_text(encoding="utf-8"))
    spoil(profile)
    (own_place / "p.json").write_text(json.dumps(profile), encoding="utf-8")
    text = example().replace(str(PROFILE), "p.json", 1)
    (own_place / "f.yaml").write_text(text, encoding="utf-8")
    told = refused(capsys, "simulate", "-f", "f.yaml", "--trace", "day.csv")
    assert told.startswith(f"f.yaml: spec.pools[0].profile.file: p.json: {line}")


FLAGS = {
    "unknown pool": (
        "--trace day.csv --start prefil=1,decode=2",
        "--start: no pool is called 'prefil'; legal: prefill, decode",
    ),
    "two sources": (
        "--trace day.csv --from-prometheus 1h --prometheus http://localhost:1",
        "--trace, --from-prometheus: give exactly one of them",
    ),
    "report into nowhere": (
        "--trace day.csv --report nowhere/out.html",
        "--report: nowhere/out.html: No such file or directory: give another path",
    ),
    "report over a folder": (
        "--trace day.csv --report .",
        "--report: .: is a directory: give the path of a file",
    ),
    "record into nowhere": (
        "--trace day.csv --record nowhere/r.jsonl --report out.html",
        "--record: nowhere/r.jsonl: No such file or directory: give another path",
    ),
}


@pytest.mark.parametrize(("flags", "line"), FLAGS.values(), ids=FLAGS.keys())
def test_a_bad_flag_is_one_line(flags: str, line: str, capsys: Out):
    assert refused(capsys, "simulate", "-f", "f.yaml", *flags.split()) == line


# ── a service's own past ─────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def real_url(
    prometheus_binary: Path, promtool_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("past")
    loaded = loaded_example(folder)
    start = {"prefill": 2, "decode": 2}
    past = live_through(loaded, conversations(1), start, wall_clock_s() - 1200.0, 120)
    backfill(promtool_binary, folder, openmetrics_format(past.exposed()))
    with prometheus(prometheus_binary, folder) as server:
        yield server.url


def test_a_service_is_simulated_on_its_own_past(real_url: str, requests: Trace, capsys: Out):
    arguments = ["simulate", "-f", "f.yaml", "--from-prometheus", "15m", "--prometheus", real_url]
    assert main([*arguments, "--warmup", "0", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["trace"] == "history"
    # Of fifteen minutes the first interval has nothing to be differenced with; the count of each
    # interval is drawn anew, so that ±5 % are five standard deviations.
    past_s = requests.arrival_s - 300.0
    expected = int(((past_s >= 60.0) & (past_s < 900.0)).sum())
    assert found["requests"] == pytest.approx(expected, rel=0.1)
    assert found["attainment"]["both"] > 0.9


def test_a_window_without_an_interval_is_one_line(real_url: str, capsys: Out):
    asked = ["--from-prometheus", "30s", "--prometheus", real_url]
    told = refused(capsys, "simulate", "-f", "f.yaml", *asked)
    assert told == "--from-prometheus: no finished request in that window: give a longer one"


def test_a_past_without_series_is_one_line(own_place: Path, real_url: str, capsys: Out):
    (own_place / "f.yaml").write_text(example("nobody"), encoding="utf-8")
    asked = ["--from-prometheus", "15m", "--prometheus", real_url]
    told = refused(capsys, "simulate", "-f", "f.yaml", *asked, code=1)
    assert told.startswith("inference/nobody: pool prefill has no series in the last 60 s; ")


def test_a_prometheus_that_is_not_there_is_one_line(capsys: Out):
    url = f"http://127.0.0.1:{free_port()}"
    asked = ["--from-prometheus", "15m", "--prometheus", url]
    told = refused(capsys, "simulate", "-f", "f.yaml", *asked, code=1)
    assert told.startswith(f"Prometheus at {url} is unreachable: ")


def test_a_trace_may_lie_anywhere(own_place: Path, capsys: Out):
    deep = own_place / "a b" / "ü"
    deep.mkdir(parents=True)
    shutil.move("day.csv", deep / "day.csv")
    assert simulate(capsys, trace=str(deep / "day.csv"))["trace"] == "day.csv"
