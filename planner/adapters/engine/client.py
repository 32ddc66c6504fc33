"""The OpenAI-compatible API of an engine: what it serves, its metrics, and rounds of requests.

Requests of a round are sent at once, each in a thread; what arrives is stamped and read later, so
that reading one answer does not delay the stamps of another.
"""

import contextlib
import json
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import urllib3
from urllib3.exceptions import (
    HTTPError,
    MaxRetryError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)

from planner.adapters.clock import pause, stopwatch_s
from planner.adapters.engine.answers import (
    error_words,
    events,
    plain_words,
    refusal_words,
)
from planner.adapters.engine.faults import EngineError
from planner.adapters.engine.metrics import counters, facts_of_cache
from planner.errors import InputError
from planner.profiling.timings import Bodies, Counters, EngineFacts, Timing

_CONNECT_S: Final = 10.0
_ASK_S: Final = 30.0
_COUNTED_WITHIN_S: Final = 3.0
_POLL_S: Final = 0.05
_MOST_CONNECTIONS: Final = 2048
_PIECE_BYTES: Final = 65_536
_SERVED: Final = "/v1/models"
_COMPLETIONS: Final = "/v1/completions"

_Answer = tuple[float, list[tuple[float, bytes]]]


@dataclass(frozen=True, slots=True)
class EngineAccess:
    """Where an engine is and how to speak to it.

    Attributes
    ----------
    url
        Base URL, with or without `/v1`.
    token_file, ca_file
        Bearer token; certificates to trust instead of the system's.
    answer_within_s
        Longest silence within an answer [s].
    """

    url: str
    token_file: Path | None = None
    ca_file: Path | None = None
    answer_within_s: float = 600.0


