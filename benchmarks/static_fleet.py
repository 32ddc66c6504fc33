"""The best static fleet in hindsight against the planner, in the same plant, on the same trace.

``python -m benchmarks.static_fleet SPEC TRACE SCALE [ATTAINMENT]`` runs the planner, then searches
the cheapest fixed prefill and decode counts that reach the attainment asked for (default: what
the planner reached), and prints both.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.machine import describe
from planner.replay import Replay, plant_config
from planner.simulation.plant import Plant
from planner.simulation.results import PlantResults, Summary, summarise
from planner.simulation.trace_files import open_trace
from planner.simulation.traces import Trace, clip, scale_trace
from planner.spec.service import LoadedService, load_services

WARMUP_INTERVALS = 10
# So many replicas that the other role alone decides.
PLENTY = 200


def summary(loaded: LoadedService, results: PlantResults) -> Summary:
    sla = loaded.service.sla
    return summarise(results, sla.ttft_s, sla.itl_s, WARMUP_INTERVALS * loaded.service.interval_s)


def static(loaded: LoadedService, trace: Trace, prefill: int, decode: int) -> Summary:
    """Run a fixed fleet through the trace."""
    pools = dict(zip((p.name for p in loaded.service.pools), (prefill, decode), strict=True))
    plant = Plant(plant_config(loaded, pools, seed=0), trace)
    plant.advance(trace.duration_s)
    plant.drain()
    return summary(loaded, plant.results())


def smallest(attains: Callable[[int], bool], low: int, high: int) -> int:
    """Return the smallest count that attains; attainment rises with the count."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if attains(middle) else (middle + 1, high)
    return low


def best_static(loaded: LoadedService, trace: Trace, wanted: float) -> tuple[int, int, Summary]:
    """Return the cheapest fixed fleet that attains `wanted`, searched outwards from the corner.

    The corner is the fewest replicas of each role with which it attains alone; from there one
    replica more is tried where it is cheapest until the pair attains.
    """
    p = smallest(
        lambda n: (static(loaded, trace, n, PLENTY).attainment.ttft or 0.0) >= wanted, 1, PLENTY
    )
    d = smallest(
        lambda n: (static(loaded, trace, PLENTY, n).attainment.itl or 0.0) >= wanted, 1, PLENTY
    )
    for extra in range(2 * PLENTY):
        for more in range(extra + 1):
            found = static(loaded, trace, p + more, d + extra - more)
            if (found.attainment.both or 0.0) >= wanted:
                return p + more, d + extra - more, found
    raise SystemExit("no fixed fleet attains that")


def main() -> None:
    spec, trace_name, scale = sys.argv[1], sys.argv[2], int(sys.argv[3])
    loaded = load_services([Path(spec)])[0]
    trace = scale_trace(open_trace(trace_name), scale, 0)
    trace, _ = clip(trace, loaded.service.sla.max_input_tokens or 10**9)
    print(describe(), flush=True)
    replay = Replay(loaded, trace)
    for _ in replay.frames():
        pass
    ours = summary(loaded, replay.finish())
    print(told("planner", ours), flush=True)
    wanted = float(sys.argv[4]) if len(sys.argv) > 4 else ours.attainment.both or 0.0
    p, d, fixed = best_static(loaded, trace, min(wanted, 0.9999))
    print(told("static", fixed, f", {p} + {d} replicas"))
    print(f"GPU-hours, planner to static: {ours.total_gpu_hours / fixed.total_gpu_hours:.3f}")


def told(who: str, found: Summary, more: str = "") -> str:
    """Return attainment and GPU-hours in one line."""
    return (
        f"{who:8} {found.attainment.both:.4f} at {found.total_gpu_hours:.1f} GPU-hours "
        f"(worst 5 min {found.attainment.worst_5min:.3f}{more})"
    )


if __name__ == "__main__":
    main()
