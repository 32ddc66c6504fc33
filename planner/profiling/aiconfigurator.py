"""AI Configurator, an estimator of engines, behind one class: what one replica would do.

It adds up times of kernels that its authors measured on each GPU, out of files in its package: no
network, no GPU. What it can't estimate becomes one InputError; its log stays silent.
"""

import difflib
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Final

from planner.errors import InputError

PACKAGE: Final = "aiconfigurator-core"
"""The part of the library that estimates; its successor keeps it too."""

VERSION: Final = "0.12.0"
"""What the extra pins: estimates change with each release, and so do the names called here."""

INSTALL: Final = "pip install 'pd-planner[aiconfigurator]'"

PASS_TOKENS: Final = 8192
"""Tokens of one pass, which the activations' memory follows: vLLM's default on servers' GPUs."""

_FAILURES: Final = (
    ArithmeticError,
    AssertionError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What the library raises where it has no answer; it has no root of its own."""


@dataclass(frozen=True, slots=True)
class Replica:
    """The replica that is asked about.

    Attributes
    ----------
    model
        Name of a model that the library knows, or a folder with its config.json.
    gpu
        GPU as the library calls it; `_sxm` may be left out.
    engine
        vllm, sglang or trtllm.
    tensor_parallel
        GPUs of the replica [GPUs].
    gpu_memory_utilization
        Share of each GPU's memory that the engine takes; for trtllm of what weights leave free.
    kv_cache_dtype
        bfloat16, fp8 or int8; None: what the library takes the model's files to ask for.
    """

    model: str
    gpu: str
    engine: str = "vllm"
    tensor_parallel: int = 1
    gpu_memory_utilization: float = 0.9
    kv_cache_dtype: str | None = None


class AiConfigurator:
    """One replica as the library models it."""

    tool: str = f"aiconfigurator {VERSION}"
    """Program and version, for a provenance."""

    def __init__(self, replica: Replica) -> None:
        _require()
        with _quiet():
            databases = _sdk("perf_database")
            self.gpu: str = _known_gpu(databases, replica)
            self.engine_version: str = databases.get_latest_database_version(
                self.gpu, replica.engine
            )
            self.replica = replica
            folder = Path(replica.model)
            self.model: str = folder.resolve().name if folder.is_dir() else replica.model
            self._what = f"{replica.model} over {replica.tensor_parallel} x {self.gpu}"
            with self._one_line():
                facts = _known_model(replica.model)
                self.context_max_tokens = int(facts["context"])
                self._has_experts = facts["num_experts"] > 0
                self._model = _model(replica, replica.tensor_parallel)
                self._database = databases.get_database(
                    self.gpu, replica.engine, self.engine_version
                )
                self._backend = _sdk("backends.factory").get_backend(replica.engine)

    @property
    def number_format(self) -> str:
        """Format of the weights, and those of experts and KV cache where they differ."""
        config = self._model.config
        weights, cache = config.gemm_quant_mode.name, config.kvcache_quant_mode.name
        parts = {weights: weights}
        if self._has_experts:
            experts = config.moe_quant_mode.name
            parts.setdefault(experts, f"experts {experts}")
        parts.setdefault(cache, f"KV cache {cache}")
        return ", ".join(parts.values())

    def ttft_s(self, isl_tokens: int) -> float:
        """Return the time of one prefill pass over one prompt [s]."""
        return self._step_s("static_ctx", batch_size=1, isl=isl_tokens, osl=1)

    def itl_s(self, concurrency: int, context_tokens: int) -> float:
        """Return the time of one decode step of a batch, all at one context [s]."""
        # Two output tokens: the first is prefill's, the second is the one step that is asked for.
        return self._step_s("static_gen", batch_size=concurrency, isl=context_tokens, osl=2)

    def _step_s(self, mode: str, **shape: int) -> float:
        with _quiet(), self._one_line():
            runtime = _sdk("config").RuntimeConfig(**shape)
            took_ms = self._backend.run_static_latency_only(
                self._model, self._database, runtime, mode
            )
        return float(took_ms) * 1e-3

    def kv_bytes_per_token(self) -> float | None:
        """Return the KV cache of one token over all layers [B], None where it is not constant.

        Notes
        -----
        Of a replica of one GPU: wider ones hold the same heads in shards, or copies where there
        are more GPUs than heads, and copies are not moved. Sliding windows let the size of a
        sequence grow by less than its length, which a constant can't say.
        """
        with _quiet(), self._one_line():
            size_of = _model(self.replica, 1).get_kvcache_bytes_per_sequence
            first, long = float(size_of(1)), float(size_of(PASS_TOKENS)) / PASS_TOKENS
        return first if math.isclose(first, long) else None

    def kv_capacity_tokens(self) -> int:
        """Return the tokens that the KV cache of the replica holds.

        Notes
        -----
        Share of the memory that the engine takes − weights − activations of one pass − what the
        runtime and its communication hold, all by the library's model of the engine. InputError
        if the model does not fit.
        """
        replica = self.replica
        kind = "of_free" if replica.engine == "trtllm" else "of_total"
        with _quiet(), self._one_line():
            estimate = _sdk("memory").estimate_kv_cache(
                replica.model,
                self.gpu,
                replica.engine,
                self.engine_version,
                max_num_tokens=PASS_TOKENS,
                max_batch_size=1,
                memory_fraction_kind=kind,
                memory_fraction_value=replica.gpu_memory_utilization,
                tp_size=replica.tensor_parallel,
                moe_tp_size=replica.tensor_parallel,
                moe_ep_size=1,
                kvcache_quant_mode=replica.kv_cache_dtype,
            )
        return int(estimate["total_kv_size_tokens"])

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except _FAILURES as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise InputError(
                f"{self._what}: AI Configurator has no estimate: {why}; choose another --gpu, "
                "--tensor-parallel, --engine, or number format of the model"
            ) from error


def _require() -> None:
    """Say how to install the library where it is missing or another one.

    Raises
    ------
    InputError
        If so.
    """
    try:
        found = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise InputError(f"{PACKAGE} is not installed: {INSTALL}") from error
    if found != VERSION:
        raise InputError(f"{PACKAGE}: got version {found}; legal: {VERSION}; {INSTALL}")


def _sdk(module: str) -> Any:
    return import_module(f"aiconfigurator_core.sdk.{module}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the user what the library tells of itself: data it fell back on, deprecations."""
    log = logging.getLogger("aiconfigurator_core")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _known_gpu(databases: Any, replica: Replica) -> str:
    """Return the library's name of a GPU.

    Raises
    ------
    InputError
        If it has no data of that GPU with the engine.
    """
    found = databases.get_supported_databases().items()
    legal = sorted(system for system, engines in found if engines.get(replica.engine))
    name = replica.gpu.lower().replace("-", "_")
    for candidate in (name, f"{name}_sxm"):
        if candidate in legal:
            return candidate
    raise InputError(
        f"--gpu: got {replica.gpu!r}; legal with {replica.engine}: {', '.join(legal)}; "
        "choose one of them"
    )


def _known_model(model: str) -> Any:
    """Return what the library reads out of a model's files.

    Raises
    ------
    InputError
        If the model is neither known to the library nor a folder.
    """
    known = _sdk("common").DefaultHFModels
    # The library would ask a hub for any other name.
    if model not in known and not (Path(model) / "config.json").is_file():
        near = difflib.get_close_matches(model, known, 3, 0.5) or sorted(known)[:3]
        raise InputError(
            f"--model: got {model!r}; legal: a folder with the model's config.json, or one of "
            f"{len(known)} built-in names, such as {', '.join(near)}; give one of these"
        )
    return _sdk("utils").get_model_config_from_model_path(model)


def _model(replica: Replica, tensor_parallel: int) -> Any:
    """Return the library's model; experts are split as all else is, like vLLM does by default."""
    cache = replica.kv_cache_dtype
    config = _sdk("config").ModelConfig(
        tp_size=tensor_parallel,
        moe_tp_size=tensor_parallel,
        moe_ep_size=1,
        kvcache_quant_mode=cache and _sdk("common").KVCacheQuantMode[cache],
    )
    return _sdk("models").get_model(replica.model, config, replica.engine)
