"""A long stretch of history, in as many queries as a Prometheus allows.

Prometheus, and what stands before it, bound the range, the points and the samples of a query: a
stretch that is refused for its size is asked for again in halves.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from planner.errors import MetricsError
from planner.model import Sample, Service
from planner.ports import Metrics

_LOG = logging.getLogger(__name__)

STEPS_AT_ONCE: Final = 239
"""Intervals of the first stretch: what `history` itself asks for in one query."""

LATE_HALVINGS: Final = 2
"""A big answer may be late and its half in time; one that is frozen is not waited for on and on."""

# Prometheus, Thanos, Mimir, VictoriaMetrics: "exceeded maximum resolution of 11,000 points",
# "would load too many samples into memory", "the query time range exceeds the limit", …
_TOO_LARGE = re.compile(r"refused the query.*(exceed|too (many|large|long)|limit|max)", re.DOTALL)
# A query that outlives Prometheus' own timeout ends in HTTP 503.
_LATE = re.compile(r"gave no answer within|is not serving|timed out")


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive samples, one a step; the last one is the first of the next stretch.

    `start_s` is the time of the first [s, Unix].
    """

    start_s: float
    samples: Sequence[Sample | MetricsError]


def stretches(
    metrics: Metrics, service: Service, start_s: float, steps: int, step_s: float
) -> Iterator[Stretch]:
    """Return the samples at start, start + step, …, `steps` steps on, stretch by stretch.

    Yields
    ------
    Stretch
        As long as the metrics source allows; a sample that was not there is an error in it.

    Notes
    -----
    MetricsError if the metrics source does not answer, or refuses even a single interval.
    """
    done, at_once, late = 0, STEPS_AT_ONCE, 0
    while done < steps:
        count = min(at_once, steps - done)
        first_s = start_s + done * step_s
        samples = metrics.history(service, first_s, first_s + count * step_s, step_s)
        refusal = _refusal(samples)
        if refusal is None:
            yield Stretch(first_s, samples)
            done, late = done + count, 0
            continue
        is_late = _LATE.search(str(refusal)) is not None
        late += is_late
        if count == 1 or late > LATE_HALVINGS or not (is_late or _TOO_LARGE.search(str(refusal))):
            raise refusal
        at_once = count // 2
        _LOG.info("asking for %d intervals at once: %s", at_once, refusal)


def _refusal(samples: Sequence[Sample | MetricsError]) -> MetricsError | None:
    """Return why the query as a whole was not answered, None if it was.

    `history` then gives one and the same error for all samples; one that is missing in an answer
    has its own.
    """
    first, last = samples[0], samples[-1]
    return last if isinstance(last, MetricsError) and first is last else None
