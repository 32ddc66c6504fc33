"""What runs without a cluster: settings and files in, results printed.

A composition root, as `planner.controller` is for what looks at a live service.
"""

import contextlib
import logging
import math
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.adapters.clock import SystemClock, stopwatch_s
from planner.adapters.telemetry import configure_logging
from planner.controller import prometheus
from planner.errors import InputError, MetricsError
from planner.model import Observation, Role, Sample, Service
from planner.printing import print_json, print_table
from planner.rehearsal import rehearse
from planner.settings import Settings
from planner.spec.service import LoadedService, load_services

if TYPE_CHECKING:
    from planner.past_traffic import Past
    from planner.simulation.traces import Trace

log = logging.getLogger("pd-planner")

DEMO_SPEC = Path(__file__).with_name("demo.yaml")
DEMO_TRACE = "azure2023-conv"
DEMO_REPORT = Path("pd-planner-demo.html")
# On a terminal the demo's hour takes at least this long, so that one can follow it [s].
DEMO_SHOW_S = 24.0
ATTRIBUTION = "Requests: Azure LLM inference trace 2023, conversation, CC-BY-4.0."


def simulate(
    service: LoadedService,
    settings: Settings,
    trace: str | None,
    scale: int,
    seed: int,
    start: Mapping[str, int] | None,
    warmup: int,
    report: Path | None,
    output: str,
    prometheus_window_s: float | None,
) -> int:
    """Replay a trace, or a service's own past, against the plant and print the figures."""
    configure_logging(settings.log.level, settings.log.format)
    from planner.simulation.trace_files import open_trace

    if prometheus_window_s is not None:
        requests = own_requests(service.service, settings, prometheus_window_s, seed)
    else:
        assert trace is not None
        requests = open_trace(trace)
    result = rehearse(
        service, requests, scale, seed, start, warmup, settings.log.record, report, show_s=0.0
    )
    _print_result(service, result, output)
    return 0


def demo(
    settings: Settings,
    scale: int,
    seed: int,
    report: Path | None,
    no_live: bool,  # noqa: FBT001 - called by keyword
) -> int:
    """Show the whole loop on an hour of real requests; the last line is the report's path."""
    configure_logging(settings.log.level, settings.log.format)
    from planner.simulation.trace_files import open_trace

    loaded = load_services([DEMO_SPEC])[0]
    path = report or DEMO_REPORT
    result = rehearse(
        loaded,
        open_trace(DEMO_TRACE),
        scale,
        seed,
        None,
        10,
        settings.log.record,
        path,
        show_s=0.0 if no_live else DEMO_SHOW_S,
        live=not no_live,
        notes=(ATTRIBUTION,),
    )
    _print_result(loaded, result, "table")
    print(path)  # noqa: T201 - the bare path, for scripts
    return 0


def explain(record: Path, at: str | None) -> int:
    """Tell one recorded decision in words and numbers.

    Raises
    ------
    InputError
        If the file can't be read.
    """
    from planner.view.explain import explain as tell

    try:
        with record.open(encoding="utf-8") as lines:
            text = tell(lines, at, str(record))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not text"
        raise InputError(f"{record}: {why}: give a file written by --record") from None
    print(text)  # noqa: T201
    return 0


def backtest(
    service: LoadedService | None,
    settings: Settings,
    trace: str | None,
    prometheus_window_s: float | None,
    predictors: Sequence[str],
    interval_s: float,
    lead_s: float,
    quantile: float,
    output: str,
) -> int:
    """Compare predictors on the token loads of a trace or of a service's own past.

    Raises
    ------
    InputError
        If history is asked for without a service.
    """
    from planner.backtest import compare_predictors, trace_series
    from planner.view.tables import backtest_table

    if prometheus_window_s is not None:
        if service is None:
            raise InputError("--from-prometheus: whose history: give -f FILE of one service")
        log_warnings(settings)
        series, interval_s = _own_series(service.service, settings, prometheus_window_s)
    else:
        from planner.simulation.trace_files import open_trace

        assert trace is not None
        series = trace_series(open_trace(trace), interval_s)
    rows = compare_predictors(series, predictors, interval_s, lead_s, quantile, stopwatch_s())
    if output == "json":
        print_json([_finite(row) for row in rows])
    else:
        print_table(backtest_table(rows))
    return 0


def log_warnings(settings: Settings) -> None:
    """Log warnings alone, unless the settings ask for more than usual."""
    level = "warning" if settings.log.level == "info" else settings.log.level
    configure_logging(level, settings.log.format)


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with null for what is not finite: an error over a mean of 0."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }


def own_past(service: Service, settings: Settings, window_s: float) -> "Past":
    """Return what was seen of a service in the last `window_s` [s], and log what is missing.

    Read stretch by stretch: the samples of a week are too many to keep.

    Raises
    ------
    InputError
        If the window is shorter than an interval.
    """
    from planner.adapters.prometheus_history import stretches
    from planner.past import observations
    from planner.past_traffic import NO_REQUEST, history_lines, past_of, trusted

    metrics = prometheus(settings)
    # Rates need two scrapes.
    step_s = max(service.interval_s, 2.0 * metrics.scrape_interval_s)
    stepped = replace(service, interval_s=step_s)
    steps = int(window_s // step_s)
    if steps == 0:
        raise InputError(NO_REQUEST)
    start_s = SystemClock(threading.Event()).now_s() - steps * step_s
    seen: list[Observation | None] = [None]
    samples: Sequence[Sample | MetricsError] = ()
    with _reading(steps) as read:
        for stretch in stretches(metrics, stepped, start_s, steps, step_s):
            samples = stretch.samples
            seen += trusted(observations(stepped, samples, stretch.start_s)[1:], step_s)
            read(len(samples) - 1)
    if not any(seen) and isinstance(samples[-1], MetricsError):
        raise samples[-1]
    past = past_of(seen, start_s, step_s)
    for line in history_lines(past, steps * step_s):
        log.warning("--from-prometheus: %s", line)
    return past


@contextlib.contextmanager
def _reading(steps: int) -> Iterator[Callable[[int], None]]:
    """Show how much of the history is read, on a terminal.

    Yields
    ------
    Callable[[int], None]
        To be told the intervals of every stretch.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("reading history", total=steps)
        yield lambda count: bar.advance(task, count)


def own_requests(service: Service, settings: Settings, window_s: float, seed: int) -> "Trace":
    """Return requests like a service's own past, and log how they were made."""
    from planner.past_traffic import past_requests

    configure_logging(settings.log.level, settings.log.format)
    requests = past_requests(own_past(service, settings, window_s), seed)
    for note in requests.notes:
        log.info("%s", note)
    return requests


def _own_series(
    service: Service, settings: Settings, window_s: float
) -> tuple[dict[str, list[float | None]], float]:
    """Return the token loads of the service's own past by role, and their interval [s]."""
    from planner.backtest import check_intervals
    from planner.past import token_series

    past = own_past(service, settings, window_s)
    # As many as there are moments: what came before the first is not known.
    check_intervals("--from-prometheus", "that window", len(past.seen) + 1, past.step_s)
    return {role.value: token_series(past.seen, role) for role in Role}, past.step_s


def _print_result(loaded: LoadedService, result: dict[str, Any], output: str) -> None:
    """Print the figures of a replay."""
    if output == "json":
        print_json(result)
        return
    from planner.view.tables import simulation_table

    print_table(simulation_table(result, loaded.service.sla.attainment_ratio))
