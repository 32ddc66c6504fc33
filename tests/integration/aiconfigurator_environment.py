"""An environment with AI Configurator in it, made once, outside the checkout: it is an extra.

``python -m tests.integration.aiconfigurator_environment`` fills a cache folder named after the
lock and the pins below; what is complete is left alone.
"""

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"
GET_IT = "python -m tests.integration.aiconfigurator_environment"
# The extra, and what it needs beside the packages of the lock, as pip resolved them.
PINS = (
    "aiconfigurator==0.12.0",
    "aiconfigurator-core==0.12.0",
    "bokeh==3.9.2",
    "jinja2==3.1.6",
    "markupsafe==3.0.4",
    "munch==4.0.0",
    "nvidia-ml-py==13.615.71",
    "plotext==5.3.2",
    "prettytable==3.18.0",
    "pyarrow==26.0.1",
    "tornado==6.6.1",
    "wcwidth==0.9.4",
    "xyzservices==2026.9.1",
)
COMPLETE = ".complete"

Say = Callable[[str], None]


class EnvironmentFailedError(Exception):
    """The environment cannot be made; the message is one line: what, why, how to mend."""


def folder() -> Path:
    """Return where the environment is or will be."""
    digest = hashlib.sha256(f"{sys.version_info[:3]} {PINS}".encode())
    digest.update(LOCK.read_bytes())
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "pd-planner" / "aiconfigurator" / digest.hexdigest()[:16]


def python(place: Path) -> Path:
    return place / "bin" / "python"


def is_complete(place: Path) -> bool:
    return (place / COMPLETE).is_file()


def make(say: Say) -> Path:
    """Make what is missing and return the folder; a second caller waits for the first."""
    place = folder()
    place.mkdir(parents=True, exist_ok=True)
    with _alone_in(place):
        if not is_complete(place):
            say(f"making an environment with {PINS[0]} in {place}: once, 1.6 GB, a few minutes")
            _fill(place)
            (place / COMPLETE).touch()
    return place


@contextlib.contextmanager
def _alone_in(place: Path) -> Iterator[None]:
    with (place / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fill(place: Path) -> None:
    venv.create(place, with_pip=True)
    _pip(place, "--require-hashes", "--requirement", str(LOCK))
    _pip(place, *PINS)


def _pip(place: Path, *arguments: str) -> None:
    pip = [python(place), "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    done = subprocess.run(
        [*pip, "--quiet", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise EnvironmentFailedError(
            f"AI Configurator's environment: pip install {' '.join(arguments)}: {last}; check the "
            f"network and pip's index, then: {GET_IT}"
        )


def main() -> int:
    """Make the environment; return the exit status."""

    def say(line: str) -> None:
        print(f"aiconfigurator-environment: {line}", file=sys.stderr, flush=True)

    try:
        say(f"complete: {make(say)}")
    except EnvironmentFailedError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
