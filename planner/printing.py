"""What commands print on stdout: tables as wide as the terminal, JSON, YAML."""

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from planner.model import ServiceKey
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


def print_recommendations(
    records: Sequence[TickRecord],
    output: str,
    placements: Mapping[ServiceKey, str] = MappingProxyType({}),
) -> None:
    """Print one round of recommendations as `table`, `json` or `yaml`.

    Parameters
    ----------
    records
        One a service.
    output
        The form.
    placements
        Where services belong of which nothing runs yet.
    """
    from planner.view.tables import recommendation_json, recommendation_table

    if output == "table":
        print_table(recommendation_table(records))
        for key, where in placements.items():
            print(f"{key}: {where}", flush=True)  # noqa: T201
        return
    rows = recommendation_json(records)
    for row, record in zip(rows, records, strict=True):
        if record.service in placements:
            row["placement"] = placements[record.service]
    if output == "json":
        print_json(rows)
        return
    import yaml

    print(yaml.safe_dump(rows, sort_keys=False, explicit_start=True), end="", flush=True)  # noqa: T201
