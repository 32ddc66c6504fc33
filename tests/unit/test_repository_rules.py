"""Rules of the tree that no linter knows: the lock, purity, names, and what text may say."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PACKAGES = ("planner", "predictors", "profiles")

# Architecture, rule 2: a value in, a value out. Entries that do not exist (yet) match nothing.
PURE = (
    "planner/inventory.py",
    "planner/model.py",
    "planner/errors.py",
    "planner/record.py",
    "planner/decision/",
    "planner/sizing/",
    "planner/topology/",
    "predictors/",
    "profiles/",
)
# Where text from outside becomes a profile, or a profile becomes text.
READ_OR_WRITE = {
    "profiles/__init__.py",
    "profiles/configmap.py",
    "profiles/dynamo_format.py",
    "profiles/samples.py",
    "profiles/schema.py",
}
# Composition roots: of live services, of what needs none, of the loop over simulated servers.
NAMES_ADAPTERS = {
    "planner/app.py",
    "planner/controller.py",
    "planner/comparison/contest.py",
    "planner/comparison/runs.py",
    "planner/inspection.py",
    "planner/profiling/commands.py",
    "planner/profiling/run.py",
    "planner/rehearsal.py",
    "planner/replay.py",
}
# Rows of data about platforms: pure, and no contact with anything.
ROWS = {"planner.adapters.targets", "planner.adapters.sources"}
IMPURE_STDLIB = {
    "os",
    "time",
    "logging",
    "random",
    "secrets",
    "pathlib",
    "io",
    "socket",
    "subprocess",
}
IMPURE_LIBRARIES = {"requests", "prometheus_api_client", "prometheus_client", "kubernetes", "numba"}
PRESENTATION = {"typer", "rich", "plotly", "apscheduler", "pydantic_settings"}
IMPURE_IMPORTS = (
    IMPURE_STDLIB | IMPURE_LIBRARIES | PRESENTATION | {"threading", "asyncio", "urllib"}
)
# Quietens a library that logs every fit; nothing is logged.
EXCUSED = {"predictors/prophet.py": {"logging"}}
IMPURE_CALLS = frozenset({"open", "print", "input"})
# The schema is a value once it is read; anything else of the project comes in as an argument.
PURE_MAY_IMPORT = {"planner/__init__.py", "profiles/__init__.py", "profiles/schema.py"}

BANNED_NAMES = re.compile(r"^(utils?|helpers?|common|managers?|interfaces|\w+_v\d+)$")
# Split, so that this file does not trip over itself.
SAYS_TOO_MUCH = {
    "a machine path": re.compile(r"(?<![\w.$}])/(?:wo" r"rk|ro" r"ot|home)/|\.\./sha" r"red"),
    "a registry host": re.compile(
        r"\b(?:py" r"pi\.org|pythonho" r"sted\.org|(?:docker|ghcr|quay|nvcr|gcr)\.i" r"o\b)"
    ),
}


def python_files(*tops: str) -> list[Path]:
    return sorted(p for top in tops for p in (ROOT / top).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_pure(path: Path) -> bool:
    return relative(path) not in READ_OR_WRITE and any(
        relative(path) == rule or (rule.endswith("/") and relative(path).startswith(rule))
        for rule in PURE
    )


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    # What runs: an ``if TYPE_CHECKING:`` block does not.
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from runtime_nodes(node)


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in runtime_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def lock_entries() -> dict[str, list[str]]:
    """Return each locked name with its blocks of text (a name may be locked once per Python)."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries: dict[str, list[str]] = {}
    for block in re.split(r"\n(?=[a-z0-9])", text):
        entries.setdefault(canonicalize_name(block.split("==")[0].strip()), []).append(block)
    return entries


def declared() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lines = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["simulation"],
        *project["dependency-groups"]["dev"],
    ]
    return [Requirement(line) for line in lines]


