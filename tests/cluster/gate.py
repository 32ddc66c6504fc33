"""An admission webhook of the tests': sees every change of a namespace's Volcano Jobs beforehand.

It can refuse one with words of its own, or let it wait while a test breaks something: what happens
"in the middle of a patch" then happens there, and not some milliseconds before or after.
"""

import base64
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.cluster.control_plane import ControlPlane
from tests.cluster.rest import Manifest, jobs
from tests.cluster.waiting import wait_for

WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
PROBE = "tests/gate"

Judge = Callable[[str, int, int], str | None]
"""Job, replicas before and after → why not, None if it may be. Runs while the request waits."""


@contextlib.contextmanager
def gate(plane: ControlPlane, namespace: str, judge: Judge, job: str) -> Iterator[None]:
    # Asks `judge` about each change of replicas until the block ends; `job` is one that exists.
    seen = threading.Event()
    with _serving(plane, lambda review: _answer(review, judge, seen)) as url:
        place = f"{WEBHOOKS}/{namespace}"
        plane.rest.create(WEBHOOKS, _configuration(plane, namespace, url))
        try:
            wait_for("the gate is in use", lambda: _is_seen(plane, namespace, job, seen))
            yield
        finally:
            plane.rest.delete(place)


def _is_seen(plane: ControlPlane, namespace: str, job: str, seen: threading.Event) -> bool:
    plane.rest.patch(jobs(namespace, job), {"metadata": {"annotations": {PROBE: None}}})
    return seen.is_set()


def _answer(review: Manifest, judge: Judge, seen: threading.Event) -> Manifest:
    seen.set()
    request = review["request"]
    before, after = (_replicas(request[which]) for which in ("oldObject", "object"))
    why = judge(request["name"], before, after) if before != after else None
    response: Manifest = {"uid": request["uid"], "allowed": why is None}
    if why is not None:
        response["status"] = {"code": 403, "message": why}
    return {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}


def _replicas(job: Manifest) -> int:
    return int(job["spec"]["tasks"][0].get("replicas", 0))


def _configuration(plane: ControlPlane, namespace: str, url: str) -> Manifest:
    rule = {
        "apiGroups": ["batch.volcano.sh"],
        "apiVersions": ["*"],
        "operations": ["UPDATE"],
        "resources": ["jobs"],
    }
    webhook = {
        "name": "gate.tests.pd-planner.io",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "timeoutSeconds": 30,
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "rules": [rule],
        "clientConfig": {
            "url": url,
            "caBundle": base64.b64encode(plane.ca.read_bytes()).decode(),
        },
    }
    return {"metadata": {"name": namespace}, "webhooks": [webhook]}


@contextlib.contextmanager
def _serving(plane: ControlPlane, answer: Callable[[Manifest], Manifest]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps(answer(asked)).encode()
            with contextlib.suppress(OSError):  # an API server that was killed meanwhile
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    trust = plane.site.trust
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trust.certificate, trust.key)
    server.daemon_threads = True  # the API server keeps its connections
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
