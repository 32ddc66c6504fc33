"""A configuration that can't be used is one clear line before anything starts."""

from pathlib import Path

import pytest

from planner.adapters.kubernetes.api import KubernetesAccess, KubernetesApi
from planner.errors import InputError

CONFIG = """
apiVersion: v1
kind: Config
current-context: here
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: here, context: {cluster: c, user: u}}]
"""


@pytest.fixture
def no_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


def test_a_usable_one_names_the_server(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(CONFIG)
    for context in (None, "here"):
        api = KubernetesApi(KubernetesAccess(file, context))
        assert api.server == "https://127.0.0.1:1"
        api.close()


@pytest.mark.parametrize(
    ("text", "context", "said"),
    [
        pytest.param(CONFIG, "there", "there", id="no such context"),
        pytest.param("", None, "can't be used", id="empty"),
        pytest.param("a: [", None, "kubeconfig", id="no yaml"),
        pytest.param("just words", None, "kubeconfig", id="no mapping"),
    ],
)
@pytest.mark.usefixtures("no_pod")
def test_one_that_can_not_be_used_is_one_line(
    tmp_path: Path, text: str, context: str | None, said: str
) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    with pytest.raises(InputError) as refused:
        KubernetesApi(KubernetesAccess(file, context))
    line = str(refused.value)
    assert line.startswith("--kubeconfig")
    assert str(file) in line
    assert said in line
    assert "\n" not in line


@pytest.mark.usefixtures("no_pod")
def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--kubeconfig"):
        KubernetesApi(KubernetesAccess(tmp_path / "none"))