@pytest.fixture(scope="module")
def tracked(require) -> list[Path]:
    git = require("git", "your package manager: git")
    # A checkout owned by somebody else is no reason to leave the rules unchecked.
    command = [git, "-c", "safe.directory=*", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("requirement", declared(), ids=lambda r: r.name)
def test_the_lock_covers_what_is_declared(requirement):
    blocks = lock_entries().get(canonicalize_name(requirement.name), [])
    assert blocks, f"{requirement.name} is not in requirements.lock: run `make lock`"
    for block in blocks:
        version = re.match(r"\S+==(\S+)", block).group(1)
        assert requirement.specifier.contains(version), f"{version}: run `make lock`"


def test_every_locked_package_is_pinned_and_hashed():
    bare = [n for n, blocks in lock_entries().items() for b in blocks if "--hash=sha256:" not in b]
    assert not bare


def test_who_installs_the_lock_resolves_nothing_beyond_it(tracked):
    """Left to resolve, pip finds packages newer than the lock, without a hash, and stops."""
    installers = [
        (path, line)
        for path in tracked
        if path.name in {"Makefile", "Dockerfile", "environments.py"}
        for line in path.read_text(encoding="utf-8").splitlines()
        if "--require-hashes" in line
    ]
    assert len(installers) >= 4
    assert not [f"{relative(p)}: {line}" for p, line in installers if "--no-deps" not in line]


def test_the_lock_names_no_place_to_download_from():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert not re.search(r"://|--(extra-)?index|--find-links|^-[a-z]| @ ", text, re.MULTILINE)


PURE_FILES = [path for path in python_files(*PACKAGES) if is_pure(path)]


@pytest.mark.parametrize("path", PURE_FILES, ids=relative)
def test_pure_modules_touch_nothing_outside(path):
    tops = {name.split(".")[0] for name in imports(path)}
    assert not tops & IMPURE_IMPORTS - EXCUSED.get(relative(path), set())
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in IMPURE_CALLS, f"line {node.lineno}: {node.func.id}()"
        if isinstance(node, ast.Attribute) and node.attr == "random":
            pytest.fail(f"line {node.lineno}: {ast.unparse(node)}; randomness is an argument")


@pytest.mark.parametrize("path", PURE_FILES, ids=relative)
def test_pure_modules_import_only_pure_modules_of_the_project(path):
    for name in imports(path):
        if name.split(".")[0] not in PACKAGES:
            continue
        as_path = ROOT / name.replace(".", "/")
        target = as_path / "__init__.py" if as_path.is_dir() else as_path.with_suffix(".py")
        assert is_pure(target) or relative(target) in PURE_MAY_IMPORT, f"imports {name}"


def test_the_compiler_stays_in_the_simulation():
    outside = [p for p in python_files(*PACKAGES) if "planner/simulation/" not in relative(p)]
    assert not [relative(p) for p in outside if any(n.split(".")[0] == "numba" for n in imports(p))]


def test_only_the_composition_roots_name_concrete_adapters():
    importers = {
        relative(path)
        for path in python_files(*PACKAGES)
        if any(name.startswith("planner.adapters") for name in imports(path) - ROWS)
    }
    within = {path for path in importers if path.startswith("planner/adapters/")}
    assert importers - within <= NAMES_ADAPTERS


def test_names_say_what_a_module_holds():
    paths = [p for top in (*PACKAGES, "benchmarks", "tests") for p in (ROOT / top).rglob("*.py")]
    named = {part for p in paths for part in p.relative_to(ROOT).with_suffix("").parts}
    assert not sorted(name for name in named if BANNED_NAMES.match(name))


@pytest.mark.parametrize(("what", "pattern"), SAYS_TOO_MUCH.items(), ids=SAYS_TOO_MUCH)
def test_tracked_text_holds_no(what, pattern, tracked):
    found = []
    for path in tracked:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [
            f"{relative(path)}:{n}" for n, line in enumerate(lines, 1) if pattern.search(line)
        ]
    assert not found, f"{what} in {found}"


def test_links_between_documents_lead_somewhere(tracked):
    links = [
        (path, link)
        for path in tracked
        if path.suffix == ".md"
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
    ]
    inside = [(path, link) for path, link in links if "://" not in link]
    assert not [f"{relative(p)} -> {link}" for p, link in inside if not (p.parent / link).exists()]


def test_decision_records_are_numbered_and_complete():
    records = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    assert [int(r.name[:4]) for r in records] == list(range(1, len(records) + 1))
    for record in records:
        text = record.read_text(encoding="utf-8")
        assert text.startswith(f"# {record.name[:4]} "), record.name
        for heading in ("Context", "Decision", "Alternatives", "Consequences"):
            assert f"\n## {heading}\n" in text, f"{record.name} lacks {heading}"


def test_every_make_target_is_listed_by_help():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert set(phony.split()) == set(re.findall(r"^([a-z0-9-]+):.*## ", makefile, re.MULTILINE))
