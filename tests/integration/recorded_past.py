"""A service's past that reaches into the future: plant, memory and Prometheus tell the same.

A command asks at the wall clock's now. So the past is laid such that `now` lies in it and some
minutes are still to come, however long the tests before took.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from planner.adapters.clock import SystemClock
from planner.adapters.exposition import Line, lines
from planner.adapters.memory import MemoryMetrics
from planner.model import PodSample
from planner.replay import plant_config
from planner.simulation.plant import Plant
from planner.simulation.trace_files import open_trace
from planner.simulation.traces import Trace, clip, scale_trace
from planner.spec.service import LoadedService, load_services

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "llama-8b-h200.yaml"
SCRAPE_S = 15.0
# Names that the pods of the example's Volcano Job have.
PODS = {
    "prefill": "pd-prefill-service-prefill-worker",
    "decode": "pd-decode-service-decode-worker",
}

Scrape = Mapping[str, tuple[PodSample, ...]]
# At so many seconds: the replicas of a pool.
Orders = Mapping[float, tuple[str, int]]


def wall_clock_s() -> float:
    """Return the time [s, Unix] in whole milliseconds, as Prometheus keeps it."""
    return round(SystemClock(threading.Event()).now_s(), 3)


def example(model: str = "llama-8b", **changes: str) -> str:
    """Return the example's text for another model, its profiles found from anywhere.

    Each change replaces the first value of a key: `interval="5s"`.
    """
    text = EXAMPLE.read_text(encoding="utf-8").replace("../", f"{ROOT}/")
    text = text.replace("llama-8b", model).replace(f"examples/{model}", "examples/llama-8b")
    for key, value in changes.items():
        before, found, after = text.partition(f" {key}: ")
        assert found, key
        text = f"{before}{found}{value}\n{after.partition(chr(10))[2]}"
    return text


def loaded_example(folder: Path, model: str = "llama-8b", **changes: str) -> LoadedService:
    """Write the example for a model to `folder`/`model`.yaml and load it."""
    path = folder / f"{model}.yaml"
    path.write_text(example(model, **changes), encoding="utf-8")
    (loaded,) = load_services([path])
    return loaded


def conversations(copies: int) -> Trace:
    """Return an hour of requests; 5 a second for each copy."""
    return scale_trace(clip(open_trace("azure2023-conv"), 16384)[0], copies)


@dataclass(frozen=True)
class Past:
    """Scrapes of a plant by their time [s, Unix]."""

    loaded: LoadedService
    base_s: float
    scrapes: Sequence[tuple[float, Scrape]]

    def memory(self) -> MemoryMetrics:
        """Return the scrapes in memory."""
        metrics = MemoryMetrics(SCRAPE_S, retention_s=1e9)
        for at_s, scrape in self.scrapes:
            metrics.store(self.loaded.service.key, scrape, None, at_s)
        return metrics

    def exposed(self, show: Callable[[Line], Sequence[Line]] = lambda line: [line]) -> list[Line]:
        """Return the scrapes as series, each line as `show` has it."""
        service = self.loaded.service
        return [
            shown
            for _, scrape in self.scrapes
            for line in lines(service, scrape)
            for shown in show(line)
        ]

    def of(self, loaded: LoadedService) -> "Past":
        """Return the same past of another service of the same pools."""
        return replace(self, loaded=loaded)


def live_through(
    loaded: LoadedService,
    trace: Trace,
    start: Mapping[str, int],
    base_s: float,
    scrapes: int,
    *,
    every_s: float = SCRAPE_S,
    orders: Orders | None = None,
) -> Past:
    """Drive a plant from `base_s` [s, Unix] on; return what was scraped every `every_s` [s]."""
    plant = Plant(plant_config(loaded, start, 0), trace)
    left = dict(orders or {})
    found: list[tuple[float, Scrape]] = []
    for k in range(scrapes):
        at_s = every_s * (k + 0.5)
        plant.advance(at_s)
        for order_s in [order_s for order_s in left if order_s <= at_s]:
            plant.order(*left.pop(order_s))
        found.append((base_s + at_s, _renamed(plant.scrape(), base_s + at_s)))
    return Past(loaded, base_s, found)


def _renamed(scrape: Scrape, at_s: float) -> Scrape:
    """Return a scrape at its time on the wall, its pods named as Volcano names them."""
    return {
        pool: tuple(
            replace(pod, pod=f"{PODS[pool]}-{pod.pod.rpartition('-')[2]}", at_s=at_s)
            for pod in pods
        )
        for pool, pods in scrape.items()
    }
