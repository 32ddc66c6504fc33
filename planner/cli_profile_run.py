"""The command `pd-planner profile run`: parse, call, exit code."""

import re
import shlex
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from planner import flags
from planner.spec.quantities import duration

if TYPE_CHECKING:
    from planner.settings import Settings

EXAMPLE: Final = (
    "Example: pd-planner profile run --model meta-llama/Llama-3.1-8B-Instruct --ttft 500ms "
    "--itl 30ms -o llama-8b-h100.json -- --max-model-len 16384"
)

LEAST_POINTS: Final = 12
"""Three prompt lengths, three contexts of three concurrencies."""

SERVER: Final = "-m vllm.entrypoints.openai.api_server"


class MeasuredRoles(StrEnum):
    """Which points are measured."""

    BOTH = "both"
    PREFILL = "prefill"
    DECODE = "decode"


Address = Annotated[str | None, typer.Option(metavar="URL", help="Measure an engine that runs.")]
Known = Annotated[int | None, typer.Option(min=1, help="Where the engine does not say it.")]


@flags.with_settings(*flags.KUBERNETES)
def run(
    *,
    settings: "Settings",
    engine_arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- ARGUMENT…]", help="For the engine, as in production."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Folder or name for vLLM; or a served name.")
    ] = None,
    python: Annotated[
        str, typer.Option(metavar="PATH", help="Python of an environment with vLLM.")
    ] = "python3",
    engine_command: Annotated[
        str | None, typer.Option(metavar="COMMAND", help="What starts vLLM's server instead.")
    ] = None,
    endpoint: Address = None,
    decode_endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="Default: --endpoint.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Bearer token of the engines.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificates to trust (PEM).")
    ] = None,
    role: Annotated[MeasuredRoles, typer.Option(help="Which points.")] = MeasuredRoles.BOTH,
    ttft: Annotated[str, typer.Option(metavar="DURATION", help="Precise near it.")] = "500ms",
    itl: Annotated[str, typer.Option(metavar="DURATION", help="Precise near it.")] = "30ms",
    isl_max: Annotated[
        int, typer.Option(min=3, metavar="TOKENS", help="Longest prompt, if the engine takes it.")
    ] = 16384,
    samples: Annotated[int, typer.Option(min=1, max=100, help="Rounds a point.")] = 5,
    output_tokens: Annotated[
        int, typer.Option(min=8, max=1024, help="Of each request that measures decode.")
    ] = 64,
    max_points: Annotated[
        int | None, typer.Option(help="Points at most, 12 or more; default: until precise.")
    ] = None,
    plain_decode: Annotated[
        bool, typer.Option("--plain-decode", help="Decode without vLLM's DecodeBenchConnector.")
    ] = False,
    port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Of the engine; default: a free one.")
    ] = None,
    start_timeout: Annotated[
        str, typer.Option(metavar="DURATION", help="How long the engine may take to serve.")
    ] = "30m",
    max_sequences: Known = None,
    kv_capacity_tokens: Known = None,
    gpu: Annotated[
        str | None, typer.Option(metavar="NAME", help="GPU type; default: as the driver says.")
    ] = None,
    gpus_per_replica: Annotated[
        int | None, typer.Option(min=1, help="Default: of the engine's arguments.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Default: stdout.")
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Measurements, to go on from; default: beside -o."),
    ] = None,
    apply: Annotated[
        list[str] | None,
        typer.Option(metavar="NAMESPACE/NAME", help="Write this ConfigMap; may be repeated."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Take over fields that somebody else wrote.")
    ] = False,
) -> int:
    """Measure an engine and write its profile.

    Starts vLLM, once for prefill and once for decode, or takes engines that run. What is measured
    is kept in a file; the same command goes on from it.
    """
    roles = ("prefill", "decode") if role is MeasuredRoles.BOTH else (role.value,)
    endpoints = _endpoints(endpoint, decode_endpoint, roles, engine_arguments)
    if max_points is not None and max_points < LEAST_POINTS:
        flags.refuse(f"--max-points: got {max_points}; legal: {LEAST_POINTS} or more; correct it")
    places = tuple(_destination(text) for text in apply or ())
    ttft_s = flags.read_flag("--ttft", ttft, duration("1ms", "10m"))
    itl_s = flags.read_flag("--itl", itl, duration("100us", "10s"))
    start_within_s = flags.read_flag("--start-timeout", start_timeout, duration("1s", "24h"))
    from planner.model import Role
    from planner.profiling.asked import Asked, Destination
    from planner.profiling.grid import Reach
    from planner.profiling.run import run_profile
    from profiles.sweep import Goal

    asked = Asked(
        roles=tuple(Role(name) for name in roles),
        goal=Goal(ttft_s, itl_s),
        reach=Reach(isl_max, output_tokens, max_points, max_sequences, kv_capacity_tokens),
        samples=samples,
        state=state or _beside(output),
        model=model,
        python=None if engine_command else python,
        program=tuple(shlex.split(engine_command or f"{shlex.quote(python)} {SERVER}")),
        arguments=tuple(engine_arguments or ()),
        plain_decode=plain_decode,
        port=port,
        start_within_s=start_within_s,
        endpoints={Role(name): url for name, url in endpoints.items()},
        token_file=token_file,
        ca_file=ca,
        gpu=gpu,
        gpus_per_replica=gpus_per_replica,
        output=output,
        destinations=tuple(Destination(*place) for place in places),
        force=force,
    )
    return run_profile(asked, settings)


def _endpoints(
    prefill: str | None, decode: str | None, roles: Sequence[str], arguments: Sequence[str] | None
) -> dict[str, str]:
    """Return the address of a running engine by role, none where one is to be started."""
    given = {"prefill": prefill, "decode": decode or prefill}
    found = {role: url for role in roles if (url := given[role]) is not None}
    if found and len(found) < len(roles):
        flags.refuse("--endpoint: not given for prefill; legal: both, or --role decode; give it")
    if found and arguments:
        flags.refuse(
            f"--endpoint: got arguments for an engine too ({arguments[0]} …); legal: one of both; "
            "leave out what comes after --"
        )
    return found


def _destination(text: str) -> tuple[str, str]:
    namespace, _, name = text.partition("/")
    if not re.fullmatch(r"[a-z0-9-]+/[a-z0-9.-]+", text):
        flags.refuse(f"--apply: got {text!r}; legal: NAMESPACE/NAME in small letters; correct it")
    return namespace, name


def _beside(output: Path | None) -> Path:
    """Return where measurements are kept, unless somebody says."""
    return (output or Path("profile.json")).with_suffix(".measured.jsonl")
