"""Composition root: settings and services in, adapters chosen, loops run, results printed.

The only module, beside the replay's plant, that names concrete adapters.
"""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.adapters.clock import SystemClock, pause, stopwatch_s
from planner.adapters.memory import MemoryCluster
from planner.adapters.schedule import run_every, stop_on_signals
from planner.adapters.telemetry import RecordFile, TickLog, configure_logging
from planner.errors import InputError
from planner.model import Mode, Role, Service
from planner.record import TickRecord
from planner.settings import Settings
from planner.spec.service import LoadedService, load_services
from planner.supervisor import Supervisor

if TYPE_CHECKING:
    from planner.adapters.prometheus import PrometheusMetrics
    from planner.ports import Telemetry
    from planner.simulation.traces import Trace

WRONG = 1
DEMO_SPEC = Path(__file__).with_name("demo.yaml")
DEMO_TRACE, DEMO_SCALE = "azure2023-conv", 60
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
    keep = _Keep()
    telemetry: list[Telemetry] = [keep]
    if watch:
        telemetry.append(TickLog())
    if settings.log.record is not None:
        telemetry.append(RecordFile(settings.log.record))
    supervisor = Supervisor(asked, _prometheus(settings), MemoryCluster(running), telemetry)
    stop = stop_on_signals() if watch else threading.Event()
    now_s = SystemClock(stop).now_s()
    supervisor.restore(now_s)
    supervisor.tick(now_s)
    _print_recommendations(keep.take(), output)
    if not watch:
        return WRONG if keep.held else 0

    def tick(group: Sequence[Service], at_s: float) -> None:
        supervisor.tick(at_s, group)
        _print_recommendations(keep.take(), output)

    groups: dict[float, list[Service]] = {}
    for service in asked:
        groups.setdefault(service.interval_s, []).append(service)
    run_every({s: _ticker(tick, group) for s, group in groups.items()}, stop)
    return 0


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
    configure_logging("warning", settings.log.format)
    from planner.simulation.trace_files import open_trace

    if prometheus_window_s is not None:
        requests = _own_past(service.service, settings, prometheus_window_s, seed)
    else:
        assert trace is not None
        requests = open_trace(trace)
    result = _replay(
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
    configure_logging("warning", settings.log.format)
    from planner.simulation.trace_files import open_trace

    loaded = load_services([DEMO_SPEC])[0]
    path = report or DEMO_REPORT
    result = _replay(
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
        print(json.dumps(rows, indent=2))  # noqa: T201
    else:
        _show(backtest_table(rows))
    return 0


class _Keep:
    """Telemetry that keeps the records of one round."""

    def __init__(self) -> None:
        self._records: list[TickRecord] = []
        self.held = False

    def record(self, tick: TickRecord) -> None:
        self._records.append(tick)
        self.held = tick.decision.hold is not None or self.held

    def take(self) -> list[TickRecord]:
        """Return the records since the last call."""
        taken, self._records = self._records, []
        return taken


def _ticker(tick: Any, group: Sequence[Service]) -> Any:
    return lambda at_s: tick(group, at_s)


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
    """Return the samples of the last `window_s` [s], one an interval, and the first one's time."""
    end_s = SystemClock(threading.Event()).now_s()
    steps = int(window_s // service.interval_s)
    start_s = end_s - steps * service.interval_s
    samples = _prometheus(settings).history(service, start_s, end_s, service.interval_s)
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
    from planner.past import observations, token_series

    samples, start_s = _history(service, settings, window_s)
    past = observations(service, samples, start_s)
    if not any(past):
        raise InputError("--from-prometheus: nothing was observed then: give a longer window")
    return {role.value: token_series(past, role) for role in Role}


def _replay(
    loaded: LoadedService,
    requests: "Trace",
    scale: int,
    seed: int,
    start: Mapping[str, int] | None,
    warmup: int,
    record: Path | None,
    report: Path | None,
    *,
    show_s: float,
    live: bool = True,
    notes: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Replay a trace with a live view, write record and report, and return the figures.

    Raises
    ------
    InputError
        If no request is left to replay.
    """
    from planner.replay import Replay
    from planner.simulation.results import summarise
    from planner.simulation.traces import clip, scale_trace
    from planner.view.live import LiveView
    from planner.view.summary import results_json

    service = loaded.service
    if service.sla.max_input_tokens is not None:
        requests, dropped = clip(requests, service.sla.max_input_tokens)
        if dropped:
            longest = service.sla.max_input_tokens
            notes = (*notes, f"{dropped} prompts above {longest} tokens are out of scope.")
    if len(requests) == 0:
        raise InputError("--trace: no request is within the scope of the SLA: raise maxInputTokens")
    requests = scale_trace(requests, scale, seed)
    watch = stopwatch_s()
    replay = Replay(loaded, requests, start, seed)
    records = RecordFile(record) if record is not None else None
    intervals = max(int(requests.duration_s // service.interval_s), 1)
    title = f"{requests.name} × {scale}" if scale > 1 else requests.name
    frames = []
    with LiveView(service, intervals if live else 0, title) as view:
        for frame in replay.frames():
            frames.append(frame)
            if records is not None:
                records.record(frame.record)
            if live:
                view.show(frame)
                pause(max(show_s * len(frames) / intervals - watch(), 0.0) if view.is_shown else 0)
    if records is not None:
        records.close()
    results = replay.finish()
    prices = {p.name: p.gpu_hour_price for p in service.pools if p.gpu_hour_price is not None}
    sla = service.sla
    from_s = warmup * service.interval_s
    summary = summarise(results, sla.ttft_s, sla.itl_s, from_s, prices)
    if report is not None:
        from planner.view.report import write_report

        told = (*notes, *requests.notes)
        write_report(report, service, title, frames, results, summary, told)
    return results_json(service, requests.name, seed, frames, results, summary, watch())


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
