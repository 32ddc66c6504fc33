"""`pd-planner profile apply` on the real API server: what is written, with which rights."""

import pytest
import yaml

from planner.__main__ import main
from profiles import from_configmap_data, sample
from tests.cluster.control_plane import ControlPlane
from tests.cluster.rest import core
from tests.cluster.waiting import wait_for

H200 = "llama-3.1-8b-fp8-h200"


def apply(plane: ControlPlane, namespace: str, *flags: str, kubeconfig: str | None = None) -> int:
    config = kubeconfig or str(plane.kubeconfig)
    place = ["--namespace", namespace, "--name", "llama", "--kubeconfig", config]
    return main(["profile", "apply", H200, *place, *flags])


@pytest.fixture
def account(control_plane, namespace, tmp_path):
    """Return a kubeconfig of an account without rights, and what grants it verbs."""
    token = control_plane.account(namespace, "profiler")
    config = yaml.safe_load(control_plane.kubeconfig.read_text("utf-8"))
    config["users"] = [{"name": "profiler", "user": {"token": token}}]
    config["contexts"][0]["context"]["user"] = "profiler"
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    rest, group = control_plane.rest, "rbac.authorization.k8s.io"
    roles = f"/apis/{group}/v1/namespaces/{namespace}"

    def grant(*verbs):
        name = "-".join(verbs)
        rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": list(verbs)}
        rest.create(f"{roles}/roles", {"metadata": {"name": name}, "rules": [rule]})
        binding = {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "profiler", "namespace": namespace}],
        }
        rest.create(f"{roles}/rolebindings", binding)

    return str(path), grant


def test_a_profile_is_created_changed_and_left_alone(control_plane, namespace, capsys):
    read = core(namespace, "configmaps", "llama")
    assert apply(control_plane, namespace) == 0
    assert f"configmap/llama in namespace {namespace}: applied" in capsys.readouterr().out
    found = control_plane.rest.get(read)
    assert from_configmap_data(found["data"], "cm") == sample(H200)
    assert found["metadata"]["labels"]["pd-planner.io/gpu"] == "h200"
    (manager,) = found["metadata"]["managedFields"]
    assert (manager["manager"], manager["operation"]) == ("pd-planner", "Apply")
    assert apply(control_plane, namespace) == 0
    again = control_plane.rest.get(read)["metadata"]["resourceVersion"]
    assert again == found["metadata"]["resourceVersion"]


def test_a_dry_run_is_checked_by_the_server_and_changes_nothing(control_plane, namespace, capsys):
    assert apply(control_plane, namespace, "--dry-run") == 0
    assert "would be applied" in capsys.readouterr().out
    names = [m["metadata"]["name"] for m in control_plane.rest.items(core(namespace, "configmaps"))]
    assert "llama" not in names


def test_what_somebody_else_wrote_is_taken_over_by_force_alone(control_plane, namespace, capsys):
    body = {"metadata": {"name": "llama"}, "data": {"profile.json": "{}", "note": "theirs"}}
    control_plane.rest.create(core(namespace, "configmaps"), body)
    assert apply(control_plane, namespace) == 1
    told = capsys.readouterr().err
    assert "conflict" in told
    assert told.rstrip().endswith("--force takes the fields over")
    assert told.count("\n") == 1
    assert apply(control_plane, namespace, "--force") == 0
    found = control_plane.rest.get(core(namespace, "configmaps", "llama"))["data"]
    assert found["note"] == "theirs"
    assert from_configmap_data(found, "cm") == sample(H200)


def test_each_missing_right_is_named(control_plane, namespace, account, capsys):
    kubeconfig, grant = account

    def told() -> str:
        assert apply(control_plane, namespace, kubeconfig=kubeconfig) == 1
        return capsys.readouterr().err

    assert "grant verbs: [patch], resources: [configmaps]" in told()
    grant("patch")
    asked = wait_for(
        "the Role is in force", lambda: next((t for t in [told()] if "create" in t), None)
    )
    assert "may not create configmaps llama" in asked
    assert "verbs: [create, patch]" in asked
    grant("create")
    wait_for("both are in force",
             lambda: apply(control_plane, namespace, kubeconfig=kubeconfig) == 0)  # fmt: skip


def test_a_namespace_that_is_not_there_is_told(control_plane, capsys):
    assert apply(control_plane, "nowhere") == 1
    told = capsys.readouterr().err
    assert "nowhere" in told
    assert told.count("\n") == 1
