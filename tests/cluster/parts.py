"""The command line of each part, and the question that tells whether it serves."""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.cluster.certificates import Certificates
from tests.cluster.rest import Refused, Rest

ADMISSION = (
    "/jobs/mutate",
    "/jobs/validate",
    "/queues/mutate",
    "/queues/validate",
    "/podgroups/validate",
    "/hypernodes/validate",
)
VOLCANO_CONTROLLERS = (
    "job-controller",
    "queue-controller",
    "pg-controller",
    "hyperNode-controller",
    "gc-controller",
)
KUBERNETES_CONTROLLERS = (
    "garbage-collector-controller",
    "namespace-controller",
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
    "disruption-controller",
    "resourcequota-controller",
)
# ServiceAccount: nobody makes a `default` account. TaintNodesByCondition: nobody would take the
# not-ready taint off again, there is no node lifecycle controller.
ADMISSION_OFF = "ServiceAccount,TaintNodesByCondition"
PORT_NAMES = (
    "etcd",
    "etcd-peer",
    "kube-apiserver",
    "kube-controller-manager",
    "vc-controller-manager",
    "vc-webhook-manager",
    "vc-webhook-manager-health",
    "vc-scheduler",
    "vc-scheduler-health",
    "kwok",
)


@dataclass(frozen=True, slots=True)
class Site:
    """Where one control plane lives: its programs, its run folder, its ports, its trust."""

    binaries: Path
    folder: Path
    ports: Mapping[str, int]
    trust: Certificates
    schedule_period_s: float

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    def url(self, port: str, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.ports[port]}"


@dataclass(frozen=True, slots=True)
class Part:
    """A program with its arguments, and whether it answers as it should."""

    name: str
    arguments: tuple[str, ...]
    serves: Callable[[], bool]


def parts(site: Site, rest: Rest) -> dict[str, Part]:
    """Return every part by name, in the order of starting."""
    made = (
        _etcd(site),
        _apiserver(site, rest),
        _kube_controllers(site),
        _volcano_controllers(site),
        _webhooks(site),
        _kwok(site),
        _scheduler(site),
    )
    return {part.name: part for part in made}


def _etcd(site: Site) -> Part:
    client, peer = site.url("etcd"), site.url("etcd-peer")
    return Part(
        "etcd",
        (
            f"--data-dir={site.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync=true",
            "--log-level=error",
        ),
        lambda: '"true"' in _said(f"{client}/health"),
    )


def _apiserver(site: Site, rest: Rest) -> Part:
    def serves() -> bool:
        try:
            return rest.text("/readyz") == "ok"
        except (requests.RequestException, Refused):
            return False

    return Part(
        "kube-apiserver",
        (
            f"--etcd-servers={site.url('etcd')}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={site.ports['kube-apiserver']}",
            "--endpoint-reconciler-type=none",  # else it refuses to advertise a loopback address
            *_tls(site),
            f"--token-auth-file={site.trust.tokens}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={site.trust.signing_key}",
            f"--service-account-key-file={site.trust.signing_key}",
            "--service-cluster-ip-range=10.0.0.0/24",
            f"--disable-admission-plugins={ADMISSION_OFF}",
            "--profiling=false",
        ),
        serves,
    )


def _kube_controllers(site: Site) -> Part:
    return Part(
        "kube-controller-manager",
        (
            *_as_admin(site),
            "--bind-address=127.0.0.1",
            f"--secure-port={site.ports['kube-controller-manager']}",
            *_tls(site),
            f"--authentication-kubeconfig={site.kubeconfig}",
            f"--authorization-kubeconfig={site.kubeconfig}",
            "--authentication-skip-lookup=true",
            f"--controllers={','.join(KUBERNETES_CONTROLLERS)}",
        ),
        lambda: _is_healthy(
            site.url("kube-controller-manager", "https") + "/healthz", str(site.trust.ca)
        ),
    )


def _volcano_controllers(site: Site) -> Part:
    health = f"127.0.0.1:{site.ports['vc-controller-manager']}"
    return Part(
        "vc-controller-manager",
        (
            *_as_admin(site),
            "--scheduler-name=volcano",
            f"--controllers={','.join(f'+{name}' for name in VOLCANO_CONTROLLERS)}",
            "--worker-threads=3",
            "--enable-healthz=true",
            f"--healthz-address={health}",
        ),
        lambda: _is_healthy(f"http://{health}/healthz"),
    )


def _webhooks(site: Site) -> Part:
    health = f"127.0.0.1:{site.ports['vc-webhook-manager-health']}"
    return Part(
        "vc-webhook-manager",
        (
            f"--kubeconfig={site.kubeconfig}",
            *_tls(site),
            f"--ca-cert-file={site.trust.ca}",
            f"--port={site.ports['vc-webhook-manager']}",
            "--listen-address=127.0.0.1",
            f"--webhook-url={site.url('vc-webhook-manager', 'https')}",
            f"--enabled-admission={','.join(ADMISSION)}",
            "--enable-healthz=true",
            f"--healthz-address={health}",
        ),
        lambda: _accepts(site.ports["vc-webhook-manager"]),
    )


def _kwok(site: Site) -> Part:
    return Part(
        "kwok",
        (
            f"--kubeconfig={site.kubeconfig}",
            "--manage-all-nodes=true",
            f"--config={Path(__file__).with_name('stages.yaml')}",
            "--node-lease-duration-seconds=0",
            f"--server-address=127.0.0.1:{site.ports['kwok']}",
        ),
        lambda: _is_healthy(f"{site.url('kwok')}/healthz"),
    )


def _scheduler(site: Site) -> Part:
    health = f"127.0.0.1:{site.ports['vc-scheduler-health']}"
    return Part(
        "vc-scheduler",
        (
            *_as_admin(site),
            # It watches the folder of this file and reads it anew at any write there, so that a
            # log beside it would keep it busy for ever.
            f"--scheduler-conf={site.folder / 'scheduler' / 'volcano-scheduler.conf'}",
            "--scheduler-name=volcano",
            f"--schedule-period={site.schedule_period_s:g}s",
            f"--listen-address=127.0.0.1:{site.ports['vc-scheduler']}",
            "--enable-metrics=true",
            "--enable-healthz=true",
            f"--healthz-address={health}",
            f"--cache-dump-dir={site.folder}",
        ),
        lambda: _is_healthy(f"http://{health}/healthz"),
    )


def _as_admin(site: Site) -> tuple[str, ...]:
    return (f"--kubeconfig={site.kubeconfig}", "--leader-elect=false")


def _tls(site: Site) -> tuple[str, ...]:
    return (
        f"--tls-cert-file={site.trust.certificate}",
        f"--tls-private-key-file={site.trust.key}",
    )


def _said(url: str, verify: str | bool = True) -> str:
    with requests.Session() as session:
        session.trust_env = False
        try:
            answer = session.get(url, timeout=2.0, verify=verify)
        except requests.RequestException:
            return ""
        return answer.text if answer.ok else ""


def _is_healthy(url: str, verify: str | bool = True) -> bool:
    return _said(url, verify).strip().lower() == "ok"


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True