class EngineClient:
    """Speaks to one engine; every failure is an `EngineError`, an unusable flag an `InputError`."""

    def __init__(self, access: EngineAccess) -> None:
        self._url = access.url.rstrip("/").removesuffix("/v1")
        if not re.fullmatch(r"https?://[^\s/]+\S*", self._url):
            raise InputError(
                f"--endpoint: got {access.url!r}; legal: http://HOST:PORT or https://HOST:PORT; "
                "correct it"
            )
        self._where = re.sub("//[^/]*@", "//", self._url)
        self._access = access
        self._headers = {"Content-Type": "application/json"}
        if access.token_file is not None:
            self._headers["Authorization"] = f"Bearer {_token(access.token_file)}"
        self._pool = urllib3.PoolManager(
            maxsize=_MOST_CONNECTIONS,
            retries=False,
            ssl_context=None if access.ca_file is None else _trusting(access.ca_file),
        )
        self._model = ""

    def is_serving(self) -> bool:
        """Return whether it answers for the models it serves, or asks who is there."""
        try:
            return self._get(_SERVED).status in {200, 401, 403}
        except HTTPError:
            return False

    def introduce(self, model: str | None) -> EngineFacts:
        """Return what it serves and says of itself; requests are for that model from now on.

        Raises
        ------
        EngineError
            If it is not OpenAI-compatible, or serves no such model.
        """
        served = self._served()
        names = [str(entry["id"]) for entry in served]
        if model is not None and model not in names:
            raise EngineError(
                f"{self._where}: model {model!r} is not served; legal: {', '.join(names)}; give "
                "one of them with --model"
            )
        chosen = served[0 if model is None else names.index(model)]
        self._model = str(chosen["id"])
        longest = chosen.get("max_model_len")
        return EngineFacts(
            model=self._model,
            version=self._version(),
            longest_tokens=longest if isinstance(longest, int) else None,
            **facts_of_cache(self._metrics() or ""),
        )

    def _served(self) -> list[Mapping[str, Any]]:
        answer = self._asked(_SERVED)
        listed = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(listed, list) or not listed or not all("id" in m for m in listed):
            raise self._not_compatible(_SERVED)
        return listed

    def _version(self) -> str | None:
        """Return what vLLM says at `/version`; others have no such path."""
        try:
            return str(self._asked("/version")["version"])
        except (EngineError, KeyError, TypeError):
            return None

    def bodies(self, prompts: Sequence[Sequence[int]], output_tokens: int) -> Bodies:
        """Return requests for exactly so many output tokens, greedy, as a stream."""
        asked = {
            "model": self._model,
            "max_tokens": output_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return [json.dumps(asked | {"prompt": list(prompt)}).encode() for prompt in prompts]

    def together(self, bodies: Bodies) -> list[Timing]:
        """Send all at once; return when the last is answered."""
        now_s = stopwatch_s()
        threads = ThreadPoolExecutor(len(bodies))
        try:
            answers = list(threads.map(lambda body: self._stream(body, now_s), bodies))
        finally:
            # Where one failed or Ctrl-C came, nobody waits for the others.
            threads.shutdown(wait=False, cancel_futures=True)
        return [self._timing(sent_s, chunks) for sent_s, chunks in answers]

    def _stream(self, body: bytes, now_s: Callable[[], float]) -> _Answer:
        """Return when a request was sent [s], and each piece of its answer with its time [s]."""
        try:
            with contextlib.suppress(ProtocolError):
                return self._sent(body, now_s)
            # The server closed an idle connection just as it was to be used again.
            return self._sent(body, now_s)
        except HTTPError as error:
            raise self._explained(error) from error

    def _sent(self, body: bytes, now_s: Callable[[], float]) -> _Answer:
        sent_s = now_s()
        answer = self._pool.request(
            "POST",
            f"{self._url}{_COMPLETIONS}",
            body=body,
            headers=self._headers,
            preload_content=False,
            timeout=urllib3.Timeout(connect=_CONNECT_S, read=self._access.answer_within_s),
        )
        if answer.status != 200:
            raise self._refused(_COMPLETIONS, answer.status, answer.read())
        found = [(now_s(), piece) for piece in answer.stream(_PIECE_BYTES)]
        answer.release_conn()
        return sent_s, found

    def _timing(self, sent_s: float, pieces: Sequence[tuple[float, bytes]]) -> Timing:
        events_s: list[float] = []
        usage: Mapping[str, Any] = {}
        try:
            for at_s, event in events(pieces):
                if "error" in event:
                    raise EngineError(f"{self._where}: stopped an answer: {error_words(event)}")
                usage = event.get("usage") or usage
                if event.get("choices"):
                    events_s.append(at_s)
            timing = Timing(
                usage["prompt_tokens"], usage["completion_tokens"], sent_s, tuple(events_s)
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._not_compatible(f"{_COMPLETIONS}, as a stream with usage") from error
        if not events_s:
            raise EngineError(f"{self._where}: answered without a token; see its log")
        return timing

    def counters(self, first_tokens: float = 0.0) -> Counters | None:
        """Return what it counted, when it counts so many first tokens or after a moment."""
        waited_s = stopwatch_s()
        while True:
            text = self._metrics()
            found = None if text is None else counters(text)
            if found is None or found.ttft_count >= first_tokens:
                return found
            if waited_s() > _COUNTED_WITHIN_S:
                return found
            pause(_POLL_S)

    def _metrics(self) -> str | None:
        try:
            answer = self._get("/metrics")
        except HTTPError as error:
            raise self._explained(error) from error
        return answer.data.decode(errors="replace") if answer.status == 200 else None

    def _asked(self, path: str) -> Any:
        try:
            answer = self._get(path)
        except HTTPError as error:
            raise self._explained(error) from error
        if answer.status != 200:
            raise self._refused(path, answer.status, answer.data)
        try:
            return json.loads(answer.data)
        except ValueError as error:
            raise self._not_compatible(path) from error

    def _get(self, path: str) -> urllib3.BaseHTTPResponse:
        timeout = urllib3.Timeout(connect=_CONNECT_S, read=_ASK_S)
        return self._pool.request("GET", self._url + path, headers=self._headers, timeout=timeout)

    def _refused(self, path: str, status: int, body: bytes) -> EngineError:
        said = refusal_words(body)
        if status in {401, 403}:
            return EngineError(
                f"{self._where}: refuses the token ({status} at {path}){said}; give --token-file a "
                "file with one that it takes"
            )
        if path == _SERVED:
            return self._not_compatible(path, f" ({status})")
        return EngineError(f"{self._where}: answers {status} at {path}{said}; see its log")

    def _not_compatible(self, path: str, more: str = "") -> EngineError:
        return EngineError(
            f"{self._where}: no OpenAI-compatible answer at {path}{more}; legal: an engine such "
            "as vLLM; correct --endpoint"
        )

    def _explained(self, error: HTTPError) -> EngineError:
        root = error.reason if isinstance(error, MaxRetryError) and error.reason else error
        if isinstance(root, SSLError):
            return EngineError(
                f"{self._where}: TLS failed ({plain_words(root)}); give its CA certificate with "
                "--ca"
            )
        if isinstance(root, ReadTimeoutError):
            return EngineError(f"{self._where}: no answer in time; see its log, whether it hangs")
        return EngineError(
            f"{self._where}: {plain_words(root)}; see that it runs and that the address is right"
        )


def _trusting(path: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:  # an SSLError too: no certificate in it
        reason = "no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise InputError(f"--ca: {path}: {reason}: give a file of certificates (PEM)") from error


def _token(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text"
        raise InputError(f"--token-file: {path}: {reason}: give a file with a token") from error
