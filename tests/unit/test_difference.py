"""What was added between two samples: births, deaths, resets, gaps."""

import math
from dataclasses import replace

import pytest

from planner.decision.difference import alive, difference
from planner.model import Histogram, PodSample, Signal
from tests.builders import START_S, pod_sample

LATER_S = START_S + 60.0


def requests(interval) -> float:
    return interval.added[Signal.PROMPT_TOKENS].count


def test_each_pod_is_differenced_by_itself():
    before = [pod_sample("a", START_S, 100.0), pod_sample("b", START_S, 900.0)]
    now = [pod_sample("a", LATER_S, 130.0), pod_sample("b", LATER_S, 940.0)]
    interval = difference(before, now)
    assert requests(interval) == 70.0
    assert interval.counted[Signal.COMPUTED_TOKENS] == 70.0 * 1000.0
    assert interval.span_s == 60.0
    assert not interval.changed


@pytest.mark.parametrize(
    ("before", "now", "expected", "changed"),
    [
        pytest.param({"a": 100}, {"a": 130, "b": 20}, 50.0, True, id="a pod was born"),
        pytest.param({"a": 100, "b": 5}, {"a": 130}, 30.0, True, id="a pod is no longer shown"),
        pytest.param({"a": 100}, {"a": 30}, 30.0, False, id="counter reset"),
        pytest.param({"a": 100}, {"a": 130, "b": 9000}, 30.0, True, id="a pod is back from a gap"),
        pytest.param({}, {"a": 30, "b": 20}, 50.0, True, id="all pods are new"),
        pytest.param({"a": 100}, {"b": 20}, 20.0, True, id="all pods were replaced"),
        pytest.param({"a": 100}, {}, None, True, id="nothing is left"),
        pytest.param({"a": 100}, {"a": 100}, 0.0, False, id="silence"),
    ],
)
def test_what_counts(before, now, expected, changed):
    interval = difference(
        [pod_sample(name, START_S, float(n)) for name, n in before.items()],
        [pod_sample(name, LATER_S, float(n)) for name, n in now.items()],
    )
    assert (requests(interval) if interval.added else None) == expected
    assert interval.counted.get(Signal.COMPUTED_TOKENS, 0.0) == 1000.0 * (expected or 0.0)
    assert interval.changed == changed
    assert interval.span_s == (60.0 if now and before else 0.0)


def test_what_a_dying_pod_did_counts_but_its_gauges_do_not():
    before = [pod_sample("a", START_S, 100.0, running=3.0), pod_sample("b", START_S, 100.0)]
    now = [
        pod_sample("a", LATER_S - 40.0, 120.0, running=7.0),
        pod_sample("b", LATER_S, 130.0, running=2.0),
    ]
    interval = difference(before, now)
    assert requests(interval) == 50.0
    assert interval.gauges_now[Signal.RUNNING] == 2.0
    assert interval.gauges_before[Signal.RUNNING] == 3.0
    assert [pod.pod for pod in interval.live] == ["b"]
    assert interval.changed


@pytest.mark.parametrize(
    ("ages_s", "living"),
    [([], 0), ([0.0], 1), ([0.0, 30.0], 2), ([0.0, 32.0], 1), ([500.0, 510.0], 2)],
    ids=["none", "one", "two scrapes late", "dead", "all late together"],
)
def test_the_dead_are_older_than_their_peers_by_two_scrapes(ages_s, living):
    pods = [pod_sample(f"p-{i}", LATER_S - age_s) for i, age_s in enumerate(ages_s)]
    assert len(alive(pods)) == living


def test_scrapes_a_minute_apart_make_nobody_dead():
    """Pods are scraped at moments of their own: up to one scrape interval apart."""
    trails = [((at_s - 60.0, 1.0), (at_s, 2.0)) for at_s in (LATER_S, LATER_S - 50.0)]
    pods = [replace(pod_sample("p", t[-1][0]), trail=t) for t in trails]
    assert len(alive(pods)) == 2


