"""Composition root: settings and services in, adapters chosen, loops run, results printed.

Beside the rehearsal and its plant the only module that names concrete adapters.
"""

import contextlib
import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.adapters.clock import SystemClock, stopwatch_s
from planner.adapters.memory import MemoryCluster
from planner.adapters.schedule import run_every, stop_on_signals
from planner.adapters.telemetry import RecordFile, TickLog, configure_logging
from planner.errors import InputError, MetricsError
from planner.model import Mode, Role, Service
from planner.process import settle
from planner.record import TickRecord
from planner.rehearsal import rehearse
from planner.settings import Settings
from planner.spec.service import LoadedService, load_services
from planner.supervisor import Supervisor

if TYPE_CHECKING:
    from planner.adapters.prometheus import PrometheusMetrics
    from planner.ports import Telemetry
    from planner.simulation.traces import Trace

WRONG = 1
DEMO_SPEC = Path(__file__).with_name("demo.yaml")
DEMO_TRACE = "azure2023-conv"
DEMO_REPORT = Path("pd-planner-demo.html")
# On a terminal the demo's hour takes at least this long, so that one can follow it [s].
DEMO_SHOW_S = 24.0
ATTRIBUTION = "Requests: Azure LLM inference trace 2023, conversation, CC-BY-4.0."


def recommend(
    services: Sequence[Service],
    settings: Settings,
    current: Mapping[str, int] | None,
    watch: bool,  # noqa: FBT001 - called by keyword
    output: str,
) -> int:
    """Say what every service needs now, or at each of its intervals; never write to a target.

    Raises
    ------
    InputError
        If no replicas or no Prometheus were given.
    """
    configure_logging(settings.log.level if watch else "error", settings.log.format)
    if current is None:
        raise InputError(
            "--current: this version reads no cluster: give the replicas that run, such as "
            "--current prefill=4,decode=6"
        )
    asked = [replace(s, mode=Mode.OFF if s.mode is Mode.OFF else Mode.RECOMMEND) for s in services]
    running = {
        s.key: {p.name: current[p.name] * p.pods_per_replica for p in s.pools} for s in asked
    }
    metrics, cluster = _prometheus(settings), MemoryCluster(running)
    groups = _by_interval(asked) if watch else [asked]
    with contextlib.ExitStack() as opened:
        telemetry: list[Telemetry] = [TickLog()] if watch else []
        if settings.log.record is not None:
            file = RecordFile(settings.log.record)
            telemetry.append(opened.enter_context(contextlib.closing(file)))
        supervisors = [Supervisor(group, metrics, cluster, telemetry) for group in groups]
        if watch:
            _watch(supervisors, output)
            return 0
        now_s = SystemClock(threading.Event()).now_s()
        supervisors[0].restore(now_s)
        records = list(supervisors[0].tick(now_s).values())
    _print_recommendations(records, output)
    return WRONG if any(record.decision.hold for record in records) else 0


def _by_interval(services: Sequence[Service]) -> list[list[Service]]:
    """Return the services that tick together, a list each."""
    groups: dict[float, list[Service]] = {}
    for service in services:
        groups.setdefault(service.interval_s, []).append(service)
    return list(groups.values())


