"""What sizing foretells against what fails: ``python -m benchmarks.foretold [CASE…]``.

A case is replayed. For every minute in which a pool kept its size, the failing share that sizing
gives for the load that came and the replicas that served stands beside the share that failed, by
how full the pool was. What had queued before a minute is not in the formulas.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.machine import describe
from planner.comparison.recipes import CaseRecipe
from planner.decision.need import needs_of
from planner.decision.size import aim
from planner.model import Role
from planner.record import TickRecord
from planner.replay import Replay
from planner.simulation.plant import Plant
from planner.simulation.results import PlantResults

EDGES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
HEAD = "case             role     utilisation   minutes  foretold    failed"


@dataclass(frozen=True)
class Minute:
    """One pool in one minute: how full it was, and which shares of how many requests failed."""

    utilisation: float
    requests: int
    foretold: float
    failed: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", default=["conv", "m_large"])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print(describe(), HEAD, sep="\n", flush=True)
    for name in asked.cases:
        scenario = CaseRecipe(name, asked.seed).build()
        replay = Replay(scenario.loaded, scenario.trace, scenario.start)
        replay.plant = Plant(scenario.plant, scenario.trace)
        records = [frame.record for frame in replay.frames()]
        results = replay.finish()
        for role in Role:
            minutes = list(judged(replay, records, results, role, scenario.from_s))
            for row in rows(minutes):
                print(f"{name:16} {role.value:8} {row}", flush=True)


def judged(
    replay: Replay, records: list[TickRecord], results: PlantResults, role: Role, from_s: float
) -> Iterator[Minute]:
    """Judge every minute in which the pool of a role kept its size.

    Yields
    ------
    Minute
        In order of time.
    """
    service = replay.service
    (pool,) = service.pools_of(role)
    latency_s, target_s = (
        (results.ttft_s, service.sla.ttft_s)
        if role is Role.PREFILL
        else (results.itl_s, service.sla.itl_s)
    )
    failed = (results.status != 1) | ~(latency_s <= target_s)
    lives = [life for life in results.lifetimes if life.pool == pool.name]
    for record in records:
        decision, end_s = record.decision, record.decision.at_s
        start_s = end_s - service.interval_s
        moments = np.linspace(start_s, end_s, 5)
        serving = {
            sum(life.ready_s is not None and life.ready_s <= t < life.released_s for life in lives)
            for t in moments.tolist()
        }
        if decision.load is None or start_s < from_s or len(serving) > 1:
            continue
        load, factors = replace(decision.load, backlog_tokens=0.0), decision.factors
        points = ((load.tokens[role].seen_tps, 1.0),)
        (need,) = needs_of(service, load, factors, aim(service, load, factors), role, points)
        replicas = float(serving.pop())
        inside = (results.arrival_s >= start_s) & (results.arrival_s < end_s)
        if inside.any() and replicas > 0.0:
            foretold = float(need.shares(np.array([replicas]))[0])
            share = float(failed[inside].mean())
            yield Minute(need.offered / replicas, int(inside.sum()), foretold, share)


def rows(minutes: list[Minute]) -> Iterator[str]:
    """Tell each range of utilisation that occurred, and all together.

    Yields
    ------
    str
        A line.
    """
    ranges = [*zip(EDGES, (*EDGES[1:], np.inf), strict=True), (0.0, np.inf)]
    for low, high in ranges:
        within = [one for one in minutes if low <= one.utilisation < high]
        if not within:
            continue
        weights = [one.requests for one in within]
        foretold, failed = (
            float(np.average([getattr(one, name) for one in within], weights=weights))
            for name in ("foretold", "failed")
        )
        told = "all" if (low, high) == (0.0, np.inf) else f"{low:.1f} to {high:.1f}"
        yield f"{told:>11}  {len(within):8}  {foretold:8.3%}  {failed:8.3%}"


if __name__ == "__main__":
    main()
