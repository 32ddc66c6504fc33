"""What commands print on stdout: tables as wide as the terminal, JSON, YAML."""

import json
from collections.abc import Sequence
from typing import Any

from planner.record import TickRecord


def print_table(table: Any) -> None:
    """Print a table as wide as the terminal is."""
    from rich.console import Console

    Console(highlight=False).print(table)


def print_json(value: Any) -> None:
    """Print plain values as JSON.

    Notes
    -----
    ValueError if a number is not finite: JSON has no word for it.
    """
    print(json.dumps(value, indent=2, allow_nan=False), flush=True)  # noqa: T201


def print_recommendations(records: Sequence[TickRecord], output: str) -> None:
    """Print one round of recommendations as `table`, `json` or `yaml`."""
    from planner.view.tables import recommendation_json, recommendation_table

    if output == "table":
        print_table(recommendation_table(records))
        return
    rows = recommendation_json(records)
    if output == "json":
        print_json(rows)
        return
    import yaml

    print(yaml.safe_dump(rows, sort_keys=False, explicit_start=True), end="", flush=True)  # noqa: T201
