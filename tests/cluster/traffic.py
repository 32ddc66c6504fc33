"""vLLM servers for a cluster without GPUs: ``python -m tests.cluster.traffic -f FILE``.

Follows the pods of a PDAutoscaler's pools in a real API server, lets the plant serve a load behind
them in real time, and shows all their metrics at one address, so that a Prometheus sees latencies
that react to the scaling of the Jobs. Ends at SIGTERM or Ctrl-C.
"""

import argparse
import contextlib
import json
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from kubernetes import client, config
from urllib3.exceptions import HTTPError

from planner.adapters.clock import pause, stopwatch_s
from planner.adapters.exposition import lines, text_format
from planner.adapters.kubernetes.objects import DRAIN_ANNOTATION
from planner.adapters.targets import pod_pattern
from planner.errors import InputError, PlannerError
from planner.model import Pool, Service, Transfer
from planner.simulation.trace_files import open_trace
from planner.simulation.traces import Trace, clip, scale_trace
from planner.spec.files import load_documents
from planner.spec.quantities import parse_duration_s
from planner.spec.service import LoadedService, build_service, load_profiles
from tests.cluster.simulated_servers import SeenPod, SimulatedServers, quickened, ramp

LOOK_EVERY_S = 0.5
TELL_EVERY_S = 30.0
# Attainment is told over the last minute.
WINDOW_S = 60.0


class Api:
    """The few reads of the API server that are needed."""

    def __init__(self, kubeconfig: Path | None) -> None:
        where = None if kubeconfig is None else str(kubeconfig)
        self._core = client.CoreV1Api(config.new_client_from_config(where))

    def pods(self, namespace: str) -> list[dict[str, Any]]:
        answer = self._core.list_namespaced_pod(
            namespace, _preload_content=False, _request_timeout=5.0
        )
        found: list[dict[str, Any]] = json.loads(answer.data)["items"]
        return found

    def config_map(self, namespace: str, name: str) -> Mapping[str, str]:
        answer = self._core.read_namespaced_config_map(
            name, namespace, _preload_content=False, _request_timeout=5.0
        )
        found: dict[str, str] = json.loads(answer.data)["data"]
        return found


def load(api: Api, path: Path, namespace: str | None) -> LoadedService:
    """Return the one service of a file, its profiles read from the cluster where it says so."""
    (document,) = load_documents([path])
    spec = document.spec
    if namespace is not None:
        meta = spec.metadata.model_copy(update={"namespace": namespace})
        spec = spec.model_copy(update={"metadata": meta})
    profiles = load_profiles(spec, document.folder, api.config_map)
    return LoadedService(spec, build_service(spec, profiles, Transfer()), profiles, document.source)


def seen_pods(pods: Sequence[Mapping[str, Any]], pools: Sequence[Pool]) -> Iterator[SeenPod]:
    # Only those of the pools, as servers see them.
    patterns = {pool.name: re.compile(pod_pattern(pool.target)) for pool in pools}
    for pod in pods:
        meta, conditions = pod["metadata"], pod.get("status", {}).get("conditions") or ()
        is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        leaves = "deletionTimestamp" in meta or DRAIN_ANNOTATION in (meta.get("annotations") or {})
        for pool, pattern in patterns.items():
            if pattern.fullmatch(meta["name"]):
                yield SeenPod(meta["uid"], meta["name"], pool, is_ready and not leaves)


class Traffic:
    """The servers with the time of the load: 0 until every role has a pod that is Ready."""

    def __init__(self, loaded: LoadedService, trace: Trace) -> None:
        self.service: Service = loaded.service
        self._servers = SimulatedServers(loaded, trace)
        self._since_start_s: Callable[[], float] | None = None
        self._lock = threading.Lock()

    def _now_s(self) -> float:
        return 0.0 if self._since_start_s is None else self._since_start_s()

    def follow(self, pods: Sequence[Mapping[str, Any]]) -> None:
        """Take in what the cluster says of its pods."""
        with self._lock:
            self._servers.follow(seen_pods(pods, self.service.pools), self._now_s())
            if self._since_start_s is None and self._servers.could_begin():
                self._since_start_s = stopwatch_s()

    def metrics(self) -> str:
        """Return all pods' metrics in Prometheus' text format."""
        with self._lock:
            scraped = self._servers.scrape(self._now_s())
        return text_format(lines(self.service, scraped))

    def status(self) -> dict[str, Any]:
        """Return what a person or a test wants to know."""
        with self._lock:
            now_s = self._now_s()
            lately = self._servers.attained(now_s, now_s - WINDOW_S)
            return {
                "at_s": round(now_s, 1),
                "serving": dict(self._servers.serving),
                "last_minute": lately,
                "since_start": self._servers.attained(now_s, 0.0),
            }


