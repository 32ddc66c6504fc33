"""An environment with Ray in it, made once, outside the checkout: Ray is an extra, not in the lock.

``python -m tests.integration.ray_environment`` fills a cache folder named after the lock, the pins
below and the checkout; what is complete is left alone.
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
GET_IT = "python -m tests.integration.ray_environment"
# Ray and what it needs beside the packages of the lock, as pip resolves them.
PINS = (
    "ray==2.60.0", "jsonschema==4.26.0", "jsonschema-specifications==2025.9.1", "msgpack==1.2.4",
    "protobuf==7.36.2", "referencing==0.37.0", "rpds-py==2026.9.1",
)  # fmt: skip
COMPLETE = ".complete"
IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}

Say = Callable[[str], None]


class RayEnvironmentError(Exception):
    """The environment cannot be made; the message is one line: what, why, how to mend."""


def folder() -> Path:
    """Return where the environment is or will be; another checkout or lock has another one."""
    digest = hashlib.sha256(f"{ROOT} {sys.version_info[:3]} {PINS}".encode())
    for name in ("requirements.lock", "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "pd-planner" / "ray" / digest.hexdigest()[:16]


def is_complete(place: Path) -> bool:
    return (place / COMPLETE).is_file()


def make(say: Say) -> Path:
    """Make what is missing and return the folder; a second caller waits for the first."""
    place = folder()
    place.mkdir(parents=True, exist_ok=True)
    with _alone_in(place):
        if not is_complete(place):
            say(f"making an environment with {PINS[0]} in {place}, once, about two minutes")
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
    _pip(place, "--require-hashes", "--requirement", "requirements.lock")
    _pip(place, *PINS)
    _pip(place, "--no-deps", "--no-build-isolation", "--editable", ".")


def _pip(place: Path, *arguments: str) -> None:
    pip = [place / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--no-input"]
    asked = [*pip, "install", "--quiet", *arguments]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise RayEnvironmentError(
            f"Ray's environment: pip install {' '.join(arguments)}: {last}; check the network and "
            f"pip's index, then: {GET_IT}"
        )


def to_stderr(line: str) -> None:
    """Say how far it is."""
    print(f"ray-environment: {line}", file=sys.stderr, flush=True)


def main() -> int:
    """Make the environment; return the exit status."""
    try:
        to_stderr(f"complete: {make(to_stderr)}")
    except RayEnvironmentError as error:
        to_stderr(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
