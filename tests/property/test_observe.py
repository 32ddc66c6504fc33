"""What any pair of samples may say: finite, within its range, and no more than was counted."""

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from planner.decision.difference import difference
from planner.decision.lengths import points
from planner.decision.observe import arrival_bins, attainment, observe
from planner.model import Histogram, Hold, PodSample, Role, Sample, Signal
from tests.builders import LATENCIES, START_S, fleet, pod_sample, service

LATER_S = START_S + 60.0
COUNTS = st.integers(0, 5000).map(float)
PODS = st.dictionaries(st.sampled_from("abcdef"), COUNTS, min_size=1)


@st.composite
def histograms(draw, bounds=LATENCIES):
    steps = draw(st.lists(COUNTS, min_size=len(bounds), max_size=len(bounds)))
    cumulative = tuple(sum(steps[: i + 1]) for i in range(len(steps)))
    return Histogram(bounds, cumulative, draw(st.floats(0.0, 1e6)))


def pods_at(at_s, counts, role, gauges):
    return tuple(
        pod_sample(name, at_s, n, role, running=gauges, waiting=gauges)
        for name, n in counts.items()
    )


@given(PODS, PODS, PODS, PODS, st.floats(0.0, 1e4), st.floats(0.0, 1e4))
def test_an_observation_is_within_its_ranges(before_p, before_d, now_p, now_d, then, now):
    """Pods come, die, are restarted and lose their counts in any combination."""

    def at(at_s, prefill, decode, gauges):
        return Sample(
            at_s,
            {
                "prefill": pods_at(at_s, prefill, Role.PREFILL, gauges),
                "decode": pods_at(at_s, decode, Role.DECODE, gauges),
            },
        )

    found = observe(
        service(),
        at(START_S, before_p, before_d, then),
        at(LATER_S, now_p, now_d, now),
        fleet(LATER_S),
        LATER_S,
    )
    assert not isinstance(found, Hold)
    assert 0.0 <= found.arrivals_rps < math.inf
    assert 0.0 <= found.finished <= sum(now_p.values())
    assert 0.0 <= found.uncached_ratio <= 1.0
    assert found.span_s == 60.0
    for share in (found.ttft, found.itl):
        assert share is None or 0.0 <= share.lower <= share.upper <= 1.0
    for one in found.pools.values():
        assert one.pods > 0
        assert one.concurrency >= 0.0
        assert one.service_s is None or one.service_s > 0.0


@given(histograms(), st.floats(-1.0, 10.0))
def test_attainment_is_an_interval_that_holds_the_true_share(latencies, target_s):
    share = attainment(latencies, target_s)
    if latencies.count == 0.0:
        assert share is None
        return
    assert 0.0 <= share.lower <= share.upper <= 1.0
    inside = sum(
        more - less
        for (low, high), (less, more) in zip(
            pairwise((0.0, *latencies.upper_bounds)),
            pairwise((0.0, *latencies.cumulative)),
            strict=True,
        )
        if high <= target_s or low + 1e-12 < target_s
    )
    assert share.upper * latencies.count >= inside - 1e-6 or target_s < 0.0


@given(histograms(), histograms())
def test_what_was_added_and_what_was_there_make_what_is(earlier, added):
    now = earlier.plus(added)
    assert now.since(earlier).cumulative == added.cumulative
    assert now.since(now).count == 0.0


@given(histograms((64.0, 512.0, 4096.0, math.inf)))
def test_points_of_any_histogram_are_a_distribution(histogram):
    if histogram.count == 0.0 or histogram.sum < 1.0:
        return
    values, shares = points(histogram)
    assert abs(shares.sum() - 1.0) < 1e-9
    assert abs(values @ shares - histogram.mean) <= 1e-6 * histogram.mean
    assert (values >= 0.0).all()


@given(
    st.lists(st.floats(0.0, 14.9), min_size=1, max_size=6),
    st.lists(st.integers(0, 500), min_size=2, max_size=8),
)
def test_bins_hold_what_was_counted_wherever_in_the_interval_pods_are_scraped(phases_s, steps):
    before, now = [], []
    for k, phase_s in enumerate(phases_s):
        times = [START_S + phase_s + 15.0 * i for i in range(len(steps) + 1)]
        counts = [float(sum(steps[:i])) for i in range(len(steps) + 1)]
        trail = tuple(zip(times, counts, strict=True))
        before.append(PodSample(f"p-{k}", times[0], trail=trail[:1]))
        now.append(PodSample(f"p-{k}", times[-1], trail=trail[1:]))
    _, bins = arrival_bins([difference(before, now)])
    assert bins == tuple(float(n * len(phases_s)) for n in steps)


@given(PODS, st.sampled_from("abcdef"))
def test_pods_are_differenced_each_by_itself(counts, name):
    """A new pod with no more than an interval's work adds what it did, no matter which others."""
    before = [pod_sample(pod, START_S, n) for pod, n in counts.items() if pod != name]
    now = [pod_sample(pod, LATER_S, n + 100.0) for pod, n in counts.items() if pod != name]
    without = difference(before, now).added.get(Signal.PROMPT_TOKENS)
    with_it = difference(before, [*now, pod_sample(name, LATER_S, 50.0)])
    expected = 50.0 + (without.count if without else 0.0)
    assert with_it.added[Signal.PROMPT_TOKENS].count == expected
