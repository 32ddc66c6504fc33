"""Predictors side by side: the series of a trace, and the rows."""

import itertools

import pytest

from planner.backtest import MIN_INTERVALS, check_intervals, compare_predictors, trace_series
from planner.errors import InputError
from planner.simulation.traces import make_trace
from predictors.errors import PredictorError

RAMP = [float(100 + 10 * (k % 8)) for k in range(60)]


def rows(series: dict[str, list[float | None]], lead_s: float = 90.0, **over: object):
    given = {"predictors": ["LastValue"], "interval_s": 60.0, "quantile": 0.75} | over
    ticks = itertools.count(0.0, 0.002)
    return compare_predictors(series, lead_s=lead_s, timer=lambda: next(ticks), **given)


class TestTraceSeries:
    def test_counts_the_tokens_of_every_whole_interval(self):
        times = [k * 5.0 for k in range(84)]  # 0 … 415 s: 20 whole intervals of 20 s, and a rest
        trace = make_trace("t", times, [10] * 84, [3] * 84)
        series = trace_series(trace, 20.0)
        assert series == {"prefill": [2.0] * 20, "decode": [0.6] * 20}

    def test_an_interval_without_requests_is_zero(self):
        times = [0.0, *(k * 60.0 + 1.0 for k in range(2, 22)), 1321.0]
        series = trace_series(make_trace("t", times, 60, 6), 60.0)
        assert series["prefill"][:3] == [1.0, 0.0, 1.0]

    def test_a_short_trace_is_refused(self):
        trace = make_trace("t.csv", [0.0, 1199.0], 1, 1)
        with pytest.raises(InputError) as refused:
            trace_series(trace, 60.0)
        assert str(refused.value) == (
            "--trace: t.csv has 19 intervals of 60 s; legal: 20 or more; give a longer one or "
            "shorter intervals"
        )


@pytest.mark.parametrize("intervals", [MIN_INTERVALS, 10_000])
def test_enough_intervals_pass(intervals: int):
    check_intervals("--trace", "t", intervals, 60.0)


class TestCompare:
    def test_a_row_a_predictor_and_series_in_the_order_asked_for(self):
        found = rows({"prefill": RAMP, "decode": RAMP}, predictors=["LastValue", "Kalman"])
        assert [(row["predictor"], row["series"]) for row in found] == [
            ("LastValue", "prefill"),
            ("LastValue", "decode"),
            ("Kalman", "prefill"),
            ("Kalman", "decode"),
        ]

    def test_time_is_that_of_the_timer(self):
        (row,) = rows({"prefill": RAMP})
        assert row["ms_per_tick"]["mean"] == pytest.approx(2.0, rel=1e-9)

    def test_figures_do_not_depend_on_the_unit(self):
        # A power of two changes no digit, so that no tie is broken another way.
        (tokens,), (thousands,) = (
            rows({"prefill": [v * factor for v in RAMP]}) for factor in (1.0, 1.0 / 1024.0)
        )
        for key in ("wape", "mase", "pinball", "coverage"):
            assert tokens[key] == pytest.approx(thousands[key], rel=1e-9)

    @pytest.mark.parametrize(
        ("lead_s", "window"),
        [(1.0, (1, 2)), (59.0, (1, 2)), (60.0, (2, 2)), (90.0, (2, 3)), (120.0, (3, 3))],
    )
    def test_the_window_is_that_in_which_an_order_serves(
        self, lead_s: float, window: tuple[int, int]
    ):
        # A single step from 0 to 1 is forecast too low as long as it lies in the window ahead.
        step: list[float | None] = [1.0] * 30 + [2.0] * 30
        (row,) = rows({"prefill": step}, lead_s=lead_s)
        first, last = window
        scored = 60 - 10 - last
        # Ticks before the step whose window reaches it: the last before it, `last` of them.
        realised = scored + sum(1 for tick in range(10, 60 - last) if tick + last >= 30)
        assert row["wape"] == pytest.approx(last / realised, rel=1e-9)
        assert row["intervals"] == scored
        assert first <= last

    def test_a_gap_is_not_scored_as_a_silence(self):
        gapped = [None if 30 <= k < 40 else v for k, v in enumerate([100.0] * 60)]
        (row,) = rows({"prefill": gapped})
        assert row["wape"] == 0.0

    def test_nothing_to_score_is_refused(self):
        with pytest.raises(PredictorError, match="nothing to score in 5 intervals"):
            rows({"prefill": RAMP[:5]})
