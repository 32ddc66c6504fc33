"""What tests of whole commands need: a folder of their own, and the logging left as it was."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # An empty folder to run in, without the caller's settings.
    for name in [name for name in os.environ if name.startswith("PD_PLANNER_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield tmp_path
    # A command sends its log to the stderr of the time, which is closed after the test.
    root.handlers[:] = handlers
    root.setLevel(level)
