"""docs/ARCHITECTURE.md names modules, tests and contracts that exist, and leaves no package out."""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
PACKAGES = ("planner", "predictors", "profiles")
QUOTED = re.findall(r"`([^`\n]+)`", PAGE)


@cache
def functions_of(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))


@pytest.mark.parametrize("path", sorted({q for q in QUOTED if re.fullmatch(r"[\w/]+\.(py|md)", q)}))
def test_a_named_file_exists(path):
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("folder", sorted({q for q in QUOTED if re.fullmatch(r"\w[\w/]*/", q)}))
def test_a_named_folder_exists(folder):
    assert (ROOT / folder).is_dir()


def test_every_package_folder_is_named():
    folders = {
        path.parent.relative_to(ROOT).as_posix()
        for top in PACKAGES
        for path in (ROOT / top).rglob("*")
        if path.suffix in {".py", ".json", ".gz"} and "__pycache__" not in path.parts
    }
    # `planner/` itself is named by its modules.
    assert sorted(f for f in folders - {"planner"} if f"`{f}/`" not in PAGE) == []


def test_every_module_is_named_or_in_a_folder_told_as_a_whole():
    told_whole = {"planner/check", "planner/simulation/policies"}
    missing = [
        name
        for top in PACKAGES
        for path in (ROOT / top).rglob("*.py")
        for name in [path.relative_to(ROOT).as_posix()]
        if path.name not in {"__init__.py", "errors.py"}
        and path.parent.relative_to(ROOT).as_posix() not in told_whole
        and f"`{name}`" not in PAGE
    ]
    assert missing == []


@pytest.mark.parametrize("test_id", sorted({q for q in QUOTED if "::" in q}))
def test_a_named_test_exists(test_id):
    path, _, name = test_id.partition("::")
    assert name in functions_of(ROOT / path)


def rows(heading):
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize("heading", ["Invariants, and what holds them", "Failure policy"])
def test_every_row_names_what_proves_it(heading):
    found = rows(heading)
    assert len(found) > 10
    assert not [row for row in found if "::" not in row and "contract" not in row]


def test_named_contracts_exist():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = {c["name"] for c in settings["tool"]["importlinter"]["contracts"]}
    named = {name for row in rows("Invariants, and what holds them")
             for name in re.findall(r'"([^"]+)"', row)}  # fmt: skip
    assert len(named) >= 6
    assert named <= contracts


def test_the_page_is_short_and_links_no_lines():
    assert len(PAGE.splitlines()) <= 260
    assert not re.search(r"\.py#L|\.py:\d", PAGE)
    first_screen = "\n".join(PAGE.splitlines()[:25])
    assert all(step in first_screen for step in ("observe", "correct", "forecast", "constrain"))
    assert "planner/decision/decide.py" in first_screen
