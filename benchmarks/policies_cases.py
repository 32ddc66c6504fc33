"""What the clairvoyants and the best fixed fleet cost on the cases, at several attainments.

``python -m benchmarks.policies_cases [CASE…] [--seed N] [--attainment A…] [--trace FILE]
[--json FILE]``; a trace takes the place of the case's own.
"""

import argparse
import json
import time
from pathlib import Path

from benchmarks.machine import describe
from planner.simulation.cases import CASES, Case, case_named, case_problem
from planner.simulation.oracles import Clairvoyant, OracleRun

HEAD = (
    "case       asked  oracle       GPU-hours  over same-lag  attained    TTFT     ITL  worst 5 min"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", default=[c.name for c in CASES])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--attainment", type=float, nargs="+", default=[0.90, 0.95, 0.99])
    parser.add_argument("--trace", help="replay this trace instead")
    parser.add_argument("--json", type=Path, help="write the runs there too, by case and seed")
    asked = parser.parse_args()
    print(describe(), flush=True)
    print(HEAD, flush=True)
    found = {}
    for name in asked.cases:
        runs = oracles(case_named(name), asked.seed, asked.attainment, asked.trace)
        found[f"{name}/{asked.seed}"] = [run.document() for run in runs]
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def oracles(case: Case, seed: int, levels: list[float], trace: str | None) -> list[OracleRun]:
    """Return every oracle at every level, telling each as it is found."""
    started_s = time.perf_counter()
    clairvoyant = Clairvoyant(case_problem(case, seed, trace))
    runs = []
    # From the top: what was tried for a higher level counts for the lower ones too.
    for level in sorted(levels, reverse=True):
        three = clairvoyant.all(level)
        same_lag = three[1].gpu_hours
        print(*(told(case, run, same_lag) for run in three), sep="\n", flush=True)
        runs += three
    print(
        f"{case.name}: {len(runs)} oracles in {time.perf_counter() - started_s:.0f} s", flush=True
    )
    return runs


def told(case: Case, run: OracleRun, same_lag_gpu_hours: float) -> str:
    """Return one oracle's figures in a line."""
    fleet = f"  {run.prefill[0]} + {run.decode[0]} replicas" if run.failure_price is None else ""
    return (
        f"{case.name:10} {run.asked:5.0%}  {run.oracle:11} {run.gpu_hours:10.2f} "
        f"{run.gpu_hours / same_lag_gpu_hours:14.3f} {run.attainment:9.4f} "
        f"{run.ttft_attainment:7.4f} {run.itl_attainment:7.4f} {run.worst_5min:12.3f}{fleet}"
    )


if __name__ == "__main__":
    main()
