"""Prefill: the share of prompts whose wait plus service leaves the TTFT target. Pure."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from planner.model import Factor, Load, Pool, Service
from planner.sizing.queueing import OVERLOAD_SCORE, Floats, wait_tail

# Slack of prompts that are promised nothing: long enough never to fail [s].
NO_TARGET_S = 1e9
# Decode steps that the handover may take beyond the transfer: waiting for the running step, the
# first step itself, and one for the router.
MOST_STEPS = 3.0


@dataclass(frozen=True)
class PrefillLoad:
    """What one prefill pool must serve, in units of that pool's replicas.

    Attributes
    ----------
    arrivals_rps
        Requests/s.
    service_s, weights
        Prefill time of each prompt-length class [s], correction applied, and its share, (b,).
    slack_s
        Waiting each class can afford: TTFT target − service − handover [s], (b,).
    scales_s, dispersion
        Index of dispersion for counts of the arrivals by time scale [s].
    backlog_work_s
        Queued work to be worked off within `drain_s` besides the load [s].
    """

    arrivals_rps: float
    service_s: Floats
    weights: Floats
    slack_s: Floats
    scales_s: tuple[float, ...]
    dispersion: tuple[float, ...]
    backlog_work_s: float = 0.0
    drain_s: float = 60.0

    @cached_property
    def service_mean_s(self) -> float:
        """E[S] [s]."""
        return float(np.dot(self.weights, self.service_s))

    @cached_property
    def service_cv2(self) -> float:
        """Squared coefficient of variation of S."""
        second = float(np.dot(self.weights, self.service_s**2))
        return max(second / self.service_mean_s**2 - 1.0, 0.0)

    @property
    def arriving(self) -> float:
        """Work that arrives [replicas]."""
        return self.arrivals_rps * self.service_mean_s

    @property
    def standing(self) -> float:
        """Work of the backlog while it drains [replicas]."""
        return self.backlog_work_s / self.drain_s

    @property
    def offered(self) -> float:
        """Offered work A [replicas], the backlog's drain included."""
        return self.arriving + self.standing

    @property
    def infeasible_share(self) -> float:
        """Share of prompts that miss the target even without waiting."""
        return float(np.sum(self.weights[self.slack_s < 0.0]))

    def best_ttft_s(self, target_s: float, failure_budget: float) -> float:
        """Return the TTFT [s] that all but `failure_budget` of the prompts reach unqueued."""
        unqueued_s = target_s - self.slack_s
        order = np.argsort(unqueued_s)
        covered = np.cumsum(self.weights[order])
        index = min(int(np.searchsorted(covered, 1.0 - failure_budget - 1e-9)), order.size - 1)
        return float(unqueued_s[order[index]])


def failure_shares(load: PrefillLoad, replicas: Floats) -> Floats:
    """Return the share of feasible prompts that miss the TTFT target, shape (c,).

    As `failure_table`, at the load itself.
    """
    (shares,) = failure_table(load, np.ones(1), replicas)
    return np.asarray(shares)


def failure_table(load: PrefillLoad, multiples: Floats, replicas: Floats) -> Floats:
    """Return the share of feasible prompts that miss the TTFT target, shape (m, c).

    Parameters
    ----------
    load
        What the pool must serve.
    multiples
        Of the arrivals, not of the backlog, shape (m,).
    replicas
        Numbers of replicas c ≥ 0, ascending, shape (c,).

    Notes
    -----
    A prompt of class b passes with P(W ≤ slack_b); classes that can't pass at any c are left
    out (`infeasible_share` counts them once). Falls strictly in c: what the tail formula leaves
    flat at 1 is ordered by the share a shedding queue could serve.
    """
    offered = (load.arriving * multiples + load.standing)[:, None]
    feasible = load.slack_s >= 0.0
    if not feasible.any():
        return np.where((replicas > 0.0) | (offered <= 0.0), 0.0, 1.0)
    weights = load.weights[feasible] / np.sum(load.weights)
    able = float(np.sum(weights))
    is_stable = (replicas > offered) & (offered > 0.0)
    row, column = np.nonzero(is_stable)
    tail = wait_tail(
        replicas[column],
        offered[row, 0],
        load.slack_s[feasible],
        load.service_mean_s,
        load.service_cv2,
        load.scales_s,
        load.dispersion,
    )
    served = OVERLOAD_SCORE * able * np.minimum(replicas / np.maximum(offered, 1e-12), 1.0)
    served[is_stable] = np.maximum(served[is_stable], (1.0 - tail) @ weights)
    failing = np.where(offered > 0.0, able - served, 0.0)
    # The interpolated dispersion may bend the tail upwards by a hair between neighbours.
    return np.minimum.accumulate(np.maximum(failing, 0.0), axis=1)


def prefill_load(
    pool: Pool,
    service: Service,
    load: Load,
    factor: Factor,
    prompt_tps: float,
    target_s: float,
    drain_s: float,
) -> PrefillLoad:
    """Return what a role's pools must serve, as if all were like `pool`.

    Parameters
    ----------
    pool
        A prefill pool; its profile, corrected by `factor`, gives the service times.
    service, load
        The SLA and the transfer; lengths, dispersion, backlog and handover.
    factor
        Correction of the pool's profile.
    prompt_tps
        Uncached prompt tokens/s to size for.
    target_s
        TTFT target [s].
    drain_s
        Time in which the queue that is there now has to be gone [s].
    """
    assert pool.prefill is not None
    isl = np.array(load.lengths.isl_tokens)
    weights = np.array(load.lengths.isl_weights)
    computed = isl * load.uncached_ratio
    service_s = pool.prefill.service_s(computed) * factor.at(0.0)
    rate_rps = prompt_tps / max(float(computed @ weights), 1.0)
    slack_s = target_s - service_s - _handover_s(service, load, pool, isl, weights)
    if service.sla.max_input_tokens is not None:
        slack_s = np.where(isl > service.sla.max_input_tokens, NO_TARGET_S, slack_s)
    mean_s = float(service_s @ weights)
    backlog = load.backlog_tokens / max(float(computed @ weights), 1.0) * mean_s
    return PrefillLoad(
        rate_rps, service_s, weights, slack_s, load.scales_s, load.dispersion, backlog, drain_s
    )


def _handover_s(
    service: Service, load: Load, pool: Pool, isl_tokens: Floats, weights: Floats
) -> Floats:
    """Return the time from the end of prefill to the first token at the client [s], (b,).

    The transfer grows with the prompt. What was measured beyond its mean (router, first decode
    step) is the same for all, and bounded: a decode pool that is too small makes prompts wait
    for admission, and more prefill would not help them.
    """
    per_token = pool.kv_bytes_per_token or 0.0
    transfer = service.transfer
    transfer_s = per_token * isl_tokens / transfer.bandwidth_bytes_per_s + transfer.latency_s
    measured, mean_s = load.handover_s, float(transfer_s @ weights)
    if measured is None:
        return transfer_s + _first_step_s(service, load)
    if mean_s <= 0.0:
        return transfer_s + min(measured, MOST_STEPS * service.sla.itl_s)
    rest_s = min(max(measured - mean_s, 0.0), MOST_STEPS * service.sla.itl_s)
    return transfer_s * min(measured / mean_s, 1.0) + rest_s


def _first_step_s(service: Service, load: Load) -> float:
    """Return the profiled time of one decode step of a sequence alone [s], the fastest pool's."""
    context = load.lengths.context_tokens
    decodes = (pool.decode for pool in service.pools if pool.decode is not None)
    return min(float(surface.itl_s(1.0, context)) for surface in decodes)
