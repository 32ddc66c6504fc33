"""A rehearsal: one service under a trace, shown, recorded, reported. Writes files.

Where the replay meets people: the live view while it runs, the record of every tick, the figures
and the report afterwards.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.adapters.clock import pause, stopwatch_s
from planner.adapters.telemetry import RecordFile
from planner.errors import InputError
from planner.model import Service
from planner.process import interrupt_held, settle
from planner.spec.service import LoadedService

if TYPE_CHECKING:
    from planner.replay import Frame, Replay
    from planner.simulation.traces import Trace

log = logging.getLogger("pd-planner")


def rehearse(
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
    from planner.simulation.traces import scale_trace
    from planner.simulation.warm import warm
    from planner.view.summary import results_json

    service = loaded.service
    requests, notes = _in_scope(requests, service, notes)
    from_s = warmup * service.interval_s
    if from_s > requests.duration_s:
        raise InputError(
            f"--warmup: {warmup} intervals of {service.interval_s:g} s leave nothing of "
            f"{requests.name}, {requests.duration_s:.0f} s long: give fewer, or a longer trace"
        )
    requests = scale_trace(requests, scale, seed)
    watch = stopwatch_s()
    with interrupt_held():
        warm()
    replay = Replay(loaded, requests, start, seed)
    settle()
    with whole_file(report) as report_part:
        frames = _play(replay, record, show_s if live else None, watch)
        results = replay.finish()
        _tell_beyond_reach(frames)
        prices = {p.name: p.gpu_hour_price for p in service.pools if p.gpu_hour_price is not None}
        summary = summarise(results, service.sla.ttft_s, service.sla.itl_s, from_s, prices)
        if report_part is not None:
            from planner.view.report import write_report

            told = (*notes, *requests.notes)
            write_report(report_part, service, requests.name, frames, results, summary, told)
    return results_json(service, requests.name, seed, frames, results, summary, watch())


def _in_scope(
    requests: "Trace", service: Service, notes: tuple[str, ...]
) -> tuple["Trace", tuple[str, ...]]:
    """Return the requests that the SLA speaks of, and the notes with what was left out."""
    from planner.simulation.traces import clip

    longest = service.sla.max_input_tokens
    if longest is None:
        return requests, notes
    requests, dropped = clip(requests, longest)
    if dropped:
        notes = (*notes, f"Prompts above {longest} tokens are out of scope; left out: {dropped}.")
    return requests, notes


def _play(
    replay: "Replay", record: Path | None, show_s: float | None, watch: Callable[[], float]
) -> list["Frame"]:
    """Return the frames of a replay, recorded, and shown for at least `show_s` [s] if at all."""
    from planner.view.live import LiveView

    service, requests = replay.service, replay.trace
    intervals = max(int(requests.duration_s // service.interval_s), 1)
    frames = []
    with contextlib.ExitStack() as opened:
        records = None
        if record is not None:
            file = RecordFile(record, anew=True)
            records = opened.enter_context(contextlib.closing(file))
        shown = 0 if show_s is None else intervals
        view = opened.enter_context(LiveView(service, shown, requests.name))
        for frame in replay.frames():
            frames.append(frame)
            if records is not None:
                for told in (*frame.checks, frame.record):
                    records.record(told)
            if show_s is not None:
                view.show(frame)
                pause(max(show_s * len(frames) / intervals - watch(), 0.0) if view.is_shown else 0)
    return frames


def _tell_beyond_reach(frames: Sequence["Frame"]) -> None:
    """Warn that no fleet meets the SLA: the figures alone would look like a bad plan."""
    beyond = {
        frame.at_s: reason.message
        for frame in frames
        for reason in frame.record.decision.reasons
        if reason.code == "SLAUnreachable"
    }
    if beyond:
        ticks, last = f"{len(beyond)} of {len(frames)}", beyond[max(beyond)]
        log.warning("the SLA is beyond reach in %s ticks: %s", ticks, last)


@contextlib.contextmanager
def whole_file(path: Path | None) -> Iterator[Path | None]:
    """Let a file be written beside `path` that takes its place once whole: none is half written.

    Yields
    ------
    Path or None
        Where to write; None if no path was given.

    Raises
    ------
    InputError
        If it can't be written there; said before the work and not after it.
    """
    if path is None or (path.exists() and not path.is_file() and not path.is_dir()):
        yield path  # /dev/stdout is no file that one may replace
        return
    if path.is_dir():
        raise InputError(f"--report: {path}: is a directory: give the path of a file")
    part = path.with_name(f".{path.name}.part")
    try:
        part.touch()
    except OSError as error:
        raise InputError(f"--report: {path}: {error.strerror}: give another path") from None
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
