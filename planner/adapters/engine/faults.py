"""What goes wrong with an engine, in one clear line each, and what its last lines say of it."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from planner.errors import PlannerError


class EngineError(PlannerError):
    """The engine can't be started, reached or used: what, and the mend."""


class Cause(NamedTuple):
    """Why an engine ended, and the mend."""

    what: str
    mend: str


_MEMORY: Final = Cause(
    "out of memory",
    "give it another --gpu-memory-utilization, a smaller --max-model-len or more GPUs, after --",
)
_PORT: Final = Cause("its port is in use", "give another --port, or end what listens there")
_NO_VLLM: Final = Cause("no vLLM there", "give --python an interpreter that can import vLLM")
_ARGUMENT: Final = Cause("it refuses an argument", "correct what comes after --")
_MODEL: Final = Cause(
    "the model does not load", "give --model a folder, or a name, that this engine can read"
)
_CAUSES: Final = {
    "out of memory": _MEMORY,
    r"OutOfMemoryError|\bMemoryError\b|bad_alloc": _MEMORY,
    "No available memory for the cache|less than desired GPU memory": _MEMORY,
    "KV cache is needed, which is larger": _MEMORY,
    r"address already in use|Errno 98\b": _PORT,
    "No module named '?vllm": _NO_VLLM,
    r"error: (unrecognized arguments|argument\b|ambiguous option)": _ARGUMENT,
    "Can't load|does not appear to have a file|is not a local folder": _MODEL,
    "not a valid model ident|Repository Not Found|Invalid repository ID|GatedRepo": _MODEL,
    "Repo id must be|HFValidationError|LocalEntryNotFound|OfflineModeIsEnabled": _MODEL,
    r"config\.json|architectures? .{0,80} (not|failed) ": _MODEL,
    "No model weights|Cannot find any model weights|SafetensorError": _MODEL,
}
"""What the logs of vLLM and its libraries say; the first that is found counts."""

_UNKNOWN: Final = Cause("its last lines say why", "mend that, or start it by hand with its command")
_KILLED: Final = frozenset({-9, 137})


def cause(lines: Sequence[str], code: int) -> Cause:
    """Return why an engine ended, from its log and its exit code.

    Examples
    --------
    >>> cause(["torch.OutOfMemoryError: CUDA out of memory."], 1).what
    'out of memory'
    """
    text = "\n".join(lines)
    for pattern, found in _CAUSES.items():
        if re.search(pattern, text, re.IGNORECASE):
            return found
    if code in _KILLED:
        return Cause("killed, as the kernel does for want of memory", _MEMORY.mend)
    return _UNKNOWN
