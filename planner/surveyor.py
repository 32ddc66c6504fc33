"""What nodes and network mean for the fleets of services: room, domains, KV paths.

The tree of domains is built anew only when the network has changed. What can't be read is an answer
too: what runs has room, and nothing more is known.
"""

from dataclasses import dataclass, replace

from planner.errors import ClusterError
from planner.inventory import Inventory, Network
from planner.model import Fleet, Reason, Room, Service
from planner.ports import Cluster
from planner.topology.capacity import Stock
from planner.topology.survey import PROMPT_TOKENS, survey
from planner.topology.tree import Tree, build_tree, is_same_network


@dataclass(frozen=True, slots=True)
class Ground:
    """What all services of a tick stand on: nodes with what is free on them, and domains."""

    stock: Stock
    tree: Tree


class Surveyor:
    """Surveys a cluster.

    Parameters
    ----------
    cluster
        Whose nodes.
    network
        What is known of the paths between them.
    """

    def __init__(self, cluster: Cluster, network: Network) -> None:
        self._cluster, self._network = cluster, network
        self._charted: tuple[Inventory, Tree] | None = None

    def ground(self, now_s: float) -> Ground | ClusterError | None:
        """Return nodes and network at `now_s` [s, Unix]; the tree only anew when it changed."""
        inventory = self._cluster.inventory(now_s)
        if not isinstance(inventory, Inventory):
            return inventory
        if self._charted is None or not is_same_network(self._charted[0], inventory):
            self._charted = (inventory, build_tree(inventory.hypernodes, inventory.nodes))
        return Ground(Stock(inventory), self._charted[1])

    def surveyed(
        self,
        service: Service,
        fleet: Fleet | ClusterError,
        ground: Ground | ClusterError | None,
        prompt_tokens: float | None,
    ) -> Fleet | ClusterError:
        """Return the fleet with what the cluster's nodes and network mean for it.

        Parameters
        ----------
        service, fleet
            Whose pools they are, and the pools as they are.
        ground
            What `ground` returned.
        prompt_tokens
            Mean prompt, to price network paths with [tokens]; None: not known yet.
        """
        if isinstance(fleet, ClusterError) or ground is None:
            return fleet
        if isinstance(ground, ClusterError):
            return unread(service, fleet, ground)
        tokens = prompt_tokens or PROMPT_TOKENS
        found = survey(service, fleet, ground.stock, ground.tree, self._network, tokens)
        return replace(
            fleet,
            rooms=found.rooms,
            domains=found.domains,
            transfer=found.transfer,
            notes=found.notes,
        )


def unread(service: Service, fleet: Fleet, error: ClusterError) -> Fleet:
    """Return a fleet whose nodes could not be read: what runs has room, nothing more is known."""
    rooms = {
        p.name: Room(fleet.pools[p.name].replicas // p.pods_per_replica, why="nodes are not known")
        for p in service.pools
    }
    message = f"nodes and network can't be read, no scale-up: {error}"
    return replace(fleet, rooms=rooms, notes=(Reason("TopologyUnreadable", message),))
