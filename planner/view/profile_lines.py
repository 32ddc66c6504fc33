"""A profile in words, and two profiles in a table. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from planner.profiling.region import Outside, Region, Targets, surfaces
from planner.view.notation import UNKNOWN, milliseconds, small_share, thousands
from profiles import Profile
from profiles.sanity import Oddity


def profile_lines(
    profile: Profile,
    targets: Targets,
    region: Region,
    outside: Sequence[Outside],
    odd: Sequence[Oddity],
) -> Iterator[str]:
    """Yield what a profile holds, where it keeps the targets, and what is outside or odd.

    Yields
    ------
    str
        One sentence.
    """
    prefill, decode = surfaces(profile)
    if prefill is not None:
        yield (
            f"prefill: {len(profile.prefill)} points, prompts of {prefill.isl_min_tokens:.0f} to "
            f"{prefill.isl_max_tokens:.0f} tokens"
        )
    if decode is not None:
        yield (
            f"decode: {len(profile.decode)} points, contexts of {decode.context_min_tokens:.0f} to "
            f"{decode.context_max_tokens:.0f} tokens, up to {decode.n_max} sequences"
            + (", partly estimated" if decode.estimated else "")
        )
    yield from _region_lines(targets, region)
    yield from (f"outside: {small_share(share.ratio)} {share.what}" for share in outside)
    yield from (f"odd: {one.line}" for one in odd)


def _region_lines(targets: Targets, region: Region) -> Iterator[str]:
    if targets.ttft_s is not None and region.isl_limit_tokens is not None:
        within = f"TTFT {milliseconds(targets.ttft_s)}"
        limit = region.isl_limit_tokens
        yield (
            f"{within}: prompts up to {limit:.0f} tokens, alone in a replica"
            if limit
            else f"{within}: no profiled prompt, not even alone in a replica"
        )
    for batch in region.batches:
        where = f"ITL {milliseconds(targets.itl_s)} at {batch.context_tokens:.0f} tokens"
        yield (
            f"{where}: up to {batch.concurrency} sequences, "
            f"{thousands(batch.throughput_tps)} tokens/s a replica"
            if batch.concurrency
            else f"{where}: not even one sequence ({milliseconds(batch.itl_s)})"
        )


def diff_table(diff: Mapping[str, Any]) -> Group:
    """Return decisions under both profiles side by side, and below them what is within reach."""
    pools = list(diff["decisions"][0]["a"]["replicas"])
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.title = f"A = {diff['a']}, B = {diff['b']}: {diff['traffic']}"
    table.add_column("Requests/s", justify="right")
    for title in (*pools, "GPUs"):
        table.add_column(f"{title} A → B", justify="right", no_wrap=True)
    for row in diff["decisions"]:
        a, b = row["a"], row["b"]
        pairs = [(a["replicas"][name], b["replicas"][name]) for name in pools]
        cells = [_change(*pair) for pair in (*pairs, (a["gpus"], b["gpus"]))]
        table.add_row(f"{row['rps']:g}", *cells)
    return Group(table, *map(Text, _reach_lines(diff)), *map(Text, _ratio_lines(diff["ratios"])))


def _change(before: int, after: int) -> Text:
    if before == after:
        return Text(f"{before:,}")
    return Text(f"{before:,} → {after:,}", "bold yellow" if after > before else "bold green")


def _reach_lines(diff: Mapping[str, Any]) -> Iterator[str]:
    sla = diff["sla"]
    asked = f"TTFT {milliseconds(sla['ttft_s'])}, ITL {milliseconds(sla['itl_s'])}"
    for key in "ab":
        reach = diff["reach"][key]
        verdict = "within reach" if reach["reachable"] else "out of reach by any number of replicas"
        yield (
            f"{key.upper()}: {asked} are {verdict}; at best TTFT "
            f"{milliseconds(reach['best_ttft_s'])} and ITL {milliseconds(reach['best_itl_s'])}; a "
            f"decode replica holds {reach['sequences_per_replica']} sequences, "
            f"{thousands(reach['tokens_per_s_per_replica'])} tokens/s, at a context of "
            f"{reach['context_tokens']:.0f}"
        )


def _ratio_lines(ratios: Mapping[str, Any]) -> Iterator[str]:
    for key, spread in ratios.items():
        told = UNKNOWN if spread is None else (
            f"×{spread['median']:.3f} in the median, ×{spread['min']:.3f} to ×{spread['max']:.3f}"
        )  # fmt: skip
        yield f"{key.upper()} of B over A, where both were measured: {told}"
