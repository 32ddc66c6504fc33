"""``python scripted_engine.py --port P``: an OpenAI-compatible server of known speed, with faults.

TTFT is 20 ms and 20 us a token, ITL 4 ms and 0.5 ms a sequence: a file of its own stands for vLLM
where a test is about what goes wrong. ``--fault`` says what.
"""

import argparse
import json
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CONTEXT_TOKENS = 4096
KV_TOKENS = 65_536
DIES_AFTER = 25


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a first token waits for the client's delayed ACK
    server: "ScriptedEngine"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if not self._is_welcome():
            return
        fault = self.server.fault
        if fault == "other":
            self._answer(200, b"<html>hello</html>", "text/html")
        elif self.path == "/v1/models":
            served = {"id": "tiny", "object": "model", "max_model_len": CONTEXT_TOKENS}
            self._json(200, {"object": "list", "data": [served]})
        elif self.path == "/version":
            self._json(200, {"version": "0.32.0"})
        elif self.path == "/metrics" and fault != "silent":
            self._answer(200, self.server.metrics().encode(), "text/plain")
        else:
            self._json(404, {"error": {"message": "Not Found"}})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._is_welcome():
            return
        if self.server.fault == "long":
            self._json(400, {"error": {"message": "maximum context length is 1 token"}})
        else:
            self._stream(len(asked["prompt"]), asked["max_tokens"])

    def _stream(self, prompt: int, outputs: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with self.server.one_more(prompt):
            wait(0.02 + 2e-5 * prompt)
            for token in range(outputs):
                if token:
                    wait(self.server.itl_s())
                self._event({"choices": [{"text": "w"}]})
        usage = {"prompt_tokens": prompt, "completion_tokens": outputs}
        self._event({"choices": [], "usage": usage})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, event: object) -> None:
        self._chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

    def _chunk(self, piece: bytes) -> None:
        self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.wfile.flush()

    def _is_welcome(self) -> bool:
        token = self.server.token
        if token is None or self.headers.get("Authorization") == f"Bearer {token}":
            return True
        self._json(401, {"error": "Unauthorized"})
        return False

    def _json(self, status: int, value: object) -> None:
        self._answer(status, json.dumps(value).encode(), "application/json")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class ScriptedEngine(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int = 0, fault: str = "", token: str | None = None) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.fault, self.token = fault, token
        self.on_death: Callable[[], None] = lambda: None
        self.requests = 0
        self._running = 0
        self._prompt_tokens = 0
        self._lock = threading.Lock()

    @contextmanager
    def one_more(self, prompt: int) -> Iterator[None]:
        with self._lock:
            self.requests += 1
            self._running += 1
            self._prompt_tokens += prompt
            if self.fault == "dies" and self.requests > DIES_AFTER:
                self.on_death()
        yield
        with self._lock:
            self._running -= 1

    def itl_s(self) -> float:
        return 0.004 + 0.0005 * self._running

    def metrics(self) -> str:
        count, tokens = self.requests, self._prompt_tokens
        return (
            f'vllm:cache_config_info{{block_size="16",kv_cache_size_tokens="{KV_TOKENS}"}} 1\n'
            f"vllm:time_to_first_token_seconds_sum {0.02 * count + 2e-5 * tokens}\n"
            f"vllm:time_to_first_token_seconds_count {count}\n"
            f'vllm:prompt_tokens_by_source_total{{source="local_compute"}} {tokens}\n'
        )

    def handle_error(self, *_: object) -> None:
        """Say nothing: a client that gives up is what the tests are about."""


def wait(for_s: float) -> None:
    threading.Event().wait(for_s)


@contextmanager
def serving(engine: ScriptedEngine, certificate: tuple[Path, Path] | None = None) -> Iterator[str]:
    # With TLS if there is a certificate and its key.
    scheme = "http"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        engine.socket = context.wrap_socket(engine.socket, server_side=True)
        scheme = "https"
    thread = threading.Thread(target=engine.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"{scheme}://127.0.0.1:{engine.server_address[1]}"
    finally:
        engine.shutdown()
        thread.join()
        engine.server_close()


def main() -> int:
    """Run as vLLM's server is run; flags that are vLLM's alone are passed over."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--fault", default="")
    asked, _ = parser.parse_known_args()
    said = {
        "memory": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 96.00 GiB",
        "model": "OSError: Can't load the configuration of 'nope'.",
    }
    print("INFO starting", flush=True)
    if asked.fault in said:
        print(f"Traceback (most recent call last):\n{said[asked.fault]}", file=sys.stderr)
        return 1
    if asked.fault == "hangs":
        wait(600.0)
    engine = ScriptedEngine(asked.port, asked.fault)
    engine.on_death = lambda: (print("RuntimeError: engine core died"), sys.stdout.flush(), die())
    engine.serve_forever()
    return 0


def die() -> None:
    import os

    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
