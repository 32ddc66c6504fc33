"""Where a service that does not run yet belongs, and the manifests that put it there. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from planner.check.finding import Finding, ok, warning
from planner.check.rules import Rule
from planner.inventory import Inventory, Network, Node, Operator, PodShape, Requirement
from planner.model import Pool, Service
from planner.topology.capacity import Stock
from planner.topology.choice import Candidate, rank_domains
from planner.topology.placement import Placement, placement
from planner.topology.survey import PROMPT_TOKENS
from planner.topology.tree import Tree, build_tree

_GPU: Final = "nvidia.com/gpu"


def guessed_shape(pool: Pool, nodes: Sequence[Node]) -> PodShape:
    """Return what a pod of a pool asks of a node as far as the spec tells: GPUs of its type.

    A node is of the type if a label about GPUs names it, such as ``gpu-type: h100`` or
    ``nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3``; where none does, every node counts.
    """
    kind = pool.gpu_type.lower()
    values: dict[str, set[str]] = {}
    for node in nodes:
        for key, value in node.labels.items():
            if "gpu" in key and kind in value.lower():
                values.setdefault(key, set()).add(value)
    requests = {_GPU: pool.gpus_per_replica / pool.pods_per_replica}
    if not values:
        return PodShape(requests)
    key = min(values)
    rule = Requirement(key, Operator.IN, tuple(sorted(values[key])))
    return PodShape(requests, any_of=((rule,),))


def absent_findings(
    service: Service, wanted: Mapping[str, int], inventory: Inventory, network: Network
) -> Iterator[Finding]:
    """Yield where a service belongs none of whose scale targets exists yet; see below."""
    stock = Stock(inventory)
    tree = build_tree(inventory.hypernodes, inventory.nodes)
    return placing_findings(service, wanted, {}, stock, tree, network, PROMPT_TOKENS)


def placing_findings(
    service: Service,
    wanted: Mapping[str, int],
    shapes: Mapping[str, PodShape],
    stock: Stock,
    tree: Tree,
    network: Network,
    prompt_tokens: float,
) -> Iterator[Finding]:
    """Yield which network domain suits a service of which no pod has a node.

    Parameters
    ----------
    service
        What is to be placed.
    wanted
        Replicas by pool name; a pool that is absent counts its maxReplicas.
    shapes
        What one pod asks of a node, by pool name; one that is absent is guessed.
    stock, tree, network
        The nodes, the domains, and what links between them give.
    prompt_tokens
        Mean prompt length, to price paths with [tokens].

    Yields
    ------
    Finding
        None in a cluster without HyperNodes.
    """
    if len(tree.domains) == 1:
        return
    plan = {pool.name: wanted.get(pool.name, pool.max_replicas) for pool in service.pools}
    asked = {
        pool.name: shapes.get(pool.name) or guessed_shape(pool, stock.nodes)
        for pool in service.pools
    }
    ranked = rank_domains(service, plan, asked, stock, tree, network, prompt_tokens)
    shown = ", ".join(f"{name} {count}" for name, count in plan.items())
    if not ranked or not ranked[0].fits:
        yield _nowhere(ranked, shown)
        return
    best, *others = ranked
    known = "" if network.links else " (every path alike without PD_PLANNER_NETWORK__LINKS)"
    put = placement(best.domain, stock, tree)
    yield from _best(best, others, shown, put, f"{prompt_tokens:.0f} tokens{known}")


def _nowhere(ranked: Sequence[Candidate], plan: str) -> Finding:
    reasons = "; ".join(one.why_not for one in ranked[:3]) or "there is no HyperNode of the tier"
    return warning(
        "placement",
        f"no network domain holds {plan}: {reasons}",
        "lower maxReplicas, raise topology.highestTierAllowed, or free nodes",
        Rule.PLACEMENT,
    )


def _best(
    best: Candidate, others: list[Candidate], plan: str, put: Placement, prompt: str
) -> Iterator[Finding]:
    what = (
        f"no pod has a node yet; {best.domain} (tier {best.tier}) holds {plan} and leaves "
        f"{best.spare_gpus:g} GPUs; the KV cache of {prompt} moves in {_ms(best)}"
    )
    second = next((one for one in others if one.fits), None)
    if second is not None:
        what += f"; next {second.domain} (tier {second.tier}), {_ms(second)}"
    fragments = _fragments(put)
    if put.notes:
        mend = f"{fragments}; {put.notes[0]}" if fragments else put.notes[0]
        yield warning("placement", what, mend, Rule.PLACEMENT)
    else:
        yield ok("placement", f"{what}; to put it there: {fragments}", Rule.PLACEMENT)


def _ms(candidate: Candidate) -> str:
    return f"{1e3 * candidate.transfer_s:.1f} ms"


def _fragments(put: Placement) -> str:
    # JSON is YAML: each part can be pasted into a manifest as it is.
    parts = []
    if put.network_topology:
        parts.append(f"spec.networkTopology: {json.dumps(put.network_topology)}")
    if put.node_affinity:
        parts.append(
            f"spec.tasks[*].template.spec.affinity.nodeAffinity: {json.dumps(put.node_affinity)}"
        )
    return ", ".join(parts)
