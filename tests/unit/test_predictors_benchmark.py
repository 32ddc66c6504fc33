"""The benchmark reads every format it names, and says what it cannot read."""

import gzip
from pathlib import Path

import pytest

from benchmarks.predictors import main, read

REQUESTS = "t_s,isl,osl\n5,100,10\n15,300,30\n130,50,5\n190,1,1\n"
AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:15:46.6805900,100,10\n"
    "2023-11-16 18:15:56.6805900,300,30\n"
    "2023-11-16 18:17:50.0000000,50,5\n"
    "2023-11-16 18:18:50.0000000,1,1\n"
)


@pytest.mark.parametrize("text", [REQUESTS, AZURE], ids=["plain", "azure"])
def test_requests_become_intervals_of_a_minute(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    rps, prefill, decode, isl, osl = read(path)
    assert rps.trace == "trace"
    assert rps.values == pytest.approx([2 / 60, 0, 1 / 60])
    assert prefill.values == pytest.approx([400 / 60, 0, 50 / 60])
    assert decode.values == pytest.approx([40 / 60, 0, 5 / 60])
    assert isl.values == [200.0, None, 50.0]
    assert osl.values == [20.0, None, 5.0]
    assert isl.weights == pytest.approx([2, 0, 1])


def test_a_series_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "days.csv"
    path.write_text("t_s,rps,mean_isl,mean_osl,x\n0,2,100,10,1\n600,4,200,20,1\n")
    rps, prefill, _, isl, _ = read(path)
    assert rps.values == [2.0, 4.0]
    assert prefill.values == [200.0, 800.0]
    assert isl.weights == [1200.0, 2400.0]


def test_the_table_names_predictor_and_series(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "days.csv"
    rows = "".join(f"{600 * t},{10 + t % 3},100,10\n" for t in range(30))
    path.write_text("t_s,rps,mean_isl,mean_osl\n" + rows)
    assert main([str(path), "--only", "LastValue", "--steps", "1"]) == 0
    table = capsys.readouterr().out
    assert table.count("LastValue days") == 6
    assert "1.000 (1.000)" in table.splitlines()[-1]


def test_what_it_cannot_read_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("a,b\n1,2\n")
    assert main([str(path)]) == 2
    refusal = capsys.readouterr().err
    assert "columns are a,b; legal are t_s,isl,osl" in refusal
    assert refusal.count("\n") == 1
