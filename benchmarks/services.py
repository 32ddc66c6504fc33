"""A thousand services in one process: ``python -m benchmarks.services [SERVICES]``.

One plant with eight prefill and eight decode replicas is scraped; every service gets a copy of its
own of each scrape. The time is of `Supervisor.tick` over all services: read from memory, decide,
record. Asking Prometheus is not in it, nor is the making of the copies.
"""

import argparse
import pickle
import resource
import time
from dataclasses import replace
from statistics import median

from benchmarks.figure import line
from benchmarks.machine import describe
from benchmarks.replays import example, scaled
from planner.adapters.memory import MemoryCluster, MemoryMetrics
from planner.model import Pod, ServiceKey
from planner.replay import SCRAPE_INTERVAL_S, SCRAPE_LAG_S, plant_config
from planner.simulation.plant import Plant
from planner.spec.service import LoadedService
from planner.supervisor import Supervisor

SERVICES, INTERVALS = 1000, 8
REPLICAS = {"prefill": 8, "decode": 8}
# Two intervals: a sample, and the one before it.
RETENTION_S = 120.0
CPU_TARGET_S, RSS_TARGET_GIB = 20.0, 1.0


class Copies:
    """Many services over one plant.

    Parameters
    ----------
    loaded
        The service that all of them are copies of.
    count
        How many.
    """

    def __init__(self, loaded: LoadedService, count: int) -> None:
        self.plant = Plant(plant_config(loaded, REPLICAS, seed=0), scaled("azure2023-conv", loaded))
        keys = [ServiceKey("inference", f"model-{i:04}") for i in range(count)]
        self._metrics = MemoryMetrics(SCRAPE_INTERVAL_S, retention_s=RETENTION_S)
        cluster = MemoryCluster(dict.fromkeys(keys, REPLICAS), pods=self._pods_of)
        self.supervisor = Supervisor(
            [replace(loaded.service, key=key) for key in keys], self._metrics, cluster
        )
        self._interval_s = loaded.service.interval_s
        self._pods: dict[str, tuple[Pod, ...]] = {}

    def pass_interval(self, index: int) -> float:
        """Serve and scrape one interval; return its end [s]."""
        end_s = (index + 1) * self._interval_s
        last_s = end_s - SCRAPE_LAG_S
        earlier = round(self._interval_s / SCRAPE_INTERVAL_S) - 1
        for left in range(earlier, 0, -1):
            self.plant.advance(last_s - left * SCRAPE_INTERVAL_S)
            counts = self.plant.light_scrape()
            for service in self.supervisor.services:
                self._metrics.store_light(service.key, *counts)
        self.plant.advance(last_s)
        # Values of their own for each service, as if each had been scraped.
        scrape = pickle.dumps(self.plant.scrape())
        for service in self.supervisor.services:
            self._metrics.store(service.key, pickle.loads(scrape), None, last_s)
        self.plant.advance(end_s)
        self._pods = {name: self.plant.pods(name) for name in REPLICAS}
        return end_s

    def _pods_of(self, _: ServiceKey, pool: str) -> tuple[Pod, ...]:
        return self._pods[pool]


def figures(count: int = SERVICES) -> None:
    """Print CPU time an interval and peak memory."""
    copies = Copies(example(), count)
    pods = sum(REPLICAS.values())
    took_s: list[float] = []
    for index in range(INTERVALS):
        now_s = copies.pass_interval(index)
        started_s = time.process_time()
        records = copies.supervisor.tick(now_s)
        took_s.append(time.process_time() - started_s)
        decided = sum(record.decision.plan is not None for record in records.values())
        print(
            f"interval {index + 1}: {took_s[-1]:6.2f} CPU s, {decided} of {count} decided",
            flush=True,
        )
    interval_s = example().service.interval_s
    # The first tick holds for want of a rate.
    cpu_s = median(took_s[1:])
    rss_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        line(f"{count:,} services of {pods} pods, CPU an interval", cpu_s, "s", CPU_TARGET_S),
        flush=True,
    )
    print(line("… share of one core", 100.0 * cpu_s / interval_s, "%"), flush=True)
    print(
        line("… peak memory, simulator and copies included", rss_gib, "GiB", RSS_TARGET_GIB),
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("services", type=int, nargs="?", default=SERVICES)
    options = parser.parse_args()
    print(describe(), flush=True)
    figures(options.services)


if __name__ == "__main__":
    main()
