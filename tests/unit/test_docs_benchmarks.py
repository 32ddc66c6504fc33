"""docs/BENCHMARKS.md is what the benchmarks print, and every benchmark is on the list."""

import re
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS, INTRODUCTION, page
from benchmarks.figure import line, number

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/BENCHMARKS.md").read_text(encoding="utf-8")
# Parts that others are made of, and the pictures of the README.
NO_BENCHMARK = {"__main__", "figure", "machine", "pictures", "replays"}
# Their output is in docs/RESULTS.md.
NO_BENCHMARK |= {"foretold", "policies", "policies_cases"}


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda b: b.command)
def test_every_benchmark_has_its_place_on_the_page(benchmark):
    assert f"## {benchmark.title}\n\n```console\n$ {benchmark.command}\n" in PAGE


def test_every_module_is_on_the_list():
    modules = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert modules - NO_BENCHMARK == {benchmark.module for benchmark in BENCHMARKS}


def test_the_page_says_how_where_and_when():
    assert PAGE.startswith(INTRODUCTION)
    assert re.search(r"^Measured on \d{4}-\d{2}-\d{2}, \d+ × .+, Python \d", PAGE, re.MULTILINE)


def test_the_page_counts_the_targets_it_shows():
    verdicts = re.findall(r"target at most .*: (met|MISSED)$", PAGE, re.MULTILINE)
    told = f"Of {len(verdicts)} targets {verdicts.count('MISSED')} were missed."
    assert told in PAGE
    assert len(verdicts) >= 10


def test_a_page_is_made_of_what_was_printed():
    chosen = [b for b in BENCHMARKS if b.module == "cli"]
    made = page("a machine", chosen, [[line("start", 0.6, "s", 0.5), line("size", 2.0, "MB")]])
    assert "Measured on a machine." in made
    assert "Of 1 targets 1 were missed." in made
    assert "$ python -m benchmarks.cli\nstart" in made


@pytest.mark.parametrize(
    ("value", "verdict"), [(0.4, "met"), (0.5, "met"), (0.51, "MISSED")], ids=str
)
def test_a_figure_is_held_to_its_target(value, verdict):
    assert line("start", value, "s", 0.5).endswith(f"target at most 0.5 s: {verdict}")


def test_a_figure_without_target_has_no_verdict():
    assert line("ratio", 12.3456, "x").split() == ["ratio", "12.3", "x"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (12.345, "12.3"), (123.4, "123"), (1234567.0, "1,234,567")],
    ids=str,
)
def test_numbers_have_three_digits_or_are_whole(value, text):
    assert number(value) == text
