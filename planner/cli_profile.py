"""The commands `pd-planner profile …`: parse, call, exit code."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner import cli_profile_run, flags
from planner.spec.quantities import duration

if TYPE_CHECKING:
    from planner.profiling.region import Targets
    from planner.settings import Settings

app = typer.Typer(
    help="Profiles of engines: read and write other formats, draw, compare, apply.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class ImportFormat(StrEnum):
    """What `profile import` reads."""

    DYNAMO = "dynamo"
    JSON = "json"
    CONFIG_MAP = "configmap"
    VLLM_BENCH = "vllm-bench"
    GUIDELLM = "guidellm"
    AIPERF = "aiperf"
    GENAI_PERF = "genai-perf"


class ExportFormat(StrEnum):
    """What `profile export` writes."""

    DYNAMO = "dynamo"
    DYNAMO_JSON = "dynamo-json"
    DYNAMO_CONFIG_MAP = "dynamo-configmap"
    CONFIG_MAP = "configmap"
    JSON = "json"


class Roles(StrEnum):
    """Which points are taken."""

    BOTH = "both"
    PREFILL = "prefill"
    DECODE = "decode"

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the profile document."""
        return ("prefill", "decode") if self is Roles.BOTH else (self.value,)


ProfileSource = Annotated[str, typer.Argument(metavar="FILE", help="Profile, or name of a sample.")]
Ttft = Annotated[
    str | None, typer.Option(metavar="DURATION", help="TTFT asked for, such as 500ms.")
]
Itl = Annotated[str | None, typer.Option(metavar="DURATION", help="ITL asked for, such as 30ms.")]
Known = Annotated[str | None, typer.Option(metavar="TEXT", help="For the provenance.")]
Count = Annotated[int | None, typer.Option(min=1, help="What the files can't know.")]
Amount = Annotated[float | None, typer.Option(help="What the files can't know.")]


@app.command(
    "import",
    epilog="Example: pd-planner profile import --format vllm-bench results/ --gpu h100 "
    "--gpus-per-replica 1 -o llama-8b-h100.json",
)
def import_(
    *,
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH…", help="Files, or folders of them.")
    ],
    fmt: Annotated[ImportFormat, typer.Option("--format", help="What they are.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Default: stdout.")
    ] = None,
    role: Annotated[Roles, typer.Option(help="Which points to take.")] = Roles.BOTH,
    model: Known = None,
    gpu: Known = None,
    engine: Known = None,
    engine_version: Known = None,
    parallelism: Known = None,
    command: Known = None,
    gpus_per_replica: Count = None,
    kv_capacity_tokens: Count = None,
    max_sequences: Count = None,
    kv_bytes_per_token: Amount = None,
    kv_read_bytes_per_s: Amount = None,
    startup: Annotated[
        str | None, typer.Option(metavar="DURATION", help="From creation to readiness.")
    ] = None,
) -> int:
    """Make a profile of Dynamo's files, of a ConfigMap, or of load generators' results.

    Odd points are told on stderr; points that the named GPU can't reach are refused.
    """
    provenance = {
        "model": model,
        "gpu": gpu,
        "engine": engine,
        "engineVersion": engine_version,
        "parallelism": parallelism,
        "command": command,
        "gpusPerReplica": gpus_per_replica,
    }
    facts: dict[str, Any] = {
        "kv_capacity_tokens": kv_capacity_tokens,
        "max_sequences": max_sequences,
        "kv_bytes_per_token": kv_bytes_per_token,
        "kv_read_bytes_per_s": kv_read_bytes_per_s,
        "startup_s": _duration_s("--startup", startup, "1s", "2h"),
        "provenance": {key: value for key, value in provenance.items() if value is not None},
    }
    from planner.profiling.commands import import_profile

    given = {key: value for key, value in facts.items() if value is not None}
    return import_profile(paths, fmt.value, role.keys, given, output)


class Engine(StrEnum):
    """Engines that `profile offline` knows."""

    VLLM = "vllm"
    SGLANG = "sglang"
    TRTLLM = "trtllm"


