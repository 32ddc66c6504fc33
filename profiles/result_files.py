"""Result files of load generators as the points of one profile. Pure: text in, a profile out.

A run at concurrency 1 gives a prefill point (nothing queues), a run with two output tokens or more
a decode point. docs/profiles.md tells which keys are read and where they are documented.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from profiles.errors import Fault, ProfileError
from profiles.schema import SCHEMA_VERSION, Profile, build_profile

Json = dict[str, Any]

ALONE_MOST: Final = 1.05
"""Requests in flight, in the mean, up to which a run counts as one request at a time."""

SHORTFALL: Final = 0.9
"""Below this part of the concurrency asked for, what really ran together is taken instead."""

SAME_LENGTH: Final = 1.02
"""Lengths within this ratio are one length: tokenizers miss the one asked for by a few tokens."""

_UNITS_S: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "seconds": 1.0}


@dataclass(frozen=True, slots=True)
class Run:
    """What one run measured.

    Attributes
    ----------
    source
        The file, for messages.
    isl_tokens, osl_tokens
        Mean lengths [tokens].
    ttft_s, itl_s
        Time to first token (median where there is one) and mean inter-token latency [s].
    rate_rps
        Requests finished [requests/s].
    asked
        Concurrency that was asked for, None if the load was a rate.
    model
        As the server calls it.
    """

    source: str
    isl_tokens: float
    osl_tokens: float
    ttft_s: float
    itl_s: float
    rate_rps: float
    asked: float | None
    model: str | None

    @property
    def decoding(self) -> float:
        """Mean number of sequences in decode: rate x time there (Little 1961)."""
        return self.rate_rps * self.itl_s * (self.osl_tokens - 1.0)

    @property
    def is_alone(self) -> bool:
        """Whether one request ran at a time."""
        return (self.asked or self.decoding + self.rate_rps * self.ttft_s) <= ALONE_MOST

    @property
    def concurrency(self) -> float:
        """Sequences decoded together: as asked for, or fewer where not so many were there."""
        if self.asked is not None and self.decoding >= SHORTFALL * self.asked:
            return self.asked
        return max(float(f"{self.decoding:.3g}"), 1.0)


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
    found = [run for document in _objects(name, text) for run in FORMATS[fmt](document, name)]
    if not found:
        fault = Fault("", "no run", f"at least one result of {fmt}", "give a result file")
        raise ProfileError(fault.line(name))
    return found


def _objects(name: str, text: str) -> Iterable[Json]:
    """Yield the JSON objects of a text: one, or one a line where results were appended.

    Yields
    ------
    dict
        One result.

    Raises
    ------
    ProfileError
        If anything else is there.
    """
    decoder, place = json.JSONDecoder(), 0
    text = text.strip()
    while place < len(text) or not text:
        try:
            value, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            fault = Fault("", str(error), "a JSON object", "give the result file as it was saved")
            raise ProfileError(fault.line(name)) from error
        if not isinstance(value, dict):
            fault = Fault("", type(value).__name__, "a JSON object", "give a result file")
            raise ProfileError(fault.line(name))
        yield value
        place += len(text[place:]) - len(text[place:].lstrip())


def _number(document: Mapping[str, Any], path: str, name: str, low: float = 0.0) -> float:
    """Return a finite number above `low` at a dotted path.

    Raises
    ------
    ProfileError
        If there is none.
    """
    value = _at(document, path)
    if isinstance(value, bool) or not isinstance(value, int | float):
        got = "nothing" if value is None else repr(value)[:60]
        raise ProfileError(Fault(path, got, "a number", _MEND).line(name))
    if not math.isfinite(value) or value <= low:
        raise ProfileError(
            Fault(path, f"{value:g}", f"a finite number above {low:g}", _MEND).line(name)
        )
    return float(value)


_MEND: Final = "give a result of the format named, of a run in which requests succeeded"


def _at(document: object, path: str) -> object:
    for key in path.split("."):
        document = document.get(key) if isinstance(document, dict) else None
    return document


def _vllm_runs(document: Json, name: str) -> Iterable[Run]:
    """Yield the run of a file that `vllm bench serve --save-result` wrote.

    Yields
    ------
    Run
        One.
    """
    completed = _number(document, "completed", name)
    osl = _number(document, "total_output_tokens", name) / completed
    ttft = "median_ttft_ms" if "median_ttft_ms" in document else "mean_ttft_ms"
    model = document.get("model_id")
    yield Run(
        source=name,
        isl_tokens=_number(document, "total_input_tokens", name) / completed,
        osl_tokens=osl,
        ttft_s=_number(document, ttft, name) * 1e-3,
        # Gaps between chunks are 0 where a busy client reads several at once; TPOT is a mean.
        itl_s=_number(document, "mean_tpot_ms", name) * 1e-3 if osl > 1.0 else 0.0,
        rate_rps=completed / _number(document, "duration", name),
        asked=_asked(document, "max_concurrency", name),
        model=model if isinstance(model, str) else None,
    )


def _guidellm_runs(document: Json, name: str) -> Iterable[Run]:
    """Yield the runs of a report that GuideLLM wrote as JSON.

    Yields
    ------
    Run
        One for each benchmark.

    Raises
    ------
    ProfileError
        If there is no list of benchmarks.
    """
    benchmarks = document.get("benchmarks")
    if not isinstance(benchmarks, list):
        fault = Fault("benchmarks", "no list", "a list of benchmarks", _MEND)
        raise ProfileError(fault.line(name))
    for index, benchmark in enumerate(benchmarks):
        where, metrics = f"{name}: benchmarks[{index}]", _at(benchmark, "metrics")
        if not isinstance(metrics, dict):
            raise ProfileError(Fault("metrics", "nothing", "an object", _MEND).line(where))
        osl = _number(metrics, "output_token_count.successful.mean", where)
        itl = "inter_token_latency_ms.successful.mean"
        yield Run(
            source=where,
            isl_tokens=_number(metrics, "prompt_token_count.successful.mean", where),
            osl_tokens=osl,
            ttft_s=_number(metrics, "time_to_first_token_ms.successful.median", where) * 1e-3,
            itl_s=_number(metrics, itl, where) * 1e-3 if osl > 1.0 else 0.0,
            rate_rps=_number(metrics, "requests_per_second.successful.mean", where),
            asked=_asked(metrics, "request_concurrency.successful.mean", where),
            model=None,
        )


def _aiperf_runs(document: Json, name: str) -> Iterable[Run]:
    """Yield the run of a summary that AIPerf, or GenAI-Perf before it, wrote as JSON.

    Yields
    ------
    Run
        One.
    """
    osl = _number(document, "output_sequence_length.avg", name)
    asked = [
        _asked(document, f"input_config.{path}.concurrency", name)
        for path in ("loadgen", "perf_analyzer.stimulus")
    ]
    named = _at(document, "input_config.endpoint.model_names") or _at(
        document, "input_config.model_names"
    )
    yield Run(
        source=name,
        isl_tokens=_number(document, "input_sequence_length.avg", name),
        osl_tokens=osl,
        ttft_s=_seconds(document, "time_to_first_token", "p50", name),
        itl_s=_seconds(document, "inter_token_latency", "avg", name) if osl > 1.0 else 0.0,
        rate_rps=_number(document, "request_throughput.avg", name),
        asked=next((value for value in asked if value is not None), None),
        model=str(named[0]) if isinstance(named, list) and named else None,
    )


def _seconds(document: Json, metric: str, statistic: str, name: str) -> float:
    unit = _at(document, f"{metric}.unit")
    if unit not in _UNITS_S:
        fault = Fault(f"{metric}.unit", repr(unit), ", ".join(_UNITS_S), "correct the unit")
        raise ProfileError(fault.line(name))
    return _number(document, f"{metric}.{statistic}", name) * _UNITS_S[str(unit)]


def _asked(document: Json, path: str, name: str) -> float | None:
    return None if _at(document, path) is None else _number(document, path, name)


FORMATS: Final[Mapping[str, Callable[[Json, str], Iterable[Run]]]] = {
    "vllm-bench": _vllm_runs,
    "guidellm": _guidellm_runs,
    "aiperf": _aiperf_runs,
    "genai-perf": _aiperf_runs,
}
"""Readers by the name of the format."""


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
