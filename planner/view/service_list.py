"""All services at a glance: as a page and as JSON values. Pure."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from planner.model import Attainment, PoolDecision, Service, ServiceKey
from planner.record import TickRecord
from planner.view.notation import UNKNOWN, share_between
from planner.view.service_shell import promise, shell, time_tag
from planner.view.service_standing import Standing, standing

Row = tuple[Service, TickRecord | None]


def service_rows(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return a service each as plain JSON values: what is asked, and the last tick in short."""
    return [_json_row(service, record) for service, record in rows]


def _json_row(service: Service, record: TickRecord | None) -> dict[str, Any]:
    decision = record.decision if record else None
    return {
        "namespace": service.key.namespace,
        "name": service.key.name,
        "mode": service.mode.value,
        "interval_s": service.interval_s,
        "standing": standing(service, record).word,
        "at_s": decision.at_s if decision else None,
        "sentence": record.sentence if record else None,
        "hold": decision.hold.reason.code if decision and decision.hold else None,
        "error": record.error if record else None,
        "pools": [
            {"name": pool.name, "role": pool.role.value, **_replicas(decided)}
            for pool in service.pools
            for decided in [decision.pools.get(pool.name) if decision else None]
        ],
    }


def _replicas(pool: PoolDecision | None) -> dict[str, int | None]:
    names = ("recommended", "desired", "current", "ready")
    return {name: getattr(pool, name) if pool else None for name in names}


def list_page(rows: Sequence[Row]) -> str:
    """Return the page of all services, those that need somebody first."""
    judged = [(standing(service, record), service, record) for service, record in rows]
    judged.sort(key=lambda row: (row[0].rank, row[1].key))
    interval_s = min((service.interval_s for service, _ in rows), default=60.0)
    return shell("pd-planner", "", interval_s, _body(judged))


def _body(judged: Sequence[tuple[Standing, Service, TickRecord | None]]) -> str:
    count = len(judged)
    worried = sum(1 for state, _, _ in judged if state.kind == "missed")
    told = f"{count:,} service{'s' * (count != 1)}"
    told += f", {worried:,} of them in trouble" if worried else ", none in trouble" * (count > 0)
    if not judged:
        told = "No service is followed yet: apply a PDAutoscaler, or give one with --file."
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    return (
        f'<header><h1>Services</h1><p class="verdict {"missed" if worried else "met"}">{told}</p>'
        '</header><main><section class="panel">'
        '<div class="filters" hidden><input id="words" type="search" placeholder="Search services" '
        'aria-label="Search services"><output id="count"></output></div>'
        f'<table class="stacked services"><thead><tr>{head}</tr></thead><tbody id="rows">'
        + "".join(_html_row(*row) for row in judged)
        + "</tbody></table></section></main>"
    )


COLUMNS = ("Service", "Standing", "Ready → desired", "TTFT on target", "ITL on target", "Decided")


def _html_row(state: Standing, service: Service, record: TickRecord | None) -> str:
    key, decision = service.key, record.decision if record else None
    seen = decision.observation if decision else None
    pools = decision.pools if decision else {}
    pools_told = ", ".join(f"{escape(name)} {_change(pool)}" for name, pool in pools.items())
    cells = (
        f'<a href="{_link(key)}">{escape(key.name)}</a> <span>{escape(key.namespace)}</span>',
        f'<b class="badge {state.kind}">{escape(state.word)}</b>',
        f"<div>{pools_told or UNKNOWN}</div>",
        _share(seen.ttft if seen else None),
        _share(seen.itl if seen else None),
        time_tag(decision.at_s) if decision else UNKNOWN,
    )
    told = "".join(
        f'<td data-label="{label}">{cell}</td>' for label, cell in zip(COLUMNS, cells, strict=True)
    )
    return f'<tr title="{escape(promise(service))}">{told}</tr>'


def _link(key: ServiceKey) -> str:
    return f"services/{quote(key.namespace, safe='')}/{quote(key.name, safe='')}"


def _change(pool: PoolDecision) -> str:
    if pool.ready == pool.desired:
        return f"{pool.ready}"
    return f"{pool.ready} → <b>{pool.desired}</b>"


def _share(seen: Attainment | None) -> str:
    return share_between(seen.lower, seen.upper) if seen else UNKNOWN
