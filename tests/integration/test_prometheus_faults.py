"""Whatever happens to Prometheus, `read` and `history` answer in time, with one clear line."""

import base64
import itertools
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from planner.adapters.clock import Deadline, pause
from planner.adapters.prometheus import PrometheusAccess, PrometheusMetrics
from planner.errors import InputError, MetricsError
from planner.model import Pool, Role, Service, ServiceKey, Sla, Target
from tests.cluster.waiting import patience
from tests.integration.prometheus_server import Answer, Server, page, prometheus
from tests.loopback import free_port

NOW_S = 1_790_000_000.0
SERVICE = Service(
    ServiceKey("inference", "llama"),
    Sla(0.5, 0.03),
    tuple(
        Pool(role, role, Target("batch.volcano.sh/v1alpha1", "Job", "llm", role)) for role in Role
    ),
    selector={"model_name": "llama"},
)
EMPTY = {"status": "success", "data": {"resultType": "vector", "result": []}}
# `open sesame`; made with `htpasswd -nB`, at the lowest cost.
BASIC_AUTH = (
    "basic_auth_users: {ali: $2b$04$.ZMSEQAtw/fqAk.vGtlKSegPfTOh.hG.jpz.VnMxMC9qSHDT7tx7C}\n"
)


def read(access: PrometheusAccess) -> str:
    """Return the error of one read."""
    answer = PrometheusMetrics(access).read([SERVICE], NOW_S)[SERVICE.key]
    assert isinstance(answer, MetricsError)
    assert "\n" not in str(answer)
    return str(answer)


def as_json(content: object, status: int = 200) -> Answer:
    return status, "application/json", json.dumps(content).encode()


def row(**changed: object) -> object:
    labels = {
        "__name__": "vllm:num_requests_running",
        "model_name": "llama",
        "pod": "llm-prefill-0",
    }
    found = {"metric": labels, "value": [NOW_S, "1"], "values": [[NOW_S, "1"]], **changed}
    return {"status": "success", "data": {"result": [found]}}


@pytest.fixture
def server(prometheus_binary: Path, tmp_path: Path) -> Iterator[Server]:
    with prometheus(prometheus_binary, tmp_path) as running:
        yield running


def test_a_frozen_prometheus_costs_no_more_than_the_timeout(server: Server) -> None:
    patient = PrometheusMetrics(PrometheusAccess(server.url))
    metrics = PrometheusMetrics(PrometheusAccess(server.url, timeout_s=1.0))
    assert "has no series" in str(patient.read([SERVICE], NOW_S)[SERVICE.key])
    server.stop()
    deadline = Deadline(60.0)
    answer = metrics.read([SERVICE], NOW_S)[SERVICE.key]
    history = metrics.history(SERVICE, NOW_S - 86_400, NOW_S, 60.0)
    took_s = 60.0 - deadline.left_s()
    assert "gave no answer within 1 s" in str(answer)
    # One stretch of history is tried and the rest is given up, not 1441 steps of a second each.
    assert len(history) == 1441
    assert all("gave no answer within 1 s" in str(error) for error in history)
    assert took_s < 4.0 * patience()
    server.go_on()
    assert "has no series" in str(patient.read([SERVICE], NOW_S)[SERVICE.key])


def test_a_killed_prometheus_is_unreachable(server: Server) -> None:
    metrics = PrometheusMetrics(PrometheusAccess(server.url))
    assert "has no series" in str(metrics.read([SERVICE], NOW_S)[SERVICE.key])
    os.kill(server.pid, 9)
    os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
    answer = str(metrics.read([SERVICE], NOW_S)[SERVICE.key])
    assert answer.startswith(f"Prometheus at {server.url} is unreachable: ")
    assert "Connection refused" in answer


def test_nobody_listens() -> None:
    assert "is unreachable" in read(PrometheusAccess(f"http://127.0.0.1:{free_port()}"))


def test_an_address_that_can_not_be_read_is_refused_at_once() -> None:
    with pytest.raises(InputError, match=r"--prometheus: http://\[::1 is no address"):
        PrometheusMetrics(PrometheusAccess("http://[::1"))


@pytest.mark.parametrize("url", ["http://", "127.0.0.1:9090", "http://bad host/"])
def test_an_address_that_is_none(url: str) -> None:
    assert "Prometheus at " in read(PrometheusAccess(url, timeout_s=2.0))


