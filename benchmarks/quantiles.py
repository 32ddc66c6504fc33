"""What one quantile of the forecast costs against two: ``python -m benchmarks.quantiles``.

Replays both shipped traces with several pairs of `forecast.quantile` (what is ordered) and
`forecast.keepQuantile` (what is not released).
"""

from dataclasses import replace

from benchmarks.machine import describe
from benchmarks.replays import TRACES, example, scaled
from planner.replay import Replay
from planner.simulation.results import Summary, summarise

# The default, the example's, then one quantile for both, lower, middle and higher.
PAIRS = ((0.65, 0.9), (0.55, 0.9), (0.55, 0.55), (0.75, 0.75), (0.9, 0.9))
WARMUP_INTERVALS = 10


def main() -> None:
    print(f"{'trace':22}{'quantile':>9}{'keep':>6}{'both':>9}{'worst 5 min':>13}{'GPU-hours':>11}")
    for trace in TRACES:
        for up, keep in PAIRS:
            found = replay(trace, up, keep)
            both, worst = found.attainment.both or 0.0, found.attainment.worst_5min or 0.0
            print(
                f"{trace:22}{up:>9.0%}{keep:>6.0%}{both:>9.2%}{worst:>13.1%}"
                f"{found.total_gpu_hours:>11.1f}",
                flush=True,
            )


def replay(trace: str, up: float, keep: float) -> Summary:
    """Return the figures of one replay, without the warm-up."""
    loaded = example()
    service = replace(loaded.service, up_quantile=up, keep_quantile=keep)
    run = Replay(replace(loaded, service=service), scaled(trace, loaded))
    for _ in run.frames():
        pass
    sla = service.sla
    return summarise(run.finish(), sla.ttft_s, sla.itl_s, WARMUP_INTERVALS * service.interval_s)


if __name__ == "__main__":
    print(describe(), flush=True)
    main()
