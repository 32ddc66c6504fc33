"""The engine of the tests, made once: a real vLLM, or an honest skip."""

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from tests.ci import IN_CI
from tests.engine import build
from tests.engine.build import Engine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def engine(pytestconfig: pytest.Config, leave_out: Callable[[str, str, str], NoReturn]) -> Engine:
    """Return the engine; in CI it is made here, which takes its time."""
    reason = f"the engine of the tests is not made; get it with: {build.GET_IT}"
    try:
        if IN_CI:
            return _build_in_sight(pytestconfig)
        if (made := build.engine()).is_complete:
            return made
    except build.BuildError as error:
        reason = str(error)
    return leave_out("a real vLLM", build.GET_IT, reason)


def _build_in_sight(config: pytest.Config) -> Engine:
    # Not captured: minutes without a word look like a hang.
    with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        return build.build(build.to_stderr)
