"""A past as traffic: what was counted stays, what is missing is cut out and named."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.adapters.prometheus_history import STEPS_AT_ONCE, stretches
from planner.errors import InputError, MetricsError
from planner.model import Histogram, Observation, Sample, Service
from planner.past_traffic import (
    Past,
    arrival_times,
    draw,
    history_lines,
    past_of,
    past_requests,
    trace_lines,
    trusted,
)
from tests.builders import START_S, observation, sample, service

BOUNDS = (100.0, 200.0, 400.0, 800.0, math.inf)
STEP_S = 60.0


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def seen(*rps: float | None) -> list[Observation | None]:
    """Return an observation an interval with so many requests/s, None in a gap."""
    return [None if rate is None else observation(arrivals_rps=rate) for rate in rps]


def past(*rps: float | None) -> Past:
    return past_of(seen(*rps), START_S, STEP_S)


def lengths(counts: list[int], total: float) -> Histogram:
    return Histogram(BOUNDS, tuple(np.cumsum(counts).astype(float).tolist()), total)


@st.composite
def true_lengths(pick: st.DrawFn) -> Histogram:
    """Histograms that some lengths could have made, at least 20 of them."""
    counts = pick(
        st.lists(st.integers(0, 300), min_size=5, max_size=5).filter(lambda c: sum(c) > 20)
    )
    lows, highs = (0.0, *BOUNDS[:-1]), (*BOUNDS[:-1], 1600.0)
    lean = pick(st.floats(0.1, 0.9))
    total = sum(n * (a + lean * (b - a)) for n, a, b in zip(counts, lows, highs, strict=True))
    return lengths(counts, total)


class TestLengths:
    @given(true_lengths(), st.integers(1, 2000), st.integers(0, 99))
    def test_they_have_the_mean_of_the_histogram(self, histogram: Histogram, count: int, seed: int):
        found = draw(random(seed), histogram, count)
        mean = histogram.sum / histogram.count
        # One is drawn from each 1/count of the distribution: what is left is that much of a bucket.
        widest = max(1600.0, float(found.max()))
        assert found.shape == (count,)
        assert found.mean() == pytest.approx(mean, abs=2.5 * widest / count + 1e-6)

    @given(true_lengths(), st.integers(0, 99))
    def test_every_bucket_has_its_share(self, histogram: Histogram, seed: int):
        count = int(histogram.count)
        found = draw(random(seed), histogram, count)
        for bound, wanted in zip(BOUNDS, histogram.cumulative, strict=True):
            # A length may lie on the bound itself, as near as floats tell.
            assert (found < bound * (1.0 - 1e-9)).sum() <= wanted + 1.0
            assert (found <= bound * (1.0 + 1e-9)).sum() >= wanted - 1.0

    def test_a_bucket_without_an_end_holds_what_the_sum_asks_for(self):
        found = draw(random(), lengths([0, 0, 0, 0, 50], 50 * 5000.0), 50)
        assert found.mean() == pytest.approx(5000.0, rel=0.05)
        assert found.min() >= 800.0

    def test_a_summary_keeps_its_mean(self):
        found = draw(random(), Histogram((math.inf,), (40.0,), 40 * 700.0), 4000)
        assert found.mean() == pytest.approx(700.0, rel=0.01)

    def test_a_sum_that_contradicts_the_buckets_rules(self):
        found = draw(random(), lengths([100, 0, 0, 0, 0], 100 * 900.0), 100)
        assert found.mean() == pytest.approx(900.0, rel=0.05)


class TestArrivals:
    def test_they_follow_the_scrapes(self):
        times = arrival_times(random(), (0.0, 30.0, 10.0, 0.0), 4000, STEP_S)
        assert np.bincount((times // 15.0).astype(int), minlength=4).tolist() == pytest.approx(
            [0, 3000, 1000, 0], abs=1
        )

    @given(st.lists(st.floats(0.0, 1e4), max_size=8), st.integers(1, 500), st.integers(0, 99))
    def test_there_are_as_many_as_asked_for_inside_the_step(
        self, bins: list[float], count: int, seed: int
    ):
        times = arrival_times(random(seed), bins, count, STEP_S)
        assert times.shape == (count,)
        assert (np.diff(times) >= 0.0).all()
        assert times[0] >= 0.0
        assert times[-1] < STEP_S

    def test_without_scrapes_they_are_even(self):
        times = arrival_times(random(), (), 6000, STEP_S)
        assert np.bincount((times // 15.0).astype(int)).tolist() == pytest.approx(
            [1500] * 4, rel=0.1
        )


class TestRequests:
    def test_there_are_exactly_as_many_as_arrived(self):
        # Thirty intervals of 6.4 requests: fractions are carried over, 192 in all.
        trace = past_requests(past(*[6.4 / 60.0] * 30), seed=1)
        assert len(trace) == 192

    def test_each_interval_keeps_its_own(self):
        rates = [1.0, 20.0, 3.0, 8.0]
        trace = past_requests(past(*rates), seed=1)
        # The first request is at 0 s, up to a second or two after the interval began.
        counts = np.bincount(((trace.arrival_s + 0.5) // 60.0).astype(int), minlength=4)
        assert counts.tolist() == pytest.approx([60.0 * rate for rate in rates], abs=20.0)

    def test_gaps_are_cut_out_and_not_silent(self):
        trace = past_requests(past(5.0, None, None, None, 5.0, 5.0, 5.0), seed=1)
        assert trace.duration_s == pytest.approx(240.0, abs=3.0)
        assert np.bincount((trace.arrival_s // 60.0).astype(int))[:4].tolist() == pytest.approx(
            [300] * 4, abs=15
        )

    def test_silence_that_was_seen_stays(self):
        trace = past_requests(past(5.0, 0.0, 0.0, 5.0), seed=1)
        assert not ((trace.arrival_s > 61.0) & (trace.arrival_s < 178.0)).any()

    def test_cached_tokens_are_there_and_known_as_such(self):
        made = past_of([observation(uncached_ratio=0.25)] * 20, START_S, STEP_S)
        trace = past_requests(made, seed=1)
        share = trace.cached_tokens.sum() / trace.isl_tokens.sum()
        assert share == pytest.approx(0.75, abs=0.01)

    def test_an_interval_without_lengths_takes_the_last_known(self):
        first = observation(outputs=lengths([0, 10, 0, 0, 0], 10 * 150.0))
        made = past_of([first, *[observation(outputs=None)] * 5], START_S, STEP_S)
        assert past_requests(made, seed=1).osl_tokens.mean() == pytest.approx(150.0, rel=0.01)

    def test_the_seed_decides(self):
        first, again, other = (past_requests(past(3.0, 5.0), seed) for seed in (1, 1, 2))
        assert np.array_equal(first.arrival_s, again.arrival_s)
        assert np.array_equal(first.isl_tokens, again.isl_tokens)
        assert not np.array_equal(first.arrival_s, other.arrival_s)

    def test_it_says_how_it_was_made(self):
        made, drawn = past_requests(past(5.0, None, 5.0), seed=1).notes
        assert made == (
            "Own history: 600 requests of 2 intervals of 1m, 1970-01-12T13:45Z to "
            "1970-01-12T13:48Z, gaps left out: 1."
        )
        assert "drawn" in drawn

    @pytest.mark.parametrize(
        "silent",
        [
            pytest.param(observation(arrivals_rps=0.0), id="nobody came"),
            pytest.param(observation(prompts=None), id="no prompt lengths"),
            pytest.param(observation(outputs=None), id="no output lengths"),
        ],
    )
    def test_no_request_is_refused(self, silent: Observation):
        with pytest.raises(InputError, match="no finished request in that window: give a longer"):
            past_requests(past_of([silent], START_S, STEP_S), seed=1)


class TestGaps:
    def test_only_what_lies_between_is_a_gap(self):
        found = past_of(seen(None, None, 1.0, None, 2.0, None, None, 3.0, 3.0, None), 600.0, 60.0)
        assert found.start_s == 720.0
        assert [(gap.start_s, gap.length_s) for gap in found.gaps] == [
            (720.0, 60.0),
            (840.0, 120.0),
        ]
        assert [one.arrivals_rps for one in found.intervals] == [1.0, 2.0, 3.0, 3.0]

    def test_what_spans_more_than_its_interval_is_not_trusted(self):
        spans = [60.0, 75.0, 90.0, 120.0, 300.0]
        found = trusted([replace(observation(), span_s=span_s) for span_s in spans], STEP_S)
        assert [one is not None for one in found] == [True, True, True, False, False]

    def test_half_missing_is_taken_and_more_is_one_line(self):
        assert len(past(1.0, None, None, 1.0).gaps) == 1
        with pytest.raises(InputError) as refused:
            past(1.0, None, 1.0, *[None] * 3, 1.0)
        assert str(refused.value) == (
            "--from-prometheus: 4 of 7 intervals are missing (1970-01-12T13:46Z for 1m, "
            "1970-01-12T13:48Z for 3m); legal: at most half; give a window without the gaps"
        )

    def test_nothing_seen_is_one_line(self):
        with pytest.raises(InputError, match="nothing was observed then: give a longer window"):
            past(None, None)

    def test_a_whole_window_needs_no_words(self):
        assert history_lines(past(*[1.0] * 10), 600.0) == []

    def test_what_is_missing_is_named_the_longest_gaps_by_time(self):
        gaps = [n for length in (1, 5, 2, 3, 4, 1) for n in (*[None] * length, *[1.0] * 3)]
        begun, cut = history_lines(past(1.0, *gaps), 3600.0)
        assert begun == "history of 35m in a window of 1h: it begins 1970-01-12T13:45Z"
        assert cut.startswith("gaps of 16m are left out, not taken as silence: 1970-01-12T13:50Z")
        assert cut.endswith(" for 4m and 2 more")
        assert [word for word in cut.split() if word in {"5m,", "2m,", "3m,", "4m"}] == [
            *("5m,", "2m,", "3m,", "4m")
        ]

    def test_the_times_told_are_those_of_the_past(self):
        made, _ = trace_lines(replace(past(1.0, 1.0), start_s=86_460.0), 120)
        assert "1970-01-02T00:00Z to 1970-01-02T00:02Z" in made


class Metrics:
    """Samples at every time, refused for a stretch of more than `most` intervals."""

    def __init__(self, most: int = 10_000, words: str = "refused the query: exceeds the limit"):
        self.most, self.words = most, words
        self.asked: list[int] = []

    def history(
        self,
        service: Service,  # noqa: ARG002 - the port
        start_s: float,
        end_s: float,
        step_s: float,
    ) -> list[Sample | MetricsError]:
        count = round((end_s - start_s) / step_s)
        self.asked.append(count)
        if count > self.most:
            return [MetricsError(self.words)] * (count + 1)
        return [sample(start_s + k * step_s, float(k)) for k in range(count + 1)]

    def read(self, services: Sequence[Service], now_s: float) -> NoReturn:
        raise AssertionError(f"history is enough: {services}, {now_s}")


def times_read(metrics: Metrics, steps: int) -> list[float]:
    found: list[float] = []
    for stretch in stretches(metrics, service(), 0.0, steps, STEP_S):
        times = [one.at_s for one in stretch.samples if isinstance(one, Sample)]
        assert times[0] == stretch.start_s
        assert not found or found[-1] == times[0]
        found += times[1:] if found else times
    return found


class TestStretches:
    @pytest.mark.parametrize("steps", [1, 2, STEPS_AT_ONCE, STEPS_AT_ONCE + 1, 1440])
    @pytest.mark.parametrize("most", [1, 7, 59, 10_000])
    def test_together_they_are_the_whole(self, steps: int, most: int):
        assert times_read(Metrics(most), steps) == [STEP_S * k for k in range(steps + 1)]

    def test_a_limit_is_met_once(self):
        metrics = Metrics(60)
        times_read(metrics, 600)
        assert [count for count in metrics.asked if count > 60] == [239, 119]

    @pytest.mark.parametrize(
        ("most", "words", "asked"),
        [
            pytest.param(0, "refused the query: exceeds the limit", 8, id="not even one"),
            pytest.param(0, "P gave no answer within 10 s", 3, id="frozen"),
            pytest.param(0, "P is unreachable: connection refused", 1, id="gone"),
            pytest.param(0, "P refused the token", 1, id="not for us"),
            pytest.param(0, "P refused the query (HTTP 400): parse error", 1, id="another reason"),
        ],
    )
    def test_a_refusal_ends_it(self, most: int, words: str, asked: int):
        metrics = Metrics(most, words)
        with pytest.raises(MetricsError, match=words[:12]):
            times_read(metrics, 600)
        assert len(metrics.asked) == asked

    def test_an_answer_in_time_makes_up_for_a_late_one(self):
        metrics = Metrics(60, "P gave no answer within 10 s")
        assert len(times_read(metrics, 600)) == 601

    def test_samples_that_are_missing_are_no_refusal(self):
        class Blind(Metrics):
            def history(
                self, service: Service, start_s: float, end_s: float, step_s: float
            ) -> list[Sample | MetricsError]:
                count = len(super().history(service, start_s, end_s, step_s))
                return [MetricsError("pool prefill has no series") for _ in range(count)]

        (stretch,) = stretches(Blind(), service(), 0.0, 5, STEP_S)
        assert len(stretch.samples) == 6
