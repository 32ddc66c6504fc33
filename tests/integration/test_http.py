"""The real server on loopback: what it answers, to whom, and how it begins and ends."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from planner.adapters.clock import ManualClock, stopwatch_s
from planner.adapters.http.health import FIRST_WITHIN_S
from planner.adapters.http.records import KEEP_LEAST, KEEP_MOST
from planner.adapters.http.server import serve
from planner.adapters.http.site import Site
from planner.errors import ClusterError, InputError, MetricsError
from planner.model import Mode, Reason, ServiceKey
from planner.record import TickRecord
from tests.builders import Drive, service
from tests.integration.prometheus_server import prometheus, wait_for

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 30
OTHER = ServiceKey("chat", "qwen/2")


class Driven:
    """A site whose services tick by hand, on a clock that is advanced by hand."""

    def __init__(self, *services):
        self.services = services
        self.clock = ManualClock(0.0)
        self.site = Site(services, self.clock.now_s)
        self.drives = {s.key: Drive(s) for s in services}

    def tick(self, **over):
        for key, drive in self.drives.items():
            self.site.record(TickRecord(key, drive.tick(**over), sla=drive.service.sla))
        self.site.took(self.drives, 0.02)


@pytest.fixture
def driven():
    return Driven(service(mode=Mode.ACT))


@pytest.fixture
def url(driven):
    with serve("127.0.0.1:0", driven.site) as url:
        yield url


def get(url, **over):
    return requests.get(url, timeout=TIMEOUT_S, **over)


# ── metrics ──────────────────────────────────────────────────────────────────────────────────────


def test_promtool_finds_no_fault_with_the_metrics(driven, url, promtool_binary):
    for _ in range(3):
        driven.tick()
    driven.tick(read=MetricsError("away"))
    answer = get(f"{url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    checked = subprocess.run(
        [promtool_binary, "check", "metrics"],
        input=answer.content,
        capture_output=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_a_real_prometheus_scrapes_it(driven, url, prometheus_binary, tmp_path):
    driven.tick()
    driven.tick()
    target = url.removeprefix("http://")
    config = (
        "scrape_configs:\n- job_name: planner\n  scrape_interval: 1s\n"
        f"  static_configs: [{{targets: ['{target}']}}]\n"
    )
    with prometheus(prometheus_binary, tmp_path, config=config) as server:

        def ask(query):
            answer = get(f"{server.url}/api/v1/query", params={"query": query})
            return answer.json()["data"]["result"]

        wait_for("the first scrape", lambda: ask("pd_planner_desired_replicas"))
        told = {
            row["metric"]["pool"]: row["value"][1] for row in ask("pd_planner_desired_replicas")
        }
        assert ask("up")[0]["value"][1] == "1"
        assert ask("scrape_samples_scraped")[0]["value"][1] != "0"
        assert ask("pd_planner_tick_seconds_count")[0]["value"][1] == "2"
    (record,) = driven.site.records.of(driven.services[0].key)[-1:]
    assert told == {name: str(p.desired) for name, p in record.decision.pools.items()}


def test_openmetrics_is_given_to_those_who_ask(url):
    answer = get(f"{url}/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


# ── health ───────────────────────────────────────────────────────────────────────────────────────


def test_ready_after_the_first_tick(driven, url):
    before = get(f"{url}/readyz")
    assert (before.status_code, before.json()["status"]) == (503, "failed")
    assert before.json()["reasons"] == ["1 of 1 services have not ticked yet: inference/llama-8b"]
    driven.tick()
    assert get(f"{url}/readyz").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param({"read": MetricsError("connection refused")}, "no answer from Prometheus: "
                     "connection refused; holding", id="Prometheus"),
        pytest.param({"cluster": ClusterError("connection refused")}, "no answer from the "
                     "Kubernetes API server: connection refused; holding", id="API server"),
    ],
)  # fmt: skip
def test_not_ready_while_a_source_is_away(driven, url, fault, words):
    driven.tick()
    driven.tick()
    for _ in range(2):
        driven.tick(**fault)
        assert get(f"{url}/readyz").ok
    driven.tick(**fault)
    answer = get(f"{url}/readyz")
    assert (answer.status_code, answer.json()["reasons"]) == (503, [words])
    # Restarting the planner would not bring it back.
    assert get(f"{url}/healthz").ok
    driven.tick()
    assert get(f"{url}/readyz").ok


def test_one_service_without_metrics_is_no_reason_not_to_be_ready():
    driven = Driven(service(), service(key=OTHER))
    for _ in range(5):
        driven.tick()
    held = driven.drives[OTHER].tick(read=MetricsError("no series"))
    for _ in range(5):
        driven.site.record(TickRecord(OTHER, held))
    assert driven.site.health.faults_of_readiness() == ()


@pytest.mark.parametrize(
    ("ticks", "waited_s", "reason"),
    [
        pytest.param(1, 210.0, None, id="three intervals and 30 s"),
        pytest.param(1, 211.0, "the last tick was 3 min 31 s ago; legal: 3 min 30 s", id="late"),
        pytest.param(0, FIRST_WITHIN_S, None, id="the past is being replayed"),
        pytest.param(0, FIRST_WITHIN_S + 60.0, "no tick in 16 min; legal: the first within 15 min",
                     id="never began"),
    ],
)  # fmt: skip
def test_alive_while_ticks_come(driven, url, ticks, waited_s, reason):
    for _ in range(ticks):
        driven.tick()
    driven.clock.advance(waited_s)
    answer = get(f"{url}/healthz")
    if reason is None:
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    else:
        assert answer.status_code == 503
        assert answer.json()["reasons"] == [f"inference/llama-8b: {reason}"]


def test_who_stands_by_need_not_tick(driven, url):
    driven.site.lead(is_leader=False)
    driven.clock.advance(10_000.0)
    assert get(f"{url}/healthz").ok
    assert get(f"{url}/readyz").ok
    # The time of standing by is no delay of the new leader.
    driven.site.lead(is_leader=True)
    assert get(f"{url}/healthz").ok
    assert not get(f"{url}/readyz").ok


# ── API ──────────────────────────────────────────────────────────────────────────────────────────


def test_services_are_listed_before_and_after_their_first_tick(driven, url):
    def listed():
        (row,) = get(f"{url}/api/v1/services").json()["services"]
        return row

    row = listed()
    assert (row["namespace"], row["name"], row["mode"]) == ("inference", "llama-8b", "Act")
    assert (row["at_s"], row["pools"][0]["desired"]) == (None, None)
    driven.tick()
    last = driven.tick() or driven.site.records.of(driven.services[0].key)[-1]
    row = listed()
    assert (row["at_s"], row["sentence"]) == (last.decision.at_s, last.sentence)
    assert row["pools"][1] == {
        "name": "decode",
        "role": "decode",
        **{n: getattr(last.decision.pools["decode"], n)
           for n in ("recommended", "desired", "current", "ready")},
    }  # fmt: skip


def test_records_are_the_lines_of_the_record_file(driven, url):
    for _ in range(5):
        driven.tick()
    kept = driven.site.records.of(driven.services[0].key)
    answer = get(f"{url}/api/v1/services/inference/llama-8b/records", params={"limit": 3}).json()
    assert answer["records"] == [json.loads(record.to_json()) for record in kept[-3:]]
    assert [r["at_s"] for r in answer["records"]] == sorted(r["at_s"] for r in answer["records"])


def test_records_kept_are_bounded(driven):
    driven.tick()
    (record,) = driven.site.records.of(driven.services[0].key)
    for _ in range(KEEP_MOST + 10):
        driven.site.record(record)
    assert len(driven.site.records.of(driven.services[0].key)) == KEEP_MOST
    many = [service(key=ServiceKey("many", str(i))) for i in range(2000)]
    driven.site.follow([*driven.services, *many])
    assert len(driven.site.records.of(driven.services[0].key)) == KEEP_LEAST


def test_no_raw_evidence_is_kept(driven):
    driven.tick()
    driven.tick()
    seen = driven.site.records.of(driven.services[0].key)[-1].decision.observation
    assert (seen.prompts, seen.outputs, seen.arrival_bins) == (None, None, (0.0, ()))
    assert seen.arrivals_rps == pytest.approx(10.0)


def test_a_service_that_is_gone_is_not_found(driven, url):
    driven.tick()
    driven.site.follow([])
    assert get(f"{url}/api/v1/services").json() == {"services": []}
    answer = get(f"{url}/api/v1/services/inference/llama-8b/records")
    assert answer.status_code == 404
    assert "no service inference/llama-8b" in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/api/v1/services/inference/llama-8b/records?limit=0", 422,
         "limit: '0': Input should be greater than or equal to 1; legal: a whole number 1 to 360"),
        ("/api/v1/services/inference/llama-8b/records?limit=many", 422, "limit: 'many': "),
        ("/api/v1/services/inference/nobody/records", 404, "no service inference/nobody"),
        ("/services/inference/nobody", 404, "no service inference/nobody"),
        ("/assets/..%2f..%2fsettings.py", 404, "Not Found"),
        ("/assets/page.py", 404, "no file page.py; legal: page.css, page.js"),
        ("/nowhere", 404, "GET /nowhere: Not Found"),
        ("/docs", 404, "GET /docs: Not Found"),
    ],
    ids=lambda case: case if isinstance(case, str) and case.startswith("/") else "",
)  # fmt: skip
def test_what_cannot_be_answered_is_told_in_one_line(url, path, status, words):
    answer = get(url + path)
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_written(url, method):
    for path in ("/", "/api/v1/services", "/metrics"):
        assert requests.request(method, url + path, timeout=TIMEOUT_S).status_code == 405


def test_head_is_answered(url):
    answer = requests.head(f"{url}/healthz", timeout=TIMEOUT_S)
    assert (answer.status_code, answer.content) == (200, b"")


# ── page ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "path", ["/", "/assets/page.js", "/api/v1/services", "/metrics", "/nowhere"]
)
def test_a_browser_is_told_to_load_nothing_from_elsewhere(driven, url, path):
    driven.tick()
    headers = get(url + path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


def test_the_page_names_no_other_place(driven, url):
    driven.tick()
    driven.tick()
    for path in ("/", "/assets/page.css", "/assets/page.js"):
        places = re.findall(r"https?://[^\s'\"<>]+", get(url + path).text)
        assert set(places) <= {"http://www.w3.org/2000/svg"}


def test_the_facts_are_there_without_a_script(driven, url):
    for _ in range(3):
        driven.tick(rps=60.0)
    page = get(url).text
    record = driven.site.records.of(driven.services[0].key)[-1]
    assert "<h1>llama-8b <span>inference</span></h1>" in page
    assert "Asked: 99% of requests with TTFT at most 500 ms and ITL at most 30 ms." in page
    assert record.sentence.split(":")[0] in page
    desired = record.decision.pools["prefill"].desired
    assert re.search(rf'data-label="Desired">(<b>)?{desired}<', page)
    assert page.count('<figure class="picture') == 6


def test_text_from_outside_stays_text():
    evil = "<script>alert(1)</script>\" onmouseover='x'"
    asked = replace(service(), key=ServiceKey("a&b", "<i>"))
    driven = Driven(asked)
    drive = driven.drives[asked.key]
    held = drive.tick(read=MetricsError(evil))
    capped = replace(drive.run(3), reasons=(Reason("<b>", evil),))
    for record in (TickRecord(asked.key, held), TickRecord(asked.key, capped, False, evil)):
        driven.site.record(record)
        with serve("127.0.0.1:0", driven.site) as url:
            page = get(url).text
        assert "<script>alert" not in page
        assert "' onmouseover" not in page
        assert "&lt;script&gt;alert(1)" in page
        assert "<h1>&lt;i&gt; <span>a&amp;b</span></h1>" in page


def test_many_services_are_a_list_with_those_in_trouble_first():
    names = ["b-fine", "c-held", "a-new"]
    driven = Driven(*(service(key=ServiceKey("x", name)) for name in names))
    fine, held, _ = (driven.drives[ServiceKey("x", name)] for name in names)
    driven.site.record(TickRecord(fine.service.key, fine.run(3)))
    held.run(2)
    driven.site.record(TickRecord(held.service.key, held.tick(read=MetricsError("away"))))
    with serve("127.0.0.1:0", driven.site) as url:
        page = get(url).text
        links = re.findall(r'<a href="(services/[^"]+)">', page)
        assert [link.rpartition("/")[2] for link in links] == ["c-held", "a-new", "b-fine"]
        assert "3 services, 1 of them in trouble" in page
        details = [get(f"{url}/{link}") for link in links]
    assert all(answer.ok for answer in details)
    assert '<a href="../../">← All services</a>' in details[0].text
    assert "Prometheus" not in details[1].text
    assert "The first decision comes within an interval." in details[1].text


def test_no_service_at_all_is_said():
    with serve("127.0.0.1:0", Site([])) as url:
        assert "No service is followed yet" in get(url).text
        assert get(f"{url}/readyz").ok


# ── beginning and end ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("listen", "words"),
    [
        ("nowhere.invalid:8080", "'nowhere.invalid' is no known host"),
        ("192.0.2.1:8080", "Cannot assign requested address"),
        ("127.0.0.1:70000", "no port; legal: 0 to 65535"),
        ("127.0.0.1:http", "no port; legal: 0 to 65535"),
    ],
    ids=["no such host", "not of this machine", "no such port", "a word"],
)
def test_an_address_that_cannot_be_listened_on_is_one_clear_line(driven, listen, words):
    with pytest.raises(InputError) as caught, serve(listen, driven.site):
        pass
    message = str(caught.value)
    assert message.startswith(f"--listen: {listen}: {words}")
    assert message.endswith("give --listen HOST:PORT or :PORT, such as 127.0.0.1:8080")
    assert "\n" not in message


def test_a_taken_port_is_told(driven):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InputError, match="Address already in use: give --listen"), \
                serve(listen, driven.site):  # fmt: skip
            pass


def test_a_port_alone_is_every_interface(driven):
    with serve(":0", driven.site) as url:
        port = url.rpartition(":")[2]
        assert get(f"http://127.0.0.1:{port}/healthz").ok


def test_ipv6_is_listened_on(driven):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with serve("[::1]:0", driven.site) as url:
        assert url.startswith("http://[::1]:")
        assert get(f"{url}/healthz").ok


def test_the_end_is_prompt_even_with_open_connections(driven):
    took_s = stopwatch_s()
    with serve("127.0.0.1:0", driven.site) as url:
        host, port = url.removeprefix("http://").split(":")
        session = requests.Session()
        assert session.get(f"{url}/healthz", timeout=TIMEOUT_S).ok
        # One that keeps its connection, and one that never finishes its request.
        idle = socket.create_connection((host, int(port)))
        idle.sendall(b"GET / HTTP/1.1\r\n")
        begun_s = took_s()
    ended_s = took_s() - begun_s
    idle.close()
    session.close()
    assert ended_s < 5.0
    with pytest.raises(requests.ConnectionError):
        get(f"{url}/healthz")
    assert not [thread for thread in threading.enumerate() if thread.name == "http"]


# In a process of its own: what a cut-off client leaves behind ends with the process.
STUCK_CLIENT = """
import socket
from planner.adapters.clock import stopwatch_s
from planner.adapters.http.server import serve
from planner.adapters.http.site import Site
from planner.model import ServiceKey
from tests.builders import service

