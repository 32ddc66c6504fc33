"""A service's own past as observations and as a series: gaps stay gaps, figures stay figures."""

import pytest

from planner.errors import MetricsError
from planner.model import Observation, PodSample, Role, Sample, Signal
from planner.past import observations, token_series
from tests.builders import ISL, OSL, START_S, observation, sample, service

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
