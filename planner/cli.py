"""The command `pd-planner`: one short function a command, that parses, builds and prints.

What a command needs is imported when it runs, so that `--help` is quick.
"""

import json
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner import flags
from planner.cli_compare import compare
from planner.cli_profile import app as profile_app

if TYPE_CHECKING:
    from planner.check.finding import Finding
    from planner.settings import Settings

app = typer.Typer(
    help="SLA-driven autoscaling of disaggregated prefill and decode pools.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.add_typer(profile_app, name="profile")


class PlanOutput(StrEnum):
    """How `recommend` prints."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


class Schema(StrEnum):
    """Which schema `schema` prints."""

    CRD = "crd"
    SPEC = "spec"


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer's signature
    if wanted:
        typer.echo(f"pd-planner {version('pd-planner')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None: ...


@app.command(epilog="Example: pd-planner demo --report demo.html")
@flags.with_settings(*flags.LOG)
def demo(
    *,
    settings: "Settings",
    scale: flags.Scale = 60,
    seed: flags.Seed = 0,
    report: flags.Report = None,
    no_live: Annotated[bool, typer.Option("--no-live", help="No live view.")] = False,
) -> int:
    """Show the whole loop on a simulated service: no cluster, no Prometheus, no GPU.

    The last line on stdout is the path of the report.
    """
    from planner.app import demo as run_demo

    return run_demo(settings=settings, scale=scale, seed=seed, report=report, no_live=no_live)


@app.command(epilog="Example: pd-planner run -f llama.yaml --listen 127.0.0.1:8080")
@flags.with_settings("--listen", "--record", *flags.PROMETHEUS, *flags.KUBERNETES, *flags.LOG)
def run(*, settings: "Settings", file: flags.SpecFiles) -> int:
    """Drive the services: decide at each interval and, in mode Act, scale their targets.

    Goes on until Ctrl-C or a termination request; no fault of Prometheus or Kubernetes ends it.
    """
    from planner.controller import run as run_controller

    return run_controller(files=file, settings=settings)


@app.command(
    epilog="Example: pd-planner recommend -f llama.yaml --current prefill=4,decode=6 "
    "--prometheus http://localhost:9090"
)
@flags.with_settings("--record", *flags.PROMETHEUS, *flags.KUBERNETES, *flags.LOG)
def recommend(
    *,
    settings: "Settings",
    file: flags.SpecFiles,
    watch: Annotated[bool, typer.Option("--watch", help="Go on for ever.")] = False,
    current: Annotated[
        str | None,
        typer.Option(metavar="POOL=N,…", help="Replicas that run; stands in for a cluster."),
    ] = None,
    output: Annotated[PlanOutput, typer.Option("-o", "--output")] = PlanOutput.TABLE,
) -> int:
    """Say what each pool needs now and why; never writes to a scale target.

    Exit code 1 if there was not enough evidence to decide.
    """
    from planner import controller

    if current is None:
        return controller.recommend_live(
            files=file, settings=settings, watch=watch, output=output.value
        )
    services = [loaded.service for loaded in flags.load(file, settings)]
    pools = dict.fromkeys(pool.name for service in services for pool in service.pools)
    running = flags.read_replicas("--current", current, pools)
    assert running is not None
    return controller.recommend(
        services=services, settings=settings, running=running, watch=watch, output=output.value
    )


@app.command(
    epilog="Example: pd-planner check -f llama.yaml --prometheus http://localhost:9090 "
    "(or --offline)"
)
@flags.with_settings(*flags.PROMETHEUS, *flags.KUBERNETES)
def check(
    *,
    settings: "Settings",
    file: flags.SpecFiles,
    offline: Annotated[
        bool, typer.Option("--offline", help="Look at files only; no Prometheus, no cluster.")
    ] = False,
    output: Annotated[flags.Output, typer.Option("-o", "--output")] = flags.Output.TABLE,
) -> int:
    """Look at a service before trusting it: one line each, ok, warning or error with the mend.

    Exit code 1 on an error.
    """
    from planner.check.finding import Level
    from planner.inspection import check_cluster, check_files

    findings = (check_files if offline else check_cluster)(file, settings)
    _print_findings(findings, output)
    bad = any(f.level is Level.ERROR for found in findings.values() for f in found)
    return 1 if bad else 0


@app.command(
    epilog="Example: pd-planner simulate -f examples/llama-8b-h200.yaml --trace day.csv.gz "
    "--scale 4 --report out.html"
)
@flags.with_settings("--record", *flags.PROMETHEUS, *flags.LOG)
def simulate(
    *,
    settings: "Settings",
    file: flags.SpecFile,
    trace: flags.Trace = None,
    from_prometheus: flags.FromPrometheus = None,
    scale: flags.Scale = 1,
    seed: flags.Seed = 0,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="POOL=N,…",
            help="Replicas at the start; default: the plan for the first interval.",
        ),
    ] = None,
    warmup: Annotated[
        int, typer.Option(min=0, help="First intervals that are left out of the figures.")
    ] = 10,
    report: flags.Report = None,
    output: Annotated[flags.Output, typer.Option("-o", "--output")] = flags.Output.TABLE,
) -> int:
    """Replay a trace against a simulated fleet under this spec."""
    window_s = flags.read_source(trace, from_prometheus, settings)
    loaded = flags.load_one(file, settings)
    pools = [pool.name for pool in loaded.service.pools]
    replicas = flags.read_replicas("--start", start, pools)
    from planner.app import simulate as run_simulate

    return run_simulate(
        service=loaded,
        settings=settings,
        trace=trace,
        scale=scale,
        seed=seed,
        start=replicas,
        warmup=warmup,
        report=report,
        output=output.value,
        prometheus_window_s=window_s,
    )


app.command(
    epilog="Example: pd-planner compare -f examples/llama-8b-h200.yaml --trace azure2023-conv "
    "--scale 20 --report compare.html"
)(compare)


@app.command(epilog="Example: pd-planner explain record.jsonl --at 2026-11-22T10:00:00Z")
def explain(
    *,
    record: Annotated[Path, typer.Argument(metavar="RECORD.jsonl", help="Written by --record.")],
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Which decision: seconds from the start, HH:MM[:SS], RFC 3339; default: the last.",
        ),
    ] = None,
) -> int:
    """Tell one decision in words and numbers."""
    from planner.app import explain as run_explain

    return run_explain(record=record, at=at)


@app.command(epilog="Example: pd-planner backtest --trace day.csv.gz --predictors Kalman,Arima")
@flags.with_settings(*flags.PROMETHEUS, *flags.LOG)
def backtest(
    *,
    settings: "Settings",
    file: Annotated[
        Path | None,
        typer.Option("-f", "--file", metavar="FILE", help="Whose history --from-prometheus takes."),
    ] = None,
    trace: flags.Trace = None,
    from_prometheus: flags.FromPrometheus = None,
    predictors: Annotated[
        str | None,
        typer.Option(metavar="NAME,…", help="Predictors to compare; default: all installed."),
    ] = None,
    interval: Annotated[str, typer.Option(metavar="DURATION", help="One interval.")] = "60s",
    lead: Annotated[
        str, typer.Option(metavar="DURATION", help="How far ahead: order to ready.")
    ] = "2m",
    quantile: Annotated[
        str, typer.Option(metavar="PERCENT", help="Quantile that is judged.")
    ] = "75%",
    output: Annotated[flags.Output, typer.Option("-o", "--output")] = flags.Output.TABLE,
) -> int:
    """Compare predictors on a trace or on a service's own history."""
    from planner.spec.quantities import duration, percent

    window_s = flags.read_source(trace, from_prometheus, settings)
    interval_s = flags.read_flag("--interval", interval, duration("5s", "10m"))
    lead_s = flags.read_flag("--lead", lead, duration("1s", "2h"))
    ratio = flags.read_flag("--quantile", quantile, percent("50%", "99.9%"))
    names = flags.read_predictors(predictors)
    from planner.app import backtest as run_backtest

    return run_backtest(
        service=None if file is None else flags.load_one(file, settings),
        trace=trace,
        prometheus_window_s=window_s,
        predictors=names,
        interval_s=interval_s,
        lead_s=lead_s,
        quantile=ratio,
        output=output.value,
        settings=settings,
    )


@app.command(epilog="Example: pd-planner schema crd | kubectl apply -f -")
def schema(which: Annotated[Schema, typer.Argument(help="What to print.")]) -> int:
    """Print the CustomResourceDefinition (YAML) or the JSON Schema of a PDAutoscaler."""
    from planner.spec.crd import crd_text, spec_schema

    crd = which is Schema.CRD
    typer.echo(crd_text() if crd else json.dumps(spec_schema(), indent=2), nl=not crd)
    return 0


def _print_findings(findings: dict[str, list["Finding"]], output: flags.Output) -> None:
    if output is flags.Output.JSON:
        rows = [
            {
                "service": key,
                "level": f.level,
                "rule": f.rule,
                "where": f.where,
                "what": f.what,
                "mend": f.mend,
            }
            for key, found in findings.items()
            for f in found
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    colours = {"ok": "green", "warning": "yellow", "error": "red"}
    for key, found in findings.items():
        for finding in found:
            level = typer.style(f"{finding.level:7}", fg=colours[finding.level])
            typer.echo(f"{level} {key}: {finding.line}")
