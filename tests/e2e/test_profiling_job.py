"""The profiling Job on the real API server: taken as shipped, and its command under its account."""

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from planner.__main__ import main
from profiles import from_configmap_data
from tests.cluster.control_plane import ControlPlane
from tests.cluster.rest import Manifest, core
from tests.cluster.waiting import wait_for

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "manifests" / "profiling"
SCRIPT = ROOT / "tests" / "integration" / "scripted_engine.py"
ACCOUNT = "pd-planner-profiling"
RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces"
SMALL = [
    *("--samples", "1", "--output-tokens", "8", "--max-points", "12", "--isl-max", "1024"),
    *("--max-sequences", "4", "--output", "p.json", "--gpu", "h100"),
]


def documents(name: str) -> list[Manifest]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


@dataclass(frozen=True, slots=True)
class Installed:
    """The shipped Job and its account in a namespace of the test."""

    plane: ControlPlane
    namespace: str
    job: Manifest
    kubeconfig: Path

    def run(self, *flags: str) -> int:
        """Run the container's command, with a scripted engine and little to measure."""
        (container,) = self.job["spec"]["template"]["spec"]["containers"]
        values = {each["name"]: each.get("value", "") for each in container["env"]}
        values["POD_NAMESPACE"] = self.namespace
        words = [
            re.sub(r"\$\((\w+)\)", lambda m: values[m[1]], word)
            for word in (*container["command"], *container["args"])
        ]
        assert words[:3] == ["pd-planner", "profile", "run"]
        end = words.index("--")
        engine = ["--engine-command", f"{sys.executable} {SCRIPT}"]
        own = ["--kubeconfig", str(self.kubeconfig), *SMALL, *engine, *flags]
        return main([*words[1:end], *own, *words[end:]])

    def config_map(self) -> Manifest:
        return self.plane.rest.get(core(self.namespace, "configmaps", "llama-8b-h100"))


@pytest.fixture
def installed(
    control_plane: ControlPlane, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installed]:
    token = control_plane.account(namespace, ACCOUNT)
    config = yaml.safe_load(control_plane.kubeconfig.read_text("utf-8"))
    config["users"] = [{"name": ACCOUNT, "user": {"token": token}}]
    config["contexts"][0]["context"]["user"] = ACCOUNT
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (job,) = documents("job.yaml")
    path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    created = control_plane.rest.create(path, job)
    for name, variable in (
        ("name", "JOB_NAME"),
        ("uid", "JOB_UID"),
        ("namespace", "POD_NAMESPACE"),
    ):
        monkeypatch.setenv(variable, created["metadata"][name])
    yield Installed(control_plane, namespace, created, kubeconfig)
    control_plane.rest.delete(f"{path}/{created['metadata']['name']}")


@pytest.fixture
def grant(installed: Installed) -> Callable[[], None]:
    """Return what gives the account its shipped rights."""
    role, binding = documents("role.yaml")
    binding["subjects"][0]["namespace"] = installed.namespace

    def give() -> None:
        place = f"{RBAC}/{installed.namespace}"
        installed.plane.rest.create(f"{place}/roles", role)
        installed.plane.rest.create(f"{place}/rolebindings", binding)

    return give


def test_the_server_stores_the_job_as_it_is_shipped(installed):
    (written,) = documents("job.yaml")
    (container,) = written["spec"]["template"]["spec"]["containers"]
    (stored,) = installed.job["spec"]["template"]["spec"]["containers"]
    assert stored["command"] + stored["args"] == container["command"] + container["args"]
    labels = installed.job["spec"]["template"]["metadata"]["labels"]
    # What the downward API hands on as the owner.
    assert labels["batch.kubernetes.io/job-name"] == installed.job["metadata"]["name"]
    assert labels["batch.kubernetes.io/controller-uid"] == installed.job["metadata"]["uid"]


def test_its_command_measures_and_writes_what_belongs_to_the_job(installed, grant, capsys):
    grant()
    wait_for("the Role is in force", lambda: installed.run() == 0)
    found = installed.config_map()
    profile = from_configmap_data(found["data"], "cm")
    assert (len(profile.prefill), len(profile.decode)) == (3, 9)
    labels = found["metadata"]["labels"]
    assert labels["pd-planner.io/engine"] == "vllm"
    assert labels["pd-planner.io/gpu"] == "h100"
    assert labels["pd-planner.io/model"] == "tiny"
    (owner,) = found["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("Job", installed.job["metadata"]["uid"])
    assert "configmap/llama-8b-h100" in capsys.readouterr().err


def test_the_job_of_another_namespace_is_no_owner(installed, grant, monkeypatch):
    grant()
    monkeypatch.setenv("POD_NAMESPACE", "elsewhere")
    wait_for("the Role is in force", lambda: installed.run() == 0)
    assert "ownerReferences" not in installed.config_map()["metadata"]


def test_without_the_right_nothing_is_measured_for_nothing(installed, capsys, tmp_path):
    assert installed.run() == 1
    told = capsys.readouterr().err
    assert "grant verbs: [patch], resources: [configmaps]" in told
    assert told.count("\n") == 1
    assert not list(tmp_path.glob("*.jsonl"))
