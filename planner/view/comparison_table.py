"""The tables of a comparison: as shipped, and GPU-hours at equal attainment. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from planner.model import Role
from planner.view.comparison_groups import Line, Row, lines_of
from planner.view.notation import UNKNOWN, share
from planner.view.summary import POLICY

ORACLES: Final = {
    "zero-lag": "O1, all known and no start-up",
    "same-lag": "O2, all known with the same start-up",
    "best-static": "O3, the best fixed fleet",
}
TROUBLES: Final = {
    "with-true-load": "the forecast",
    "with-true-profile": "the model",
    "without-lag": "the lag",
}
"""What each entry is spared that shows what a trouble costs."""

SHIPPED: Final = ("Policy", "Attained", "Worst 5 min", "GPU-h", "× O2", "Turns/h", "Tick p99")

CONTROL: Final = ("Policy", "Actions/h", "Turns/h", "Wasted starts/h", "Lapses/h",
                  "Longest lapse", "Peak in prefill")  # fmt: skip
FOLLOWING: Final = ("Policy", "Missing θU", "Too many θO", "Time short τU", "Time over τO",
                    "Unstable", "Jitter/h", "Speed-up over O3")  # fmt: skip


def comparison_tables(document: Mapping[str, Any]) -> Group:
    """Return the tables of every trace of the object that `compare -o json` prints."""
    parts: list[RenderableType] = []
    for trace, lines in lines_of(document).items():
        asked = attainments(lines)
        parts += [
            _table(f"{trace}: as shipped", SHIPPED, [shipped_cells(line) for line in lines]),
            _table(
                f"{trace}: GPU-hours at equal attainment",
                price_titles(asked),
                [price_cells(line, asked) for line in lines if line.prices],
            ),
            *(Text(told) for told in oracle_lines(document["oracles"], trace)),
            *(Text(told) for told in regret_lines(lines)),
        ]
    return Group(*parts)


def attainments(lines: Sequence[Line]) -> list[float]:
    """Return the attainments that prices are told at."""
    return sorted({attainment for line in lines for attainment in line.prices})


def shipped_cells(line: Line) -> list[str]:
    """Return one policy as shipped, under `SHIPPED`."""
    tick_ms = line.mean("tick_ms", "p99")
    return [
        line.policy,
        share(line.mean("attainment", "both")),
        share(line.lowest("attainment", "worst_5min")),
        number(line.mean("gpu_hours"), 1),
        number(line.mean("ratio_to_oracle"), 2),
        number(line.an_hour("reversals"), 1),
        UNKNOWN if tick_ms is None else f"{tick_ms:.1f} ms",
    ]


def control_cells(line: Line) -> list[str]:
    """Return how calmly one policy as shipped acts and how it recovers, under `CONTROL`."""
    longest_s = line.highest("recovery_s")
    return [
        line.policy,
        *(number(line.an_hour(key), 1)
          for key in ("scale_actions", "reversals", "wasted_starts", "lapses")),
        UNKNOWN if longest_s is None else f"{longest_s:.0f} s",
        number(line.highest("peak_queue"), 0),
    ]  # fmt: skip


def following_cells(line: Line, role: Role) -> list[str]:
    """Return how one policy's pool follows the need of the zero-lag oracle, under `FOLLOWING`."""
    shares = ("theta_u_pct", "theta_o_pct", "tau_u_pct", "tau_o_pct", "instability_pct")
    found = {
        key: line.mean("elasticity", role, key)
        for key in (*shares, "jitter_per_h", "speed_up_over_static")
    }
    return [
        line.policy,
        *(UNKNOWN if (value := found[key]) is None else f"{value:.1f}%" for key in shares),
        number(found["jitter_per_h"], 1),
        number(found["speed_up_over_static"], 2),
    ]


def price_titles(asked: Sequence[float]) -> list[str]:
    """Return the titles of the columns of `price_cells`."""
    return ["Policy", *(f"at {share(a)}" for a in asked), "× O2", "× O3", "95 % of draws"]


def price_cells(line: Line, asked: Sequence[float]) -> list[str]:
    """Return one policy's GPU-hours; ratios and interval are at the attainment asked by the SLA."""
    wanted = line.shipped[0]["asked"] if line.shipped else max(asked)
    at_wanted = line.prices.get(wanted, {})
    around = at_wanted.get("interval")
    return [
        line.policy,
        *(price(line.prices.get(attainment)) for attainment in asked),
        number(at_wanted.get("over_oracle"), 2),
        number(at_wanted.get("over_static"), 2),
        UNKNOWN if around is None else f"{around[0]:.1f}–{around[1]:.1f}",
    ]


def oracle_lines(oracles: Iterable[Row], trace: str) -> list[str]:
    """Return what the clairvoyant need, a line for each and each attainment, means over seeds."""
    found: dict[tuple[str, float], list[Row]] = {}
    for row in oracles:
        if row["trace"] == trace:
            found.setdefault((row["oracle"], row["asked"]), []).append(row)
    return [
        f"{ORACLES[oracle]} for {share(asked)}: {fmean(r['gpu_hours'] for r in rows):.1f} GPU-h, "
        f"attains {share(fmean(r['attainment'] for r in rows))}, worst 5 minutes "
        f"{share(min(r['worst_5min'] for r in rows))}"
        for (oracle, asked), rows in found.items()
    ]


def regret_lines(lines: Sequence[Line]) -> list[str]:
    """Return what each trouble costs the planner, a line for each attainment that it reaches.

    The difference to the planner that is spared that trouble alone: they need not add up.
    """
    hours = {
        (line.policy, asked): row["gpu_hours"]
        for line in lines
        for asked, row in line.prices.items()
        if not row["is_bound"]
    }
    told = []
    for asked in attainments(lines):
        own = hours.get((POLICY, asked))
        costs = [
            f"{trouble} {own - spared:+.1f}"
            for name, trouble in TROUBLES.items()
            if own is not None and (spared := hours.get((name, asked))) is not None
        ]
        if own is not None and costs:
            told.append(f"At {share(asked)} {POLICY} pays of its {own:.1f} GPU-h for: "
                        f"{', '.join(costs)}")  # fmt: skip
    return told


def price(row: Row | None) -> str:
    """Return GPU-hours; what no knob attains says the best it did.

    Examples
    --------
    >>> price({"gpu_hours": 80.0, "is_bound": True})
    '≤ 80.0'
    >>> price({"gpu_hours": None, "best_attainment": 0.912})
    'best 91.2%'
    """
    if row is None:
        return UNKNOWN
    if row["gpu_hours"] is None:
        return f"best {share(row['best_attainment'])}"
    return f"{'≤ ' if row['is_bound'] else ''}{row['gpu_hours']:.1f}"


def number(value: float | None, digits: int) -> str:
    """Return a number with so many digits after the point, or a dash."""
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def _table(title: str, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), title=title)
    table.title_justify = "left"
    for index, heading in enumerate(titles):
        table.add_column(heading, justify="left" if index == 0 else "right", no_wrap=True)
    for cells in rows:
        table.add_row(*cells)
    return table
