"""Entry point of `pd-planner` and ``python -m planner``: every expected fault is one clear line."""

import os
import sys
from collections.abc import Callable, Sequence
from functools import cache

import typer

from planner.cli import app

PROGRAM = "pd-planner"

WRONG = 1
"""Looked and found it wrong."""

UNUSABLE = 2
"""Input that can't be parsed or contradicts itself."""

INTERRUPTED = 130
"""Ended by Ctrl-C, as shells have it: 128 + SIGINT."""

CLOSED_PIPE = 141
"""The reader of stdout went away, as shells have it: 128 + SIGPIPE."""

# Typer carries Click inside since 0.20 and leans on it before; the class has one name in both.
_UsageError: type[Exception] = next(
    c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException"
)

_EXTRAS = {
    "numba": "simulation",
    "plotly": "simulation",
    "prophet": "prophet",
    "ray": "ray",
    "aiconfigurator": "aiconfigurator",
}
"""Which extra of the package brings an optional module."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code of one run; `arguments` default to the command line's."""
    try:
        code: int | None = app(args=arguments, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except tuple(_endings()) as error:
        return next(tell(error) for kind, tell in _endings().items() if isinstance(error, kind))
    return code or 0


def _unusable(error: BaseException) -> int:
    return _tell(str(error), UNUSABLE)


def _wrong(error: BaseException) -> int:
    return _tell(str(error), WRONG)


def _interrupted(_error: BaseException) -> int:
    return INTERRUPTED


def _closed_pipe(_error: BaseException) -> int:
    # The interpreter flushes stdout when it ends, and would complain about the same pipe again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return CLOSED_PIPE


def _usage(error: BaseException) -> int:
    command = getattr(getattr(error, "ctx", None), "command_path", PROGRAM)
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    text = message.replace("Value error, ", "").rstrip(".")
    return _tell(f"{command}: {text}: see {command} --help", UNUSABLE)


def _missing_module(error: BaseException) -> int:
    name = getattr(error, "name", None) or ""
    extra = _EXTRAS.get(name.partition(".")[0])
    if extra is None:
        raise error
    return _tell(f"{name} is not installed: pip install 'pd-planner[{extra}]'", UNUSABLE)


def _unusable_file(error: BaseException) -> int:
    if not isinstance(error, OSError) or error.filename is None:
        raise error
    return _tell(f"{error.filename}: {error.strerror}: give another path", UNUSABLE)


def _tell(message: str, code: int) -> int:
    sys.stderr.write(f"{message}\n")
    return code


Ending = Callable[[BaseException], int]


@cache
def _endings() -> dict[type[BaseException], Ending]:
    """Return how each expected exception ends the run; the first that fits rules."""
    # Only when something went wrong: the error tree brings numpy, and `--help` should be quick.
    from planner.errors import InputError, PlannerError, PredictorError, ProfileError

    return {
        InputError: _unusable,
        ProfileError: _unusable,
        PredictorError: _unusable,
        PlannerError: _wrong,
        typer.Abort: _interrupted,
        KeyboardInterrupt: _interrupted,
        BrokenPipeError: _closed_pipe,
        SystemExit: _closed_pipe,  # typer's own, when a write inside of it found the pipe closed
        ModuleNotFoundError: _missing_module,
        OSError: _unusable_file,
        _UsageError: _usage,
    }


if __name__ == "__main__":
    sys.exit(main())
