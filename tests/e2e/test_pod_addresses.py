"""The pods that may be asked between two ticks, as a real API server lists them."""

from planner.adapters.kubernetes.api import KubernetesAccess
from planner.adapters.kubernetes.cluster import KubernetesCluster
from planner.adapters.probe import asked_of
from planner.model import Endpoint, Pool, Role, Service, ServiceKey, Sla, Target
from tests.cluster.control_plane import ControlPlane
from tests.cluster.rest import jobs
from tests.cluster.topologies import eight_nodes
from tests.cluster.waiting import wait_for
from tests.cluster.workloads import task, volcano_job


def test_pods_that_run_are_known_by_pool_with_their_addresses(
    control_plane: ControlPlane, namespace: str
) -> None:
    control_plane.lay_out(eight_nodes())
    control_plane.rest.create(
        jobs(namespace), volcano_job("pd", task("prefill", 2), task("decode", 1))
    )
    pools = tuple(
        Pool(
            str(role),
            role,
            Target("batch.volcano.sh/v1alpha1", "Job", "pd", str(role)),
            probe=Endpoint(),
        )
        for role in Role
    )
    known = Service(ServiceKey(namespace, "known"), Sla(0.5, 0.03), pools)
    cluster = KubernetesCluster(KubernetesAccess(control_plane.kubeconfig), [known])
    cluster.start()

    def urls() -> list[str]:
        return [one.url for one in asked_of(known, cluster.pods([known])[known.key])]

    try:
        wait_for("all three have an address", lambda: len(set(urls())) == 3, 60.0)
        found = cluster.pods([known])[known.key]
    finally:
        cluster.close()
    assert {name: len(of) for name, of in found.items()} == {"prefill": 2, "decode": 1}
    assert all(url.startswith("http://") and url.endswith(":8000/metrics") for url in urls())
