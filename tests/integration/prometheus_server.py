"""A real Prometheus on loopback for as long as a `with` block, and pages for it to scrape."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests

from planner.adapters.clock import Deadline, pause
from tests.loopback import free_port

START_S = 60.0  # a loaded machine needs some seconds to start a Prometheus
NO_SCRAPES = "global: {scrape_interval: 15s}\n"

# What a page answers: status, content type, body.
Answer = tuple[int, str, bytes]


def wait_for(what: str, holds: Callable[[], bool], timeout_s: float = START_S) -> None:
    """Look until something holds; fail by name when it does not in time."""
    deadline = Deadline(timeout_s)
    while not holds():
        if deadline.left_s() <= 0:
            raise AssertionError(f"{what}: not within {timeout_s:g} s")
        pause(0.05)


@dataclass(frozen=True, slots=True)
class Server:
    """A running Prometheus."""

    url: str
    pid: int

    def stop(self) -> None:
        """Freeze it: it accepts connections and never answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


@contextlib.contextmanager
def prometheus(
    binary: Path,
    folder: Path,
    *,
    config: str = NO_SCRAPES,
    web_config: str | None = None,
    ready: Mapping[str, object] | None = None,
) -> Iterator[Server]:
    # Runs on `folder`/tsdb until the block ends; `ready` are the arguments of the request that
    # asks whether it serves (auth, verify).
    port = free_port()
    (folder / "prometheus.yml").write_text(config, encoding="utf-8")
    command = [
        str(binary),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        "--storage.tsdb.retention.time=100y",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    scheme = "http"
    if web_config is not None:
        (folder / "web.yml").write_text(web_config, encoding="utf-8")
        command.append(f"--web.config.file={folder / 'web.yml'}")
        scheme = "https" if "tls_server_config" in web_config else "http"
    url = f"{scheme}://127.0.0.1:{port}"
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for("Prometheus is ready", lambda: _is_ready(process, folder, url, ready or {}))
        yield Server(url, process.pid)
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def _is_ready(
    process: subprocess.Popen[bytes], folder: Path, url: str, arguments: Mapping[str, object]
) -> bool:
    if process.poll() is not None:
        said = (folder / "prometheus.log").read_text(encoding="utf-8")
        raise AssertionError(f"Prometheus ended with {process.returncode}: {said}")
    try:
        answer = requests.get(f"{url}/-/ready", timeout=2, **arguments)  # type: ignore[arg-type]
    except requests.RequestException:
        return False
    return answer.status_code == 200


def backfill(promtool: Path, folder: Path, openmetrics: str) -> None:
    """Put OpenMetrics text into the storage that `prometheus` will use in `folder`."""
    text = folder / "backfill.om"
    text.write_text(openmetrics, encoding="utf-8")
    done = subprocess.run(
        [promtool, "tsdb", "create-blocks-from", "openmetrics", text, folder / "tsdb"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def page(answer: Callable[[BaseHTTPRequestHandler], Answer]) -> Iterator[str]:
    # Serves what `answer` returns on loopback until the block ends; yields its URL.

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = answer(self)
            # A client that went away is what several tests are about.
            with contextlib.suppress(ConnectionError):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
