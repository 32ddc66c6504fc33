"""Which domain a service that is not placed yet belongs in, and what puts and keeps it there. Pure.

A farther domain needs a longer KV path: domains are compared by the whole plan, not by GPU count.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from planner.inventory import Network, PodShape
from planner.model import Pool, Role, Service, Transfer
from planner.topology.capacity import Stock, gpu_of, spoken
from planner.topology.domains import breaking_fault
from planner.topology.labels import Mask
from planner.topology.ledger import Ledger
from planner.topology.survey import PROMPT_TOKENS
from planner.topology.transfer import kv_bytes_per_token, paths_between
from planner.topology.tree import ROOT, Domain, Tree


@dataclass(frozen=True, slots=True)
class Candidate:
    """A domain for the whole plan.

    Attributes
    ----------
    domain, tier
        Which; the root is the whole cluster.
    price_per_hour
        Of the plan there.
    transfer
        How KV caches would move, with the pods spread over where they fit.
    transfer_s
        What that takes for a mean prompt [s].
    spare_gpus
        GPUs left over for the plan's pods; inf where it does not fit.
    why_not
        What is missing, empty where the plan fits.
    """

    domain: str
    tier: int
    price_per_hour: float
    transfer: Transfer
    transfer_s: float
    spare_gpus: float
    why_not: str = ""

    @property
    def fits(self) -> bool:
        """Whether the whole plan fits."""
        return not self.why_not


def rank_domains(
    service: Service,
    replicas: Mapping[str, int],
    shapes: Mapping[str, PodShape],
    stock: Stock,
    tree: Tree,
    network: Network,
    prompt_tokens: float = PROMPT_TOKENS,
) -> tuple[Candidate, ...]:
    """Return the domains for a plan, the best first, then those where it does not fit.

    Parameters
    ----------
    service
        Its pools, prices, and the highest tier it may spread over.
    replicas, shapes
        The plan, and what one pod of each pool asks of a node, by pool name.
    stock, tree, network
        What is free and how it is linked.
    prompt_tokens
        Mean prompt length [tokens].

    Notes
    -----
    In order of price, KV transfer and fewest GPUs left over (so that wide gaps stay for wide
    services); equals: the lower tier, then by name.
    """
    wish = _Wish(service, replicas, shapes, stock)
    found = [
        _candidate(wish, tree, network, domain, prompt_tokens)
        for domain in _eligible(service, tree)
    ]
    ranked = sorted(
        found,
        key=lambda c: (
            not c.fits, c.price_per_hour, c.transfer_s, c.spare_gpus, c.tier, c.domain
        ),
    )  # fmt: skip
    return tuple(ranked)


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is to be placed, and the nodes for it."""

    service: Service
    replicas: Mapping[str, int]
    shapes: Mapping[str, PodShape]
    stock: Stock

    def pools(self, role: Role | None = None) -> list[tuple[Pool, PodShape, int]]:
        """Return the pools that take nodes, with the shape of a pod and the replicas wanted."""
        return [
            (pool, self.shapes[pool.name], self.replicas.get(pool.name, 0))
            for pool in self.service.pools
            if pool.name in self.shapes and role in {None, pool.role}
        ]


def _eligible(service: Service, tree: Tree) -> list[Domain]:
    """Return the domains within the service's tier; without one the whole cluster is one too."""
    highest = service.topology.highest_tier
    return [d for d in tree.domains.values() if highest is None or d.tier <= highest]


def _candidate(
    wish: _Wish, tree: Tree, network: Network, domain: Domain, prompt_tokens: float
) -> Candidate:
    """Return what one domain means for the plan."""
    service, why_not = wish.service, _why_not(wish, tree, domain)
    price = sum(p.price_per_replica * wish.replicas.get(p.name, 0) for p in service.pools)
    prefill, decode = (_spread(wish, role, domain) for role in (Role.PREFILL, Role.DECODE))
    labels = wish.stock.labels_of
    paths = paths_between(prefill, decode, tree, network, labels, service.transfer)
    transfer = service.transfer if paths is None else paths.transfer
    return Candidate(
        domain.name,
        domain.tier,
        price,
        transfer,
        transfer.time_s(prompt_tokens, kv_bytes_per_token(service)),
        float("inf") if why_not else _spare_gpus(wish, domain),
        why_not,
    )


def _why_not(wish: _Wish, tree: Tree, domain: Domain) -> str:
    """Return what the plan misses in a domain, empty if it fits; pools share the nodes."""
    fault = breaking_fault(tree)
    if fault is not None and domain.name != ROOT:
        return f"the HyperNode tree cannot be read: {fault.message}"
    ledger, within = Ledger(wish.stock), wish.stock.within(domain)
    # The pods that take most GPUs first: small ones fill the gaps that they leave.
    for pool, shape, wanted in sorted(wish.pools(), key=lambda entry: -_gpus(entry[1])):
        claim = ledger.claim(shape, within, wish.service.key.namespace)
        for placed in range(wanted):
            outcome = ledger.place(claim, pool.pods_per_replica)
            if isinstance(outcome, str):
                what = spoken(domain.name) if outcome == "nodes" else outcome
                return f"{what} has room for {placed} of {wanted} replicas of pool {pool.name}"
    return ""


def _spread(wish: _Wish, role: Role, domain: Domain) -> dict[str, float]:
    """Return a role's pods over the domain's nodes, in proportion to where they fit."""
    spread: dict[str, float] = {}
    for _, shape, wanted in wish.pools(role):
        cells = wish.stock.cells(shape) * wish.stock.within(domain)
        for place in cells.nonzero()[0]:
            node = wish.stock.names[int(place)]
            weight = wanted * float(cells[place]) / float(cells.sum())
            spread[node] = spread.get(node, 0.0) + weight
    return spread


def _spare_gpus(wish: _Wish, domain: Domain) -> float:
    """Return the GPUs on nodes that admit the plan's pods, less what the plan takes."""
    stock, spare = wish.stock, 0.0
    usable: dict[str, Mask] = {}
    for pool, shape, wanted in wish.pools():
        gpu = gpu_of(shape)
        if gpu is not None:
            matching = stock.admitting(shape) & stock.within(domain)
            usable[gpu] = usable.get(gpu, matching) | matching
            spare -= wanted * pool.pods_per_replica * shape.requests[gpu]
    return spare + sum(
        float(np.maximum(stock.free(gpu)[mask], 0.0).sum()) for gpu, mask in usable.items()
    )


def _gpus(shape: PodShape) -> float:
    """Return the GPUs of one pod."""
    gpu = gpu_of(shape)
    return 0.0 if gpu is None else shape.requests[gpu]
