"""What every test can lean on: real programs or an honest skip, and hypothesis profiles.

A program that is missing skips the test with a reason and a way to get it; with ``CI=true`` it
fails instead, so that a green run there has left nothing out.
"""

import logging
import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NoReturn, Protocol

import pytest
from hypothesis import settings

from tests.ci import IN_CI

DATA = Path(__file__).parent / "data"
TEST_DEPS_HINT = "make test-deps"
LEFT_OUT = pytest.StashKey[dict[str, str]]()

# No deadline: the machine is shared, and a slow example is no fault of the code.
settings.register_profile("local", deadline=None, max_examples=30)
settings.register_profile("ci", deadline=None, max_examples=60, derandomize=True)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if IN_CI else "local"))


class Require(Protocol):
    """Find a program, or leave the test out and say how to get it."""

    def __call__(self, program: str, hint: str, *, or_called: tuple[str, ...] = ()) -> Path: ...


class LeaveOut(Protocol):
    """Leave the test out: what is missing, how to get it, why."""

    def __call__(self, missing: str, hint: str, reason: str) -> NoReturn: ...


class MatchesGolden(Protocol):
    """Compare a text with tests/data/<name>."""

    def __call__(self, name: str, text: str) -> None: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-golden", action="store_true", help="write tests/data anew instead of comparing"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by folder, so that no integration test escapes ``-m "not integration"``."""
    for item in items:
        if {"integration", "e2e"} & set(item.path.parts):
            item.add_marker(pytest.mark.integration)
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.e2e)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker left out, for the summary."""
    node.config.stash[LEFT_OUT].update(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand over what was left out, where this is a worker of `pytest -n`."""
    if (handed := getattr(session.config, "workeroutput", None)) is not None:
        handed["left_out"] = session.config.stash[LEFT_OUT]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    left_out = terminalreporter.config.stash[LEFT_OUT]
    for program, hint in sorted(left_out.items()):
        terminalreporter.write_line(
            f"left out here: tests that need {program} (get it with: {hint})"
        )


@pytest.fixture(scope="session")
def leave_out(pytestconfig: pytest.Config) -> LeaveOut:
    """Return what skips a test and has the summary say so; in CI it fails the test."""

    def give_up(missing: str, hint: str, reason: str) -> NoReturn:
        pytestconfig.stash[LEFT_OUT][missing] = hint
        if IN_CI:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)

    return give_up


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Take back what a command made of the log: the next test reads it too."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture(scope="session")
def require(leave_out: LeaveOut) -> Require:
    """Return a finder of programs: ``require("prometheus", "make test-deps") -> Path``."""

    def find(program: str, hint: str, *, or_called: tuple[str, ...] = ()) -> Path:
        for name in (program, *or_called):
            if found := shutil.which(name):
                return Path(found)
        return leave_out(program, hint, f"{program} is not on PATH; get it with: {hint}")

    return find


@pytest.fixture(scope="session")
def prometheus_binary(require: Require) -> Path:
    """Return the Prometheus server."""
    return require("prometheus", TEST_DEPS_HINT)


@pytest.fixture(scope="session")
def promtool_binary(require: Require) -> Path:
    """Return promtool, which comes with the Prometheus package."""
    return require("promtool", TEST_DEPS_HINT)


@pytest.fixture(scope="session")
def chromium_binary(require: Require) -> Path:
    """Return a headless-capable browser."""
    browsers = ("chromium-browser", "google-chrome", "google-chrome-stable")
    return require("chromium", TEST_DEPS_HINT, or_called=browsers)


@pytest.fixture
def matches_golden(pytestconfig: pytest.Config) -> MatchesGolden:
    """Return a check that a text is what tests/data holds; ``make golden`` writes it anew."""

    def compare(name: str, text: str) -> None:
        expected = DATA / name
        if pytestconfig.getoption("--write-golden"):
            expected.parent.mkdir(parents=True, exist_ok=True)
            expected.write_text(text, encoding="utf-8")
        assert text == expected.read_text(encoding="utf-8"), f"{name} differs: see `make golden`"

    return compare


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn every skip into a failure where everything is proven: nothing is left out unseen."""
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped under CI: {report.longrepr}"
    return report
