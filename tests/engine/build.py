"""Makes the engine of the tests: a real vLLM in an environment of its own, and a tiny model.

``python -m tests.engine.build`` fills a cache folder named after the pins and the Python release,
so that a changed pin makes it anew and nothing else does; ``--print`` says where it is.
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.adapters.clock import stopwatch_s
from tests.caches import alone_in, cache_of

HERE = Path(__file__).parent
PINS = HERE / "pins"
MAKE_MODEL = HERE / "model.py"
FOLDER_VARIABLE = "PD_PLANNER_ENGINE"
GET_IT = "make engine-build"
WHY = "the tests run a real vLLM, its pinned packages in an environment of their own"
UV = "uv==0.13.9"
PYTHONS = ((3, 11), (3, 12), (3, 13))
ROOM_GB = 9.0  # the environment takes 6.1 GB, unpacking the largest wheels a part of it again
STILL_THERE_S = 30.0  # a slow download says nothing for minutes

Say = Callable[[str], None]


class BuildError(Exception):
    """The engine cannot be made; the message is one line: what, why, how to mend."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Where an engine is: the Python that runs it, a model, room for what it caches."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "venv" / "bin" / "python"

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def is_complete(self) -> bool:
        # The model is made last, by the very packages that serve it.
        return self.python.exists() and self.model.is_dir()


def engine() -> Engine:
    """Return the engine that is or will be made: in $PD_PLANNER_ENGINE, else in the cache."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Engine(Path(chosen).absolute())
    release = ".".join(map(str, sys.version_info[:2]))
    digest = hashlib.sha256(f"{release} {platform.machine()}".encode())
    for path in (PINS / "locked.txt", MAKE_MODEL):
        digest.update(path.read_bytes())
    return Engine(cache_of("engine") / digest.hexdigest()[:16])


def build(say: Say) -> Engine:
    """Make what is missing and return the engine; a second caller waits for the first."""
    made = engine()
    if made.is_complete:
        return made
    _check_machine()
    made.folder.mkdir(parents=True, exist_ok=True)
    with alone_in(made.folder):
        if not made.is_complete:
            _check_room(made.folder)
            say(f"installing into {made.folder}: {WHY}")
            say("this happens once: a download of 3 GB, 6 GB on disk, one to three minutes")
            _install(made, say)
            _make_model(made, say)
    return made


def _check_machine() -> None:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        here = f"{sys.platform} on {platform.machine()}"
        raise BuildError(f"vLLM without a GPU is pinned for Linux on x86_64, this is {here}")
    if sys.version_info[:2] not in PYTHONS:
        legal = ", ".join(".".join(map(str, release)) for release in PYTHONS)
        raise BuildError(
            f"vLLM's packages are pinned for Python {legal}, this is {platform.python_version()}: "
            f"make the project's environment with one of these, then {GET_IT}"
        )


def _check_room(folder: Path) -> None:
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < ROOM_GB:
        raise BuildError(
            f"{folder} has {free_gb:.1f} GB free, the engine needs {ROOM_GB:g}: make room, or name "
            f"another folder by {FOLDER_VARIABLE}, then {GET_IT}"
        )


def _install(made: Engine, say: Say) -> None:
    uv = _uv(say)
    venv = made.python.parents[1]
    _run("uv venv", [uv, "venv", "--clear", "--python", sys.executable, str(venv)], say)
    locked = str(PINS / "locked.txt")
    # Compiled here: else the first start compiles thousands of modules, and it has a time limit.
    install = [uv, "pip", "install", "--compile-bytecode", "--no-deps", "--python"]
    _run("uv pip install", [*install, str(made.python), "--requirement", locked], say)


def _uv(say: Say) -> str:
    """Return uv's path: the one on PATH, else one installed beside the engines."""
    if found := shutil.which("uv"):
        return found
    home = cache_of("engine") / "uv"
    if not (program := home / "bin" / "uv").exists():
        _run("python -m venv", [sys.executable, "-m", "venv", "--clear", str(home)], say)
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        _run("pip install uv", [*pip, "--disable-pip-version-check", "--no-input", UV], say)
    return str(program)


def _make_model(made: Engine, say: Say) -> None:
    # Made beside its place and renamed: whoever finds a model finds a whole one.
    unfinished = made.folder / f".model.{os.getpid()}"
    try:
        _run("model.py", [str(made.python), str(MAKE_MODEL), str(unfinished)], say)
        unfinished.rename(made.model)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _run(what: str, command: Sequence[str], say: Say) -> None:
    took_s = stopwatch_s()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    with process:
        while True:
            try:
                said, _ = process.communicate(timeout=STILL_THERE_S)
                break
            except subprocess.TimeoutExpired:
                say(f"    still in {what}, {took_s():.0f} s so far")
    if process.returncode != 0:
        lines = [line.strip() for line in said.splitlines() if line.strip()] or ["it said nothing"]
        raise BuildError(f"{what} failed: {lines[-1]}; mend it, then {GET_IT}")


def to_stderr(line: str) -> None:
    """Say how far it is."""
    print(f"engine-build: {line}", file=sys.stderr, flush=True)


def main() -> int:
    """Make what is missing, or print the folder; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.engine.build", description=__doc__)
    parser.add_argument("--print", action="store_true", help="print the folder, make nothing")
    if parser.parse_args().print:
        print(engine().folder)
        return 0
    try:
        to_stderr(f"complete: {build(to_stderr).folder}")
    except BuildError as error:
        to_stderr(str(error))
        return 1
    except KeyboardInterrupt:
        to_stderr(f"stopped; what is downloaded is kept, {GET_IT} goes on from here")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
