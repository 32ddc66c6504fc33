"""Runs jobs at multiples of their interval until asked to stop, on APScheduler."""

import signal
import threading
from collections.abc import Callable, Iterable

from planner.adapters.clock import SystemClock

Job = Callable[[float], None]


def run_every(jobs: Iterable[tuple[float, Job]], stop: threading.Event) -> None:
    """Run each job every so many seconds, at whole multiples of its interval, until `stop`.

    Parameters
    ----------
    jobs
        Intervals [s], each with what is called with the time of the run [s, Unix].
    stop
        Ends the schedule; runs in progress are finished.

    Notes
    -----
    Runs that were missed are made up for by one, and a run that takes longer than its interval is
    never joined by a second. A run that fails is logged and the next one comes; only when nobody
    reads the output any more does the schedule end, with that error.
    """
    from apscheduler.schedulers.background import BackgroundScheduler
    from apscheduler.triggers.interval import IntervalTrigger

    clock = SystemClock(stop)
    unread: list[BaseException] = []
    scheduler = BackgroundScheduler(
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        timezone="UTC",
    )
    for interval_s, job in jobs:
        # Anchored at the epoch: restarts and replicas tick at the same moments.
        trigger = IntervalTrigger(
            seconds=interval_s, start_date="1970-01-01 00:00:00", timezone="UTC"
        )
        scheduler.add_job(_timed(job, clock, unread, stop), trigger)
    scheduler.start()
    try:
        stop.wait()
    finally:
        scheduler.shutdown(wait=True)
    if unread:
        raise unread[0]


def stop_on_signals(
    signals: Iterable[signal.Signals] = (signal.SIGINT, signal.SIGTERM),
) -> threading.Event:
    """Return an event that Ctrl-C or a termination request sets."""
    stop = threading.Event()
    for number in signals:
        signal.signal(number, lambda *_: stop.set())
    return stop


def _timed(
    job: Job, clock: SystemClock, unread: list[BaseException], stop: threading.Event
) -> Callable[[], None]:
    """Return a run of the job; it ends the schedule when stdout is closed."""

    def run() -> None:
        try:
            job(clock.now_s())
        # Rich ends the program where it meets a closed pipe, here only the thread of the job.
        except (BrokenPipeError, SystemExit) as error:
            unread.append(error)
            stop.set()

    return run