def test_a_pool_without_request_histograms_takes_new_pods_at_their_word():
    bare = {"histograms": {}, "counters": {Signal.GENERATED_TOKENS: 40.0}}
    interval = difference(
        [pod_sample("a", START_S, **bare)],
        [pod_sample("a", LATER_S, **bare), pod_sample("b", LATER_S, **bare)],
    )
    assert interval.counted[Signal.GENERATED_TOKENS] == 40.0


def test_a_signal_that_appears_counts_from_zero():
    before = pod_sample("a", START_S, 100.0)
    before = replace(before, histograms={}, counters={})
    interval = difference([before], [pod_sample("a", LATER_S, 130.0)])
    assert requests(interval) == 130.0


def test_a_span_is_the_usual_one_of_the_pods():
    before = [pod_sample(name, START_S) for name in "abc"]
    now = [pod_sample("a", LATER_S), pod_sample("b", LATER_S), pod_sample("c", START_S + 15.0)]
    assert difference(before, now).span_s == 60.0


def test_a_span_is_not_that_of_pods_that_left_even_if_most_did():
    """A scale-down from 4 to 1: the other three were last scraped 10 s after the last sample."""
    before = [pod_sample(name, START_S, 100.0) for name in "abcd"]
    now = [pod_sample(name, START_S + 10.0, 110.0) for name in "bcd"]
    interval = difference(before, [*now, pod_sample("a", LATER_S, 150.0)])
    assert interval.span_s == 60.0
    assert requests(interval) == 80.0


def test_a_span_is_not_that_of_pods_that_left_after_their_last_scrape_but_one():
    """A scale-down from 12 to 5 right before the read: seven miss one scrape, not dead yet."""

    def scraped(name: str, at_s: float, finished: float) -> PodSample:
        return replace(pod_sample(name, at_s, finished), trail=((at_s - 5.0, 1.0), (at_s, 2.0)))

    before = [scraped(name, START_S, 100.0) for name in "abcdefghijkl"]
    left = [scraped(name, START_S + 10.0, 110.0) for name in "fghijkl"]
    stayed = [scraped(name, START_S + 15.0, 120.0) for name in "abcde"]
    interval = difference(before, [*left, *stayed])
    assert interval.span_s == 15.0
    assert requests(interval) == 170.0


def test_a_span_does_not_begin_at_the_death_of_a_namesake():
    """A scale-up soon after a scale-down: the new pods carry the names of those that left."""
    dead_s = START_S - 50.0
    before = [pod_sample("a", START_S, 100.0), *(pod_sample(n, dead_s, 80.0) for n in "bcd")]
    now = [pod_sample("a", LATER_S, 150.0), *(pod_sample(n, LATER_S, 10.0) for n in "bcd")]
    interval = difference(before, now)
    assert interval.span_s == 60.0
    assert requests(interval) == 80.0


BOUNDS = (1.0, 2.0, math.inf)


@pytest.mark.parametrize(
    ("earlier", "expected"),
    [
        pytest.param(None, (4.0, 6.0, 9.0), id="first seen"),
        pytest.param(Histogram(BOUNDS, (1.0, 2.0, 3.0), 5.0), (3.0, 4.0, 6.0), id="grown"),
        pytest.param(Histogram(BOUNDS, (9.0, 9.0, 9.0), 5.0), (4.0, 6.0, 9.0), id="reset"),
        pytest.param(Histogram((1.0, math.inf), (1.0, 2.0), 5.0), (4.0, 6.0, 9.0), id="new bounds"),
    ],
)
def test_histogram_since(earlier, expected):
    now = Histogram(BOUNDS, (4.0, 6.0, 9.0), 15.0)
    added = now.since(earlier)
    assert added.cumulative == expected
    assert added.sum == (10.0 if expected == (3.0, 4.0, 6.0) else 15.0)
