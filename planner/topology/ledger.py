"""Who gets which node: pods are placed one after the other and what they take is gone. Pure.

A ledger is local to one call: it starts from a `Stock` and never changes it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from planner.inventory import PodShape
from planner.topology.capacity import ROUNDING, Cells, Demand, Stock, demand_of
from planner.topology.labels import Mask

# Where a queue or a quota stands in the ledger: what it is, and its name.
Account = tuple[str, str]


@dataclass(slots=True)
class Walk:
    """The nodes with room for a pod, fullest first, and the first that is not known to be full.

    Nodes only fill up, so `next` never goes back: all pods that ask alike cost one walk.
    """

    candidates: Sequence[int]
    next: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """What one pool's pods take, and where. Claims that ask alike may share a walk.

    Not so with one pod per node: there a node that the pool has used is no more for it alone.
    """

    demand: Demand
    walk: Walk
    accounts: tuple[Account, ...]
    one_per_node: bool


class Ledger:
    """What is left on the nodes, in the queues and in the quotas."""

    def __init__(self, stock: Stock) -> None:
        self._stock = stock
        self._free: dict[str, list[float]] = {}
        self._left: dict[Account, dict[str, float]] = {}

    def claim(
        self,
        shape: PodShape,
        within: Mask,
        namespace: str | None = None,
        occupied: Collection[str] = (),
    ) -> Claim:
        """Return where pods of a shape may go; a namespace counts them in its quotas."""
        cells = self._stock.cells(shape, occupied)
        return self.claim_on(Walk(candidates_of(cells, within)), shape, namespace)

    def claim_on(self, walk: Walk, shape: PodShape, namespace: str | None = None) -> Claim:
        """Return the claim of a shape whose nodes are known."""
        demand = demand_of(shape)
        for resource, _ in demand:
            if resource not in self._free:
                self._free[resource] = self._stock.free(resource).tolist()
        accounts = [*self._queue_account(shape), *self._quota_accounts(namespace)]
        return Claim(demand, walk, tuple(accounts), shape.one_per_node)

    def place(self, claim: Claim, pods: int) -> tuple[int, ...] | str:
        """Return the places of the nodes that take the pods, or what does not; then nothing goes.

        What does not: ``nodes``, ``queue NAME`` or ``quota NAME``.
        """
        short = self._short_account(claim, pods)
        if short is not None:
            kind, name = short
            return f"{kind} {name.rpartition('/')[2]}"
        taken: list[int] = []
        walk, start = claim.walk, claim.walk.next
        while len(taken) < pods and walk.next < len(walk.candidates):
            node = walk.candidates[walk.next]
            if self._fits(node, claim.demand):
                self._take(node, claim.demand, 1.0)
                taken.append(node)
                walk.next += claim.one_per_node
            else:
                walk.next += 1
        if len(taken) < pods:
            for node in taken:
                self._take(node, claim.demand, -1.0)
            walk.next = start
            return "nodes"
        self._charge(claim, pods)
        return tuple(taken)

    def _fits(self, node: int, demand: Demand) -> bool:
        """Return whether one more pod fits on a node."""
        return all(self._free[name][node] >= amount * (1.0 - ROUNDING) for name, amount in demand)

    def _take(self, node: int, demand: Demand, pods: float) -> None:
        """Take what pods ask for off a node."""
        for name, amount in demand:
            self._free[name][node] -= pods * amount

    def _short_account(self, claim: Claim, pods: int) -> Account | None:
        """Return the first account that does not hold so many more pods."""
        for account in claim.accounts:
            left = self._left[account]
            if any(left[n] < (pods - ROUNDING) * a for n, a in claim.demand if n in left):
                return account
        return None

    def _charge(self, claim: Claim, pods: int) -> None:
        """Take pods off the accounts."""
        for account in claim.accounts:
            left = self._left[account]
            for name, amount in claim.demand:
                if name in left:
                    left[name] -= pods * amount

    def _queue_account(self, shape: PodShape) -> list[Account]:
        """Return the account of a shape's queue, if the queue limits it."""
        queue = self._stock.queues.get(shape.queue or "")
        if queue is None or (queue.is_open and not queue.capability):
            return []
        account = ("queue", queue.name)
        if account not in self._left:
            self._left[account] = {
                name: most - queue.allocated.get(name, 0.0) if queue.is_open else 0.0
                for name, most in (queue.capability if queue.is_open else {"pods": 0.0}).items()
            }
        return [account]

    def _quota_accounts(self, namespace: str | None) -> list[Account]:
        """Return the accounts of a namespace's quotas."""
        accounts: list[Account] = []
        for quota in self._stock.inventory.quotas.get(namespace or "", ()):
            account = ("quota", f"{namespace}/{quota.name}")
            if account not in self._left:
                self._left[account] = {
                    name: most - quota.used.get(name, 0.0) for name, most in quota.hard.items()
                }
            accounts.append(account)
        return accounts


def candidates_of(cells: Cells, within: Mask) -> list[int]:
    """Return the nodes with room, fullest first, as a packing scheduler goes."""
    places = np.flatnonzero(within & (cells > 0))
    order = np.argsort(cells[places], kind="stable")
    found: list[int] = places[order].tolist()
    return found
