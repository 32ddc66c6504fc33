"""Composition root of `profile run`: an engine started or given, measured, the profile written.

Whatever ends a run, what was measured is kept, and the same command goes on from it.
"""

import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from planner.adapters.clock import SystemClock
from planner.adapters.engine.client import EngineAccess, EngineClient
from planner.adapters.engine.faults import EngineError
from planner.adapters.engine.process import (
    EngineProcess,
    free_port,
    gpu_name,
    probe_python,
    refuse_used_port,
)
from planner.errors import InputError, PlannerError
from planner.model import Role
from planner.profiling.asked import Asked, Destination
from planner.profiling.commands import refuse_impossible
from planner.profiling.engine_command import ENVIRONMENT, PROBE, Launch, model_name
from planner.profiling.grid import Reach, grid, most_points, next_point
from planner.profiling.manifest import config_map, profile_manifest
from planner.profiling.measurements import (
    MeasurementFile,
    facts_line,
    point_line,
    refuse_other,
)
from planner.profiling.measuring import Meter
from planner.profiling.outcome import About, measured_profile
from planner.profiling.progress import Watch, point_words, watch
from planner.profiling.timings import EngineFacts
from profiles import Profile, profile_text, write_profile
from profiles.configmap import PROFILE_KEY
from profiles.sanity import oddities

if TYPE_CHECKING:
    from planner.settings import Settings

_SAME_CAPACITY = 0.1
"""Two starts of one engine find a little more or less memory free for the KV cache."""


def run_profile(asked: Asked, settings: "Settings") -> int:
    """Measure what is missing, write the profile, and apply it where that is asked for."""
    _apply(None, asked, settings)
    launch = None if asked.endpoints else _launch(asked)
    gpu = asked.gpu or (gpu_name() if launch is not None else None)
    file = MeasurementFile(asked.state, _subject(asked, launch, gpu))
    with _kept_told(file, asked.state), _ended_as_by_ctrl_c(), watch() as seen:
        for role in asked.roles:
            _measure(role, asked, launch, file, seen)
    profile = measured_profile(file.measured, _about(asked, launch, file, gpu), str(asked.state))
    refuse_impossible(profile, str(asked.state))
    for odd in oddities(profile):
        _tell(f"odd: {odd.line}")
    _write(profile, asked.output)
    _apply(profile, asked, settings)
    return 0


def _launch(asked: Asked) -> Launch:
    """Return how the engine is started, after a look at its environment.

    Raises
    ------
    InputError
        If there is no model, or no vLLM.
    """
    if asked.model is None:
        raise InputError(
            "--model: not given; legal: a folder or name that the engine can load; give it, or "
            "--endpoint of an engine that runs"
        )
    launch = Launch(asked.program, asked.model, asked.arguments, not asked.plain_decode)
    if asked.python is None:
        return launch
    found = probe_python(asked.python, PROBE)
    if not found["there"]:
        raise InputError(
            f"--python: {asked.python} has no vLLM; legal: the interpreter of an environment with "
            "it; give that, or --endpoint of an engine that runs"
        )
    pure = launch.pure_decode and bool(found["pure_decode"])
    return replace(launch, pure_decode=pure, version=found["version"])


def _subject(asked: Asked, launch: Launch | None, gpu: str | None) -> dict[str, Any]:
    """Return what points of one file have in common."""
    return {
        "model": asked.model,
        "engine version": None if launch is None else launch.version,
        "GPU": gpu,
        "--samples": asked.samples,
        "--output-tokens": asked.reach.output_tokens,
    }


def _engine_words(role: Role, asked: Asked, launch: Launch | None) -> str:
    return asked.endpoints[role] if launch is None else shlex.join(launch.command(role))


def _measure(
    role: Role, asked: Asked, launch: Launch | None, file: MeasurementFile, seen: Watch
) -> None:
    """Measure a role until it is known well enough; no engine is started for nothing."""
    reach, engine = _reach(asked, launch), _engine_words(role, asked, launch)
    if (known := file.measured.facts.get(role)) is not None:
        refuse_other(asked.state, f"{role} engine", known.engine, engine)
        places = grid(role, known, reach, file.measured.max_sequences)
        if next_point(role, places, file.measured, asked.goal, reach) is None:
            seen.say(f"{role}: measured already, {len(file.measured.of(role))} points")
            return
    with _engine(role, asked, launch, seen) as (client, facts):
        _refuse_other_engine(known, facts, asked.state)
        file.append(facts_line(role, replace(facts, engine=engine)))
        meter = Meter(client, asked.samples, reach.output_tokens)
        measure = meter.prefill if role is Role.PREFILL else meter.decode
        seen.begin(str(role))
        while True:
            places = grid(role, file.measured.facts[role], reach, file.measured.max_sequences)
            most = most_points(role, places, file.measured, reach)
            seen.step(len(file.measured.of(role)), most)
            place = next_point(role, places, file.measured, asked.goal, reach)
            if place is None:
                return
            found = measure(place)
            file.append(point_line(found))
            seen.say(point_words(found))


def _reach(asked: Asked, launch: Launch | None) -> Reach:
    """Return how far to go, with what the engine's arguments say."""
    told = None if launch is None else launch.whole("--max-num-seqs")
    return replace(asked.reach, max_sequences=asked.reach.max_sequences or told)