class CacheType(StrEnum):
    """Number formats of a KV cache."""

    BFLOAT16 = "bfloat16"
    FP8 = "fp8"
    INT8 = "int8"


@app.command(
    epilog="Example: pd-planner profile offline --model Qwen/Qwen3-32B --gpu h200_sxm "
    "--tensor-parallel 4 --itl 30ms -o qwen3-32b-h200.json"
)
def offline(
    *,
    model: Annotated[str, typer.Option(metavar="NAME", help="Known name, or folder of the model.")],
    gpu: Annotated[str, typer.Option(metavar="NAME", help="GPU, such as h100_sxm or l40s.")],
    tensor_parallel: Annotated[int, typer.Option(min=1, help="GPUs of a replica.")] = 1,
    engine: Annotated[Engine, typer.Option(help="Engine to estimate.")] = Engine.VLLM,
    gpu_memory_utilization: Annotated[
        float, typer.Option(min=0.05, max=0.99, help="As the engine is started with.")
    ] = 0.9,
    kv_cache_dtype: Annotated[
        CacheType | None, typer.Option(help="As the engine is started with; default: the model's.")
    ] = None,
    role: Annotated[Roles, typer.Option(help="Which points to make.")] = Roles.BOTH,
    isl_max: Annotated[
        int | None, typer.Option(min=512, help="Longest prompt; default: 32768, or the model's.")
    ] = None,
    max_sequences: Annotated[
        int | None, typer.Option(min=4, help="Largest batch the scheduler runs; grid: 256 without.")
    ] = None,
    kv_capacity_tokens: Annotated[
        int | None, typer.Option(min=1, help="In place of the estimate.")
    ] = None,
    startup: Annotated[
        str | None, typer.Option(metavar="DURATION", help="From creation to readiness.")
    ] = None,
    ttft: Ttft = None,
    itl: Itl = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Default: stdout.")
    ] = None,
) -> int:
    """Estimate a profile in seconds, without a GPU (needs the extra aiconfigurator).

    What the estimate does not know is told on stderr, and with --ttft or --itl where they hold.
    """
    targets, startup_s = _targets(ttft, itl), _duration_s("--startup", startup, "1s", "2h")
    from planner.profiling.aiconfigurator import Replica
    from planner.profiling.offline import Asked, offline_profile

    cache = kv_cache_dtype and kv_cache_dtype.value
    replica = Replica(model, gpu, engine.value, tensor_parallel, gpu_memory_utilization, cache)
    asked = Asked(role.keys, isl_max, max_sequences, kv_capacity_tokens, startup_s)
    return offline_profile(replica, asked, targets, output)


@app.command(
    epilog="Example: pd-planner profile export --format dynamo llama-8b-h100.json -o dynamo/"
)
def export(
    *,
    source: ProfileSource,
    fmt: Annotated[ExportFormat, typer.Option("--format", help="What to write.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="PATH", help="File or, for Dynamo, folder."),
    ] = None,
    namespace: Annotated[str, typer.Option(help="Of a ConfigMap.")] = "default",
    name: Annotated[
        str | None, typer.Option(help="Of a ConfigMap; default: the file's name.")
    ] = None,
) -> int:
    """Write a profile as Dynamo's files or as a ConfigMap; what has no place there is told."""
    from planner.profiling.commands import export_profile

    return export_profile(source, fmt.value, output, namespace, name)


@app.command(
    epilog="Example: pd-planner profile show llama-8b-h100.json --ttft 500ms --itl 30ms "
    "--trace day.csv.gz -o profile.html"
)
def show(
    *,
    source: ProfileSource,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Picture (HTML).")
    ] = None,
    ttft: Ttft = None,
    itl: Itl = None,
    trace: flags.Trace = None,
) -> int:
    """Draw TTFT and ITL, where the targets hold, and tell which traffic is outside."""
    targets = _targets(ttft, itl)
    from planner.profiling.commands import show_profile

    return show_profile(source, targets, trace, output)


