"""The probe against real HTTP servers: one a pod, each on its own loopback address, one port."""

import gzip
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from planner.adapters import probe as module
from planner.adapters.clock import stopwatch_s
from planner.adapters.exposition import lines, text_format
from planner.adapters.probe import PodProbe
from planner.errors import ClusterError, MetricsError
from planner.model import Endpoint, Pod, PodSample, Role, Sample, Service, ServiceKey, Signal
from tests.builders import START_S, pod_sample, service
from tests.cluster.waiting import patience

TIMEOUT_S = 0.5
# Where nobody hangs: servers and client share one process with whatever else the machine does.
PATIENT_S = 20.0
# What a loaded machine may take longer.
SLACK_S = 1.5
VLLM = Path(__file__).parents[1] / "data" / "vllm_metrics.txt"

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(answers: Mapping[str, Answer]) -> Iterator[int]:
    # Each address by its answer, all on one port, which is yielded.
    def handler(answer: Answer) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    answer(self)
                except ConnectionError:
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler

    port = 0
    with ExitStack() as opened:
        for ip, answer in answers.items():
            server = ThreadingHTTPServer((ip, port), handler(answer))
            port = server.server_port
            opened.enter_context(closing_server(server))
        yield port


@contextmanager
def closing_server(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def says(text: str, status: int = 200, *, zipped: bool = False) -> Answer:
    body = gzip.compress(text.encode()) if zipped else text.encode()

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        if zipped:
            request.send_header("Content-Encoding", "gzip")
        request.end_headers()
        request.wfile.write(body)

    return answer


def shows(sample: PodSample, role: Role = Role.PREFILL) -> Answer:
    """Return an answer with the metrics of one pod."""
    return says(text_format(lines(SERVICE, {str(role): (sample,)})))


@dataclass(slots=True)
class Hanging:
    """An answer that drips a byte at a time, or says nothing, until it is let go."""

    go: threading.Event
    drip: bytes = b""

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while not self.go.wait(0.05):
            request.wfile.write(self.drip)
            request.wfile.flush()


@pytest.fixture
def go() -> Iterator[threading.Event]:
    # Lets go at the end who hangs.
    event = threading.Event()
    yield event
    event.set()


SERVICE = service(selector={"model_name": "llama-8b"})
MINE = {"prefill": ("127.0.1.1", "127.0.1.2", "127.0.1.3"), "decode": ("127.0.2.1",)}


def asked(port: int, base: Service = SERVICE, path: str = "/metrics") -> Service:
    pools = tuple(replace(p, probe=Endpoint(port, path)) for p in base.pools)
    return replace(base, pools=pools)


def pods(addresses: Mapping[str, Sequence[str | None]] = MINE) -> dict[str, tuple[Pod, ...]]:
    return {
        name: tuple(Pod(f"{name}-{i}", 0.0, ready_s=60.0, ip=ip) for i, ip in enumerate(ips))
        for name, ips in addresses.items()
    }


def read(
    target: Service,
    of: Mapping[str, tuple[Pod, ...]] | ClusterError,
    stop: bool = False,
    timeout_s: float = PATIENT_S,
) -> Sample | MetricsError:
    event = threading.Event()
    if stop:
        event.set()
    probe = PodProbe(lambda services: {s.key: of for s in services}, event, timeout_s)
    return probe.read([target], START_S)[target.key]


def everybody(**odd: Answer) -> dict[str, Answer]:
    """Return good answers of all pods, but for some by `prefill_1` and so on."""
    found: dict[str, Answer] = {}
    for role in Role:
        for i, ip in enumerate(MINE[role]):
            one = pod_sample(f"{role}-{i}", finished=100.0 + i, role=role, waiting=3.0, running=1.0)
            found[ip] = odd.get(f"{role}_{i}", shows(one, role))
    return found


def test_it_reads_of_every_pod_what_a_look_needs():
    with serving(everybody()) as port:
        sample = read(asked(port), pods())
    assert isinstance(sample, Sample)
    assert {name: [p.pod for p in of] for name, of in sample.pools.items()} == {
        "prefill": ["prefill-0", "prefill-1", "prefill-2"],
        "decode": ["decode-0"],
    }
    seen = sample.pools["prefill"][2]
    assert (seen.gauges, seen.at_s) == ({Signal.WAITING: 3.0, Signal.RUNNING: 1.0}, START_S)
    assert seen.histograms[Signal.PROMPT_TOKENS].count == 102.0
    assert sample.pools["decode"][0].histograms[Signal.OUTPUT_TOKENS].count == 100.0


def test_a_real_page_of_vllm_is_read():
    base = service(selector={"model_name": "tiny"})
    text = VLLM.read_text(encoding="utf-8")
    with serving(dict.fromkeys(("127.0.1.1", "127.0.2.1"), says(text, zipped=True))) as port:
        sample = read(asked(port, base), pods({"prefill": ["127.0.1.1"], "decode": ["127.0.2.1"]}))
    assert isinstance(sample, Sample), sample
    assert sample.pools["prefill"][0].histograms[Signal.PROMPT_TOKENS].count > 0.0


def test_fifty_pods_of_a_real_page_answer_in_the_time_that_production_gives():
    base = service(selector={"model_name": "tiny"})
    page = says(VLLM.read_text(encoding="utf-8"))
    ips = [f"127.0.4.{i}" for i in range(1, 51)]
    with serving(dict.fromkeys((*ips, "127.0.2.1"), page)) as port:
        there = pods({"prefill": ips, "decode": ["127.0.2.1"]})
        probe = PodProbe(lambda services: {s.key: there for s in services}, threading.Event())
        elapsed_s = stopwatch_s()
        sample = probe.read([asked(port, base)], START_S)[base.key]
        took_s = elapsed_s()
    assert isinstance(sample, Sample), sample
    assert len(sample.pools["prefill"]) == 50
    print(f"51 pods read in {took_s * 1000:.0f} ms")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (says("<html>log in</html>"), "shows no vllm:request_prompt_tokens_count"),
        (says("vllm:num_requests_waiting{ 1 2 3 garbled\n"), "ValueError"),
        (says(text_format([]), 503), "HTTP 503 instead of 200"),
        (says("", 302), "HTTP 302 instead of 200"),
        (shows(pod_sample(waiting=float("nan"))), "waiting is nan, legal is 0 or more"),
        (shows(pod_sample(waiting=-1.0)), "waiting is -1.0, legal is 0 or more"),
        (shows(pod_sample(gauges={Signal.RUNNING: 1.0})), "shows no vllm:num_requests_waiting"),
        (says("x" * 4096), "over 2000 bytes, no metrics page"),
    ],
    ids=["a-page", "garbage", "503", "redirect", "nan", "negative", "incomplete", "huge"],
)
def test_a_pod_that_makes_no_sense_is_left_out_and_a_pool_of_them_is_an_error(
    answer: Answer, why: str, monkeypatch: pytest.MonkeyPatch
):
    if "2000" in why:
        good = len(text_format(lines(SERVICE, {"prefill": (pod_sample("prefill-0"),)})))
        assert good > 2000  # so that the others need a larger limit
        monkeypatch.setattr(module, "LARGEST_BYTES", 2000)
        answers = everybody(prefill_0=answer, prefill_1=answer, prefill_2=answer)
    else:
        with serving(everybody(prefill_1=answer)) as port:
            sample = read(asked(port), pods())
        assert isinstance(sample, Sample)
        assert [p.pod for p in sample.pools["prefill"]] == ["prefill-0", "prefill-2"]
        answers = everybody(prefill_0=answer, prefill_1=answer)
    with serving(answers) as port:
        error = read(asked(port), pods())
    assert isinstance(error, MetricsError)
    assert "pods answered, legal is half" in str(error)
    assert why in str(error)