# Metrics of so many services fill every buffer between the server and a client that stops.
site = Site([service(key=ServiceKey("many", str(i))) for i in range(3000)])
took_s = stopwatch_s()
with serve("127.0.0.1:0", site) as url:
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.connect(("127.0.0.1", int(url.rpartition(":")[2])))
    stuck.sendall(b"GET /metrics HTTP/1.1\\r\\nHost: here\\r\\n\\r\\n")
    assert stuck.recv(12) == b"HTTP/1.1 200"
    begun_s = took_s()
print(took_s() - begun_s)
"""


def test_a_client_that_does_not_read_on_holds_nobody_up():
    done = python(STUCK_CLIENT)
    assert 1.0 < float(done.stdout) < 10.0, done.stderr


def test_ticks_and_scrapes_at_once_do_no_harm(driven, url):
    failed = []

    def scrape():
        paths = ("/metrics", "/", "/api/v1/services/inference/llama-8b/records") * 5
        failed.extend(path for path in paths if not get(url + path).ok)

    threads = [threading.Thread(target=scrape) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        driven.tick()
        driven.site.follow(driven.services)
    for thread in threads:
        thread.join()
    assert not failed


def test_what_is_served_needs_no_extra():
    # `run` is installed without plotly, pandas and the compiler.
    script = """
import sys
for name in ("numba", "plotly", "pandas"):
    sys.modules[name] = None
from planner.adapters.http.server import serve
from planner.adapters.http.site import Site
from tests.builders import service
with serve("127.0.0.1:0", Site([service()])) as url:
    import requests
    print(requests.get(url, timeout=30).status_code)
"""
    done = python(script)
    assert done.stdout.strip() == "200", done.stderr


def python(script):
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
