"""docs/check.md and the code tell the same rules, levels and permissions."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from planner.check.rights import CLUSTER_WIDE, NAMESPACED, SHARED_NODES, Need
from planner.check.rules import Rule

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| `")
]
LEVELS = {"ok": {"ok"}, "warning": {"warning"}, "error": {"error"}, "make": {"error", "warning"}}


def functions() -> Iterator[ast.FunctionDef]:
    for path in sorted((ROOT / "planner" / "check").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        yield from (node for node in tree.body if isinstance(node, ast.FunctionDef))


def rules_in(node: ast.AST) -> set[Rule]:
    """Return the rules that a piece of code names."""
    return {
        Rule[part.attr]
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute)
        and isinstance(part.value, ast.Name)
        and part.value.id == "Rule"
    }


def levels_in_code() -> dict[Rule, set[str]]:
    """Return at which levels each rule is told; a rule in a table: those of its function."""
    found: defaultdict[Rule, set[str]] = defaultdict(set)
    for function in functions():
        calls = [
            (call.func.id, call)
            for call in ast.walk(function)
            if isinstance(call, ast.Call)
            and isinstance(call.func, ast.Name)
            and call.func.id in LEVELS
        ]
        for name, call in calls:
            for rule in rules_in(call):
                found[rule] |= LEVELS[name]
        for rule in rules_in(function) - {rule for _, call in calls for rule in rules_in(call)}:
            found[rule] |= {level for name, _ in calls for level in LEVELS[name]}
    return found


def test_every_rule_has_one_row_in_the_order_of_the_code():
    assert [row[0].strip("`") for row in ROWS] == [rule.value for rule in Rule]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_is_whole_and_its_levels_are_those_of_the_code(row: list[str]):
    code, levels, *words = row
    assert len(words) == 3
    assert all(words)
    assert set(levels.split(", ")) == levels_in_code()[Rule(code.strip("`"))]


@pytest.mark.parametrize("rule", Rule)
def test_every_rule_is_found_broken_in_a_test(rule: Rule):
    tests = (ROOT / "tests" / "unit").glob("test_check*.py")
    text = "".join(p.read_text(encoding="utf-8") for p in tests if p.name != Path(__file__).name)
    assert re.search(rf"Rule\.{rule.name}\b", text)


@pytest.mark.parametrize(
    "need", [*NAMESPACED, *CLUSTER_WIDE, SHARED_NODES], ids=lambda n: f"{n.resource} {n.verbs}"
)
def test_every_permission_is_on_the_page_with_what_it_is_for(need: Need):
    verbs = ", ".join(need.verbs)
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| {need.resource} |")]
    rows = [line for line in rows if f"| {verbs}" in line]
    assert any((need.without or "can't work") in line for line in rows)
