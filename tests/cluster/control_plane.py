"""A real control plane on loopback: etcd, API server, controllers, Volcano, simulated kubelets.

Everything is a plain child process in one run folder; each part can be frozen, killed and started
again by itself. It ends with the process that started it, however that ends.
"""

import contextlib
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.cluster import build
from tests.cluster.certificates import make_certificates, write_kubeconfig
from tests.cluster.installation import default_queue_is_open, install_volcano
from tests.cluster.parts import PORT_NAMES, Part, Site, parts
from tests.cluster.processes import Process
from tests.cluster.rest import HYPER_NODES, NAMESPACES, NODES, Rest, apps, core, jobs
from tests.cluster.topologies import Topology
from tests.cluster.waiting import happens, wait_for
from tests.cluster.workloads import has_condition, task, volcano_job
from tests.loopback import free_ports

START_S = 60.0
FIRST_POD_S = 3.0  # after a Job is created Volcano makes its pods within about half a second
# Volcano's default is 1 s; a test waits for several cycles, one after another.
SCHEDULE_PERIOD_S = 0.2
WORKLOADS = ("deployments", "statefulsets", "replicasets")
SERVERS = ("etcd", "kube-apiserver")


class ControlPlane:
    """A running control plane; make one with `running_control_plane`."""

    def __init__(self, binaries: Path, folder: Path, schedule_period_s: float) -> None:
        trust = make_certificates(folder)
        self.site = Site(binaries, folder, free_ports(PORT_NAMES), trust, schedule_period_s)
        self.url = self.site.url("kube-apiserver", "https")
        self.ca = trust.ca
        self.kubeconfig = self.site.kubeconfig
        self.rest = self.client(trust.admin_token)
        write_kubeconfig(self.kubeconfig, self.url, self.ca, trust.admin_token, "default")
        self._parts = parts(self.site, self.rest)
        self._processes = {part.name: self._process(part) for part in self._parts.values()}
        self._topology = Topology((), ())
        self._had_outage = False

    def _process(self, part: Part) -> Process:
        command = [str(self.site.binaries / part.name), *part.arguments]
        return Process(part.name, command, self.site.folder / f"{part.name}.log")

    def client(self, token: str) -> Rest:
        """Return a client of somebody else, such as a ServiceAccount."""
        return Rest(self.url, self.ca, token)

    @property
    def names(self) -> tuple[str, ...]:
        """The parts, in the order of starting."""
        return tuple(self._parts)

    def bring_up(self) -> None:
        """Start everything and wait until a Job would be admitted."""
        conf = self.site.folder / "scheduler"
        conf.mkdir()
        shutil.copy(Path(__file__).with_name("volcano-scheduler.conf"), conf)
        self.start("etcd")
        self.start("kube-apiserver")
        webhook_url = self.site.url("vc-webhook-manager", "https")
        install_volcano(self.rest, self.site.binaries / build.MANIFESTS, webhook_url, self.ca)
        self.start("kube-controller-manager", "vc-controller-manager", "vc-webhook-manager", "kwok")
        # Last: it creates the queues, which the webhooks have to admit.
        self.start("vc-scheduler")
        wait_for("the queue is open", lambda: default_queue_is_open(self.rest), START_S)
        self._wait_until_jobs_get_pods()

    def _wait_until_jobs_get_pods(self) -> None:
        """Create Jobs until one gets its pod; it needs no node.

        Where the job controller's watch of PodGroups begins late, a Job waits for ever: `recover`.
        """
        namespace, count = self.add_namespace(), itertools.count()
        pods = core(namespace, "pods")
        free = task("free", 1, template={"spec": {"containers": [{"name": "c", "image": "c"}]}})

        def gets_pod() -> bool:
            self.rest.create(jobs(namespace), volcano_job(f"first-{next(count)}", free))
            return happens(lambda: self.rest.items(pods), FIRST_POD_S)

        wait_for("a Job gets its pod", gets_pod, START_S)
        self.remove_namespace(namespace)

    def start(self, *names: str) -> None:
        """Start parts that do not run, together, and wait until each serves."""
        for name in names:
            self._processes[name].start()
        for name in names:
            self._wait_until_it_serves(name)

    def _wait_until_it_serves(self, name: str) -> None:
        process, part = self._processes[name], self._parts[name]

        def serves() -> bool:
            if (status := process.ended_with()) is not None:
                raise AssertionError(f"{name} ended with {status}\n{process.last_lines()}")
            return part.serves()

        try:
            wait_for(f"{name} serves", serves, START_S)
        except AssertionError as error:
            error.add_note(process.last_lines())
            raise

    def kill(self, name: str) -> None:
        """End a part without any warning, as a crash would."""
        self._had_outage |= name in SERVERS
        self._processes[name].kill()

    def freeze(self, name: str) -> None:
        """Let a part hang: it accepts connections and never answers."""
        self._had_outage |= name in SERVERS
        self._processes[name].freeze()

    def go_on(self, name: str) -> None:
        """Let a frozen part run again."""
        self._processes[name].go_on()

    def recover(self) -> None:
        """Start whatever met an outage of the servers anew, so that it sees all that is there.

        A client that met one looks again after up to `waiting.OUTAGE_S`, each of its watches by
        itself. A Job created meanwhile may never get a pod: Volcano's job controller makes pods
        when it sees the PodGroup change to Inqueue, and one that it first sees there has not
        changed (`updatePodGroup` in its pkg/controllers/job, the only handler of PodGroups).
        """
        if not self._had_outage:
            return
        clients = [name for name in self.names if name not in SERVERS]
        for name in clients:
            self.kill(name)
        self.start(*clients)
        self._wait_until_jobs_get_pods()
        self._had_outage = False

    def rss_mib(self) -> dict[str, float]:
        """Return the memory of each part [MiB]."""
        return {name: process.rss_mib() for name, process in self._processes.items()}

    def ended_by_themselves(self) -> list[str]:
        """Return the parts that were started and run no more."""
        return [name for name, one in self._processes.items() if one.ended_with() is not None]

    def end(self) -> None:
        """End every part; nothing in the run folder is worth an orderly end."""
        for process in reversed(self._processes.values()):
            process.kill()
        self.rest.close()

    def lay_out(self, topology: Topology) -> None:
        """Make the nodes and HyperNodes be these and no others; free where they are already.

        No pod may be left on the nodes: the `namespace` fixture sees to that.
        """
        if topology == self._topology:
            return
        if self._topology.nodes:
            self._clear()
        for node in topology.nodes:
            self.rest.create(NODES, node)
        for hyper_node in topology.hyper_nodes:
            self.rest.create(HYPER_NODES, hyper_node)
        self._topology = topology
        wait_for("the nodes are Ready", self._nodes_are_ready, 30.0)

    def _clear(self) -> None:
        self.rest.delete(HYPER_NODES)
        self.rest.delete(NODES)
        wait_for("the old nodes are gone", lambda: not self.rest.items(NODES))
        wait_for("the old HyperNodes are gone", lambda: not self.rest.items(HYPER_NODES))

    def _nodes_are_ready(self) -> bool:
        return all(has_condition(node, "Ready", "True") for node in self.rest.items(NODES))

    def add_namespace(self) -> str:
        """Create a namespace of a name that no other has, and return the name."""
        made = self.rest.create(NAMESPACES, {"metadata": {"generateName": "test-"}})
        return str(made["metadata"]["name"])

    def remove_namespace(self, namespace: str) -> None:
        """Delete what owns pods, then the pods at once; the rest goes by itself."""
        owners = (jobs(namespace), *(apps(namespace, kind) for kind in WORKLOADS))
        for owner in owners:
            self.rest.delete(owner)

        def is_empty() -> bool:
            # Looked at again and again: a controller may not have seen the deletion yet.
            self.rest.delete(core(namespace, "pods"), grace_s=0)
            return not any(self.rest.items(path) for path in (*owners, core(namespace, "pods")))

        wait_for(f"the pods of {namespace} are gone", is_empty, 30.0)
        self.rest.delete(f"{NAMESPACES}/{namespace}")

    def account(self, namespace: str, name: str) -> str:
        """Create a ServiceAccount and return a token for it."""
        self.rest.create(core(namespace, "serviceaccounts"), {"metadata": {"name": name}})
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        answer = self.rest.create(core(namespace, "serviceaccounts", f"{name}/token"), asked)
        return str(answer["status"]["token"])


@contextlib.contextmanager
def running_control_plane(
    binaries: Path, folder: Path, *, schedule_period_s: float = SCHEDULE_PERIOD_S
) -> Iterator[ControlPlane]:
    # In an empty folder, for as long as the block lasts.
    plane = ControlPlane(binaries, folder, schedule_period_s)
    try:
        plane.bring_up()
        yield plane
    finally:
        plane.end()
