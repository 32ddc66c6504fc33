"""From two snapshots of the plant to what an autoscaler sees of the interval between. Pure."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.model import Role
from planner.simulation import kernel
from planner.simulation.policies.base import RoleView, View
from planner.simulation.snapshot import Snapshot

CENTRAL = {Role.PREFILL: kernel.PREFILL, Role.DECODE: kernel.DECODE}


def see(
    before: Snapshot,
    now: Snapshot,
    pools: Mapping[Role, int],
    ordered: Mapping[Role, int],
    last: View | None,
    at_s: float,
) -> View | None:
    """Return the interval as counters show it; None until prompts and outputs have finished.

    Parameters
    ----------
    before, now
        Scrapes at the two ends.
    pools
        Index of each role's pool in the plant.
    ordered
        Replicas asked for, by role.
    last
        The view before, whose lengths stand in where no request finished.
    at_s
        Time of the decision [s].

    Notes
    -----
    Counters are differenced by pod: a new pod counts in full, what a pod did between its last
    scrape and its end is lost, as it is to Prometheus.
    """
    old = {role: _pods(before, index) for role, index in pools.items()}
    new = {role: _pods(now, index) for role, index in pools.items()}
    prompts = _gain(old[Role.PREFILL], new[Role.PREFILL], "finished")
    outputs = _gain(old[Role.DECODE], new[Role.DECODE], "finished")
    gaps = _gain(old[Role.DECODE], new[Role.DECODE], "service_count")
    isl = _mean(old[Role.PREFILL], new[Role.PREFILL], "length_sum", prompts)
    osl = _mean(old[Role.DECODE], new[Role.DECODE], "length_sum", outputs)
    if last is not None:
        isl, osl = isl or last.isl_tokens, osl or last.osl_tokens
    if not isl or not osl:
        return None
    span_s = now.at_s - before.at_s
    more = _inside(now, pools[Role.PREFILL]) - _inside(before, pools[Role.PREFILL])
    return View(
        at_s=at_s,
        span_s=span_s,
        requests=max(prompts + more, 0.0),
        isl_tokens=isl,
        osl_tokens=osl,
        ttft_s=_mean(old[Role.PREFILL], new[Role.PREFILL], "latency_sum", prompts),
        itl_s=_mean(old[Role.DECODE], new[Role.DECODE], "service_sum", gaps),
        roles={
            role: _role(old[role], new[role], now, role, pools[role], ordered[role], span_s)
            for role in Role
        },
    )


def _role(
    old: NDArray[Any],
    new: NDArray[Any],
    now: Snapshot,
    role: Role,
    pool: int,
    ordered: int,
    span_s: float,
) -> RoleView:
    return RoleView(
        ordered=ordered,
        ready=int((new["state"] == kernel.READY).sum()),
        running=_running(new, role),
        waiting=_waiting(now, pool, role),
        kv_ratio=_kv_ratio(now, new, pool, role),
        work_tps=_gain(old, new, "work_tokens") / span_s,
    )


def _pods(snapshot: Snapshot, pool: int) -> NDArray[Any]:
    pods: NDArray[Any] = snapshot.replicas[snapshot.replicas["pool"] == pool]
    return pods


def _gain(old: NDArray[Any], new: NDArray[Any], counter: str) -> float:
    stayed = np.isin(old["ordinal"], new["ordinal"])
    return float(new[counter].sum() - old[counter][stayed].sum())


def _mean(old: NDArray[Any], new: NDArray[Any], counter: str, count: float) -> float | None:
    return _gain(old, new, counter) / count if count > 0.0 else None


def _running(pods: NDArray[Any], role: Role) -> float:
    if role is Role.PREFILL:
        return float((pods["running"] != kernel.NOBODY).sum())
    return float((pods["active"] + pods["pending"]).sum())


def _waiting(snapshot: Snapshot, pool: int, role: Role) -> float:
    """Return the requests in the pods' queues, the role's central one included."""
    own = snapshot.own_waiting[snapshot.replicas["pool"] == pool].sum()
    return float(own + snapshot.central_waiting[CENTRAL[role]])


def _inside(snapshot: Snapshot, pool: int) -> float:
    running = _running(_pods(snapshot, pool), Role.PREFILL)
    return running + _waiting(snapshot, pool, Role.PREFILL)


def _kv_ratio(snapshot: Snapshot, pods: NDArray[Any], pool: int, role: Role) -> float:
    """Return the KV tokens of the ready pods over what they hold.

    Tokens of the running segment are left out: a segment ends with every arrival.
    """
    ready = pods[pods["state"] == kernel.READY]
    if role is Role.PREFILL or not ready.size:
        return 0.0
    capacity = snapshot.config.pools[pool].kv_capacity_tokens
    in_use = (ready["context_tokens"] + ready["pending_tokens"]).sum()
    return float(in_use / (capacity * ready.size))