@pytest.mark.parametrize("drip", [b"", b"x", b"# \n"], ids=["silent", "dripping", "lines"])
def test_a_slow_pod_costs_no_more_than_the_time_and_is_left_out(drip: bytes, go: threading.Event):
    with serving(everybody(prefill_2=Hanging(go, drip))) as port:
        elapsed_s = stopwatch_s()
        sample = read(asked(port), pods(), timeout_s=TIMEOUT_S)
        took_s = elapsed_s()
        go.set()
    assert isinstance(sample, Sample)
    assert [p.pod for p in sample.pools["prefill"]] == ["prefill-0", "prefill-1"]
    assert TIMEOUT_S <= took_s < TIMEOUT_S + SLACK_S * patience()


def test_more_slow_pods_than_are_asked_at_once_cost_the_time_once(
    go: threading.Event, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "AT_ONCE", 3)
    ips = [f"127.0.3.{i}" for i in range(1, 9)]
    with serving(dict.fromkeys(ips, Hanging(go)) | {"127.0.2.1": says("")}) as port:
        elapsed_s = stopwatch_s()
        asked_of = pods({"prefill": ips, "decode": ["127.0.2.1"]})
        error = read(asked(port), asked_of, timeout_s=TIMEOUT_S)
        took_s = elapsed_s()
        go.set()
    assert "0 of 8 pods answered" in str(error)
    assert took_s < TIMEOUT_S + SLACK_S * patience()