@contextlib.contextmanager
def _engine(
    role: Role, asked: Asked, launch: Launch | None, seen: Watch
) -> Iterator[tuple[EngineClient, EngineFacts]]:
    """Have an engine of a role at hand, ended afterwards if it is ours.

    Yields
    ------
    tuple[EngineClient, EngineFacts]
        What speaks to it, and what it said of itself.
    """
    if launch is None:
        client = EngineClient(EngineAccess(asked.endpoints[role], asked.token_file, asked.ca_file))
        yield client, client.introduce(asked.model)
        return
    if asked.port is not None:
        refuse_used_port(asked.port)
    port = asked.port or free_port()
    command = [*launch.command(role), "--host", "127.0.0.1", "--port", str(port)]
    log = asked.state.with_suffix(f".{role}.log")
    seen.say(f"{role}: starting the engine, its output in {log}: {shlex.join(command)}")
    seen.begin(f"{role}: the engine starts")
    client = EngineClient(EngineAccess(f"http://127.0.0.1:{port}", asked.token_file))
    process = EngineProcess(command, log, ENVIRONMENT)
    try:
        process.wait_until_served(client, asked.start_within_s)
        with _blamed(process):
            yield client, _first_token(client, process)
    finally:
        process.stop()


def _first_token(client: EngineClient, process: EngineProcess) -> EngineFacts:
    """Return what an engine says of itself, with the time it took to its first token."""
    facts = client.introduce(None)
    client.together(client.bodies([[300]], 1))
    return replace(facts, startup_s=process.since_start_s())


@contextlib.contextmanager
def _blamed(process: EngineProcess) -> Iterator[None]:
    try:
        yield
    except EngineError as error:
        raise process.blamed_for(error) from error


def _refuse_other_engine(known: EngineFacts | None, facts: EngineFacts, state: Path) -> None:
    """Refuse to add points of one engine to those of another, by what it says of itself."""
    if known is None:
        return
    refuse_other(state, "model", known.model, facts.model)
    refuse_other(state, "engine version", known.version, facts.version)
    before, now = known.kv_capacity_tokens or 0, facts.kv_capacity_tokens or 0
    if abs(before - now) > _SAME_CAPACITY * before:
        refuse_other(state, "KV capacity", before, now)


@contextlib.contextmanager
def _kept_told(file: MeasurementFile, state: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (PlannerError, KeyboardInterrupt):
        if count := len(file.measured.points):
            _tell(f"{count} points are kept in {state}: the same command goes on from them")
        raise


@contextlib.contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """Let SIGTERM, as Kubernetes sends it, end the engine too."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _about(asked: Asked, launch: Launch | None, file: MeasurementFile, gpu: str | None) -> About:
    facts = next(iter(file.measured.facts.values()))
    today = datetime.fromtimestamp(SystemClock(threading.Event()).now_s(), UTC).date()
    return About(
        tool=f"pd-planner {version('pd-planner')} profile run",
        date=today.isoformat(),
        command=_engines_told(asked, launch),
        model=model_name(facts.model, launch),
        gpu=gpu,
        gpus_per_replica=asked.gpus_per_replica or (1 if launch is None else launch.gpus),
        parallelism=None if launch is None else launch.parallelism,
        max_sequences=_reach(asked, launch).max_sequences,
        kv_capacity_tokens=asked.reach.kv_capacity_tokens,
    )


def _engines_told(asked: Asked, launch: Launch | None) -> str:
    """Return what was measured: the engine's arguments, or where it ran."""
    if launch is None:
        return "; ".join(f"{role} at {asked.endpoints[role]}" for role in asked.roles)
    engine = shlex.join(("vllm", *launch.arguments))
    if Role.DECODE not in asked.roles:
        return engine
    how = "with DecodeBenchConnector" if launch.pure_decode else "on prompts in the prefix cache"
    return f"{engine}; decode {how}"


def _write(profile: Profile, output: Path | None) -> None:
    """Write the profile, whole or not at all, or print it."""
    if output is None:
        print(profile_text(profile), end="", flush=True)  # noqa: T201
    else:
        write_profile(profile, output)
        _tell(f"{output}: written")


def _apply(profile: Profile | None, asked: Asked, settings: "Settings") -> None:
    """Write the ConfigMaps; without a profile: let the server say whether that would do."""
    if not asked.destinations:
        return
    from planner.adapters.kubernetes.api import KubernetesAccess
    from planner.adapters.kubernetes.apply import ApplyingApi

    cluster = settings.kubernetes
    access = KubernetesAccess(cluster.kubeconfig, cluster.context)
    with contextlib.closing(ApplyingApi(access)) as api:
        for place in asked.destinations:
            api.apply(
                _manifest(profile, place, os.environ), dry_run=profile is None, force=asked.force
            )
            if profile is not None:
                _tell(f"configmap/{place.name} in namespace {place.namespace}: applied")


def _manifest(
    profile: Profile | None, place: Destination, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Return the ConfigMap, owned by the Job that this runs in, where it says which."""
    if profile is None:
        manifest = config_map(place.namespace, place.name, {PROFILE_KEY: ""}, {})
    else:
        manifest = profile_manifest(profile, place.namespace, place.name)
    name, uid = environment.get("JOB_NAME"), environment.get("JOB_UID")
    # An owner in another namespace does not exist there: the object would be collected at once.
    if name and uid and environment.get("POD_NAMESPACE") == place.namespace:
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid}
        manifest["metadata"]["ownerReferences"] = [owner]
    return manifest


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201
