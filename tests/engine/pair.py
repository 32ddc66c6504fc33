"""A real prefill server and a real decode server, and the gateway in front of them.

The KV cache moves from the one to the other through NIXL. As long as they run, each of them keeps a
core busy even without a request.
"""

import contextlib
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from planner.adapters.clock import stopwatch_s
from tests.engine.build import Engine
from tests.engine.server import EAGER, MODEL_NAME, EngineServer
from tests.loopback import free_port

# What tells a prefill server that somebody else will decode.
HAND_OVER = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent."""

    prompt: str
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Served:
    """What the client saw of one request.

    Attributes
    ----------
    prompt_tokens, output_tokens
        As the servers count them for the bill.
    ttft_s, e2e_s
        From the sending to the first token, and to the last [s].
    """

    prompt_tokens: int
    output_tokens: int
    ttft_s: float
    e2e_s: float

    @property
    def itl_s(self) -> float:
        """The mean time between its tokens [s]."""
        return (self.e2e_s - self.ttft_s) / (self.output_tokens - 1)


class Pair:
    """A prefill and a decode server; `send` is what a gateway does."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.prefill = _server(engine, folder / "prefill.log", 0, "kv_producer")
        self.decode = _server(engine, folder / "decode.log", 1, "kv_consumer")

    def send(self, request: Request) -> Served:
        """Let one server compute the prompt and the other the output; return what a client sees."""
        passed_s = stopwatch_s()
        body = {"prompt": request.prompt, "ignore_eos": True, "temperature": 0.0}
        first = self.prefill.complete({**body, "max_tokens": 1, "kv_transfer_params": HAND_OVER})
        handed = {**body, "kv_transfer_params": first["kv_transfer_params"]}
        seen_s = []
        usage: dict[str, int] = {}
        for event in _events(self.decode, {**handed, "max_tokens": request.output_tokens}):
            if event["choices"]:
                seen_s.append(passed_s())
            usage = event.get("usage") or usage
        assert seen_s, f"no token came\n{self.decode.last_lines()}"
        return Served(usage["prompt_tokens"], usage["completion_tokens"], seen_s[0], seen_s[-1])

    def send_all(self, requested: Sequence[Request], at_once: int) -> list[Served]:
        """Send requests, so many at any time."""
        with ThreadPoolExecutor(at_once) as senders:
            return list(senders.map(self.send, requested))

    @contextlib.contextmanager
    def kept_busy(self, requested: Iterable[Request]) -> Iterator[None]:
        """Send one request after the other as long as a `with` block lasts."""
        ended = threading.Event()

        def send() -> None:
            for request in requested:
                if ended.is_set():
                    return
                self.send(request)

        with ThreadPoolExecutor(1) as sender:
            sending = sender.submit(send)
            try:
                yield
            finally:
                ended.set()
        sending.result()


def _server(engine: Engine, log: Path, core: int, role: str) -> EngineServer:
    transfer = {"kv_connector": "NixlConnector", "kv_role": role, "kv_buffer_device": "cpu"}
    environment = {
        "VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1",
        "VLLM_NIXL_SIDE_CHANNEL_PORT": str(free_port()),
        "UCX_TLS": "tcp,self,sm",
    }
    flags = [EAGER, "--kv-transfer-config", json.dumps(transfer)]
    return EngineServer(engine, log, flags, environment, core)


def _events(server: EngineServer, body: dict[str, object]) -> Iterator[dict[str, Any]]:
    # What a streaming answer holds, event by event; the last one carries the usage.
    asked = {"model": MODEL_NAME, "stream": True, "stream_options": {"include_usage": True}, **body}
    with requests.Session() as session:
        session.trust_env = False
        url = f"{server.url}/v1/completions"
        with session.post(url, json=asked, timeout=120.0, stream=True) as answer:
            assert answer.ok, f"{answer.status_code}: {answer.text}\n{server.last_lines()}"
            for line in answer.iter_lines():
                if line.startswith(b"data: {"):
                    yield json.loads(line.removeprefix(b"data: "))
