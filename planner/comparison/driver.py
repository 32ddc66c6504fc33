"""The driver of a Ray cluster, in a process of its own: Ray ends its driver with the cluster.

The parent is told of every run as it finishes, watches the cluster by its address, and says when
it is gone; what is left is then for the caller to play.
"""

import contextlib
import logging
import multiprocessing
import os
import socket
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from planner.comparison.jobs import Job, deaf_to_interrupts, on_disk, play_with, read_recipes
from planner.comparison.runs import Recipe, Result
from planner.errors import InputError

log = logging.getLogger("pd-planner")

CONNECT_S: Final = 5.0
"""A cluster that does not answer in this time is none [s]."""

LOOK_S: Final = 1.0
"""Time between two looks at a cluster that says nothing [s]."""

GONE_S: Final = 10.0
"""A cluster that nobody answers for so long is gone [s]; Ray itself waits a minute."""

END_S: Final = 5.0
"""A driver that does not end by itself in this time is killed [s]."""


@dataclass(frozen=True, slots=True)
class Joined:
    """The driver has joined the cluster whose head answers at `address`."""

    address: str


@dataclass(frozen=True, slots=True)
class Played:
    """One run is done."""

    job: Job
    result: Result


@dataclass(frozen=True, slots=True)
class Refused:
    """The driver could not join."""

    why: str


@dataclass(frozen=True, slots=True)
class GaveUp:
    """The cluster took the jobs and could not do them."""

    why: str


Said = Joined | Played | Refused | GaveUp


def on_ray(
    recipes: Sequence[Recipe], jobs: Sequence[Job], address: str
) -> Generator[tuple[Job, Result], None, None]:
    """Return runs as a Ray cluster finishes them; ends early, with a warning, if it goes away.

    Yields
    ------
    tuple[Job, Result]
        In the order of their end.

    Raises
    ------
    InputError
        If Ray is not installed or there is no cluster at the address.
    """
    _require_ray()
    _require_answer(address)
    played = 0
    with _driver(recipes, jobs, address) as (heard, process):
        for said in _listened(heard, process):
            if isinstance(said, Refused):
                raise InputError(_no_cluster(address, said.why))
            if isinstance(said, GaveUp):
                left = len(jobs) - played
                log.warning("the Ray cluster %s: the %d runs left run here", said.why, left)
            if isinstance(said, Played):
                played += 1
                yield said.job, said.result


@contextlib.contextmanager
def _driver(
    recipes: Sequence[Recipe], jobs: Sequence[Job], address: str
) -> Iterator[tuple[Connection, BaseProcess]]:
    """Start a driver, and end it whatever happens.

    Yields
    ------
    tuple
        What it says, and its process.
    """
    context = multiprocessing.get_context("spawn")
    heard, told = context.Pipe(duplex=False)
    with on_disk(recipes) as shared:
        process = context.Process(target=_drive, args=(told, shared, jobs, address), daemon=True)
        with deaf_to_interrupts():
            process.start()
        told.close()
        try:
            yield heard, process
        finally:
            process.terminate()
            process.join(END_S)
            process.kill()
            process.join()
            heard.close()


def _listened(heard: Connection, process: BaseProcess) -> Iterator[Said]:
    """Return what the driver says, to its end or to that of the cluster.

    Yields
    ------
    Said
        As it comes; a driver or a head that is gone is a `GaveUp`.
    """
    address, silent_s = None, 0.0
    while True:
        if not heard.poll(LOOK_S):
            is_there = address is None or answers(address, LOOK_S)
            silent_s = 0.0 if is_there else silent_s + LOOK_S
            if silent_s >= GONE_S:
                yield GaveUp("went away (its head does not answer)")
                return
            continue
        try:
            said: Said | None = heard.recv()
        except EOFError:
            process.join(END_S)
            yield GaveUp(f"went away (its driver ended with {process.exitcode})")
            return
        if said is None:
            return
        if isinstance(said, Joined):
            address = said.address
        yield said


# ── in the driver's process ──────────────────────────────────────────────────────────────────────


def _drive(told: Connection, recipes: Path, jobs: Sequence[Job], address: str) -> None:
    """Join the cluster and give it the jobs."""
    _hush()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray: Any = import_module("ray")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        told.send(Refused(_in_short(error)))
        return
    with contextlib.suppress(BrokenPipeError):  # nobody is left to tell
        is_proxied = address.startswith("ray://")  # the head itself may be out of reach
        told.send(Joined(address if is_proxied else ray.get_runtime_context().gcs_address))
        try:
            for job, result in _gathered(ray, read_recipes(recipes), jobs):
                told.send(Played(job, result))
        except ray.exceptions.RayError as error:
            told.send(GaveUp(f"gave up ({_in_short(error)})"))
        else:
            told.send(None)


def _gathered(
    ray: Any, recipes: Sequence[Recipe], jobs: Sequence[Job]
) -> Iterator[tuple[Job, Result]]:
    shared = ray.put(recipes)
    remote = ray.remote(play_with)
    pending = {remote.remote(shared, job): job for job in jobs}
    parent = multiprocessing.parent_process()
    while pending and parent is not None and parent.is_alive():
        ready, _ = ray.wait(list(pending), num_returns=1, timeout=LOOK_S)
        for reference in ready:
            yield pending.pop(reference), ray.get(reference)


def _hush() -> None:
    """Let Ray's own words go nowhere: they are many, and the parent says what matters."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(nowhere, stream.fileno())


def _in_short(error: BaseException) -> str:
    """Return an error on one line, its end where it is long: a cause comes last."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"… {text[-200:]}"


# ── the cluster's address ────────────────────────────────────────────────────────────────────────


def _require_ray() -> None:
    if find_spec("ray") is None:
        raise InputError(
            "--ray: the package ray is not installed: pip install 'pd-planner[ray]', or leave "
            "--ray out to run on this machine"
        )


def _require_answer(address: str) -> None:
    """Refuse an address at which nobody listens; Ray itself would try for minutes.

    Raises
    ------
    InputError
        If no connection is made in time.
    """
    if not answers(address, CONNECT_S):
        raise InputError(_no_cluster(address, "no connection"))


def answers(address: str, within_s: float) -> bool:
    """Tell whether somebody listens at HOST:PORT; an address such as `auto` is left to Ray."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return True
    with contextlib.suppress(OSError):
        socket.create_connection((host.strip("[]"), int(port)), within_s).close()
        return True
    return False


def _no_cluster(address: str, why: str) -> str:
    return (
        f"--ray: {address}: no cluster answers ({why}): start one with `ray start --head`, or "
        "leave --ray out"
    )
