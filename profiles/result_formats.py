"""What load generators write, as runs: one reader a format. Pure.

docs/profiles.md tells which keys are read and where they are documented.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from profiles.errors import Fault, ProfileError

Json = dict[str, Any]

ALONE_MOST: Final = 1.05
"""Requests in flight, in the mean, up to which a run counts as one request at a time."""


SHORTFALL: Final = 0.9
"""Below this part of the concurrency asked for, what really ran together is taken instead."""


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


def objects_of(name: str, text: str) -> Iterable[Json]:
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
        itl, model = (
            "inter_token_latency_ms.successful.mean",
            _at(benchmark, "config.backend.model"),
        )
        yield Run(
            source=where,
            isl_tokens=_number(metrics, "prompt_token_count.successful.mean", where),
            osl_tokens=osl,
            ttft_s=_number(metrics, "time_to_first_token_ms.successful.median", where) * 1e-3,
            itl_s=_number(metrics, itl, where) * 1e-3 if osl > 1.0 else 0.0,
            rate_rps=_number(metrics, "requests_per_second.successful.mean", where),
            asked=_asked(metrics, "request_concurrency.successful.mean", where),
            model=model if isinstance(model, str) else None,
        )


def _aiperf_runs(document: Json, name: str) -> Iterable[Run]:
    """Yield the run of a summary that AIPerf, or GenAI-Perf before it, wrote as JSON.

    Yields
    ------
    Run
        One.
    """
    osl = _number(document, "output_sequence_length.avg", name)
    yield Run(
        source=name,
        isl_tokens=_number(document, "input_sequence_length.avg", name),
        osl_tokens=osl,
        ttft_s=_seconds(document, "time_to_first_token", "p50", name),
        itl_s=_seconds(document, "inter_token_latency", "avg", name) if osl > 1.0 else 0.0,
        rate_rps=_number(document, "request_throughput.avg", name),
        asked=_aiperf_concurrency(document, name),
        model=_aiperf_model(document),
    )


def _aiperf_concurrency(document: Json, name: str) -> float | None:
    """Return the concurrency asked for, by AIPerf, its releases before 0.13, or GenAI-Perf."""
    phases = _at(document, "input_config.phases")
    measured = [phase for phase in _objects(phases) if phase.get("kind") == "profiling"]
    if measured:
        return _asked(measured[-1], "concurrency", f"{name}: input_config.phases")
    for path in ("loadgen.concurrency", "perf_analyzer.stimulus.concurrency"):
        if (asked := _asked(document, f"input_config.{path}", name)) is not None:
            return asked
    return None


def _aiperf_model(document: Json) -> str | None:
    items = [item.get("name") for item in _objects(_at(document, "input_config.models.items"))]
    lists = [items, *(_at(document, f"input_config.{path}") for path in _AIPERF_NAMES)]
    return next((str(names[0]) for names in lists if isinstance(names, list) and names), None)


_AIPERF_NAMES: Final = ("endpoint.model_names", "model_names")


def _objects(value: object) -> list[Json]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


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
