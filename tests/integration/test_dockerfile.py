"""The image's recipe, proven without a container runtime: linted, and its RUN lines executed.

The commands run as nobody, with the image's folders mapped into a temporary one; what they leave
behind is then used as the image would use it.
"""

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
NOBODY = 65534
IMAGE_FOLDERS = ("/src", "/wheels", "/opt/pd-planner")


@dataclass(frozen=True, slots=True)
class Instruction:
    word: str
    rest: str


def instructions() -> list[Instruction]:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    joined = text.replace("\\\n", " ").splitlines()
    return [Instruction(*line.split(maxsplit=1)) for line in joined if line.strip()]


def stages() -> list[list[Instruction]]:
    found: list[list[Instruction]] = []
    for instruction in instructions():
        if instruction.word == "FROM":
            found.append([])
        if found:
            found[-1].append(instruction)
    return found


def rest_of(stage: list[Instruction], word: str) -> list[str]:
    return [i.rest for i in stage if i.word == word]


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A folder that stands for the image's root, owned by whoever runs its commands."""

    root: Path
    python_bin: Path
    identity: Mapping[str, object]

    def mapped(self, text: str) -> str:
        folders = "|".join(IMAGE_FOLDERS)
        return re.sub(rf"(?<![\w.])(?:{folders})\b", lambda m: f"{self.root}{m[0]}", text)

    def run(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        # The registry's settings stay; a local folder of packages would bypass the lock's download.
        kept = {k: v for k, v in os.environ.items() if k != "PIP_FIND_LINKS"}
        env = {**kept, "HOME": str(self.root / "home"), "TMPDIR": str(self.root / "tmp")}
        env |= {"PATH": f"{self.python_bin}:{env['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}
        env |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", **variables}
        return subprocess.run(
            ["/bin/sh", "-c", self.mapped(command)],
            cwd=self.root / "src",
            env=env,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            **self.identity,
        )


def nobody_if_root() -> dict[str, object]:
    if os.geteuid() != 0:
        return {}
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []}


def python_for(identity: Mapping[str, object]) -> str:
    """Return a Python with pip that this identity may run; root's own may be out of reach."""
    base = str(Path(sys.base_prefix) / "bin" / "python3")
    for candidate in (base, "/usr/local/bin/python3", "/usr/bin/python3"):
        probe = [candidate, "-c", "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"]
        try:
            if subprocess.run(probe, check=False, capture_output=True, **identity).returncode == 0:
                return candidate
        except OSError:
            continue
    pytest.skip("no Python >= 3.11 with venv that an unprivileged user may run")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    identity = nobody_if_root()
    # Not pytest's own folder: that one is closed to other users.
    root = Path(tempfile.mkdtemp(prefix="pd-planner-image-"))
    try:
        for name in ("home", "tmp", "src", "opt"):
            (root / name).mkdir()
        for path in (root, *root.iterdir()):
            if identity:
                os.chown(path, NOBODY, NOBODY)
        made = subprocess.run(
            [python_for(identity), "-m", "venv", root / "base"], check=False, **identity
        )
        assert made.returncode == 0
        yield Sandbox(root, root / "base" / "bin", identity)
    finally:
        shutil.rmtree(root)


def copy_into(sandbox: Sandbox, sources: list[str]) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    for source in sources:
        origin, target = ROOT / source, sandbox.root / "src" / source
        if origin.is_dir():
            shutil.copytree(origin, target, ignore=ignored)
        else:
            shutil.copy2(origin, target)


@pytest.fixture(scope="module")
def built(sandbox: Sandbox) -> Sandbox:
    """Carry out the build stage."""
    variables: dict[str, str] = {}
    for step in stages()[0]:
        if step.word == "ARG":
            name, _, value = step.rest.partition("=")
            variables[name] = value.strip('"')
        elif step.word == "COPY":
            copy_into(sandbox, step.rest.split()[:-1])
        elif step.word == "RUN":
            done = sandbox.run(step.rest, **variables)
            assert done.returncode == 0, f"RUN {step.rest}\n{done.stdout}{done.stderr}"
    return sandbox


def test_hadolint_finds_nothing(require):
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    hadolint = hadolint or require("hadolint", "make install")
    done = subprocess.run(
        [hadolint, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_copied_paths_exist_and_reach_the_build_context():
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    assert "*" in rules, "the context is closed by default"
    for source in (s for rest in rest_of(stages()[0], "COPY") for s in rest.split()[:-1]):
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source, rule) for rule in allowed), f"{source} is ignored"


def test_the_last_stage_only_takes_what_was_built():
    assert all(rest.startswith("--from=build ") for rest in rest_of(stages()[-1], "COPY"))
    assert not rest_of(stages()[-1], "RUN")


def test_the_image_runs_as_a_number_that_is_not_root():
    (user,) = rest_of(stages()[-1], "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--help", "recommend"),
        ("recommend --help", "--prometheus"),
        ("schema crd", "CustomResourceDefinition"),
    ],
    ids=lambda value: value,
)
def test_the_built_environment_runs_the_entrypoint(built, arguments, says):
    (entrypoint,) = (json.loads(rest) for rest in rest_of(stages()[-1], "ENTRYPOINT"))
    done = built.run(f"/opt/pd-planner/bin/{entrypoint[0]} {arguments}")
    assert done.returncode == 0, done.stderr
    assert says in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("module", ["pytest", "mypy", "pip", "numba", "plotly"])
def test_the_built_environment_leaves_out(built, module):
    done = built.run(f"/opt/pd-planner/bin/python -c 'import {module}'")
    assert "ModuleNotFoundError" in done.stderr


@pytest.mark.slow
def test_the_built_environment_holds_the_locked_versions(built):
    listed = built.run("pip --python /opt/pd-planner list --format=json")
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked = set(re.findall(r"^(\S+)==(\S+)", lock, re.MULTILINE))
    installed = json.loads(listed.stdout)
    pins = {(canonicalize_name(entry["name"]), entry["version"]) for entry in installed}
    assert len(pins) > 1
    assert {name for name, version in pins - locked} == {"pd-planner"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (f"iniconfig==2.3.1 --hash=sha256:{'0' * 64}", "DO NOT MATCH THE HASHES"),
        ("iniconfig==2.3.1", "Hashes are required"),
    ],
    ids=["another hash", "no hash"],
)
def test_the_download_refuses_what_the_lock_does_not_vouch_for(sandbox, line, complaint):
    (download,) = (r for r in rest_of(stages()[0], "RUN") if "pip download" in r)
    (sandbox.root / "src" / "tampered.lock").write_text(f"{line}\n", encoding="utf-8")
    command = download.replace("requirements.lock", "tampered.lock")
    done = sandbox.run(command.replace("/wheels", str(sandbox.root / "refused")))
    assert done.returncode != 0
    assert complaint in done.stderr
