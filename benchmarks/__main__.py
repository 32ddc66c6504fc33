"""Run the benchmarks in turn: ``python -m benchmarks [--write FILE] [--slow] [NAME…]``.

Each runs in a process of its own, so that peak memory is its own too, and stays runnable by
itself. What they print is passed through; `--write` puts it into a document.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.machine import describe

ROOT = Path(__file__).parents[1]
TRACES = ("planner/simulation/data/azure2023_conv.csv.gz",
          "planner/simulation/data/servegen_m_large_6h.csv.gz")  # fmt: skip
SPEC = "examples/llama-8b-h200.yaml"
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One run of one module of this package: what for, and with which arguments and variables."""

    module: str
    title: str
    arguments: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    is_slow: bool = False

    @property
    def command(self) -> str:
        """What to type to get the same."""
        given = [f"{name}={value}" for name, value in self.variables.items()]
        return " ".join([*given, f"python -m benchmarks.{self.module}", *self.arguments])


BENCHMARKS = (
    Benchmark("cli", "How long the command takes to answer"),
    Benchmark("tick", "One decision, everything in memory"),
    Benchmark("tick", "The same, linear algebra on one thread", variables=ONE_THREAD),
    Benchmark("services", "A thousand services in one process"),
    Benchmark("plant", "The simulated servers alone over a day"),
    Benchmark("day", "A day of a million requests through the whole of `simulate`"),
    Benchmark(
        "predictors",
        "Predictors on the shipped traces, two to four minutes ahead",
        (*TRACES, "--steps", "2-4", "--only", "LastValue,Kalman,Arima"),
        ONE_THREAD,
    ),
    Benchmark("profiles", "Looking a profile up, and predicting a context that it was not shown"),
    Benchmark(
        "static_fleet",
        "The planner against the best fixed fleet in hindsight, an hour of conversations",
        (SPEC, "azure2023-conv", "60", "0.97"),
        is_slow=True,
    ),
    Benchmark(
        "static_fleet",
        "The same on six hours of a large model's traffic",
        (SPEC, "servegen-m-large-6h", "20", "0.97"),
        is_slow=True,
    ),
)

INTRODUCTION = """\
# Benchmarks

What pd-planner takes and what it gives, on one machine. `make bench` runs all but the slow
ones again; this page is what the following command printed, slow ones included:

```console
$ python -m benchmarks --slow --write docs/BENCHMARKS.md
```

A figure that has a target says whether it was met. Times are wall time unless a line says CPU; on
a machine with other work both are upper bounds. The traces ship with the package, the
servers are simulated, and their profile is the imported one of `examples/llama-8b-h200.yaml`.
"""


def main() -> int:
    """Run what was asked for; 1 if a benchmark failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = sorted({b.module for b in BENCHMARKS})
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}")
    parser.add_argument("--slow", action="store_true", help="those that take minutes too")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the figures there too")
    asked = parser.parse_args()
    unknown = sorted(set(asked.names) - set(known))
    if unknown:
        print(f"{', '.join(unknown)}: unknown; legal: {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = [
        b for b in BENCHMARKS if b.module in asked.names or (not asked.names and is_due(b, asked))
    ]
    machine = describe()
    print(machine, flush=True)
    sections = [run(b, f"{i}/{len(chosen)}") for i, b in enumerate(chosen, 1)]
    if any(section is None for section in sections):
        return 1
    if asked.write is not None:
        asked.write.write_text(page(machine, chosen, sections), encoding="utf-8")
    return 0


def is_due(benchmark: Benchmark, asked: argparse.Namespace) -> bool:
    return asked.slow or not benchmark.is_slow


def run(benchmark: Benchmark, place: str) -> list[str] | None:
    """Run one benchmark and return the lines it printed, None if it failed."""
    print(f"\n[{place}] {benchmark.title}\n$ {benchmark.command}", flush=True)
    started_s = time.perf_counter()
    command = [sys.executable, "-m", f"benchmarks.{benchmark.module}", *benchmark.arguments]
    variables = os.environ | benchmark.variables
    lines: list[str] = []
    with subprocess.Popen(
        command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True
    ) as process:
        for text in process.stdout or ():
            # Every benchmark says where it ran; here it was said once for all.
            if lines or text.rstrip() != describe():
                lines.append(text.rstrip())
                print(lines[-1], flush=True)
    print(f"took {time.perf_counter() - started_s:.0f} s", file=sys.stderr, flush=True)
    return lines if process.returncode == 0 else None


def page(machine: str, chosen: list[Benchmark], sections: list[list[str] | None]) -> str:
    """Return the document."""
    text = [INTRODUCTION, f"Measured on {machine}.\n"]
    verdicts = [line for section in sections for line in section or () if "target at most" in line]
    missed = [line for line in verdicts if line.endswith("MISSED")]
    text.append(f"Of {len(verdicts)} targets {len(missed)} were missed.\n")
    for benchmark, section in zip(chosen, sections, strict=True):
        shown = "\n".join([f"$ {benchmark.command}", *(section or ())])
        text.append(f"## {benchmark.title}\n\n```console\n{shown}\n```\n")
    return "\n".join(text)


if __name__ == "__main__":
    raise SystemExit(main())
