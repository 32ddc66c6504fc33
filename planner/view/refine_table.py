"""The factors that production showed of a profile, with what they rest on. Pure."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from planner.profiling.evidence import Evidence
from planner.profiling.refine import Bucket


def refine_table(title: str, found: Evidence, buckets: Sequence[Bucket]) -> Table:
    """Return one row a bucket."""
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, title_justify="left")
    for heading in (found.unit.capitalize(), "Factor", "±", "Intervals", "Requests"):
        table.add_column(heading, justify="right")
    table.add_column("Note")
    for bucket in buckets:
        table.add_row(
            f"{bucket.centre:,.0f}",
            f"{bucket.factor:.2f}",
            f"{bucket.spread:.2f}",
            f"{bucket.intervals:,.0f}",
            f"{bucket.requests:,.0f}",
            _note(bucket),
        )
    return table


def used_line(found: Evidence) -> str:
    """Return how many intervals were used and why others were not."""
    left_out = [f"{count:,} {why}" for why, count in found.left_out.items()]
    told = f"; left out: {', '.join(left_out)}" if left_out else ""
    return f"{len(found.ratios):,} intervals used{told}"


def _note(bucket: Bucket) -> str:
    if not bucket.is_known:
        return "leans on its neighbours"
    return "" if bucket.seen == bucket.factor else f"seen {bucket.seen:.2f}: bounded"
