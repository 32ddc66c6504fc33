"""Making the engine: one clear line for each way in which it cannot go on."""

import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.engine import build


class Usage(NamedTuple):
    free: int


@pytest.fixture
def fake_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    # Returns how to put a `uv` of these shell lines first on PATH; the engine goes to tmp_path/e.
    monkeypatch.setenv(build.FOLDER_VARIABLE, str(tmp_path / "e"))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(int(1e12)))

    def write(lines: str) -> None:
        uv = tmp_path / "uv"
        uv.write_text(f"#!/bin/sh\n{lines}\n", encoding="utf-8")
        uv.chmod(0o755)

    return write


def failure() -> str:
    with pytest.raises(build.BuildError) as caught:
        build.build(lambda _: None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_machine_is_named(fake_uv, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert "pinned for Linux on x86_64, this is linux on aarch64" in failure()


def test_another_python_is_named(fake_uv, monkeypatch):
    monkeypatch.setattr(build, "PYTHONS", ((3, 8), (3, 9)))
    assert "pinned for Python 3.8, 3.9, this is 3." in failure()


def test_too_little_room_is_told_before_the_download(fake_uv, monkeypatch):
    fake_uv("echo downloads; exit 1")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(int(4.25e9)))
    assert "has 4.2 GB free, the engine needs 9: make room, or name another" in failure()


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        pytest.param("echo refused: 403 >&2; exit 2", "uv venv failed: refused: 403", id="said"),
        pytest.param("exit 2", "uv venv failed: it said nothing", id="silent"),
        pytest.param(
            '[ "$1" = venv ] || { echo no torch==2.13.0 >&2; exit 1; }',
            "uv pip install failed: no torch==2.13.0; mend it, then make engine-build",
            id="packages",
        ),
    ],
)
def test_a_failed_install_says_what_and_leaves_no_engine(fake_uv, lines: str, told: str):
    fake_uv(lines)
    assert told in failure()
    assert not build.engine().is_complete


# `uv venv ... DIR` makes a python there that makes a model where it is told to.
MAKES = """
for last; do :; done
if [ "$1" = venv ]; then
  mkdir -p $last/bin
  printf '#!/bin/sh\\nmkdir $2\\n' > $last/bin/python
  chmod +x $last/bin/python
fi
"""


def test_what_is_complete_is_left_alone(fake_uv):
    fake_uv(MAKES)
    said: list[str] = []
    made = build.build(said.append)
    assert made.is_complete
    assert said[0].startswith(f"installing into {made.folder}")
    fake_uv("exit 1")
    assert build.build(said.append) == made
    assert sorted(p.name for p in made.folder.iterdir()) == [".lock", "model", "venv"]


def test_the_folder_is_named_after_the_pins(monkeypatch, tmp_path):
    monkeypatch.delenv(build.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = build.engine()
    assert first.folder.parent == tmp_path / "pd-planner" / "engine"
    shutil.copytree(build.PINS, tmp_path / "pins")
    monkeypatch.setattr(build, "PINS", tmp_path / "pins")
    assert build.engine() == first
    with (tmp_path / "pins" / "locked.txt").open("a") as locked:
        locked.write("one-more==1.0\n")
    assert build.engine() != first


def test_print_says_where_and_makes_nothing(fake_uv, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["build", "--print"])
    assert build.main() == 0
    assert capsys.readouterr().out == f"{tmp_path / 'e'}\n"
    assert not (tmp_path / "e").exists()
