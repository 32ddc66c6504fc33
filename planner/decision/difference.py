"""What was added between two cumulative samples of one pool. Pure.

Counters are differenced per pod: a pod that came or died inside the interval still counts with
what it did, which a rate() would drop exactly while the fleet is scaling.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from planner.model import Histogram, PodSample, Signal

# A new pod's whole count is its interval's work only if it is not far above its peers'; a pod
# that comes back after a scrape gap would otherwise bring its whole life into one interval.
NEW_POD_RATIO = 2.0
# A pod whose last scrape is so many scrape intervals older than its peers' is gone, or may have
# left since; and the interval that is assumed where a pod shows too few scrapes to tell [s].
DEAD_AFTER_SCRAPES, LATE_AFTER_SCRAPES, USUAL_SCRAPE_S = 2.1, 0.9, 15.0


@dataclass(frozen=True, slots=True)
class Interval:
    """One pool between two samples: what was added, and what stands now."""

    span_s: float
    added: Mapping[Signal, Histogram]
    counted: Mapping[Signal, float]
    gauges_before: Mapping[Signal, float]
    gauges_now: Mapping[Signal, float]
    live: tuple[PodSample, ...]
    before: Mapping[str, PodSample]
    changed: bool


def difference(before: Sequence[PodSample], now: Sequence[PodSample]) -> Interval:
    """Difference one pool's pods between two samples."""
    earlier = {pod.pod: pod for pod in before}
    newest_s = max((pod.at_s for pod in now), default=0.0)
    live, alive_before = alive(now), alive(before)
    # Of those that serve at both ends: one that left, and one that took the name of one that had
    # left, show other times, and after a change of scale they may be most.
    began_s = {p.pod: p.at_s for p in alive_before}
    late_s = newest_s - LATE_AFTER_SCRAPES * _scrape_s(now)
    spans = [p.at_s - began_s[p.pod] for p in live if p.pod in began_s and p.at_s > late_s]
    span_s = median([s for s in spans if s > 0.0] or [0.0])
    if span_s <= 0.0:  # every pod is new: the time between the two newest scrapes
        span_s = max(newest_s - max((p.at_s for p in before), default=newest_s), 0.0)
    added: dict[Signal, Histogram] = {}
    counted: dict[Signal, float] = {}
    for pod in _accountable(now, earlier):
        last = earlier.get(pod.pod)
        for signal, histogram in pod.histograms.items():
            delta = histogram.since(last.histograms.get(signal) if last else None)
            added[signal] = added[signal].plus(delta) if signal in added else delta
        for signal, value in pod.counters.items():
            was = last.counters.get(signal, 0.0) if last else 0.0
            counted[signal] = counted.get(signal, 0.0) + (value - was if value >= was else value)
    return Interval(
        span_s,
        added,
        counted,
        _gauges(alive_before),
        _gauges(live),
        live,
        earlier,
        {p.pod for p in live} != {p.pod for p in alive_before},
    )


def alive(pods: Sequence[PodSample]) -> tuple[PodSample, ...]:
    """Leave out dead pods: they show their last values, but their gauges describe nobody."""
    newest_s = max((pod.at_s for pod in pods), default=0.0)
    dead_s = newest_s - DEAD_AFTER_SCRAPES * _scrape_s(pods)
    return tuple(pod for pod in pods if pod.at_s > dead_s)


def _scrape_s(pods: Sequence[PodSample]) -> float:
    """Return the usual time between two scrapes of a pod [s]."""
    steps_s = [b[0] - a[0] for pod in pods for a, b in pairwise(pod.trail)]
    return median(steps_s) if steps_s else USUAL_SCRAPE_S


def _accountable(now: Sequence[PodSample], earlier: Mapping[str, PodSample]) -> list[PodSample]:
    """Leave out pods that were not seen before but bring more than one interval's work."""
    known = [_finished(p) - _finished(earlier[p.pod]) for p in now if p.pod in earlier]
    if not known or not earlier:
        return list(now)
    most = NEW_POD_RATIO * max(*known, 1.0)
    return [p for p in now if p.pod in earlier or _finished(p) <= most]


def _finished(pod: PodSample) -> float:
    """Return the requests a pod has finished so far."""
    for signal in (Signal.PROMPT_TOKENS, Signal.OUTPUT_TOKENS):
        if signal in pod.histograms:
            return pod.histograms[signal].count
    return 0.0


def _gauges(pods: Sequence[PodSample]) -> Mapping[Signal, float]:
    """Add up the gauges of all pods."""
    total: dict[Signal, float] = {}
    for pod in pods:
        for signal, value in pod.gauges.items():
            total[signal] = total.get(signal, 0.0) + value
    return total
