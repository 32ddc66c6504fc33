"""Result files of load generators as the points of one profile. Pure: text in, a profile out.

A run at concurrency 1 gives a prefill point (nothing queues), a run with two output tokens or more
a decode point. Lengths within 2 % are one, repeats become their median.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, Final

from profiles.errors import Fault, ProfileError
from profiles.result_formats import FORMATS, SHORTFALL, Json, Run, objects_of
from profiles.schema import SCHEMA_VERSION, Profile, build_profile

SAME_LENGTH: Final = 1.02
"""Lengths within this ratio are one length: tokenizers miss the one asked for by a few tokens."""


def profile_from_results(
    texts: Mapping[str, str], fmt: str, roles: Sequence[str], facts: Mapping[str, Any]
) -> tuple[Profile, tuple[str, ...]]:
    """Return the profile of all runs in some result files, and what is worth telling about it.

    Parameters
    ----------
    texts
        Content by the name of the file.
    fmt
        A key of `FORMATS`.
    roles
        `prefill`, `decode` or both: which points are taken.
    facts
        What the files can't know, as keys of the profile document.

    Returns
    -------
    tuple of Profile and str
        The profile, and one line for each run that was not as asked for.

    Raises
    ------
    ProfileError
        If a file holds no result, runs are of several models, or the points make no surface.
    """
    source = next(iter(texts)) + (f" and {len(texts) - 1} more" if len(texts) > 1 else "")
    runs = [run for name, text in texts.items() for run in _runs(name, text, fmt)]
    models = sorted({run.model for run in runs if run.model})
    if len(models) > 1:
        fault = Fault("model", ", ".join(models), "one model", "import each model by itself")
        raise ProfileError(fault.line(source))
    document: Json = {"schemaVersion": SCHEMA_VERSION, **facts}
    known = {"how": "imported", "tool": fmt, "model": models[0] if models else None}
    document["provenance"] = known | dict(facts.get("provenance", {}))
    if "prefill" in roles:
        document["prefill"] = _prefill(runs)
    if "decode" in roles:
        document["decode"] = _decode(runs)
    return build_profile(document, source), tuple(_notes(runs, roles))


def _runs(name: str, text: str, fmt: str) -> list[Run]:
    found = [run for document in objects_of(name, text) for run in FORMATS[fmt](document, name)]
    if not found:
        fault = Fault("", "no run", f"at least one result of {fmt}", "give a result file")
        raise ProfileError(fault.line(name))
    return found


def _prefill(runs: Sequence[Run]) -> list[Json]:
    alone = [run for run in runs if run.is_alone]
    length = _lengths(run.isl_tokens for run in alone)
    values = [((length[run.isl_tokens],), run.ttft_s) for run in alone]
    return [{"isl_tokens": round(isl), "ttft_s": ttft_s} for (isl,), ttft_s in _medians(values)]


def _decode(runs: Sequence[Run]) -> list[Json]:
    decoded = [run for run in runs if run.osl_tokens > 1.0]
    length = _lengths(map(_context, decoded))
    values = [((run.concurrency, length[_context(run)]), run.itl_s) for run in decoded]
    return [
        {"concurrency": n, "context_tokens": context, "itl_s": itl_s}
        for (n, context), itl_s in _medians(values)
    ]


def _context(run: Run) -> float:
    return run.isl_tokens + run.osl_tokens / 2.0


def _lengths(lengths: Iterable[float]) -> dict[float, float]:
    """Return for each length the one that stands for all within `SAME_LENGTH` of the shortest."""
    groups: list[list[float]] = []
    for length in sorted(lengths):
        if groups and length <= groups[-1][0] * SAME_LENGTH:
            groups[-1].append(length)
        else:
            groups.append([length])
    return {length: median(group) for group in groups for length in group}


def _medians(
    values: Iterable[tuple[tuple[float, ...], float]],
) -> list[tuple[tuple[float, ...], float]]:
    """Return the median of the values of each key, keys ascending."""
    found: defaultdict[tuple[float, ...], list[float]] = defaultdict(list)
    for key, value in values:
        found[key].append(value)
    return [(key, median(found[key])) for key in sorted(found)]


def _notes(runs: Sequence[Run], roles: Sequence[str]) -> Iterable[str]:
    """Yield what a reader of the profile should know of single runs.

    Yields
    ------
    str
        One line a run.
    """
    for run in runs:
        if (
            "decode" in roles
            and run.asked
            and run.osl_tokens > 1.0
            and (run.decoding < SHORTFALL * run.asked)
        ):
            yield (
                f"{run.source}: {run.asked:g} requests at once were asked for and "
                f"{run.decoding:.3g} decoded together in the mean: its point is at "
                f"{run.concurrency:g}; run more prompts for the point asked for"
            )
        if not run.is_alone and run.osl_tokens <= 1.0:
            yield (
                f"{run.source}: left out: one output token and several requests at once measure "
                "queueing; run it with --max-concurrency 1"
            )
