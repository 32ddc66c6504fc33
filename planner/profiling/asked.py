"""What a user asks `profile run` for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from planner.model import Role
from planner.profiling.grid import Reach
from profiles.sweep import Goal


@dataclass(frozen=True, slots=True)
class Destination:
    """A ConfigMap to write."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be measured, and where the result goes.

    Attributes
    ----------
    roles
        Which points.
    goal, reach, samples
        How precise, how far, and how many rounds a point.
    state
        The file of measurements.
    model, program, arguments, plain_decode, port, start_within_s
        The engine to start: its model, what starts it, the user's arguments, whether decode is
        measured without its DecodeBenchConnector, where it listens, and its patience [s].
    endpoints, token_file, ca_file
        Engines that run already.
    gpu, gpus_per_replica
        For the provenance; None: as found.
    output, destinations, force
        Where the profile goes; None: stdout.
    """

    roles: tuple[Role, ...]
    goal: Goal
    reach: Reach
    samples: int
    state: Path
    model: str | None = None
    program: tuple[str, ...] = ("python3", "-m", "vllm.entrypoints.openai.api_server")
    python: str | None = "python3"
    arguments: tuple[str, ...] = ()
    plain_decode: bool = False
    port: int | None = None
    start_within_s: float = 1800.0
    endpoints: Mapping[Role, str] = field(default_factory=dict)
    token_file: Path | None = None
    ca_file: Path | None = None
    gpu: str | None = None
    gpus_per_replica: int | None = None
    output: Path | None = None
    destinations: tuple[Destination, ...] = ()
    force: bool = False
