"""The figures of a comparison as plain values: rows, frontier, and prices at equal attainment.

Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from planner.simulation.statistics import (
    Floats,
    Reading,
    Sweep,
    Tally,
    frontier,
    interval,
    prices,
    read_at,
    resampled,
)
from planner.view.summary import POLICY

HoursAt = Mapping[float, float | None]
"""GPU-hours by attainment, a mean over seeds; None where it is not attained."""


@dataclass(frozen=True, slots=True)
class Price:
    """GPU-hours of one policy at one attainment on one trace, a mean over seeds.

    Attributes
    ----------
    reading
        As read off the sweep.
    interval
        Its 95 % interval by block bootstrap; None if unknown.
    over_oracle, over_static
        GPU-hours over those of the same-lag clairvoyant and of the best fixed fleet; None without.
    over_planner, over_planner_interval
        GPU-hours over those of the planner at the same attainment, paired.
    best_attainment, best_value
        The most that any knob attained, and that knob.
    """

    trace: str
    policy: str
    knob: str
    attainment: float
    reading: Reading
    interval: tuple[float, float] | None
    over_oracle: float | None
    over_static: float | None
    over_planner: float | None
    over_planner_interval: tuple[float, float] | None
    best_attainment: float
    best_value: float

    def row(self) -> dict[str, Any]:
        """Return it as JSON values."""
        values = asdict(self)
        del values["reading"]
        return {
            **values,
            "gpu_hours": self.reading.gpu_hours,
            "is_bound": self.reading.is_bound,
        }


@dataclass(frozen=True, slots=True)
class SweptRun:
    """What is needed of one run of a sweep."""

    trace: str
    seed: int
    policy: str
    knob: str
    value: float
    tally: Tally


def sweeps_of(runs: Iterable[SweptRun]) -> dict[str, dict[str, Sweep]]:
    """Return the sweeps by trace and policy; a knob value that lacks a seed is left out."""
    found: dict[str, dict[str, dict[float, dict[int, Tally]]]] = {}
    for run in runs:
        values = found.setdefault(run.trace, {}).setdefault(run.policy, {})
        values.setdefault(run.value, {})[run.seed] = run.tally
    return {
        trace: {
            policy: sweep
            for policy, values in policies.items()
            if (sweep := _whole(values)) is not None
        }
        for trace, policies in found.items()
    }


def _whole(values: Mapping[float, Mapping[int, Tally]]) -> Sweep | None:
    seeds = set().union(*values.values())
    whole = [
        (value, [tallies[seed] for seed in sorted(seeds)])
        for value, tallies in values.items()
        if set(tallies) == seeds
    ]
    return Sweep.of(whole) if whole else None


def price_list(
    trace: str,
    sweeps: Mapping[str, Sweep],
    knobs: Mapping[str, str],
    asked: Sequence[float],
    oracle: HoursAt,
    static: HoursAt,
    draws: int,
) -> list[Price]:
    """Return every policy's price at every attainment, the planner's first.

    Parameters
    ----------
    trace
        Whose sweeps these are.
    sweeps
        By policy.
    knobs
        Names of the knobs by policy.
    asked
        Attainments.
    oracle, static
        GPU-hours of the same-lag clairvoyant and of the best fixed fleet, as far as known.
    draws
        Resampled traces for the intervals; 0: none.
    """
    own = sweeps.get(POLICY)
    return [
        _price(sweep, own, trace, policy, knobs[policy], attainment, oracle, static, draws)
        for attainment in asked
        for policy, sweep in sweeps.items()
    ]


def _price(
    sweep: Sweep,
    own: Sweep | None,
    trace: str,
    policy: str,
    knob: str,
    attainment: float,
    oracle: HoursAt,
    static: HoursAt,
    draws: int,
) -> Price:
    reached, hours = sweep.points()
    reading = read_at(reached, hours, attainment)
    own_hours = None if own is None else read_at(*own.points(), attainment).gpu_hours
    drawn = _draw(sweep, attainment, draws)
    own_drawn = None if own is None else _draw(own, attainment, draws)
    paired = None if drawn is None or own_drawn is None else interval(drawn / own_drawn)
    best = int(np.argmax(reached))
    return Price(
        trace=trace,
        policy=policy,
        knob=knob,
        attainment=attainment,
        reading=reading,
        interval=None if drawn is None else interval(drawn),
        over_oracle=_over(reading.gpu_hours, oracle.get(attainment)),
        over_static=_over(reading.gpu_hours, static.get(attainment)),
        over_planner=_over(reading.gpu_hours, own_hours),
        over_planner_interval=paired,
        best_attainment=float(reached[best]),
        best_value=sweep.knobs[best],
    )


def _draw(sweep: Sweep, attainment: float, draws: int) -> Floats | None:
    """Return prices on resampled traces; a single run of one knob gives no frontier to read."""
    if draws <= 0 or len(sweep.knobs) < 2:
        return None
    return prices(sweep, attainment, resampled(sweep.counts.shape[2], draws))


def _over(hours: float | None, base: float | None) -> float | None:
    return None if hours is None or not base else hours / base


def between(sweep: Sweep, asked: float) -> float | None:
    """Return the knob halfway between the two whose runs the price at `asked` is read from.

    None where the sweep attains it with no knob, or with all.
    """
    reached, hours = sweep.points()
    best = frontier(reached, hours)
    above = int(np.searchsorted(reached[best], asked))
    if above in {0, len(best)}:
        return None
    bold, careful = (sweep.knobs[best[above + step]] for step in (-1, 0))
    return float(0.5 * (bold + careful))


def never_reached(listed: Iterable[Price]) -> list[str]:
    """Return a line for every sweep that stays below the attainment asked for."""
    return [
        f"{price.trace}: {price.policy}: no {price.knob} of the sweep reaches "
        f"{price.attainment:.4g}: the best is {price.best_attainment:.4f} at "
        f"{price.best_value:g}"
        for price in listed
        if price.reading.gpu_hours is None
    ]
