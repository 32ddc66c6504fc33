"""Compare the predictors on real series: error, margin, and cost, side by side.

python -m benchmarks.predictors TRACE... [--only Kalman,LastValue] [--steps 1-1,2-4] [--warm-up 10]
    [--margin plain,adaptive] [--from-day 7] [--resample]

A request trace (columns t_s,isl,osl, or TIMESTAMP,ContextTokens,GeneratedTokens; .csv or .csv.gz)
becomes intervals of 60 s; a file with the columns t_s,rps,mean_isl,mean_osl is taken as it is, or
with --resample interpolated to 60 s (monotone cubic, Fritsch and Butland, 1984). Replaying a trace
k times inside each interval multiplies every series by k or by 1 and changes no figure here.
Below the table: the error over all series, and which coverage is more than 3 points off.

Times are of one `Forecaster.update` and one `bands`, in CPU time: wall time on a shared machine
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
from scipy.interpolate import PchipInterpolator

from benchmarks.machine import describe
from predictors import NAMES, Forecaster, PredictorError, build
from predictors.backtest import Scores, backtest_forecaster

INTERVAL_S = 60.0
QUANTILES = (0.75, 0.9, 0.95)
MARGINS = ("plain", "adaptive")

# How far coverage may be from the quantile [points].
TOLERANCE_POINTS = 3.0
DAY_S = 86_400.0

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
    """Scores of one predictor with one margin on one series over one window, per quantile."""

    predictor: str
    margin: str
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
    parser.add_argument("--margin", default="plain", help=f"of {', '.join(MARGINS)}")
    parser.add_argument("--from-day", type=float, default=0.0, help="leave out the days before")
    parser.add_argument("--resample", action="store_true", help="series to 60 s")
    asked = parser.parse_args(arguments)
    windows = [_window(text) for text in asked.steps.split(",")]
    try:
        margins = [_margin(name) for name in asked.margin.split(",")]
        series = [
            one
            for path in asked.traces
            for one in read(path, from_s=asked.from_day * DAY_S, resample=asked.resample)
        ]
        names = [name for name in asked.only.split(",") if _can_start(name)]
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(describe(), flush=True)
    rows = [
        _score(name, margin, one, steps, asked.warm_up)
        for name in names
        for margin in margins
        for one in series
        for steps in windows
    ]
    _print_rows(rows)
    _print_means(rows)
    _print_coverage(rows)
    return 0


def read(path: Path, *, from_s: float = 0.0, resample: bool = False) -> list[Series]:
    """Return the series of one file from a time on.

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
        columns = np.array([record[:4] for record in records], dtype=float)
        kept = columns[columns[:, 0] - columns[0, 0] >= from_s]
        t_s, rps, isl, osl = _resampled(kept) if resample else kept.T
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
    kept = t_s - t_s[0] >= from_s
    return _binned(trace, t_s[kept] - t_s[kept][0], isl[kept], osl[kept])


def _resampled(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the columns t_s, rps, … every 60 s, shape (columns, intervals)."""
    grid_s = np.arange(columns[0, 0], columns[-1, 0] + 1.0, INTERVAL_S)
    means = PchipInterpolator(columns[:, 0], columns[:, 1:])(grid_s)
    return np.concatenate((grid_s[np.newaxis], means.T))


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


def _margin(name: str) -> str:
    if name not in MARGINS:
        raise ValueError(f"--margin: {name} is unknown; legal are {', '.join(MARGINS)}")
    return name


def _can_start(name: str) -> bool:
    """Say so and go on where a predictor's library is missing; an unknown name is an error."""
    predictor = build(name)
    try:
        predictor.start()
    except PredictorError as error:
        print(f"{name} left out: {error}")
        return False
    return True


def _score(name: str, margin: str, series: Series, steps: tuple[int, int], warm_up: int) -> Row:
    scores = backtest_forecaster(
        series.values,
        Forecaster(build(name), adaptive=margin == "adaptive"),
        steps,
        QUANTILES,
        time.process_time,
        weights=series.weights,
        warm_up=warm_up,
    )
    return Row(name, margin, series, steps, scores)


def _print_rows(rows: list[Row]) -> None:
    print(
        f"{'predictor':10}{'margin':9}{'trace':28}{'series':17}{'steps':>5}{'n':>6}{'WAPE %':>7}"
        f"{'MASE':>7}{'cover .75':>10}{'.9':>6}{'.95':>6}{'pinball .75 %':>14}{'.9 %':>6}"
        f"{'CPU ms':>8}{'p99':>6}"
    )
    for row in rows:
        low, middle, high = row.scores
        steps = f"{row.steps[0]}-{row.steps[1]}"
        print(
            f"{row.predictor:10}{row.margin:9}{row.series.trace:28}{row.series.name:17}{steps:>5}"
            f"{low.n:>6}{100 * low.wape:7.1f}{low.mase:7.3f}{low.coverage:10.3f}"
            f"{middle.coverage:6.3f}{high.coverage:6.3f}{100 * low.pinball:14.2f}"
            f"{100 * middle.pinball:6.2f}{low.ms_per_tick_mean:8.2f}{low.ms_per_tick_p99:6.2f}"
        )


def _print_means(rows: list[Row]) -> None:
    """Geometric mean of the MASE, and the worst, by predictor, trace and window."""
    print("\ngeometric mean of MASE over the series (worst)")
    groups: dict[tuple[str, str, tuple[int, int]], list[float]] = {}
    for row in rows:
        # A margin changes no mean.
        if row.margin == rows[0].margin:
            key = (row.predictor, row.series.trace, row.steps)
            groups.setdefault(key, []).append(row.scores[0].mase)
    for (name, trace, steps), mases in groups.items():
        mean = float(np.exp(np.log(mases).mean()))
        print(f"{name:10}{trace:28}{steps[0]}-{steps[1]}{mean:8.3f} ({max(mases):.3f})")


def _print_coverage(rows: list[Row]) -> None:
    """Say by predictor, margin and trace how far coverage is from the quantile [points]."""
    asked = ", ".join(f"{quantile:g}" for quantile in QUANTILES)
    print(f"\ncoverage - quantile at {asked} [points]: mean (farthest), then how many are")
    print(f"farther than {TOLERANCE_POINTS:g}")
    groups: dict[tuple[str, str, str], list[list[float]]] = {}
    for row in rows:
        missed = [100 * (s.coverage - q) for s, q in zip(row.scores, QUANTILES, strict=True)]
        groups.setdefault((row.predictor, row.margin, row.series.trace), []).append(missed)
    for (name, margin, trace), group in groups.items():
        points = np.array(group)
        farthest = points[np.abs(points).argmax(axis=0), range(len(QUANTILES))]
        shown = "".join(
            f"{m:+8.1f} ({f:+5.1f})" for m, f in zip(points.mean(0), farthest, strict=True)
        )
        off = int((np.abs(points) > TOLERANCE_POINTS + 1e-9).sum())
        print(f"{name:10}{margin:9}{trace:28}{shown}{off:6} of {points.size}")


if __name__ == "__main__":
    raise SystemExit(main())
