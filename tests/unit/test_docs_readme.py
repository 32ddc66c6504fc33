"""README.md: commands that exist with flags they know, files that exist, figures with a source."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from planner.cli import app

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
# A command may go on over lines that end with a backslash.
COMMANDS = [
    shlex.split(line.removeprefix("$ "), comments=True)
    for block in BLOCKS
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("$ ")
]
PLANNER = [words[1:] for words in COMMANDS if words[0].endswith("pd-planner")]


def flags_of(command):
    known = typer.main.get_command(app).commands[command].params
    return {flag for param in known for flag in param.opts}


@pytest.mark.parametrize("words", PLANNER, ids=" ".join)
def test_a_command_knows_the_flags_it_is_given(words):
    given = {word for word in words[1:] if word.startswith("-")}
    assert given <= flags_of(words[0])


def test_the_commands_a_reader_wants_first_are_shown():
    assert {words[0] for words in PLANNER} == {
        "simulate", "explain", "recommend", "check", "run", "compare",
    }  # fmt: skip
    assert ["make", "demo"] in COMMANDS
    assert ["make", "test"] in COMMANDS


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {words[1] for words in COMMANDS if words[0] == "make"} <= targets


def test_benchmarks_that_are_named_exist():
    named = re.findall(r"python -m benchmarks\.(\w+)", PAGE)
    assert named
    assert [name for name in named if not (ROOT / f"benchmarks/{name}.py").is_file()] == []


def test_example_files_exist():
    named = set(re.findall(r"examples/[\w.-]+\.yaml", PAGE))
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("name", re.findall(r"!\[[^]]+\]\(([^)]+)\)", PAGE))
def test_pictures_are_light_and_fetch_nothing(name):
    picture = (ROOT / name).read_bytes()
    assert len(picture) < 300_000
    if name.endswith(".svg"):
        assert b"url(http" not in picture.replace(b'"', b"")


def test_no_place_is_left_to_fill_in():
    assert "<!--" not in PAGE


def test_figures_say_where_and_when_they_were_measured():
    section = PAGE.split("## What it reaches")[1].split("\n## ")[0]
    assert re.search(r"\d{4}-\d{2}-\d{2}, \d+ × .+, Python \d", section)
    assert "python -m benchmarks.static_fleet" in section


def test_it_stays_short():
    assert len(PAGE.splitlines()) <= 200
