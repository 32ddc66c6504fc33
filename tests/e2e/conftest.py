"""The control plane of the tests: one a session, one more for the tests that break parts of it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.ci import IN_CI
from tests.cluster import build
from tests.cluster.control_plane import ControlPlane, running_control_plane


@pytest.fixture(scope="session")
def cluster_binaries(
    pytestconfig: pytest.Config, leave_out: Callable[[str, str, str], NoReturn]
) -> Path:
    """Return the folder of the programs; in CI they are built here, which takes its time."""
    reason = f"the programs of the test cluster are not built; get them with: {build.GET_IT}"
    try:
        if IN_CI:
            return _build_in_sight(pytestconfig)
        if build.is_complete(place := build.folder()):
            return place
    except build.BuildError as error:
        reason = str(error)
    return leave_out("a real control plane", build.GET_IT, reason)


def _build_in_sight(config: pytest.Config) -> Path:
    # Not captured: minutes without a word look like a hang.
    with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        return build.build(build.to_stderr)


@pytest.fixture(scope="session")
def control_plane(
    cluster_binaries: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    # The one that all tests share: its parts are left alone.
    folder = tmp_path_factory.mktemp("control-plane")
    with running_control_plane(cluster_binaries, folder) as plane:
        yield plane
        assert not plane.ended_by_themselves()


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    # The test's own; its pods are gone when the next test begins.
    name = control_plane.add_namespace()
    yield name
    control_plane.remove_namespace(name)


@pytest.fixture(scope="module")
def own_control_plane(
    cluster_binaries: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    # This module's own, to kill and freeze parts of: clients that met an outage wait longer and
    # longer, which would poison the timings of other tests.
    folder = tmp_path_factory.mktemp("own-control-plane")
    with running_control_plane(cluster_binaries, folder) as plane:
        yield plane


@pytest.fixture
def own_namespace(own_control_plane: ControlPlane) -> Iterator[str]:
    # As `namespace`, in the module's own control plane; whatever the test did to it is made good.
    name = own_control_plane.add_namespace()
    yield name
    own_control_plane.recover()
    own_control_plane.remove_namespace(name)
