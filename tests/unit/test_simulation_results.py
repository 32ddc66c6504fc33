"""Figures of a run: everything that arrived counts, once."""

import numpy as np
import pytest

from planner.simulation.results import Lifetime, PlantResults, summarise

NAN = float("nan")


def results(
    rows: list[tuple[float, float, float, int]], lifetimes: tuple[Lifetime, ...] = ()
) -> PlantResults:
    """Return a run of requests (arrival, TTFT, ITL, status)."""
    arrival, ttft, itl, status = np.array(rows, dtype=float).reshape(-1, 4).T
    return PlantResults(
        arrival_s=arrival,
        prefilled_s=arrival,
        finished_s=arrival,
        ttft_s=ttft,
        itl_s=itl,
        status=status.astype(np.int32),
        end_s=1000.0,
        lifetimes=lifetimes,
        orders={},
        gpus_per_replica={"prefill": 4, "decode": 1},
    )


RUN = [
    (0.0, 9.0, 9.0, 1),  # warm-up
    (100.0, 0.5, 0.02, 1),  # both, exactly
    (110.0, 0.6, 0.02, 1),  # late
    (120.0, 0.4, 0.03, 1),  # slow
    (450.0, 0.4, 0.0, 1),  # one token: passes
    (460.0, NAN, NAN, 0),  # unfinished
    (470.0, NAN, NAN, 2),  # refused
    (800.0, 0.1, NAN, 0),  # first token, never the last
    (810.0, 0.1, 0.01, 1),
]


def test_attainment_counts_every_request_that_arrived() -> None:
    summary = summarise(results(RUN), ttft_s=0.5, itl_s=0.02, from_s=100.0)
    assert (summary.requests, summary.unfinished, summary.refused) == (8, 3, 1)
    shares = summary.attainment
    assert (shares.both, shares.ttft, shares.itl) == (3 / 8, 4 / 8, 4 / 8)
    # Windows from 100 s: 1 of 3, 1 of 3, 1 of 2.
    assert shares.worst_5min == pytest.approx(1 / 3)


def test_a_window_without_requests_is_no_failure() -> None:
    rows = [(0.0, 0.1, 0.01, 1), (900.0, 0.1, 0.01, 1)]
    assert summarise(results(rows), 0.5, 0.02).attainment.worst_5min == 1.0


def test_no_request_is_not_an_attainment() -> None:
    shares = summarise(results([]), 0.5, 0.02).attainment
    assert (shares.both, shares.ttft, shares.itl, shares.worst_5min) == (None,) * 4


def test_gpus_are_billed_from_order_to_release_after_the_warm_up() -> None:
    lifetimes = (
        Lifetime("prefill", "prefill-0", 0.0, 0.0, 3700.0),
        Lifetime("prefill", "prefill-1", 200.0, 300.0, 1900.0),
        Lifetime("decode", "decode-0", 0.0, 0.0, 50.0),
        Lifetime("decode", "decode-1", 1000.0, None, 1360.0),
    )
    run = results(RUN, lifetimes)
    assert run.gpu_seconds() == {"prefill": 4 * 5400.0, "decode": 410.0}
    summary = summarise(run, 0.5, 0.02, from_s=100.0, gpu_hour_prices={"prefill": 2.5})
    assert summary.gpu_hours == pytest.approx({"prefill": 4 * 5300 / 3600, "decode": 0.1})
    assert summary.total_gpu_hours == pytest.approx(4 * 5300 / 3600 + 0.1)
    assert summary.cost == pytest.approx(2.5 * 4 * 5300 / 3600 + 0.1)
