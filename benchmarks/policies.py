"""The table behind the results: every policy on the cases of the comparison, at equal attainment.

``python -m benchmarks.policies [--quick] [--cases a,b] [--policy a,b] [--seeds N] [--points N]
[--profile-error -0.2,0,0.2] [--jobs N] [--report FILE] [--json FILE]``. Finished runs are kept in
out/bench-policies, by everything that they depend on, the code included; after an interruption
the same command goes on.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.machine import describe
from planner.comparison.contest import Plan, contest
from planner.comparison.entries import OWN, read_names
from planner.comparison.recipes import CaseRecipe
from planner.comparison.runs import ORACLES, Foresight, Result, Run, Task
from planner.errors import InputError
from planner.simulation.cases import CASES, case_named
from planner.simulation.oracles import OracleRun
from planner.simulation.statistics import Tally
from planner.view.comparison_page import write_comparison
from planner.view.comparison_rows import never_reached
from planner.view.comparison_table import comparison_tables

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "out/bench-policies"
# What every run depends on, and what the planner's own do besides.
SHARED = ("planner/simulation/**/*.py", "predictors/*.py", "profiles/**/*.py",
          "profiles/data/*", "planner/comparison/recipes.py", "planner/comparison/run*.py",
          "planner/comparison/entries.py")  # fmt: skip
OWN_CODE = ("planner/decision/*.py", "planner/sizing/*.py", "planner/adapters/memory.py",
            "planner/adapters/so*.py", "planner/spec/*.py", "planner/model.py", "planner/loop.py",
            "planner/replay.py", "planner/comparison/ablation.py",
            "planner/comparison/regret.py")  # fmt: skip
# Wide enough for every column on a page of a document.
COLUMNS = 110


class Folder:
    """Finished runs as files, one each."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def find(self, task: Task) -> Result | None:
        """Return what the task gave; None if it was never finished."""
        path = self._path(task)
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if "runs" in document:
            runs = tuple(OracleRun.of_document(run) for run in document["runs"])
            return Foresight(document["trace"], document["seed"], runs)
        counts = {key: tuple(values) for key, values in document.pop("tally").items()}
        return Run(**document, tally=Tally(**counts))

    def keep(self, task: Task, result: Result) -> None:
        """Keep what a task gave."""
        path = self._path(task)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(document_of(result)), encoding="utf-8")
        part.replace(path)

    def _path(self, task: Task) -> Path:
        key = f"{task!r} {code_digest(kind_of(task.entry))}"
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def document_of(result: Result) -> dict[str, Any]:
    if isinstance(result, Run):
        return asdict(result)
    runs = [run.document() for run in result.runs]
    return {"trace": result.trace, "seed": result.seed, "runs": runs}


@cache
def code_digest(kind: str) -> str:
    """Return a digest of the code that runs of a kind depend on.

    Peers know nothing of the planner's decisions, and nobody that plays of the oracles.
    """
    sources = [path for top in SHARED for path in sorted(ROOT.glob(top))]
    if kind == "own":
        sources += [path for top in OWN_CODE for path in sorted(ROOT.glob(top))]
    if kind != ORACLES:
        sources = [path for path in sources if not path.name.startswith("oracle")]
    return digest(sources)


def kind_of(entry: str) -> str:
    """Return whose code an entry depends on."""
    return ORACLES if entry == ORACLES else "own" if entry in OWN else "peer"


def digest(paths: Iterable[Path]) -> str:
    found = hashlib.sha256()
    for path in paths:
        found.update(path.as_posix().encode() + path.read_bytes())
    return found.hexdigest()


def main() -> int:
    """Play what is missing and print the table; 1 if it was stopped, 2 if it was asked wrongly."""
    asked = arguments()
    try:
        recipes, names = recipes_of(asked), read_names(asked.policy)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    points = min(asked.points, 5) if asked.quick else asked.points
    plan = Plan(names, points, refine=not asked.quick)
    print(describe(), flush=True)
    found = contest(recipes, plan, asked.jobs, store=Folder(KEPT))
    document = found.document()
    Console(width=COLUMNS, highlight=False).print(comparison_tables(document))
    print("\n".join(never_reached(found.prices)))
    if asked.json is not None:
        asked.json.write_text(json.dumps(document), encoding="utf-8")
    if asked.report is not None:
        write_comparison(asked.report, document, None)
    if found.why_stopped is not None:
        print(f"{found.why_stopped}; the same command goes on", file=sys.stderr)
        return 1
    return 0


def recipes_of(asked: argparse.Namespace) -> list[CaseRecipe]:
    """Return every case with every profile error and seed that is asked for."""
    seeds = range(1 if asked.quick else asked.seeds)
    errors = [float(text) for text in asked.profile_error.split(",")]
    names = asked.cases.split(",") if asked.cases else [case.name for case in CASES]
    return [
        CaseRecipe(case_named(name).name, seed, error, asked.until_s)
        for name in names
        for error in errors
        for seed in seeds
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, five knob values")
    parser.add_argument("--cases", metavar="NAME,…", help="default: the three of CASES")
    parser.add_argument("--policy", default="pd-planner,peers", metavar="NAME,…")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--points", type=int, default=7, help="knob values a policy")
    parser.add_argument(
        "--profile-error", default="0", metavar="SHARE,…", help="such as -0.2,0,0.2"
    )
    parser.add_argument("--until-s", type=float, help="cut the traces there")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the page there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
