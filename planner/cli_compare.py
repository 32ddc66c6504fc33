"""The command `compare`: parse, build, print."""

from typing import TYPE_CHECKING, Annotated

import typer

from planner import flags

if TYPE_CHECKING:
    from planner.settings import Settings
    from planner.simulation.traces import Trace


@flags.with_settings(*flags.PROMETHEUS, *flags.LOG)
def compare(
    *,
    settings: "Settings",
    file: flags.SpecFile,
    trace: flags.Trace = None,
    from_prometheus: flags.FromPrometheus = None,
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="Who takes part; also peers, ablation, regret, all. Default: planner and peers.",
        ),
    ] = None,
    scale: flags.Scale = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0, 1, … that all policies share.")] = 1,
    points: Annotated[
        int, typer.Option(min=1, help="Values of each policy's knob; 1: as shipped alone.")
    ] = 7,
    no_oracles: Annotated[
        bool, typer.Option("--no-oracles", help="Leave the clairvoyant out; they take longest.")
    ] = False,
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
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes; default: one for each core.")
    ] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Run on this Ray cluster instead.")
    ] = None,
    report: flags.Report = None,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="[table|json]", help="How to print.")
    ] = "table",
) -> int:
    """Compare the planner with its peers' policies and clairvoyant ones on the same traffic.

    Every policy is swept over its one knob, so that GPU-hours are told at equal attainment.
    """
    if output not in {"table", "json"}:
        flags.refuse(f"--output: {output!r} is unknown; legal: table, json")
    window_s = flags.read_source(trace, from_prometheus, settings)
    loaded = flags.load_one(file, settings)
    pools = [pool.name for pool in loaded.service.pools]
    replicas = flags.read_replicas("--start", start, pools)
    from planner.app import own_requests
    from planner.comparison.contest import compare as run_compare

    requests: str | Trace | None = trace
    if window_s is not None:
        requests = own_requests(loaded.service, settings, window_s, seed=0)
    assert requests is not None
    return run_compare(
        service=loaded,
        settings=settings,
        trace=requests,
        scale=scale,
        seeds=seeds,
        start=replicas,
        warmup=warmup,
        policies=policy,
        points=points,
        oracles=not no_oracles,
        jobs=jobs,
        ray=ray,
        report=report,
        output=output,
    )
