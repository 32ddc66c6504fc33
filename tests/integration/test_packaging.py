"""The wheel that is built from this tree holds the packages, their data, and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("planner", "predictors", "profiles")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("pd_planner-*-py3-none-any.whl")
    with zipfile.ZipFile(built) as archive:
        yield archive


def text_of(wheel: zipfile.ZipFile, name: str) -> str:
    (path,) = (p for p in wheel.namelist() if p.endswith(f".dist-info/{name}"))
    return wheel.read(path).decode()


def test_it_holds_the_packages_and_nothing_else(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


def test_it_holds_every_file_of_the_packages(wheel):
    generated = {".pyc", ".nbi", ".nbc"}
    files = [p for package in PACKAGES for p in (ROOT / package).rglob("*") if p.is_file()]
    wanted = {p.relative_to(ROOT).as_posix() for p in files if p.suffix not in generated}
    assert wanted - set(wheel.namelist()) == set()


def test_it_holds_nothing_generated(wheel):
    assert not [n for n in wheel.namelist() if "__pycache__" in n or n.endswith((".nbi", ".nbc"))]


def test_it_is_typed(wheel):
    assert "planner/py.typed" in wheel.namelist()


@pytest.mark.parametrize("name", ["licenses/LICENSE", "licenses/NOTICE"])
def test_it_carries_the_licence_and_the_attributions(wheel, name):
    assert text_of(wheel, name).strip()


def test_it_installs_the_command(wheel):
    assert "pd-planner = planner.__main__:main" in text_of(wheel, "entry_points.txt")


def test_running_the_controller_needs_no_compiler_and_no_plots(wheel):
    required = [
        line
        for line in text_of(wheel, "METADATA").splitlines()
        if line.startswith("Requires-Dist:") and "extra ==" not in line
    ]
    assert required
    assert not [line for line in required if "numba" in line or "plotly" in line]
