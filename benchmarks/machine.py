"""Where and when a figure was measured; printed above every one."""

import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


def describe() -> str:
    """Return date, processor and versions in one line."""
    day = datetime.now(UTC).date()  # noqa: TID251 - a benchmark's own date
    return (
        f"{day}, {_cpu()}, Python {platform.python_version()}, numpy {version('numpy')}, "
        f"pd-planner {version('pd-planner')}"
    )


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return f"{len(names)} × {names[0]}" if names else platform.machine()