class TestRefusal:
    def test_basic_auth_takes_the_password_of_the_url_and_never_shows_it(
        self, prometheus_binary: Path, tmp_path: Path
    ) -> None:
        known = {"auth": ("ali", "open sesame")}
        with prometheus(prometheus_binary, tmp_path, web_config=BASIC_AUTH, ready=known) as server:
            bare = server.url.removeprefix("http://")
            assert "has no series" in read(PrometheusAccess(f"http://ali:open%20sesame@{bare}"))
            for url in (server.url, f"http://ali:sesame@{bare}"):
                answer = read(PrometheusAccess(url))
                assert f"{server.url} refused the token or password (HTTP 401" in answer
                assert "sesame" not in answer

    def test_a_token_is_read_anew_each_time(self, tmp_path: Path) -> None:
        token = tmp_path / "token"

        def answer(request: BaseHTTPRequestHandler) -> Answer:
            good = request.headers["Authorization"] == "Bearer second"
            return as_json(EMPTY) if good else as_json({}, 403)

        with page(answer) as url:
            access = PrometheusAccess(url, token_file=token)
            assert f"token file {token} can't be read" in read(access)
            token.write_text("first\n", encoding="utf-8")
            metrics = PrometheusMetrics(access)
            assert "refused the token" in str(metrics.read([SERVICE], NOW_S)[SERVICE.key])
            token.write_text("second\n", encoding="utf-8")
            assert "has no series" in str(metrics.read([SERVICE], NOW_S)[SERVICE.key])

    def test_headers_are_sent(self) -> None:
        def answer(request: BaseHTTPRequestHandler) -> Answer:
            good = request.headers["X-Scope-OrgID"] == "team-a"
            return as_json(EMPTY) if good else as_json({}, 401)

        with page(answer) as url:
            assert "has no series" in read(
                PrometheusAccess(url, headers={"X-Scope-OrgID": "team-a"})
            )
            assert "HTTP 401" in read(PrometheusAccess(url))

    def test_a_refused_query_says_why(self) -> None:
        refusal = {"status": "error", "error": "query processing would load too many samples"}
        with page(lambda _: as_json(refusal, 422)) as url:
            assert "too many samples" in read(PrometheusAccess(url))


class TestGarbage:
    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param((200, "text/html", b"<html>Please log in</html>"), id="a login page"),
            pytest.param((200, "application/json", b""), id="nothing"),
            pytest.param((200, "application/json", b"\xff\xfe\x00"), id="bytes"),
            pytest.param((200, "application/json", b"[" * 100_000), id="deep"),
            pytest.param(as_json([]), id="a list"),
            pytest.param(as_json({"status": "success"}), id="no result"),
            pytest.param(as_json({"data": {"result": "much"}}), id="a word"),
            pytest.param(as_json({"data": {"result": [7]}}), id="numbers"),
            pytest.param(as_json(row(metric=None)), id="no labels"),
            pytest.param(as_json(row(metric={"__name__": ["x"]})), id="name is a list"),
            pytest.param(as_json(row(metric={"__name__": "up", "a": []})), id="label is a list"),
            pytest.param(as_json(row(value="x")), id="no value"),
            pytest.param(as_json(row(value=[NOW_S, "many"])), id="no number"),
            pytest.param(as_json(row(values=[[NOW_S]])), id="no pair"),
            pytest.param(as_json(row(values=[[float("nan"), "1"]])), id="no time"),
            pytest.param(as_json({}, 204), id="no content"),
        ],
    )
    def test_is_an_error_and_no_crash(self, answer: Answer) -> None:
        with page(lambda _: answer) as url:
            assert read(PrometheusAccess(url))
            history = PrometheusMetrics(PrometheusAccess(url)).history(
                SERVICE, NOW_S, NOW_S + 60, 60.0
            )
        assert [type(found) for found in history] == [MetricsError] * 2

    def test_an_answer_for_another_time_is_an_error(self) -> None:
        with page(lambda _: as_json(row(values=[[NOW_S + 999, "1"]]))) as url:
            metrics = PrometheusMetrics(PrometheusAccess(url))
            (found,) = metrics.history(SERVICE, NOW_S, NOW_S, 60.0)
        assert "a time that was not asked for" in str(found)

    def test_an_answer_that_drips_is_cut_off(self) -> None:
        def drip(request: BaseHTTPRequestHandler) -> Answer:
            request.send_response(200)
            request.send_header("Content-Length", "1000")
            request.end_headers()
            deadline = Deadline(20.0)
            while deadline.left_s() > 0:
                request.wfile.write(b" ")
                pause(0.05)
            raise AssertionError("nobody hung up")

        deadline = Deadline(60.0)
        with page(_ending(drip)) as url:
            assert "gave no answer within 0.5 s" in read(PrometheusAccess(url, timeout_s=0.5))
        assert 60.0 - deadline.left_s() < 5.0