@contextlib.contextmanager
def served(traffic: Traffic, host: str, port: int) -> Iterator[str]:
    # Serves /metrics and /status for as long as the block lasts; yields HOST:PORT.

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, "text/plain; version=0.0.4", traffic.metrics())
            elif self.path == "/status":
                self._answer(200, "application/json", json.dumps(traffic.status()))
            else:
                self._answer(404, "text/plain", "here are /metrics and /status\n")

        def _answer(self, status: int, kind: str, text: str) -> None:
            body = text.encode()
            with contextlib.suppress(ConnectionError):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        what = f"--listen {host}:{port}: {error.strerror}"
        raise InputError(f"{what}: give another port, or 0 for any") from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
    thread.start()
    try:
        yield f"{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def announced(place: Path | None, address: str) -> Iterator[None]:
    """Name the address in a file that Prometheus discovers targets by, until the block ends."""
    if place is None:
        yield
        return
    unfinished = place.with_suffix(".new")
    unfinished.write_text(json.dumps([{"targets": [address]}]), encoding="utf-8")
    unfinished.rename(place)
    try:
        yield
    finally:
        place.unlink(missing_ok=True)


def keep_up(traffic: Traffic, api: Api) -> None:
    """Follow the cluster until a signal comes; an API server that is away changes nothing."""
    since_told_s, is_away = stopwatch_s(), False
    while True:
        try:
            traffic.follow(api.pods(traffic.service.key.namespace))
            is_away = False
        except (HTTPError, client.ApiException) as error:
            if not is_away:
                print(f"traffic: no answer about pods: {error}", file=sys.stderr)
            is_away = True
        if since_told_s() >= TELL_EVERY_S:
            print(f"traffic: {json.dumps(traffic.status())}", flush=True)
            since_told_s = stopwatch_s()
        pause(LOOK_EVERY_S)


def rate_points(text: str) -> dict[float, float]:
    """Return the rate [requests/s] by time [s] of ``0s=5,10m=60``.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is no such list.
    """
    points: dict[float, float] = {}
    for part in text.split(","):
        at, equals, rate = part.partition("=")
        try:
            at_s, rate_rps = parse_duration_s(at.strip()), float(rate)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{part!r}: {error}: write TIME=RATE") from error
        if not equals or rate_rps < 0 or at_s <= max(points, default=-1.0):
            raise argparse.ArgumentTypeError(f"{part!r}: times ascend and rates are 0 or more")
        points[at_s] = rate_rps
    return points


def requests_of(given: argparse.Namespace, service: Service) -> Trace:
    """Return the load that the command line asks for."""
    trace = open_trace(given.trace)
    if service.sla.max_input_tokens is not None:
        trace, _ = clip(trace, service.sla.max_input_tokens)
    if given.rps is not None:
        points = {at_s / given.speed: rate_rps for at_s, rate_rps in given.rps.items()}
        return ramp(points, given.lasts, trace)
    return quickened(scale_trace(trace, given.scale), given.speed)


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.traffic", description=__doc__)
    parser.add_argument("-f", "--file", type=Path, required=True, help="PDAutoscaler to serve")
    parser.add_argument("--kubeconfig", type=Path, help="default: what kubectl uses")
    parser.add_argument("--namespace", help="instead of the file's")
    parser.add_argument("--listen", default="127.0.0.1:9400", help="HOST:PORT; port 0: any")
    parser.add_argument("--target-file", type=Path, help="file_sd file to write the address to")
    parser.add_argument("--trace", default="azure2023-conv", help="file or name of a trace")
    parser.add_argument("--scale", type=int, default=1, help="copies of the trace (not with --rps)")
    parser.add_argument(
        "--rps",
        type=rate_points,
        metavar="TIME=RATE,…",
        help="requests/s in straight lines through these points, with lengths of the trace",
    )
    parser.add_argument("--speed", type=float, default=1.0, help="play the load faster, as dense")
    parser.add_argument(
        "--lasts", type=parse_duration_s, default=7200.0, help="how long a ramp's load lasts [2h]"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Serve until a signal comes."""
    given = parsed(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    host, _, port = given.listen.rpartition(":")
    try:
        api = Api(given.kubeconfig)
        loaded = load(api, given.file, given.namespace)
        traffic = Traffic(loaded, requests_of(given, loaded.service))
        with served(traffic, host, int(port)) as address, announced(given.target_file, address):
            print(f"traffic: pods of {loaded.service.key} at http://{address}/metrics", flush=True)
            keep_up(traffic, api)
    except KeyboardInterrupt:
        print("traffic: ended", flush=True)
    except (PlannerError, OSError, client.ApiException, HTTPError) as error:
        print(f"traffic: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
