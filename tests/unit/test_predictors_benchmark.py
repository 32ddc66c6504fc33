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


def test_a_series_of_ten_minutes_is_resampled_and_stays_between_its_points(tmp_path: Path) -> None:
    path = tmp_path / "days.csv"
    path.write_text("t_s,rps,mean_isl,mean_osl\n0,2,100,10\n600,4,200,20\n1200,4,200,30\n")
    rps, _, _, isl, _ = read(path, resample=True)
    assert len(rps.values) == 21
    assert [rps.values[0], rps.values[10], rps.values[20]] == pytest.approx([2, 4, 4])
    rising = [value for value in rps.values if value is not None]
    assert rising == sorted(rising)
    assert isl.weights == pytest.approx([60 * value for value in rising])


@pytest.mark.parametrize(
    ("text", "from_s", "expected"),
    [
        ("t_s,rps,mean_isl,mean_osl\n0,2,1,1\n600,4,1,1\n1200,5,1,1\n", 600, [4.0, 5.0]),
        (REQUESTS, 100.0, [1 / 60]),
    ],
    ids=["series", "requests"],
)
def test_the_days_before_are_left_out(
    tmp_path: Path, text: str, from_s: float, expected: list[float]
) -> None:
    path = tmp_path / "days.csv"
    path.write_text(text)
    assert read(path, from_s=from_s)[0].values == pytest.approx(expected)


def test_an_unknown_margin_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.csv"), "--margin", "wide"]) == 2
    assert capsys.readouterr().err == "--margin: wide is unknown; legal are plain, adaptive\n"


def test_the_table_names_predictor_and_series(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "days.csv"
    rows = "".join(f"{600 * t},{10 + t % 3},100,10\n" for t in range(30))
    path.write_text("t_s,rps,mean_isl,mean_osl\n" + rows)
    chosen = ["--only", "LastValue", "--steps", "1", "--margin", "plain,adaptive"]
    assert main([str(path), *chosen]) == 0
    table = capsys.readouterr().out
    # Five series with each margin, and the summary of coverage.
    assert table.count("LastValue plain    days") == 6
    assert table.count("LastValue adaptive days") == 6
    assert "1.000 (1.000)" in table
    assert table.splitlines()[-1].endswith("of 15")


def test_what_it_cannot_read_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("a,b\n1,2\n")
    assert main([str(path)]) == 2
    refusal = capsys.readouterr().err
    assert "columns are a,b; legal are t_s,isl,osl" in refusal
    assert refusal.count("\n") == 1
