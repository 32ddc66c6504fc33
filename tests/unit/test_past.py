"""A service's own past as a series and as a trace: gaps stay gaps, figures stay figures."""

import numpy as np
import pytest

from planner.errors import InputError, MetricsError
from planner.model import Observation, PodSample, Role, Sample, Signal
from planner.past import observations, past_trace, token_series
from tests.builders import ISL, LENGTHS, OSL, START_S, histogram, observation, sample, service

SERVICE = service()
LOST = MetricsError("http://p: down")


def history(rps: list[float | None]) -> list[Sample | MetricsError]:
    """Return a sample an interval with so many requests/s since the one before; None: lost."""
    finished, samples = 0.0, []
    for k, rate in enumerate(rps):
        finished += 60.0 * (rate or 0.0)
        samples.append(LOST if rate is None else sample(START_S + 60.0 * k, finished))
    return samples


def seen(rps: list[float | None]) -> list[Observation | None]:
    return observations(SERVICE, history(rps), START_S)


def rates(past: list[Observation | None]) -> list[float | None]:
    return [None if found is None else round(found.arrivals_rps, 9) for found in past]


@pytest.mark.parametrize(
    ("rps", "expected"),
    [
        pytest.param([5.0, 10.0, 20.0], [None, 10.0, 20.0], id="the first has no before"),
        pytest.param([5.0, 0.0, 3.0], [None, 0.0, 3.0], id="silence is zero"),
        # What came in the gap is seen at its end, spread over it.
        pytest.param([5.0, 8.0, None, 8.0], [None, 8.0, None, 4.0], id="a gap is none"),
        pytest.param([None, None, 4.0, 6.0], [None, None, None, 6.0], id="a late start"),
        pytest.param([None, None], [None, None], id="nothing"),
        pytest.param([], [], id="empty"),
    ],
)
def test_each_interval_says_what_it_saw(rps: list[float | None], expected: list[float | None]):
    assert rates(seen(rps)) == expected


def test_a_sample_that_can_not_be_used_is_a_gap_and_no_start_of_the_next():
    good = history([5.0, 6.0, 7.0, 8.0])
    third = good[2]
    assert isinstance(third, Sample)
    bad = PodSample("prefill-0", third.at_s, gauges={Signal.RUNNING: float("nan")})
    good[2] = Sample(third.at_s, {**third.pools, "prefill": (bad,)})
    # The last one is differenced with the second: 7 and 8 requests/s over two minutes.
    assert rates(observations(SERVICE, good, START_S)) == [None, 6.0, None, 7.5]


class TestTokenSeries:
    def test_tokens_are_those_of_the_role(self):
        past = seen([1.0, 2.0, 4.0])
        assert token_series(past, Role.PREFILL) == pytest.approx([None, 2 * ISL, 4 * ISL])
        assert token_series(past, Role.DECODE) == pytest.approx([None, 2 * OSL, 4 * OSL])

    def test_cached_tokens_are_no_load_of_prefill(self):
        past = [observation(uncached_ratio=0.25)]
        assert token_series(past, Role.PREFILL) == pytest.approx([0.25 * 10 * ISL])
        assert token_series(past, Role.DECODE) == pytest.approx([10 * OSL])

    def test_silence_is_zero_and_unknown_lengths_are_a_gap(self):
        past = [
            observation(arrivals_rps=0.0, prompts=None, outputs=None),
            observation(prompts=None),
            None,
        ]
        assert token_series(past, Role.PREFILL) == [0.0, None, None]


class TestPastTrace:
    def test_rates_and_lengths_are_those_of_the_past(self):
        trace = past_trace(seen([1.0] + [20.0] * 30 + [5.0] * 30), 60.0, seed=1)
        minutes = np.bincount((trace.arrival_s // 60.0).astype(int), minlength=60)
        # 36,000 and 9,000 requests are expected: ±3 % are more than three standard deviations.
        assert minutes[:30].sum() == pytest.approx(36_000, rel=0.03)
        assert minutes[30:60].sum() == pytest.approx(9_000, rel=0.04)
        # Drawn from buckets: the mean of the bucket that holds them all.
        assert trace.isl_tokens.mean() == pytest.approx(ISL, rel=0.01)
        assert trace.osl_tokens.mean() == pytest.approx(OSL, rel=0.01)
        assert trace.isl_tokens.min() >= 1

    def test_a_gap_is_silent_and_keeps_its_length(self):
        past = [observation(), None, None, observation()]
        trace = past_trace(past, 60.0, seed=1)
        inside = (trace.arrival_s > 61.0) & (trace.arrival_s < 178.0)
        assert not inside.any()
        assert 178.0 < trace.duration_s < 240.0

    def test_an_interval_without_outputs_is_silent(self):
        past = [observation(outputs=None), observation(outputs=histogram(OSL, 0.0, LENGTHS))]
        with pytest.raises(InputError, match="no finished request in that window"):
            past_trace(past, 60.0, seed=1)

    def test_the_seed_decides(self):
        past = seen([1.0, 20.0, 20.0])
        first, again, other = (past_trace(past, 60.0, seed) for seed in (1, 1, 2))
        assert np.array_equal(first.arrival_s, again.arrival_s)
        assert np.array_equal(first.isl_tokens, again.isl_tokens)
        assert len(first) != len(other)

    def test_it_says_what_is_a_model_and_not_the_past(self):
        (note,) = past_trace([observation()], 60.0, seed=1).notes
        assert "Poisson" in note

    @pytest.mark.parametrize("past", [[], [None], [observation(arrivals_rps=0.0)]])
    def test_nothing_observed_is_refused(self, past: list[Observation | None]):
        with pytest.raises(InputError, match=r"--from-prometheus: .*give a longer one"):
            past_trace(past, 60.0, seed=1)
