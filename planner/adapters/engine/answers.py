"""What an OpenAI-compatible server says: events of a stream, words of a refusal. Pure."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

_DONE: Final = b"[DONE]"
_LONGEST: Final = 300


def events(pieces: Sequence[tuple[float, bytes]]) -> Iterator[tuple[float, dict[str, Any]]]:
    """Yield the server-sent events in pieces of a stream, each with its time.

    Yields
    ------
    tuple[float, dict[str, Any]]
        When its last byte came [s], and what it says.
    """
    rest = b""
    for at_s, piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            text = line.strip()
            if text.startswith(b"data:") and (body := text[5:].strip()) != _DONE:
                yield at_s, json.loads(body)


def error_words(event: Mapping[str, Any]) -> str:
    """Return the words of an answer that holds an error."""
    error = event["error"]
    return _line(str(error.get("message", error) if isinstance(error, dict) else error))


def refusal_words(body: bytes) -> str:
    """Return what the body of a refusal says, as the end of a phrase; empty if that is unclear."""
    try:
        found = json.loads(body)
        words = error_words(found) if "error" in found else _line(str(found["message"]))
    except (ValueError, AttributeError, KeyError, TypeError):
        return ""
    return f": {words}"


def plain_words(error: BaseException) -> str:
    """Return an error of the HTTP client without objects and line numbers of Python.

    Examples
    --------
    >>> plain_words(OSError("<Connection object at 0x7f>: Failed: [Errno 111] Connection refused"))
    'Failed: [Errno 111] Connection refused'
    """
    text = re.sub(r"^.*object at 0x[0-9a-f]+>: ", "", str(error))
    text = re.sub(r"HTTPS?Connection(Pool)?\([^)]*\): ", "", text)
    return re.sub(r"\s*\(_ssl\.c:\d+\)", "", text).strip("() '") or type(error).__name__


def _line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST]
