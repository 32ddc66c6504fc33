"""Compare the predictors on real series: error, margin, and cost, side by side.

python -m benchmarks.predictors TRACE... [--only Kalman,LastValue] [--steps 1-1,2-4] [--warm-up 10]

A request trace (columns t_s,isl,osl, or TIMESTAMP,ContextTokens,GeneratedTokens; .csv or .csv.gz)
becomes intervals of 60 s; a file with the columns t_s,rps,mean_isl,mean_osl is taken as it is.
Times are of one `Forecaster.update` and one `forecast`, in CPU time: wall time on a shared machine
measures the neighbours. Set OPENBLAS_NUM_THREADS=1 there: threads that share the work on 4x4
matrices wait for each other and make ARIMA ten times slower.
"""

import argparse
import csv
import gzip
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import describe
from predictors import NAMES, PredictorError, build
from predictors.backtest import Scores, backtest

INTERVAL_S = 60.0
QUANTILES = (0.75, 0.9)

Values = list[float | None]


@dataclass(frozen=True, slots=True)
class Series:
    """One series of one trace; `weights` are the requests behind a mean."""

    trace: str
    name: str
    values: Values
    weights: list[float] | None


@dataclass(frozen=True, slots=True)
class Row:
    """Scores of one predictor on one series over one window, per quantile."""

    predictor: str
    series: Series
    steps: tuple[int, int]
    scores: tuple[Scores, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 2 when a file cannot be read."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("traces", nargs="+", type=Path)
    parser.add_argument("--only", default=",".join(NAMES), help="predictors, comma-separated")
    parser.add_argument("--steps", default="1-1,3-3,2-4", help="windows ahead, first-last")
    parser.add_argument("--warm-up", type=int, default=10, help="first intervals not scored")
    asked = parser.parse_args(arguments)
    windows = [_window(text) for text in asked.steps.split(",")]
    try:
        series = [one for path in asked.traces for one in read(path)]
        names = [name for name in asked.only.split(",") if _can_start(name)]
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(describe(), flush=True)
    rows = [
        row for name in names for one in series for row in _score(name, one, windows, asked.warm_up)
    ]
    _print_rows(rows)
    _print_means(rows)
    return 0


def read(path: Path) -> list[Series]:
    """Return the series of one file.

    Raises
    ------
    ValueError
        If the columns are unknown.
    """
    with _open(path) as file:
        reader = csv.reader(file)
        header = next(reader, [])
        records = [record for record in reader if record]
    trace = path.name.split(".")[0]
    if header[:4] == ["t_s", "rps", "mean_isl", "mean_osl"]:
        t_s, rps, isl, osl = np.array([record[:4] for record in records], dtype=float).T
        return _five(trace, rps, isl, osl, float(t_s[1] - t_s[0]))
    if header[:3] == ["t_s", "isl", "osl"]:
        t_s = np.array([float(record[0]) for record in records])
    elif header[:3] == ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]:
        # Seven decimals in the file, six in Python.
        t_s = np.array([datetime.fromisoformat(r[0][:26]).timestamp() for r in records])
    else:
        raise ValueError(
            f"{path}: columns are {','.join(header)}; legal are t_s,isl,osl or "
            "TIMESTAMP,ContextTokens,GeneratedTokens or t_s,rps,mean_isl,mean_osl"
        )
    isl, osl = np.array([record[1:3] for record in records], dtype=float).T
    return _binned(trace, t_s - t_s[0], isl, osl)


def _open(path: Path) -> IO[str]:
    return gzip.open(path, "rt") if path.suffix == ".gz" else path.open()


def _binned(
    trace: str,
    t_s: NDArray[np.float64],
    isl: NDArray[np.float64],
    osl: NDArray[np.float64],
) -> list[Series]:
    """Sum requests up by interval; the last one, seldom whole, is left out."""
    tick = (t_s / INTERVAL_S).astype(int)
    count = np.bincount(tick)[:-1].astype(float)
    with np.errstate(invalid="ignore"):
        mean_isl = np.bincount(tick, isl)[:-1] / count
        mean_osl = np.bincount(tick, osl)[:-1] / count
    return _five(trace, count / INTERVAL_S, mean_isl, mean_osl, INTERVAL_S)


def _five(
    trace: str,
    rps: NDArray[np.float64],
    isl: NDArray[np.float64],
    osl: NDArray[np.float64],
    interval_s: float,
) -> list[Series]:
    """Return the load series, and the mean lengths weighted by their requests."""
    count = (rps * interval_s).tolist()
    return [
        Series(trace, "requests/s", rps.tolist(), None),
        Series(trace, "prefill tokens/s", np.nan_to_num(rps * isl).tolist(), None),
        Series(trace, "decode tokens/s", np.nan_to_num(rps * osl).tolist(), None),
        Series(trace, "mean ISL", _known(isl), count),
        Series(trace, "mean OSL", _known(osl), count),
    ]


def _known(means: NDArray[np.float64]) -> Values:
    """Return None where there was no request to take a mean length of."""
    return [None if math.isnan(mean) else mean for mean in means.tolist()]


def _window(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def _can_start(name: str) -> bool:
    """Say so and go on where a predictor's library is missing; an unknown name is an error."""
    predictor = build(name)
    try:
        predictor.start()
    except PredictorError as error:
        print(f"{name} left out: {error}")
        return False
    return True


def _score(name: str, series: Series, windows: list[tuple[int, int]], warm_up: int) -> list[Row]:
    return [
        Row(
            name,
            series,
            steps,
            tuple(
                backtest(
                    series.values,
                    build(name),
                    *steps,
                    quantile,
                    time.process_time,
                    weights=series.weights,
                    warm_up=warm_up,
                )
                for quantile in QUANTILES
            ),
        )
        for steps in windows
    ]


def _print_rows(rows: list[Row]) -> None:
    print(
        f"{'predictor':10}{'trace':28}{'series':18}{'steps':>6}{'n':>6}{'WAPE %':>8}{'MASE':>7}"
        f"{'cover .75':>10}{'cover .9':>9}{'pinball .9 %':>13}{'CPU ms':>8}{'p99':>8}"
    )
    for row in rows:
        lower, upper = row.scores
        steps = f"{row.steps[0]}-{row.steps[1]}"
        print(
            f"{row.predictor:10}{row.series.trace:28}{row.series.name:18}{steps:>6}{upper.n:>6}"
            f"{100 * upper.wape:8.1f}{upper.mase:7.3f}{lower.coverage:10.3f}{upper.coverage:9.3f}"
            f"{100 * upper.pinball:13.2f}{upper.ms_per_tick_mean:8.2f}{upper.ms_per_tick_p99:8.2f}"
        )


def _print_means(rows: list[Row]) -> None:
    """Geometric mean of the MASE, and the worst, by predictor, trace and window."""
    print("\ngeometric mean of MASE over the series (worst)")
    groups: dict[tuple[str, str, tuple[int, int]], list[float]] = {}
    for row in rows:
        key = (row.predictor, row.series.trace, row.steps)
        groups.setdefault(key, []).append(row.scores[0].mase)
    for (name, trace, steps), mases in groups.items():
        mean = float(np.exp(np.log(mases).mean()))
        print(f"{name:10}{trace:28}{steps[0]}-{steps[1]}{mean:8.3f} ({max(mases):.3f})")


if __name__ == "__main__":
    raise SystemExit(main())