@app.command(
    epilog="Example: pd-planner profile diff old.json new.json -f llama.yaml --trace day.csv.gz"
)
def diff(
    *,
    a: Annotated[str, typer.Argument(metavar="A", help="Profile, or name of a sample.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What to compare it with.")],
    file: Annotated[
        Path | None,
        typer.Option("-f", "--file", metavar="FILE", help="PDAutoscaler whose decisions to take."),
    ] = None,
    ttft: Ttft = None,
    itl: Itl = None,
    isl: Annotated[float, typer.Option(min=1, help="Mean prompt [tokens].")] = 1024,
    osl: Annotated[float, typer.Option(min=1, help="Mean output [tokens].")] = 256,
    trace: flags.Trace = None,
    rps: Annotated[
        str, typer.Option(metavar="N,…", help="Loads to decide at [requests/s].")
    ] = "1,3,10,30,100,300",
    output: Annotated[flags.Output, typer.Option("-o", "--output")] = flags.Output.TABLE,
) -> int:
    """Say what another profile changes: replicas over loads, what is within reach."""
    targets, loads = _targets(ttft, itl), _loads(rps)
    from planner.profiling.commands import diff_profiles

    return diff_profiles(a, b, file, targets, (isl, osl), trace, loads, output.value)


@app.command(
    epilog="Example: pd-planner profile refine -f llama.yaml --pool decode --from-prometheus 7d "
    "--prometheus http://localhost:9090 -o llama-8b-refined.json"
)
@flags.with_settings(*flags.PROMETHEUS, *flags.KUBERNETES, *flags.LOG)
def refine(
    *,
    settings: "Settings",
    file: flags.SpecFile,
    pool: Annotated[str, typer.Option(metavar="NAME", help="Whose profile to correct.")],
    from_prometheus: Annotated[
        str, typer.Option(metavar="WINDOW", help="History to learn from, such as 7d.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Default: nothing is written."),
    ] = None,
) -> int:
    """Show how far production is off a pool's profile, and write the corrected profile."""
    window_s = flags.read_source(None, from_prometheus, settings)
    assert window_s is not None
    from planner.profiling.from_production import refine_profile

    return refine_profile(file, pool, settings, window_s, output)


@app.command(
    epilog="Example: pd-planner profile apply llama-8b-h100.json --namespace inference "
    "--name llama-8b-h100"
)
@flags.with_settings(*flags.KUBERNETES)
def apply(
    *,
    settings: "Settings",
    source: ProfileSource,
    namespace: Annotated[str, typer.Option(help="Where the PDAutoscaler is.")],
    name: Annotated[str, typer.Option(help="What the pool's profile.configMap says.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the server check it and change nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Take over fields that somebody else wrote.")
    ] = False,
) -> int:
    """Write a profile as a ConfigMap, by server-side apply."""
    from planner.profiling.commands import apply_profile

    return apply_profile(source, namespace, name, settings, dry_run=dry_run, force=force)


def _targets(ttft: str | None, itl: str | None) -> "Targets":
    from planner.profiling.region import Targets

    return Targets(
        _duration_s("--ttft", ttft, "1ms", "10m"), _duration_s("--itl", itl, "100us", "10s")
    )


def _duration_s(flag: str, text: str | None, low: str, high: str) -> float | None:
    return None if text is None else flags.read_flag(flag, text, duration(low, high))


def _loads(text: str) -> tuple[float, ...]:
    """Return loads in requests/s, ascending."""
    found: set[float] = set()
    for part in text.split(","):
        try:
            load = float(part)
        except ValueError:
            load = -1.0
        if not 0.0 < load <= 1e6:
            flags.refuse(f"--rps: got {part.strip()!r}; legal: above 0 to 1e6; such as 1,10,100")
        found.add(load)
    return tuple(sorted(found))


app.command(epilog=cli_profile_run.EXAMPLE)(cli_profile_run.run)
