"""From finished runs to what a comparison says: rows, frontier, oracles, prices. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Final

from planner.comparison.entries import ENTRIES
from planner.comparison.runs import Foresight, Result, Run
from planner.model import Role
from planner.simulation.elasticity import Steps, elasticity, speed_up
from planner.simulation.oracles import OracleName, OracleRun
from planner.view.comparison_rows import Price, SweptRun, price_list, sweeps_of

STATIC_BEST: Final = "static-best"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came out.

    `rows` are the policies as shipped, `frontier` all runs, by trace, policy, knob and seed.
    """

    rows: Sequence[Mapping[str, Any]]
    frontier: Sequence[Mapping[str, Any]]
    prices: Sequence[Price]
    oracles: Sequence[Mapping[str, Any]] = ()
    why_stopped: str | None = None

    def document(self) -> dict[str, Any]:
        """Return the object that `compare -o json` prints."""
        prices = [price.row() for price in self.prices]
        return {
            "rows": list(self.rows),
            "frontier": list(self.frontier),
            "prices": prices,
            "oracles": list(self.oracles),
        }


def swept(results: Sequence[Result]) -> list[SweptRun]:
    """Return what the frontier needs of the runs."""
    return [
        SweptRun(r.trace, r.seed, r.entry, ENTRIES[r.entry].knob.name, r.value, r.tally)
        for r in results
        if isinstance(r, Run)
    ]


def summed_up(
    results: Sequence[Result],
    names: Sequence[str],
    asked: Sequence[float],
    draws: int,
    why_stopped: str | None,
) -> Comparison:
    """Return what was played, policies in the order of `names`.

    Parameters
    ----------
    results
        Runs and foresights.
    names
        Entries.
    asked
        Attainments at which prices are read.
    draws
        Resampled traces for their intervals.
    why_stopped
        What ended it early, if anything did.
    """
    order = {name: index for index, name in enumerate(names)}
    runs = [r for r in results if isinstance(r, Run)]
    runs.sort(key=lambda r: (r.trace, order[r.entry], r.value, r.seed))
    foresights = {(r.trace, r.seed): r for r in results if isinstance(r, Foresight)}
    frontier = [_with_oracle(r.row, r.supply, foresights.get((r.trace, r.seed))) for r in runs]
    shipped = [r.value == ENTRIES[r.entry].knob.shipped for r in runs]
    rows = [row for row, is_shipped in zip(frontier, shipped, strict=True) if is_shipped]
    fixed = _fixed_fleets(runs, foresights)
    return Comparison(
        rows=[*rows, *(row for row in fixed if row["knob"]["value"] == row["asked"])],
        frontier=[*frontier, *fixed],
        prices=_prices(swept(results), list(foresights.values()), asked, draws),
        oracles=[
            {"trace": f.trace, "seed": f.seed, **run.document()}
            for f in foresights.values()
            for run in f.runs
        ],
        why_stopped=why_stopped,
    )


def _prices(
    runs: Sequence[SweptRun], foresights: Sequence[Foresight], asked: Sequence[float], draws: int
) -> list[Price]:
    listed: list[Price] = []
    for trace, sweeps in sweeps_of(runs).items():
        known = [f for f in foresights if f.trace == trace]
        knobs = {name: ENTRIES[name].knob.name for name in sweeps}
        same, static = (
            {a: _mean_hours(known, name, a) for a in asked}
            for name in (OracleName.SAME_LAG, OracleName.BEST_STATIC)
        )
        listed += price_list(trace, sweeps, knobs, asked, same, static, draws)
    return listed


def _with_oracle(
    row: Mapping[str, Any], supply: Mapping[str, Steps], foresight: Foresight | None
) -> dict[str, Any]:
    """Return the row beside the oracles at the attainment that the SLA asks for."""
    if foresight is None:
        return dict(row)
    zero, same, static = (foresight.find(name, row["asked"]) for name in OracleName)
    return {
        **row,
        "oracle": {
            "zero_lag_gpu_hours": zero and zero.gpu_hours,
            "zero_lag_attainment": zero and zero.attainment,
            "same_lag_gpu_hours": same and same.gpu_hours,
            "same_lag_attainment": same and same.attainment,
        },
        "ratio_to_oracle": same and row["gpu_hours"] / same.gpu_hours,
        "best_static_gpu_hours": static and static.gpu_hours,
        "elasticity": _elasticity(supply, zero, static) if zero and supply else None,
    }


def _elasticity(
    supply: Mapping[str, Steps], need: OracleRun, static: OracleRun | None
) -> dict[str, Any]:
    """Return how each role's pool follows what the zero-lag oracle orders."""
    found: dict[str, Any] = {}
    for role in Role:
        steps, needed = supply[role], _counts(need, role)
        own = elasticity(needed, steps)
        fixed = static and elasticity(needed, _constant(static, role, steps))
        found[role] = {**asdict(own), "speed_up_over_static": fixed and speed_up(own, fixed)}
    return found


def _counts(run: OracleRun, role: Role) -> tuple[int, ...]:
    return run.prefill if role is Role.PREFILL else run.decode


def _constant(fixed: OracleRun, role: Role, like: Steps) -> Steps:
    """Return a fixed fleet's supply over the window of another."""
    replicas = _counts(fixed, role)[0]
    return [(like[0][0], replicas), (like[-1][0], replicas)]


def _fixed_fleets(
    runs: Sequence[Run], foresights: Mapping[tuple[str, int], Foresight]
) -> list[dict[str, Any]]:
    """Return the best fixed fleets as rows; each stands for the attainment it was sought for."""
    like = {(run.trace, run.seed): run for run in runs}
    return [
        _with_oracle(_fixed_fleet(other.row, run), _fixed_supply(other, run), foresights[key])
        for key, other in like.items()
        if key in foresights
        for run in foresights[key].runs
        if run.oracle is OracleName.BEST_STATIC
    ]


def _fixed_supply(like: Run, fixed: OracleRun) -> dict[str, Steps]:
    return {role: _constant(fixed, Role(role), steps) for role, steps in like.supply.items()}


def _fixed_fleet(like: Mapping[str, Any], run: OracleRun) -> dict[str, Any]:
    """Return a fixed fleet's figures in the shape of another row of the same trace and seed."""
    return {
        **dict.fromkeys(like),
        **{key: like[key] for key in ("trace", "seed", "requests", "asked", "simulated_s")},
        "policy": STATIC_BEST,
        "attainment": {
            "both": run.attainment,
            "ttft": run.ttft_attainment,
            "itl": run.itl_attainment,
            "worst_5min": run.worst_5min,
        },
        "gpu_hours": run.gpu_hours,
        "scale_actions": 0,
        "reversals": 0,
        "tick_ms": {"p50": None, "p99": None},
        "knob": {"name": "attainment", "value": run.asked},
    }


def _mean_hours(known: Sequence[Foresight], name: OracleName, asked: float) -> float | None:
    """Return an oracle's mean GPU-hours over the seeds; None unless it attains on all."""
    runs = [foresight.find(name, asked) for foresight in known]
    hours = [run.gpu_hours for run in runs if run is not None]
    return fmean(hours) if hours and len(hours) == len(runs) else None
