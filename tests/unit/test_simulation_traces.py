"""Traces: every format in, one clear line for what is wrong, scaling that keeps bursts."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from planner.errors import TraceError
from planner.simulation.trace_files import BUILTIN, builtin_trace, open_trace, read_trace
from planner.simulation.traces import Trace, clip, make_trace, scale_trace

OURS = "t_s,isl,osl\n10.0,100,5\n10.5,200,6\n70.0,300,7\n"
AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:15:46.5000000,100,5\n"
    "2023-11-16 18:15:47.0000000,200,6\n"
    "2023-11-16 18:16:46.5,300,7\n"
)
BURST = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,100,5,105,Conversation log\n"
    "5,GPT-4,0,0,0,Conversation log\n"
    "5.5,GPT-4,200,6,206,API log\n"
    "65,ChatGPT,300,7,307,Conversation log\n"
)
MOONCAKE = "\n".join(
    json.dumps({"timestamp": t, "input_length": isl, "output_length": osl})
    for t, isl, osl in [(0, 100, 5), (500, 200, 6), (60_000, 300, 7)]
)


def write(folder: Path, text: str | bytes, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [OURS, AZURE, BURST, MOONCAKE, OURS.replace("\n", "\r\n"), "\ufeff" + OURS, OURS + "\n\n"],
    ids=["ours", "azure", "burstgpt", "mooncake", "crlf", "byte-order mark", "blank end"],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_formats_are_recognised(tmp_path: Path, content: str, packed: bool) -> None:
    raw = content.encode()
    trace = read_trace(write(tmp_path, gzip.compress(raw) if packed else raw, "any.name"))
    assert trace.arrival_s == pytest.approx([0.0, 0.5, 60.0])
    assert trace.isl_tokens.tolist() == [100, 200, 300]
    assert trace.osl_tokens.tolist() == [5, 6, 7]
    assert trace.cached_tokens.tolist() == [0, 0, 0]
    assert trace.name == "any.name"
    assert (trace.arrival_s.dtype, trace.isl_tokens.dtype) == (np.float64, np.int32)


def test_failed_requests_are_left_out_and_counted(tmp_path: Path) -> None:
    assert read_trace(write(tmp_path, BURST)).notes == ("left out 1 requests without output",)
    assert read_trace(write(tmp_path, OURS)).notes == ()


def test_columns_may_come_in_any_order_and_company(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, "user,osl,isl,t_s\na,5,100,0\nb,6,200,1\n"))
    assert (trace.isl_tokens.tolist(), trace.osl_tokens.tolist()) == ([100, 200], [5, 6])


def test_blocks_seen_before_are_cached(tmp_path: Path) -> None:
    rows = [(1500, [1, 2, 3]), (1500, [1, 2, 4]), (1500, [9, 2, 3]), (1024, [1, 2])]
    text = "\n".join(
        json.dumps({"timestamp": i, "input_length": n, "output_length": 1, "hash_ids": ids})
        for i, (n, ids) in enumerate(rows)
    )
    # Only a known prefix helps, and the last prompt token is always computed.
    assert read_trace(write(tmp_path, text)).cached_tokens.tolist() == [0, 1024, 0, 1023]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t_s,isl\n1,2\n", r"without osl; legal: pd-planner: t_s, isl, osl | Azure"),
        ("a,b,c\n1,2,3\n", "got columns a, b, c; legal: .*Azure: TIMESTAMP.*BurstGPT.*Mooncake"),
        ("t_s,isl,osl\n0,5,5\n1,-3,5\n", "line 3, column isl: got '-3'; legal: a whole number"),
        ("t_s,isl,osl\n0,5,0\n", "line 2, column osl: got '0'; legal: .*from 1 to"),
        ("t_s,isl,osl\n0,5,2.5\n", "line 2, column osl: got '2.5'"),
        ("t_s,isl,osl\n0,5,nan\n", "line 2, column osl: got nothing or NaN"),
        ("t_s,isl,osl\n0,5\n", "line 2, column osl: got nothing or NaN"),
        ("t_s,isl,osl\n0,5,many\n", "line 2, column osl: got 'many'"),
        ("t_s,isl,osl\n0,99999999999,1\n", "line 2, column isl: got '99999999999'"),
        ("t_s,isl,osl\n0,5,5\ninf,5,5\n", "line 3, column t_s: got 'inf'; legal: a finite number"),
        ("t_s,isl,osl\n0,5,5\n\n1,5,5\n", "line 3, column isl: got nothing or NaN"),
        ("t_s,isl,osl\n5,5,5\n4,5,5\n", "line 3, column t_s: got '4'; legal: not before the row"),
        ("t_s,isl,osl\n0,5,5\n1,5,5,5,5\n", r"broken row \(Expected 3 fields in line 3, saw 5\)"),
        ("t_s,isl,osl\n0,5,5,7\n1,5,5,7\n", r"broken row \(Length of header"),
        ("t_s,isl,osl\n", "got no requests; legal: 1 or more"),
        ("", "got an empty first line"),
        (AZURE.replace("18:15:47", "25:15:47"), "line 3, column TIMESTAMP: got '2023-11-16 25"),
        (AZURE.replace("18:15:46.5000000", "never"), "line 2, column TIMESTAMP: got '2023"),
        (BURST.replace("5.5", "4.5"), "line 4, column Timestamp: got '4.5'; legal: not before"),
        (b"\xff\xfe\x00\x01\x02", "bytes that are no UTF-8 text"),
        (b"t_s,isl,osl\n0,\xff,1\n", "bytes that are no UTF-8 text"),
        (gzip.compress(OURS.encode(), mtime=0)[:-9], "an unreadable file"),
        ('{"timestamp": 1, "input_length": 2}', "line 1: got no output_length"),
        (MOONCAKE + "\n{oops", "line 4: got broken JSON"),
        (MOONCAKE + "\n[1]", "line 4: got no timestamp, input_length, output_length"),
        (MOONCAKE.replace(": 200", ": -200"), "line 2, column input_length: got '-200'"),
    ],
)
def test_bad_traces_get_one_clear_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(TraceError, match=message) as caught:
        read_trace(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing.csv", "no such file.*azure2023-conv"), (".", "a directory")],
)
def test_paths_without_a_file_say_so(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        open_trace(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "requests", "hours"),
    [("azure2023-conv", 19_366, 0.973), ("servegen-m-large-6h", 209_411, 6.0)],
)
def test_built_in_traces_open_by_name(name: str, requests: int, hours: float) -> None:
    trace = open_trace(name)
    assert (trace.name, len(trace)) == (name, requests)
    assert trace.duration_s / 3600.0 == pytest.approx(hours, abs=0.01)
    assert name in BUILTIN


def test_an_unknown_built_in_trace_names_the_known_ones() -> None:
    with pytest.raises(TraceError, match="legal: azure2023-conv, servegen-m-large-6h"):
        builtin_trace("azure")


def bursts() -> Trace:
    """Return ten requests within 0.1 s at the 20th second of each of five minutes, and an end."""
    times = [60.0 * m + 20.0 + 0.01 * i for m in range(5) for i in range(10)]
    return make_trace("bursts", [0.0, *times, 330.0], np.arange(52) + 1, 1)


def test_scaling_keeps_minutes_lengths_and_bursts() -> None:
    trace = bursts()
    scaled = scale_trace(trace, 4, seed=1)
    assert len(scaled) == 4 * len(trace)
    assert (np.diff(scaled.arrival_s) >= 0).all()
    assert np.array_equal(
        np.bincount(scaled.arrival_s.astype(int) // 60),
        4 * np.bincount(trace.arrival_s.astype(int) // 60),
    )
    assert sorted(scaled.isl_tokens) == sorted(np.repeat(trace.isl_tokens, 4))
    assert scaled.duration_s <= trace.duration_s
    # Each burst of a copy is still ten requests within 0.1 s, cut at most by the minute's turn.
    assert np.bincount((scaled.arrival_s * 5).astype(int)).max() >= 10
    # Copy 0 is the trace itself.
    assert np.isin(trace.arrival_s, scaled.arrival_s).all()


def test_scaling_is_fixed_by_its_seed() -> None:
    one, same, other = (scale_trace(bursts(), 3, seed).arrival_s for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert scale_trace(bursts(), 1).arrival_s.tolist() == bursts().arrival_s.tolist()


@pytest.mark.parametrize("times", [[0.0], [0.0, 60.0], [0.0, 0.0], [0.0, 59.0]], ids=str)
def test_short_traces_scale_too(times: list[float]) -> None:
    scaled = scale_trace(make_trace("short", times, 10, 1), 3)
    assert len(scaled) == 3 * len(times)
    assert 0.0 <= scaled.arrival_s[0] <= scaled.duration_s <= max(times[-1], 1e-9)


def test_scaling_by_nothing_is_refused() -> None:
    with pytest.raises(TraceError, match="got 0; legal: whole number >= 1"):
        scale_trace(bursts(), 0)


def test_clipping_counts_what_it_drops_and_moves_nothing() -> None:
    trace = make_trace("clip", [0.0, 1.0, 2.0], [50, 10, 20], [1, 2, 3], [5, 6, 7])
    clipped, dropped = clip(trace, 20)
    assert dropped == 1
    assert clipped.arrival_s.tolist() == [1.0, 2.0]
    assert clipped.osl_tokens.tolist() == [2, 3]
    assert clipped.cached_tokens.tolist() == [6, 7]
    with pytest.raises(TraceError, match="every prompt is above 5 tokens"):
        clip(trace, 5)


def test_requests_out_of_order_are_sorted_together() -> None:
    trace = make_trace("order", [5.0, 3.0], [10, 20], [1, 2])
    assert trace.arrival_s.tolist() == [0.0, 2.0]
    assert trace.isl_tokens.tolist() == [20, 10]
    assert trace.osl_tokens.tolist() == [2, 1]


def test_a_trace_without_requests_is_refused() -> None:
    with pytest.raises(TraceError, match="got no requests"):
        make_trace("empty", [], [], [])
