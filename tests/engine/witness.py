"""What a real pair, a real Prometheus and our own reading of it said of the same requests.

Gathered once and kept as values, so that the pair, which keeps two cores busy, ends before anybody
looks at them.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample as PrometheusSample

from planner.adapters.memory import MemoryCluster
from planner.adapters.prometheus import PrometheusAccess, PrometheusMetrics
from planner.decision.observe import observe
from planner.model import Fleet, Hold, Observation, Sample, Service, Signal
from planner.spec.service import load_services
from tests.cluster.processes import ROOT
from tests.cluster.waiting import wait_for
from tests.engine.build import Engine
from tests.engine.pair import Pair, Request, Served
from tests.engine.server import MODEL_NAME, prompt, running
from tests.integration.prometheus_server import prometheus
from tests.integration.recorded_past import wall_clock_s

INTERVAL_S = 30.0
SCRAPE_S = 2.0
CURRENT = {"prefill": 1, "decode": 1}
MAX_REPLICAS = 8
BLOCK_TOKENS = 128  # vLLM keeps and finds prompts again by whole blocks; 128 is its size on a CPU
# Requests: which prompt, its length and that of the output [tokens]. All prompts differ from the
# first block on, but for those sent again: what is in their whole blocks need not be computed.
WARM_UP = ((100, 700, 8), (101, 40, 8), (102, 300, 8), (103, 300, 8), (104, 1500, 4))
FRESH = (
    (0, 60, 4),
    (1, 300, 12),
    (2, 300, 20),
    (3, 129, 8),
    (4, 700, 6),
    (5, 1500, 3),
    (6, 300, 10),
    (7, 40, 25),
)
AGAIN = ((1, 300, 16), (4, 700, 5))

SPEC: dict[str, Any] = {
    "apiVersion": "pd-planner.io/v1alpha1",
    "kind": "PDAutoscaler",
    "metadata": {"name": MODEL_NAME, "namespace": "inference"},
    "spec": {
        "mode": "Recommend",
        "interval": f"{INTERVAL_S:g}s",
        "sla": {"attainment": "90%", "ttft": "5s", "itl": "250ms"},
        "metrics": {"source": "vllm", "selector": {"model_name": MODEL_NAME}},
    },
}
# About what one core does with the model. Its prompts begin above those that are sent, which a
# decision on them has to say.
PROFILED_PROMPTS = (1024, 2048, 4096)
PROFILE = {
    "schemaVersion": "1",
    "provenance": {"how": "estimated", "engine": "vllm", "model": MODEL_NAME},
    "prefill": [
        {"isl_tokens": tokens, "ttft_s": 0.05 + tokens * 0.0004, "batch": 1}
        for tokens in PROFILED_PROMPTS
    ],
    "decode": [
        {"concurrency": running, "context_tokens": tokens, "itl_s": 0.02 + running * 0.005}
        for tokens in (128, 512, 2048)
        for running in (1, 4, 16)
    ],
}


@dataclass(frozen=True, slots=True)
class Page:
    """What one server exposed, before and after the measured requests."""

    before: str
    after: str

    def added(self, name: str, **labels: str) -> float:
        """Return by how much a sample grew, summed over all that carry the labels."""
        return _total(self.after, name, labels) - _total(self.before, name, labels)

    def names(self) -> set[str]:
        """Return the names of all series."""
        return {one.name for one in _samples(self.after)}


@dataclass(frozen=True, slots=True)
class Said:
    """What `recommend` said, and the record of its decision."""

    exit_code: int
    out: str
    err: str
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Evidence:
    """The requests of one interval as the client, the servers and the planner saw them.

    `prefill_span_s` is the time between the two scrapes of the prefill server that were read.
    """

    service: Service
    served: Sequence[Served]
    prefill: Page
    decode: Page
    observation: Observation
    prefill_span_s: float
    recommended: Said


def gather(engine: Engine, prometheus_binary: Path, folder: Path) -> Evidence:
    """Serve known requests by a real pair, and read them the way `run` does."""
    pair = Pair(engine, folder)
    spec = _write_spec(folder)
    (loaded,) = load_services([spec])
    with (
        running(pair.prefill, pair.decode),
        prometheus(prometheus_binary, folder, config=_scrapes(pair)) as server,
    ):
        eyes = _Eyes(loaded.service, server.url)
        warmed = pair.send_all(requests(WARM_UP), 1)
        before = eyes.wait_until_seen(len(warmed))
        pages = pair.prefill.metrics(), pair.decode.metrics()
        served = pair.send_all(requests(FRESH), 4) + pair.send_all(requests(AGAIN), 1)
        after = eyes.wait_until_seen(len(warmed) + len(served))
        prefill = Page(pages[0], pair.prefill.metrics())
        decode = Page(pages[1], pair.decode.metrics())
        with pair.kept_busy(Request(prompt(300, number), 8) for number in count(200)):
            # `recommend` compares with the sample an interval ago, so there must have been one.
            wait_for("an interval has passed", lambda: eyes.look(INTERVAL_S + SCRAPE_S), 60.0)
            recommended = _recommend(spec, server.url, folder)
    return Evidence(
        service=loaded.service,
        served=served,
        prefill=prefill,
        decode=decode,
        observation=eyes.observe(before, after),
        prefill_span_s=after.pools["prefill"][0].at_s - before.pools["prefill"][0].at_s,
        recommended=recommended,
    )


class _Eyes:
    """Our reading of the Prometheus."""

    def __init__(self, service: Service, url: str) -> None:
        self.service = service
        self._metrics = PrometheusMetrics(PrometheusAccess(url, scrape_interval_s=SCRAPE_S))

    def look(self, ago_s: float = 0.0) -> Sample | None:
        """Return the sample of a moment ago, None if there was none."""
        found = self._metrics.read([self.service], wall_clock_s() - ago_s)[self.service.key]
        return found if isinstance(found, Sample) else None

    def wait_until_seen(self, requests: int) -> Sample:
        """Return the first sample in which both servers have finished so many requests."""

        def look() -> Sample | None:
            if (found := self.look()) is None:
                return None
            (prefill,), (decode,) = found.pools["prefill"], found.pools["decode"]
            seen = (
                prefill.histograms[Signal.PROMPT_TOKENS].count,
                decode.histograms[Signal.OUTPUT_TOKENS].count,
            )
            return found if seen == (requests, requests) else None

        seen = wait_for(f"Prometheus has seen {requests} requests", look, 60.0)
        assert seen is not None
        return seen

    def observe(self, before: Sample, after: Sample) -> Observation:
        cluster = MemoryCluster({self.service.key: CURRENT})
        fleet = cluster.fleets([self.service], after.at_s)[self.service.key]
        assert isinstance(fleet, Fleet)
        seen = observe(self.service, before, after, fleet, after.at_s)
        assert not isinstance(seen, Hold), seen
        return seen


def requests(wanted: Sequence[tuple[int, int, int]]) -> list[Request]:
    """Return the requests of a table above."""
    return [Request(prompt(isl, number), osl) for number, isl, osl in wanted]


def _write_spec(folder: Path) -> Path:
    (folder / "profile.json").write_text(json.dumps(PROFILE), encoding="utf-8")
    target = {"apiVersion": "apps/v1", "kind": "StatefulSet"}
    pools = [
        {
            "name": role.lower(),
            "role": role,
            "scaleTargetRef": {**target, "name": f"{MODEL_NAME}-{role.lower()}"},
            "profile": {"file": "profile.json"},
            "minReplicas": 1,
            "maxReplicas": MAX_REPLICAS,
            "gpusPerReplica": 1,
            "startup": "90s",
        }
        for role in ("Prefill", "Decode")
    ]
    path = folder / "tiny.yaml"
    spec = SPEC | {"spec": SPEC["spec"] | {"pools": pools}}
    path.write_text(json.dumps(spec), encoding="utf-8")  # JSON is YAML
    return path


def _scrapes(pair: Pair) -> str:
    # The labels that a scrape of pods brings along.
    static = [
        {
            "targets": [server.url.removeprefix("http://")],
            "labels": {"namespace": "inference", "pod": f"{MODEL_NAME}-{role}-0"},
        }
        for role, server in (("prefill", pair.prefill), ("decode", pair.decode))
    ]
    job = {"job_name": "vllm", "scrape_interval": f"{SCRAPE_S:g}s", "static_configs": static}
    return json.dumps({"scrape_configs": [job]})


def _recommend(spec: Path, url: str, folder: Path) -> Said:
    # Through the command, as a user would.
    record = folder / "record.jsonl"
    current = ",".join(f"{name}={replicas}" for name, replicas in CURRENT.items())
    asked = ["-f", spec, "--current", current, "--prometheus", url, "--record", record]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "planner", "recommend", *map(str, asked)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    written = record.read_text(encoding="utf-8").splitlines() if record.exists() else ["{}"]
    return Said(done.returncode, done.stdout, done.stderr, json.loads(written[-1]))


def _samples(page: str) -> Iterator[PrometheusSample]:
    for family in text_string_to_metric_families(page):
        yield from family.samples


def _total(page: str, name: str, labels: Mapping[str, str]) -> float:
    return sum(
        one.value
        for one in _samples(page)
        if one.name == name and labels.items() <= one.labels.items()
    )
