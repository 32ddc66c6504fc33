"""A Prometheus that scrapes pages as it would pods; memory is handed the very same scrapes."""

import math
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from planner.adapters.clock import SystemClock
from planner.adapters.exposition import lines, text_format
from planner.adapters.memory import MemoryMetrics
from planner.adapters.prometheus import PrometheusAccess, PrometheusMetrics
from planner.model import (
    Histogram,
    PodSample,
    Pool,
    Role,
    Sample,
    Service,
    ServiceKey,
    Signal,
    Sla,
    Target,
)
from tests.integration.prometheus_server import Answer, page, prometheus, wait_for

SCRAPE_S = 1.0
SERVICE = Service(
    ServiceKey("inference", "llama"),
    Sla(0.5, 0.03),
    tuple(
        Pool(role, role, Target("apps/v1", "StatefulSet", f"llm-{role}"), max_replicas=4)
        for role in Role
    ),
    interval_s=60.0,
    selector={"model_name": "llama"},
)
CONFIG = """
scrape_configs:
  - job_name: pods
    scrape_interval: 1s
    honor_labels: true
    static_configs: [{{targets: ["{address}"]}}]
"""


def scrape(at_s: float, requests: float) -> dict[str, tuple[PodSample, ...]]:
    lengths = Histogram((512.0, math.inf), (requests, 2 * requests), 700.0 * requests)
    return {
        "prefill": (
            PodSample("llm-prefill-0", at_s, histograms={Signal.PROMPT_TOKENS: lengths}),
            PodSample("llm-prefill-1", at_s, histograms={Signal.PROMPT_TOKENS: lengths}),
        ),
        "decode": (
            PodSample(
                "llm-decode-0",
                at_s,
                histograms={Signal.OUTPUT_TOKENS: lengths},
                gauges={Signal.RUNNING: requests / 7},
            ),
        ),
    }


def test_scraped_pages_read_as_the_scrapes_themselves(
    prometheus_binary: Path, tmp_path: Path
) -> None:
    # Stamps in the pages, a quarter of a minute apart, let a minute pass within seconds.
    now_s = round(SystemClock(threading.Event()).now_s(), 3)
    shown: list[str] = [""]

    def answer(_: BaseHTTPRequestHandler) -> Answer:
        return 200, "text/plain; version=0.0.4", shown[0].encode()

    memory = MemoryMetrics(SCRAPE_S)
    with page(answer) as pods:
        config = CONFIG.format(address=pods.removeprefix("http://"))
        with prometheus(prometheus_binary, tmp_path, config=config) as server:
            real = PrometheusMetrics(PrometheusAccess(server.url, scrape_interval_s=SCRAPE_S))

            def has_seen(at_s: float) -> bool:
                found = real.read([SERVICE], at_s)[SERVICE.key]
                return isinstance(found, Sample) and found.pools["decode"][0].at_s == at_s

            for i in range(4):
                at_s = round(now_s - 45 + 15 * i, 3)
                pages = scrape(at_s, 10.0 * i)
                memory.store(SERVICE.key, pages, None, at_s)
                shown[0] = text_format(lines(SERVICE, pages), stamped=True)
                wait_for("the page is scraped", lambda at_s=at_s: has_seen(at_s))

            wanted = memory.read([SERVICE], now_s)
            assert isinstance(wanted[SERVICE.key], Sample)
            assert real.read([SERVICE], now_s) == wanted
            span = (now_s - 45, now_s, 15.0)
            assert list(real.history(SERVICE, *span)) == list(memory.history(SERVICE, *span))
