"""Flags that several commands share, and how their values are read; InputError if not legal."""

import inspect
from collections.abc import Callable, Collection, Iterable
from enum import StrEnum
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from planner.spec.quantities import Quantity, parse_duration_s

if TYPE_CHECKING:
    from planner.settings import Settings
    from planner.spec.service import LoadedService


class Output(StrEnum):
    """How most commands print."""

    TABLE = "table"
    JSON = "json"


SpecFiles = Annotated[
    list[Path],
    typer.Option("-f", "--file", metavar="FILE", help="PDAutoscaler file; may be repeated."),
]
SpecFile = Annotated[
    Path, typer.Option("-f", "--file", metavar="FILE", help="PDAutoscaler file of one service.")
]
Trace = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Request trace: ours, Azure, Mooncake, BurstGPT; also .gz."),
]
FromPrometheus = Annotated[
    str | None,
    typer.Option(metavar="WINDOW", help="Take the service's own history, such as 7d, instead."),
]
Scale = Annotated[int, typer.Option(min=1, help="Replay so many copies of the trace.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
Report = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write a picture of the run (HTML).")
]
PROMETHEUS: Final = (
    "--prometheus",
    "--prometheus-token-file",
    "--prometheus-ca",
    "--prometheus-header",
)
KUBERNETES: Final = ("--kubeconfig", "--context")
LOG: Final = ("--log-level", "--log-format")

_PROCESS: Final[dict[str, tuple[Any, str, str]]] = {
    "--prometheus": (str | None, "URL", "Address of Prometheus."),
    "--prometheus-token-file": (Path | None, "FILE", "File with a bearer token."),
    "--prometheus-ca": (Path | None, "FILE", "Certificates to trust (PEM)."),
    "--prometheus-header": (
        list[str] | None,
        "NAME: VALUE",
        "Header of every query; may be repeated.",
    ),
    "--kubeconfig": (Path | None, "FILE", "Kubeconfig."),
    "--context": (str | None, "NAME", "Context of the kubeconfig."),
    "--listen": (str | None, "ADDRESS", "Serve the page and the metrics there."),
    "--record": (Path | None, "FILE", "Write one JSON line a decision."),
    "--log-level": (str | None, "LEVEL", "debug, info, warning or error."),
    "--log-format": (str | None, "FORMAT", "console or json."),
}
"""Flags that set the process: type, placeholder, meaning. The environment knows them too."""

Command = Callable[..., int]


def with_settings(*names: str) -> Callable[[Command], Command]:
    """Add process flags to a command, which is called with the `settings` they make."""

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(**values: Any) -> int:
            given = {name: values.pop(_parameter(name)) for name in names}
            from planner.settings import load_settings

            return command(settings=load_settings(given), **values)

        own = [p for p in inspect.signature(command).parameters.values() if p.name != "settings"]
        parameters = own + [_process_flag(name) for name in names]
        # Typer reads both to know the flags of a command.
        vars(run)["__signature__"] = inspect.Signature(parameters)
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _parameter(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _process_flag(flag: str) -> inspect.Parameter:
    kind, placeholder, meaning = _PROCESS[flag]
    variable = f"PD_PLANNER_{_parameter(flag).upper()}"
    option = typer.Option(flag, metavar=placeholder, help=f"{meaning} [{variable}]")
    annotation = Annotated[kind, option]  # type: ignore[valid-type]
    return inspect.Parameter(
        _parameter(flag), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def refuse(message: str) -> NoReturn:
    """Refuse what the user gave.

    Raises
    ------
    InputError
        Always.
    """
    # The error tree holds those of the predictors, and numpy comes with them: not for `--help`.
    from planner.errors import InputError

    raise InputError(message)


def read_flag(flag: str, text: str, quantity: Quantity) -> float:
    """Return the value of a flag that holds a quantity."""
    try:
        return quantity.read(text)
    except ValueError as error:
        refuse(f"{flag}: {error}")


def _read_window_s(flag: str, text: str | None) -> float | None:
    """Return a stretch of history such as ``7d`` [s], None if not given."""
    if text is None:
        return None
    try:
        window_s = parse_duration_s(text, with_days=True)
    except ValueError as error:
        refuse(f"{flag}: {error}")
    if window_s <= 0:
        refuse(f"{flag}: {text} is out of range: write a duration above 0, such as 7d")
    return window_s


def read_replicas(flag: str, text: str | None, pools: Collection[str]) -> dict[str, int] | None:
    """Return replicas by pool from text such as ``prefill=4,decode=6``, None if not given."""
    if text is None:
        return None
    found: dict[str, int] = {}
    for entry in text.split(","):
        name, _, number = (part.strip() for part in entry.partition("="))
        if name not in pools:
            legal = ", ".join(pools)
            refuse(f"{flag}: no pool is called {name!r}; legal: {legal}")
        if name in found:
            refuse(f"{flag}: {name} is given twice: keep one")
        if not (number.isascii() and number.isdigit() and len(number) < 7):
            refuse(
                f"{flag}: {name}={number!s} is no number of replicas: write a whole number of 0 "
                f"or more, such as {name}=4"
            )
        found[name] = int(number)
    missing = [name for name in pools if name not in found]
    if missing:
        refuse(f"{flag}: {', '.join(missing)} is missing: give every pool")
    return found


def read_source(trace: str | None, window: str | None, settings: "Settings") -> float | None:
    """Return the window of history [s], or None where a trace is given instead."""
    if (trace is None) == (window is None):
        refuse("--trace, --from-prometheus: give exactly one of them")
    if window is not None and settings.prometheus.url is None:
        refuse("--from-prometheus: no address: give --prometheus URL")
    return _read_window_s("--from-prometheus", window)


def read_predictors(text: str | None) -> list[str]:
    """Return the predictors that are named, or all that are installed."""
    from predictors import NAMES

    if text is None:
        return [name for name in NAMES if name != "Prophet" or find_spec("prophet")]
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in NAMES:
            legal = ", ".join(NAMES)
            refuse(f"--predictors: {name!r} is unknown; legal: {legal}")
    return names


def load(files: Iterable[Path], settings: "Settings") -> list["LoadedService"]:
    """Return the services of PDAutoscaler files, without a cluster."""
    from planner.spec.service import load_services

    return load_services(list(files), settings.network.transfer, settings.network.node_startup_s)


def load_one(file: Path, settings: "Settings") -> "LoadedService":
    """Return the one service of a file."""
    services = load([file], settings)
    if len(services) != 1:
        names = ", ".join(str(loaded.service.key) for loaded in services)
        refuse(f"{file}: holds {len(services)} services ({names}): give a file with one")
    return services[0]