def test_a_dead_pod_is_refused_and_told_by_its_address():
    with socket.socket() as taken:
        taken.bind(("127.0.1.1", 0))  # bound, and nobody listens
        error = read(asked(taken.getsockname()[1]), pods())
    assert isinstance(error, MetricsError)
    assert "http://127.0.1.1:" in str(error)
    assert "check metrics.probe" in str(error)


def test_a_stop_ends_a_read_at_once(go: threading.Event):
    with serving(everybody(prefill_0=Hanging(go))) as port:
        stop = threading.Event()
        probe = PodProbe(lambda services: {s.key: pods() for s in services}, stop, 30.0)
        threading.Timer(0.2, stop.set).start()
        elapsed_s = stopwatch_s()
        probe.read([asked(port)], START_S)
        took_s = elapsed_s()
        go.set()
    assert took_s < 0.2 + SLACK_S * patience()


@pytest.mark.parametrize(
    ("of", "why"),
    [
        (ClusterError("pods were last seen 90 s ago"), "the pods are not known: pods were last"),
        (pods(MINE | {"prefill": [None, None, "127.0.1.1"]}), "1 of 3 pods answered"),
    ],
    ids=["not-known", "no-address"],
)
def test_without_pods_or_addresses_nothing_is_said(
    of: Mapping[str, tuple[Pod, ...]] | ClusterError, why: str
):
    with serving(everybody()) as port:
        assert why in str(read(asked(port), of))


def test_pods_that_do_not_serve_yet_are_not_asked():
    waiting = replace(pods()["prefill"][0], name="prefill-9", ready_s=None, ip="127.0.9.9")
    with serving(everybody()) as port:
        sample = read(asked(port), pods() | {"prefill": (*pods()["prefill"], waiting)})
    assert isinstance(sample, Sample)
    assert len(sample.pools["prefill"]) == 3


def test_an_empty_pool_is_no_error():
    with serving(everybody()) as port:
        sample = read(asked(port), pods(MINE | {"prefill": []}))
    assert isinstance(sample, Sample)
    assert sample.pools["prefill"] == ()


def test_another_service_is_not_disturbed(go: threading.Event):
    other = service(key=ServiceKey("other", "slow"))
    slow = pods({"prefill": ["127.0.5.1"], "decode": ["127.0.5.2"]})
    with serving(everybody() | dict.fromkeys(("127.0.5.1", "127.0.5.2"), Hanging(go))) as port:
        of = {SERVICE.key: pods(), other.key: slow}
        probe = PodProbe(lambda _: of, threading.Event(), TIMEOUT_S)
        read = probe.read([asked(port, other), asked(port)], START_S)
        go.set()
    assert isinstance(read[SERVICE.key], Sample)
    assert isinstance(read[other.key], MetricsError)


def test_series_of_another_model_on_the_same_pod_do_not_count():
    mine = text_format(lines(SERVICE, {"prefill": (pod_sample("prefill-0", waiting=2.0),)}))
    others = service(selector={"model_name": "qwen"})
    theirs = text_format(lines(others, {"prefill": (pod_sample("prefill-0", waiting=90.0),)}))
    answers = everybody() | {"127.0.1.1": says(theirs + mine)}
    with serving(answers) as port:
        sample = read(asked(port), pods())
    assert isinstance(sample, Sample)
    assert sample.pools["prefill"][0].gauges[Signal.WAITING] == 2.0