def _ending(
    answer: Callable[[BaseHTTPRequestHandler], Answer],
) -> Callable[[BaseHTTPRequestHandler], Answer]:
    """End the connection, not the server, when the client hangs up in mid-answer."""

    def ended(request: BaseHTTPRequestHandler) -> Answer:
        try:
            return answer(request)
        except ConnectionError:
            request.close_connection = True
            return 200, "text/plain", b""

    return ended


class TestRetry:
    def test_one_failure_in_passing_is_forgiven(self) -> None:
        asked = itertools.count()
        with page(lambda _: as_json(EMPTY, 503 if next(asked) == 0 else 200)) as url:
            assert "has no series" in read(PrometheusAccess(url))
        assert next(asked) == 3  # refused, asked once more, and the query for the trails

    def test_two_are_not(self) -> None:
        asked = itertools.count()
        with page(lambda _: as_json(EMPTY, 503 if next(asked) < 2 else 200)) as url:
            assert "is not serving (HTTP 503" in read(PrometheusAccess(url))
        assert next(asked) == 2

    def test_a_refusal_is_not_asked_again(self) -> None:
        asked = itertools.count()
        with page(lambda _: as_json({}, 403 + 0 * next(asked))) as url:
            assert "refused the token" in read(PrometheusAccess(url))
        assert next(asked) == 1


@pytest.fixture(scope="module")
def certificate(
    require: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    openssl = require("openssl", "apt-get install openssl")
    folder = tmp_path_factory.mktemp("tls")
    made = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    named = ["-subj", "/CN=prometheus", "-addext", "subjectAltName=IP:127.0.0.1"]
    into = ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run([openssl, *made, *named, *into], check=True, capture_output=True)
    return folder / "cert.pem"


@pytest.fixture(scope="module")
def tls_url(
    certificate: Path, prometheus_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    key = certificate.with_name("key.pem")
    web = f"tls_server_config: {{cert_file: {certificate}, key_file: {key}}}\n"
    folder = tmp_path_factory.mktemp("prometheus")
    known = {"verify": str(certificate)}
    with prometheus(prometheus_binary, folder, web_config=web, ready=known) as server:
        yield server.url


class TestTls:
    def test_its_own_certificate_is_trusted_when_given(
        self, tls_url: str, certificate: Path
    ) -> None:
        assert "has no series" in read(PrometheusAccess(tls_url, ca_file=certificate))

    def test_an_unknown_certificate_is_not(self, tls_url: str) -> None:
        answer = read(PrometheusAccess(tls_url))
        assert "TLS failed" in answer
        assert "give its CA certificate" in answer

    def test_anyone_is_trusted_when_asked_for(self, tls_url: str) -> None:
        assert "has no series" in read(PrometheusAccess(tls_url, insecure=True))

    def test_a_missing_certificate_file_is_named(self, tls_url: str, tmp_path: Path) -> None:
        assert "nowhere.pem" in read(PrometheusAccess(tls_url, ca_file=tmp_path / "nowhere.pem"))


def test_a_thousand_services_are_a_handful_of_queries() -> None:
    services = [
        Service(
            ServiceKey(f"team-{i % 40}", f"model-{i}"),
            SERVICE.sla,
            SERVICE.pools,
            selector={"model_name": f"organisation/model-{i}-instruct"},
        )
        for i in range(1000)
    ]
    paths: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> Answer:
        paths.append(request.path)
        return as_json(EMPTY)

    with page(answer) as url:
        answers = PrometheusMetrics(PrometheusAccess(url)).read(services, NOW_S)
    assert len(answers) == 1000
    assert len(paths) <= 40
    assert max(map(len, paths)) < 8000  # what proxies take


def test_a_password_of_the_url_is_used() -> None:
    seen: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> Answer:
        seen.append(request.headers["Authorization"])
        return as_json(EMPTY)

    with page(answer) as url:
        read(PrometheusAccess(url.replace("//", "//ali:baba@")))
    assert set(seen) == {"Basic " + base64.b64encode(b"ali:baba").decode()}
