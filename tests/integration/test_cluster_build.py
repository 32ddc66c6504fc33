"""Building the test cluster: one clear line for each way in which it cannot go on."""

import os
from pathlib import Path

import pytest

from tests.cluster import build

FORBIDDEN = (
    "go: k8s.io/kubernetes@v1.35.3: reading https://proxy.example/k8s.io/x.zip: 403 Forbidden"
)


@pytest.fixture
def fake_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Returns how to put a `go` of these shell lines first on PATH; programs go to tmp_path/bin.
    monkeypatch.setenv(build.FOLDER_VARIABLE, str(tmp_path / "bin"))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def write(lines: str, release: str = "go1.26.0") -> None:
        go = tmp_path / "go"
        version = f'[ "$1" = version ] && {{ echo go version {release} linux/amd64; exit; }}\n'
        go.write_text(f"#!/bin/sh\n{version}{lines}\n", encoding="utf-8")
        go.chmod(0o755)

    return write


def test_without_go_it_says_which_and_where_to_get_it(monkeypatch, tmp_path):
    monkeypatch.delenv(build.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.BuildError, match=r"Go 1\.25 or later .* https://go\.dev/doc/install"):
        build.folder()


def test_a_go_that_is_too_old_is_named(fake_go):
    fake_go("exit 1", release="go1.19.8")
    with pytest.raises(build.BuildError, match=r"go1\.19\.8 linux/amd64` is too old"):
        build.build(lambda _: None)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        pytest.param(f"echo '{FORBIDDEN}' >&2; exit 1", "403 Forbidden; check the", id="refused"),
        pytest.param("echo 'x.go:1: undefined: y' >&2; exit 1", "undefined: y; mend", id="broken"),
        pytest.param("exit 1", "go said nothing", id="silent"),
    ],
)
def test_a_failed_build_says_what_in_one_line_and_leaves_nothing_half_done(
    fake_go, tmp_path, lines, told
):
    fake_go(lines)
    with pytest.raises(build.BuildError) as caught:
        build.build(lambda _: None)
    assert told in str(caught.value)
    assert str(caught.value).startswith("etcd: ")
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "bin").iterdir()] == [".lock"]


def test_what_exists_is_left_alone_and_the_rest_is_built_with_a_line_on_what_is_left(
    fake_go, tmp_path
):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / build.MANIFESTS).write_text("{}", encoding="utf-8")
    for program in build.PROGRAMS[2:]:
        (tmp_path / "bin" / program.name).write_text("old", encoding="utf-8")
    # `go build ... -o OUT PACKAGE`: writes OUT.
    fake_go('while [ $# -gt 1 ]; do [ "$1" = -o ] && echo new > "$2"; shift; done')
    said: list[str] = []
    place = build.build(said.append)
    assert not build.missing(place)
    assert (place / "kubectl").read_text(encoding="utf-8") == "old"
    assert (place / "etcd").read_text(encoding="utf-8") == "new\n"
    assert said[0].startswith("building 2 programs into ")
    assert any(line.startswith("[2/2] kube-apiserver ... about ") for line in said)


def test_the_folder_is_named_after_the_pins(fake_go, monkeypatch, tmp_path):
    fake_go("exit 1")
    monkeypatch.delenv(build.FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = build.folder()
    assert first.parent == tmp_path / "cache" / "pd-planner" / "cluster"
    assert build.folder() == first
    fake_go("exit 1", release="go1.27.0")
    assert build.folder() != first
