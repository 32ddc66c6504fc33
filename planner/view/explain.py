"""One decision told in words and numbers, from the records of a file. Pure."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from planner.model import Attainment, Decision, Factor, Load, Observation, Plan, Sla
from planner.record import TickRecord
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
from planner.view.record_lines import RecordLine, pick, read_lines

WIDTH: Final = 80
LABEL: Final = 10
"""Width of the words at the left edge, before each part."""


def explain(lines: Iterable[str], at: str | None, name: str = "records") -> str:
    """Return what was seen, needed and decided at a time, and counts over the whole file.

    Parameters
    ----------
    lines
        JSON lines as `TickRecord.to_json` writes them.
    at
        Seconds since the start, HH:MM[:SS] or ISO 8601; the last tick not after it. None: the end.
    name
        Name of the file, for messages.

    Notes
    -----
    InputError comes from `read_lines` for a broken line, and from `pick` for a time not in it.
    """
    read = read_lines(lines, name)
    told = [line for picked in pick(read, at, name) for line in [*_decision(picked), ""]]
    return "\n".join([*told, *_overview(read)])


def _decision(line: RecordLine) -> list[str]:
    """Return the parts of one tick that its line knows."""
    record, decision = line.record, line.record.decision
    told = [f"{record.service} at {moment(decision.at_s)}", *_wrapped(record.sentence, ""), ""]
    if decision.observation is not None:
        told += _part("Seen", _seen(decision.observation, line.sla))
    if decision.factors is not None:
        told += _part("Profile", [_correction(n, f, n in decision.factors.frozen)
                                  for n, f in decision.factors.pools.items()])  # fmt: skip
    if decision.load is not None:
        told += _part("Coming", _coming(decision.load))
    if decision.plan is not None:
        told += _part("Needs", _needs(decision.plan, line.sla))
    return [
        *told,
        *_part("Decided", _decided(decision)),
        *_part("Because", _reasons(decision)),
        *_part("Order", [_order(record)]),
    ]


def _part(label: str, lines: Sequence[str]) -> list[str]:
    """Return lines beside their label, wrapped at the width of the page."""
    wrapped = [piece for line in lines for piece in _wrapped(line, " " * LABEL)]
    if not wrapped:
        return []
    return [f"{label:{LABEL}}{wrapped[0][LABEL:]}", *wrapped[1:]]


def _wrapped(text: str, indent: str) -> list[str]:
    if len(indent) + len(text) <= WIDTH:  # a table's row keeps its blanks
        return [indent + text]
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")


def _seen(seen: Observation, sla: Sla | None) -> list[str]:
    """Return demand, latencies against their targets, and how pools were busy."""
    traffic = f"{seen.arrivals_rps:,.1f} requests/s over {span(seen.span_s)}"
    lines = [
        f"{traffic}, {seen.finished:,.0f} finished; metrics {seen.age_s:.1f} s old",
        _latency("TTFT", seen.ttft_mean_s, seen.ttft, sla.ttft_s if sla else None),
        _latency("ITL", seen.itl_mean_s, seen.itl, sla.itl_s if sla else None),
    ]
    for name, pool in seen.pools.items():
        told = f"{name}: {pool.pods} pods, {pool.concurrency:.1f} running on each"
        told += f", {pool.waiting:.0f} waiting" if pool.waiting else ""
        lines.append(told + (", pods came or went" if pool.changed else ""))
    if seen.uncached_ratio < 1.0:
        lines.append(f"{share(seen.uncached_ratio)} of prompt tokens were not in a cache")
    return lines


def _latency(
    label: str, mean_s: float | None, seen: Attainment | None, target_s: float | None
) -> str:
    told = f"{label} {milliseconds(mean_s)} on average"
    told += f", {share_between(seen.lower, seen.upper)} on target" if seen else ""
    return told + (f" ({milliseconds(target_s)})" if target_s is not None else "")


def _correction(name: str, factor: Factor, frozen: bool) -> str:  # noqa: FBT001 - one caller
    """Return how far one pool is off its profile."""
    empty, full = ratio_to_profile(factor.at(0.0)), ratio_to_profile(factor.at(1.0))
    told = f"{name} takes {empty} the profiled time"
    told += f", {full} at a full batch" if full != empty else ""
    return told + (" (kept: its pods came or went)" if frozen else "")


def _coming(load: Load) -> list[str]:
    """Return the forecast by role, and the shape of requests."""
    lines = [_row("tokens/s", ("seen", "mean", "up to"))]
    for role, tokens in load.tokens.items():
        cells = (tokens.seen_tps, tokens.mean_tps, tokens.up_tps)
        lines.append(_row(role, [f"{tps:,.0f}" for tps in cells]))
    lengths = load.lengths
    if load.up_quantile is not None:
        lines.append(
            "mean and up to: when an order made now serves; up to: exceeded in "
            f"{share(1.0 - load.up_quantile)} of cases"
        )
    lines.append(
        f"prompts of {thousands(lengths.isl_mean_tokens)} tokens, outputs of "
        f"{thousands(lengths.osl_mean_tokens)} on average"
    )
    if load.backlog_tokens:
        lines.append(f"{thousands(load.backlog_tokens)} prompt tokens wait already")
    if any(tokens.fallback for tokens in load.tokens.values()):
        lines.append("the predictor failed: the last value and its margin stand in")
    return lines


def _needs(plan: Plan, sla: Sla | None) -> list[str]:
    """Return the replicas that the load needs, and the failures expected with them."""
    lines = [_row("replicas", ("wanted", "order", "keep"))]
    for name, pool in plan.pools.items():
        lines.append(_row(name, [str(n) for n in (pool.wanted, pool.up, pool.keep)]))
    if plan.failure_shares:
        total = sum(plan.failure_shares.values())
        each = ", ".join(f"{role} {small_share(s)}" for role, s in plan.failure_shares.items())
        told = f"expected to miss the SLA: {small_share(min(total, 1.0))} of requests ({each})"
        lines.append(told + (f" of {small_share(sla.failure_budget)} allowed" if sla else ""))
        is_free = all(pool.up >= pool.wanted for pool in plan.pools.values())
        if sla and is_free and plan.reachable and total > sla.failure_budget:
            lines.append(
                "the replicas that would serve the others in time, should they come, cost more "
                "than forecast.caution weighs them"
            )
    if not plan.reachable:
        best = f"TTFT {milliseconds(plan.best_ttft_s)}, ITL {milliseconds(plan.best_itl_s)}"
        lines.append(f"no number of replicas meets the SLA; the best there is: {best}")
    return lines


def _decided(decision: Decision) -> list[str]:
    """Return the replicas of every pool."""
    if not decision.pools:
        return ["nothing: the replicas that run are unknown"]
    lines = [_row("replicas", ("now", "ready", "planned", "desired", "lead"))]
    for name, pool in decision.pools.items():
        cells = [str(n) for n in (pool.current, pool.ready, pool.recommended, pool.desired)]
        lines.append(_row(name, [*cells, f"{pool.lead_s:.0f} s"]))
    return lines


def _reasons(decision: Decision) -> list[str]:
    """Return every reason with its numbers, the hold first."""
    hold = decision.hold
    reasons = [r for r in decision.reasons if hold is None or r != hold.reason]
    lines = [f"{hold.reason.code} (hold): {hold.reason.message}"] if hold else []
    if hold and hold.since_s is not None:
        lines.append(f"blind since {moment(hold.since_s)}")
    for reason in reasons:
        numbers = ", ".join(f"{key} {value:g}" for key, value in reason.values.items())
        lines.append(f"{reason.code}: {reason.message}" + (f" [{numbers}]" if numbers else ""))
    return lines or ["the plan could be followed as it is"]


def _order(record: TickRecord) -> str:
    patch = record.decision.patch
    if patch is None:
        changes = any(p.desired != p.current for p in record.decision.pools.values())
        return "not written: the mode is not Act" if changes else "none needed"
    asked = ", ".join(f"{name} to {replicas}" for name, replicas in patch.replicas.items())
    if record.applied:
        return f"written: {asked}"
    return f"refused: {asked}: {record.error or 'no answer'}"


def _overview(lines: Sequence[RecordLine]) -> list[str]:
    """Return how often what happened over the whole file."""
    decisions = [line.record.decision for line in lines]
    orders = sum(1 for line in lines if line.record.applied)
    checks = sum(1 for line in lines if line.record.is_check)
    first_s, last_s = min(d.at_s for d in decisions), max(d.at_s for d in decisions)
    ticks = f"{len(lines) - checks:,} ticks from {moment(first_s)} to {moment(last_s)}"
    ticks += f", {checks:,} orders asked for between them" if checks else ""
    holds = Counter(d.hold.reason.code for d in decisions if d.hold)
    # A hold is among its decision's reasons too and is counted once.
    caps = Counter(r.code for d in decisions for r in d.reasons
                   if d.hold is None or r != d.hold.reason)  # fmt: skip
    return [
        *_wrapped(f"The file: {ticks}, {orders:,} orders written", ""),
        *_counts("held", holds),
        *_counts("capped", caps),
    ]


def _counts(label: str, codes: Counter[str]) -> list[str]:
    told = ", ".join(f"{code} {n}" for code, n in sorted(codes.items(), key=lambda c: (-c[1], c)))
    return _wrapped(f"{label}: {told or UNKNOWN}", "  ")


def _row(label: str, cells: Sequence[str]) -> str:
    return f"{label:<12.12}" + "".join(f"{cell:>11}" for cell in cells)