def _watch(supervisors: Sequence[Supervisor], output: str) -> None:
    """Tick each supervisor, whose services share an interval, until a signal comes."""
    stop = stop_on_signals()
    clock = SystemClock(stop)

    def ticker(supervisor: Supervisor) -> Callable[[float], None]:
        def tick(at_s: float) -> None:
            _print_recommendations(list(supervisor.tick(at_s).values()), output)

        return tick

    jobs: dict[float, Callable[[float], None]] = {}
    for supervisor in supervisors:
        interval_s = supervisor.services[0].interval_s
        jobs[interval_s] = ticker(supervisor)
        # As of the last whole interval: a first tick right before the next would find no new
        # scrape there, and the past is replayed at the very moments that were ticked.
        at_s = clock.now_s() // interval_s * interval_s
        supervisor.restore(at_s)
        if stop.is_set():
            return
        jobs[interval_s](at_s)
    settle()
    run_every(jobs, stop)


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
        requests = _own_past(service.service, settings, prometheus_window_s, seed)
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
        series = _own_series(service.service, settings, prometheus_window_s)
        interval_s = service.service.interval_s
    else:
        from planner.simulation.trace_files import open_trace

        assert trace is not None
        series = trace_series(open_trace(trace), interval_s)
    rows = compare_predictors(series, predictors, interval_s, lead_s, quantile, stopwatch_s())
    if output == "json":
        print(json.dumps([_finite(row) for row in rows], indent=2, allow_nan=False))  # noqa: T201
    else:
        _show(backtest_table(rows))
    return 0


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with null for what is not finite: an error over a mean of 0."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }


def _prometheus(settings: Settings) -> "PrometheusMetrics":
    """Return the metrics source that the settings name.

    Raises
    ------
    InputError
        If they name none.
    """
    from planner.adapters.prometheus import PrometheusAccess, PrometheusMetrics

    asked = settings.prometheus
    if asked.url is None:
        raise InputError(
            "--prometheus: no address: give --prometheus URL or set PD_PLANNER_PROMETHEUS"
        )
    return PrometheusMetrics(
        PrometheusAccess(asked.url, asked.token_file, asked.ca_file, headers=asked.header_map)
    )


def _history(service: Service, settings: Settings, window_s: float) -> tuple[Any, float]:
    """Return the samples of the last `window_s` [s], one an interval, and the first one's time.

    If there is not a single one, the error of the last is raised.
    """
    end_s = SystemClock(threading.Event()).now_s()
    steps = int(window_s // service.interval_s)
    start_s = end_s - steps * service.interval_s
    samples = _prometheus(settings).history(service, start_s, end_s, service.interval_s)
    unread = [sample for sample in samples if isinstance(sample, MetricsError)]
    if len(unread) == len(samples):
        raise unread[-1]
    return samples, start_s


def _own_past(service: Service, settings: Settings, window_s: float, seed: int) -> "Trace":
    """Return a trace like the service's own past."""
    from planner.past import observations, past_trace

    samples, start_s = _history(service, settings, window_s)
    return past_trace(observations(service, samples, start_s), service.interval_s, seed)


def _own_series(
    service: Service, settings: Settings, window_s: float
) -> dict[str, list[float | None]]:
    """Return the token loads of the service's own past, by role.

    Raises
    ------
    InputError
        If nothing was observed.
    """
    from planner.backtest import check_intervals
    from planner.past import observations, token_series

    samples, start_s = _history(service, settings, window_s)
    past = observations(service, samples, start_s)
    if not any(past):
        raise InputError("--from-prometheus: nothing was observed then: give a longer window")
    check_intervals("--from-prometheus", "that window", len(past), service.interval_s)
    return {role.value: token_series(past, role) for role in Role}


def _print_recommendations(records: Sequence[TickRecord], output: str) -> None:
    """Print one round of recommendations."""
    from planner.view.tables import recommendation_json, recommendation_table

    if output == "table":
        _show(recommendation_table(records))
        return
    rows = recommendation_json(records)
    if output == "json":
        print(json.dumps(rows, indent=2), flush=True)  # noqa: T201
        return
    import yaml

    print(yaml.safe_dump(rows, sort_keys=False, explicit_start=True), end="", flush=True)  # noqa: T201


def _print_result(loaded: LoadedService, result: dict[str, Any], output: str) -> None:
    """Print the figures of a replay."""
    if output == "json":
        print(json.dumps(result, indent=2))  # noqa: T201
        return
    from planner.view.tables import simulation_table

    _show(simulation_table(result, loaded.service.sla.attainment_ratio))


def _show(table: Any) -> None:
    """Print a table as wide as the terminal is."""
    from rich.console import Console

    Console(highlight=False).print(table)
