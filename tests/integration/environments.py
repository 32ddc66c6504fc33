"""Environments with an extra in them that the lock does not hold, made once, outside the checkout.

``python -m tests.integration.environments ray`` fills a cache folder named after the lock and the
pins; what is complete is left alone. In CI a test that needs one makes it.
"""

import hashlib
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.caches import alone_in, cache_of
from tests.conftest import IN_CI, LeaveOut

ROOT: Final = Path(__file__).parents[2]
COMPLETE: Final = ".complete"

Say = Callable[[str], None]


class EnvironmentFailedError(Exception):
    """The environment cannot be made; the message is one line: what, why, how to mend."""


@dataclass(frozen=True, slots=True)
class Environment:
    """One extra, and what it needs beside the packages of the lock, as pip resolved them.

    `has_project` says that the checkout itself is installed, so that every checkout has its own.
    """

    name: str
    title: str
    pins: tuple[str, ...]
    has_project: bool
    told: str

    @property
    def get_it(self) -> str:
        return f"python -m tests.integration.environments {self.name}"

    @property
    def folder(self) -> Path:
        """Where the environment is or will be."""
        digest = hashlib.sha256(f"{sys.version_info[:3]} {self.pins}".encode())
        digest.update((ROOT / "requirements.lock").read_bytes())
        if self.has_project:
            digest.update(f"{ROOT}".encode() + (ROOT / "pyproject.toml").read_bytes())
        return cache_of(self.name) / digest.hexdigest()[:16]

    @property
    def programs(self) -> Path:
        return self.folder / "bin"

    @property
    def is_complete(self) -> bool:
        return (self.folder / COMPLETE).is_file()

    def make(self, say: Say) -> None:
        """Make what is missing; a second caller waits for the first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with alone_in(self.folder):
            if not self.is_complete:
                say(f"{self.name}: installing {self.pins[0]} into {self.folder}, once, {self.told}")
                self._fill()
                (self.folder / COMPLETE).touch()

    def _fill(self) -> None:
        venv.create(self.folder, with_pip=True)
        self._install("--no-deps", "--require-hashes", "--requirement", "requirements.lock")
        self._install(*self.pins)
        if self.has_project:
            self._install("--no-deps", "--no-build-isolation", "--editable", ".")

    def _install(self, *arguments: str) -> None:
        pip = [self.programs / "python", "-m", "pip", "--disable-pip-version-check", "--no-input"]
        asked = [*pip, "install", "--quiet", *arguments]
        done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise EnvironmentFailedError(
                f"{self.title}'s environment: pip install {' '.join(arguments)}: {last}; check the "
                f"network and pip's index, then: {self.get_it}"
            )


RAY: Final = Environment(
    "ray",
    "Ray",
    (
        "ray==2.60.0",
        "jsonschema==4.26.0",
        "jsonschema-specifications==2025.9.1",
        "msgpack==1.2.4",
        "protobuf==7.36.2",
        "referencing==0.37.0",
        "rpds-py==2026.9.1",
    ),
    has_project=True,
    told="about two minutes",
)
AICONFIGURATOR: Final = Environment(
    "aiconfigurator",
    "AI Configurator",
    (
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
    ),
    has_project=False,
    told="1.6 GB, a few minutes",
)
ENVIRONMENTS: Final = {made.name: made for made in (RAY, AICONFIGURATOR)}


def programs_of(asked: Environment, config: pytest.Config, leave_out: LeaveOut) -> Path:
    """Return the folder of an environment's programs; in CI it is made here, else left out."""
    if not asked.is_complete and IN_CI:
        with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            asked.make(_to_stderr)
    if not asked.is_complete:
        reason = f"{asked.title}'s environment is not made; make it with: {asked.get_it}"
        leave_out(asked.title, asked.get_it, reason)
    return asked.programs


def _to_stderr(line: str) -> None:
    print(f"environments: {line}", file=sys.stderr, flush=True)


def main() -> int:
    """Make the environments named; return the exit status."""
    names = sys.argv[1:] or list(ENVIRONMENTS)
    if unknown := set(names) - set(ENVIRONMENTS):
        _to_stderr(f"{', '.join(unknown)}: unknown; legal: {', '.join(ENVIRONMENTS)}")
        return 2
    try:
        for name in names:
            ENVIRONMENTS[name].make(_to_stderr)
            _to_stderr(f"{name}: complete in {ENVIRONMENTS[name].folder}")
    except EnvironmentFailedError as error:
        _to_stderr(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
