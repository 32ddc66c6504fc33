"""The page of one service that is running: asked, seen, decided, why, with pictures. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import groupby
from typing import Final

from planner.model import Attainment, Decision, Observation, Pool, PoolDecision, Service
from planner.record import TickRecord
from planner.view.decision_rows import DecisionRow, decision_rows
from planner.view.notation import (
    UNKNOWN,
    milliseconds,
    moment,
    ratio_to_profile,
    share,
    share_between,
    small_share,
    span,
    thousands,
)
from planner.view.series import FULL_BATCH
from planner.view.service_chart import clock
from planner.view.service_plots import charts
from planner.view.service_shell import MODES, asset, promise, shell, time_tag
from planner.view.service_standing import standing

__all__ = ["asset", "service_page"]

# Rows in the table of decisions; the API has all ticks that are kept.
ROWS_SHOWN: Final = 60

# A unit never stands alone on a line.
NARROW_MS: Final = "\N{NO-BREAK SPACE}ms"

POOL_COLUMNS: Final = (
    "Pool", "Ready", "Current", "Desired", "Recommended", "SLA needs", "Allowed", "Lead time",
    "Profile", "Domain",
)  # fmt: skip


def service_page(
    service: Service,
    records: Sequence[TickRecord],
    *,
    is_top: bool = True,
    is_alone: bool = True,
) -> str:
    """Return the page of one service.

    Parameters
    ----------
    service
        What is asked.
    records
        Its last ticks, oldest first.
    is_top
        Whether the page is the site's first one.
    is_alone
        Whether there is no list to go back to.
    """
    root = "" if is_top else "../../"
    last = records[-1] if records else None
    parts = [_header(service, last, "" if is_alone else root or "./"), "<main>"]
    if last is not None:
        parts += [
            _cards(service, last.decision),
            _pools(service, last.decision),
            _reasons(last),
            f'<div class="pictures">{"".join(c.html() for c in charts(service, records))}</div>',
            _decisions(records),
        ]
    parts.append("</main>")
    return shell(f"{service.key.name} · pd-planner", root, service.interval_s, "".join(parts))


def _header(service: Service, last: TickRecord | None, way_back: str) -> str:
    key, state = service.key, standing(service, last)
    back = f'<p class="trail"><a href="{way_back}">← All services</a></p>' if way_back else ""
    told = f"{escape(last.sentence)}." if last else "The first decision comes within an interval."
    when = f" Decided {time_tag(last.decision.at_s)}." if last else ""
    return (
        f"<header>{back}<h1>{escape(key.name)} <span>{escape(key.namespace)}</span></h1>"
        f"<p>Asked: {escape(promise(service))}.</p>"
        f'<p class="verdict {state.kind}"><b class="badge {state.kind}">{escape(state.word)}</b> '
        f"{told}</p>"
        f"<p>{MODES[service.mode]}; every {span(service.interval_s)}{_limits(service)}.{when}</p>"
        "</header>"
    )


def _limits(service: Service) -> str:
    limits = service.limits
    told = [f"{gpus:,} {escape(kind)} GPUs" for kind, gpus in limits.gpus.items()]
    if limits.cost_per_hour is not None:
        told.append(f"{limits.cost_per_hour:g} an hour")
    return f"; at most {', '.join(told)}" if told else ""


def _cards(service: Service, decision: Decision) -> str:
    seen, asked = decision.observation, service.sla.attainment_ratio
    gpus = sum(
        p.gpus_per_replica * decision.pools[p.name].ready
        for p in service.pools
        if p.name in decision.pools
    )
    cards = [
        _latency_card("TTFT on target", service.sla.ttft_s, asked,
                      *((seen.ttft, seen.ttft_mean_s) if seen else (None, None))),
        _latency_card("ITL on target", service.sla.itl_s, asked,
                      *((seen.itl, seen.itl_mean_s) if seen else (None, None))),
        _card("Requests", f"{thousands(seen.arrivals_rps)}/s" if seen else UNKNOWN,
              f"over {span(seen.span_s)}, metrics {span(seen.age_s)} old" if seen
              else "nothing usable was seen"),
        _card("Expected to fail", *_expected(service, decision)),
        _card("GPUs that serve", f"{gpus:,}" if decision.pools else UNKNOWN, _ordered(decision)),
    ]  # fmt: skip
    return f'<dl class="cards">{"".join(cards)}</dl>'


def _latency_card(
    label: str, target_s: float, asked: float, seen: Attainment | None, mean_s: float | None
) -> str:
    note = f"at most {milliseconds(target_s)}; on average {milliseconds(mean_s)}"
    if seen is None:
        return _card(label, UNKNOWN, note)
    kind = "met" if seen.lower >= asked else "missed" if seen.upper < asked else ""
    return _card(label, share_between(seen.lower, seen.upper), note, kind)


def _expected(service: Service, decision: Decision) -> tuple[str, str]:
    """Return the failing share that the plan expects, and what is allowed."""
    allowed = f"of {small_share(service.sla.failure_budget)} allowed, once ordered replicas serve"
    if decision.plan is None or not decision.plan.failure_shares:
        return UNKNOWN, allowed
    return small_share(min(sum(decision.plan.failure_shares.values()), 1.0)), allowed


def _ordered(decision: Decision) -> str:
    moves = [
        f"{name} {pool.current} → {pool.desired}"
        for name, pool in decision.pools.items()
        if pool.current != pool.desired
    ]
    return ", ".join(moves) or "no change asked for"


def _card(label: str, value: str, note: str, kind: str = "") -> str:
    return (
        f'<div class="card {kind}"><dt>{escape(label)}</dt><dd>{escape(value)}</dd>'
        f"<dd>{escape(note.replace(' ms', NARROW_MS))}</dd></div>"
    )


def _pools(service: Service, decision: Decision) -> str:
    head = "".join(f"<th>{name}</th>" for name in POOL_COLUMNS)
    rows = "".join(_pool_row(pool, decision) for pool in service.pools)
    return (
        '<section class="panel"><h2>Replicas</h2><table class="stacked numbers"><thead><tr>'
        f"{head}</tr></thead><tbody>{rows}</tbody></table></section>"
    )


def _pool_row(pool: Pool, decision: Decision) -> str:
    decided, plan, factors = decision.pools.get(pool.name), decision.plan, decision.factors
    wanted = plan.pools.get(pool.name) if plan else None
    cells = (
        f"<b>{escape(pool.name)}</b> <span>{escape(pool.gpu_type)}</span>",
        *_counts(decided),
        str(wanted.wanted) if wanted else UNKNOWN,
        f"{pool.min_replicas} to {pool.max_replicas}",
        span(decided.lead_s) if decided else UNKNOWN,
        ratio_to_profile(factors.of(pool.name).at(FULL_BATCH)) if factors else UNKNOWN,
        escape(decided.domain or UNKNOWN) if decided else UNKNOWN,
    )
    return f'<tr class="role-{pool.role}">{"".join(_labelled(POOL_COLUMNS, cells))}</tr>'


def _counts(decided: PoolDecision | None) -> tuple[str, str, str, str]:
    if decided is None:
        return (UNKNOWN,) * 4
    desired = str(decided.desired)
    if decided.desired != decided.current:
        desired = f"<b>{desired}</b>"
    return str(decided.ready), str(decided.current), desired, str(decided.recommended)


def _labelled(labels: Sequence[str], cells: Sequence[str]) -> Iterable[str]:
    pairs = zip(labels, cells, strict=True)
    return (f'<td data-label="{label}">{cell}</td>' for label, cell in pairs)


def _reasons(record: TickRecord) -> str:
    told = [(reason.code, reason.message) for reason in record.decision.reasons]
    if record.error is not None:
        told.insert(0, ("Refused", record.error))
    listed = "".join(f"<li><b>{escape(code)}</b> {escape(text)}</li>" for code, text in told)
    quiet = "<p>Nothing stands between what is needed and what is asked for.</p>"
    return (
        '<section class="panel"><h2>Why</h2>'
        f"{_seen(record.decision.observation)}{f'<ul>{listed}</ul>' if listed else quiet}</section>"
    )


def _seen(seen: Observation | None) -> str:
    if seen is None:
        return "<p>No usable metrics at this tick.</p>"
    pools = "; ".join(
        f"{escape(name)}: {pool.pods} pods, {pool.concurrency:.1f} running on each"
        + (f", {pool.waiting:.0f} waiting" if pool.waiting else "")
        for name, pool in seen.pools.items()
    )
    cached = f"; {share(1.0 - seen.uncached_ratio)} of prompt tokens from a cache"
    return f"<p>{pools}{cached if seen.uncached_ratio < 1.0 else ''}.</p>"


def _decisions(records: Sequence[TickRecord]) -> str:
    stretches = list(_stretches(decision_rows(records)[0]))[::-1]
    rows = "".join(map(_decision_row, stretches[:ROWS_SHOWN]))
    return (
        '<section class="panel"><h2>Decisions</h2><div class="scroll" tabindex="0" role="region" '
        'aria-label="Table of decisions"><table class="stacked decisions"><thead><tr><th>Time</th>'
        "<th>Kind</th><th>Decision</th><th>Reasons</th></tr></thead><tbody>"
        f"{rows}</tbody></table></div></section>"
    )


def _stretches(rows: Sequence[DecisionRow]) -> Iterator[list[DecisionRow]]:
    """Yield the decisions that follow each other and say the same.

    Yields
    ------
    list[DecisionRow]
        One or more of them.
    """

    def said(row: DecisionRow) -> tuple[str, str, tuple[str, ...]]:
        return row.kind, row.sentence, tuple(code for code, _ in row.reasons)

    for _, group in groupby(rows, said):
        yield list(group)


def _decision_row(stretch: Sequence[DecisionRow]) -> str:
    first, last = stretch[0], stretch[-1]
    times = clock(first.at_s)
    if len(stretch) > 1:
        times += f" to {clock(last.at_s)}, {len(stretch)} times"
    reasons = "".join(f"<li><b>{escape(c)}</b> {escape(text)}</li>" for c, text in last.reasons)
    return (
        f'<tr data-kind="{last.kind}"><td title="{moment(first.at_s)}">{times}</td>'
        f"<td>{last.kind}</td><td>{escape(last.sentence)}</td><td><ul>{reasons}</ul></td></tr>"
    )
