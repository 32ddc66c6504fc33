"""A real vLLM server on loopback for as long as a `with` block."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import requests

from tests.cluster.waiting import wait_for
from tests.engine.build import Engine
from tests.loopback import free_port

KEEPER = Path(__file__).with_name("keeper.py")
MODEL_NAME = "tiny"
EAGER = "--enforce-eager"  # no compilation: starts 20 s sooner, each step takes four times longer
# It imports for about a minute on an idle machine, and that several times over on a busy one.
START_S = 400.0
END_S = 30.0


@dataclass
class EngineServer:
    """One vLLM server: its processes, its port, its log.

    Attributes
    ----------
    flags
        What its command line holds beside the model and the address.
    environment
        Variables beside those that keep it quiet and on loopback.
    core
        The core that computes, counted among those this process may use.
    """

    engine: Engine
    log: Path
    flags: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    core: int = 0
    port: int = field(default_factory=free_port)
    _keeper: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        assert self._keeper is None, "it was started already"
        with self.log.open("wb") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(KEEPER), *self.command()],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._variables(),
                # A session of its own: Ctrl-C goes to the tests, which then end it in order.
                start_new_session=True,
            )

    def command(self) -> list[str]:
        """Return the command line."""
        serve = [str(self.engine.python), "-m", "vllm.entrypoints.openai.api_server"]
        address = ["--host", "127.0.0.1", "--port", str(self.port)]
        model = ["--model", str(self.engine.model), "--served-model-name", MODEL_NAME]
        weights = ["--load-format", "dummy", "--dtype", "bfloat16", "--max-model-len", "4096"]
        return [*serve, *address, *model, *weights, *self.flags]

    def _variables(self) -> dict[str, str]:
        cores = sorted(os.sched_getaffinity(0))
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            # Whatever it caches for the next start stays beside it.
            "HOME": str(self.engine.cache),
            "TORCHINDUCTOR_CACHE_DIR": str(self.engine.cache / "inductor"),
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
            # Its own patience with its core, 600 s; a start beside others was seen to take 300 s.
            "VLLM_ENGINE_READY_TIMEOUT_S": "1800",
            "VLLM_CPU_OMP_THREADS_BIND": str(cores[self.core % len(cores)]),
            **self.environment,
        }

    def wait_until_healthy(self) -> None:
        """Wait until it answers; fail with its last lines as soon as it has ended."""
        wait_for("the engine is healthy", self.is_healthy, START_S)

    def is_healthy(self) -> bool:
        assert self._keeper is not None, "it was never started"
        ended = self._keeper.poll()
        assert ended is None, f"the engine ended with {ended}\n{self.last_lines()}"
        with _direct() as session:
            return session.get(f"{self.url}/health", timeout=5.0).ok

    def end(self) -> None:
        """End all its processes; fine if none runs."""
        if self._keeper is not None:
            assert self._keeper.stdin is not None
            self._keeper.stdin.close()
            self._keeper.wait(END_S)

    def complete(self, request: Mapping[str, object]) -> dict[str, object]:
        """Send one completion request without streaming; return the answer."""
        with _direct() as session:
            body = {"model": MODEL_NAME, **request}
            answer = session.post(f"{self.url}/v1/completions", json=body, timeout=120.0)
        assert answer.ok, f"{answer.status_code}: {answer.text}\n{self.last_lines()}"
        found: dict[str, object] = answer.json()
        return found

    def metrics(self) -> str:
        """Return what a scrape would see now."""
        with _direct() as session:
            return session.get(f"{self.url}/metrics", timeout=30.0).text

    def last_lines(self, count: int = 25) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join([f"--- the end of {self.log}:", *lines[-count:]])


@contextlib.contextmanager
def running(*servers: EngineServer) -> Iterator[None]:
    # All start at once, which is quicker than one after the other; all end with the block.
    with contextlib.ExitStack() as ends:
        for server in servers:
            server.engine.cache.mkdir(exist_ok=True)
            ends.callback(server.end)
            server.start()
        for server in servers:
            server.wait_until_healthy()
        yield


def prompt(tokens: int, first: int = 0) -> str:
    """Return a prompt of a length [tokens]; prompts with other first words share no prefix."""
    return " ".join(f"w{2 + (first * 131 + i * 7) % 4000}" for i in range(tokens))


def _direct() -> requests.Session:
    # Everything happens on loopback: no proxy.
    session = requests.Session()
    session.trust_env = False
    return session
