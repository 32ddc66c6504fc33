"""Puts Volcano into an API server: its own CRDs and webhook configurations, the latter by URL."""

import base64
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

from tests.cluster.parts import ADMISSION
from tests.cluster.rest import NAMESPACES, QUEUES, Manifest, Rest
from tests.cluster.waiting import wait_for

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ADMISSION_API = "/apis/admissionregistration.k8s.io/v1"
PLURALS = {
    "MutatingWebhookConfiguration": "mutatingwebhookconfigurations",
    "ValidatingWebhookConfiguration": "validatingwebhookconfigurations",
}


def install_volcano(rest: Rest, manifests: Path, webhook_url: str, ca: Path) -> None:
    """Create what Volcano needs before its programs start."""
    found: dict[str, list[Manifest]] = json.loads(manifests.read_text(encoding="utf-8"))
    rest.create(NAMESPACES, {"metadata": {"name": "volcano-system"}})
    for crd in found["crds"]:
        rest.create(CRDS, crd)
    authority = base64.b64encode(ca.read_bytes()).decode()
    for configuration in found["webhooks"]:
        if served := _by_url(configuration, webhook_url, authority):
            rest.create(f"{ADMISSION_API}/{PLURALS[served['kind']]}", served)
    wait_for("Volcano's CRDs are served", lambda: _established(rest) >= len(found["crds"]))


def default_queue_is_open(rest: Rest) -> bool:
    """Tell whether a Job would be admitted: scheduler, webhooks and controllers have all spoken."""
    queues = rest.items(QUEUES)
    return any(
        queue["metadata"]["name"] == "default" and queue.get("status", {}).get("state") == "Open"
        for queue in queues
    )


def _by_url(configuration: Manifest, url: str, authority: str) -> Manifest | None:
    # The webhooks of one configuration share a path; None where the program does not serve it.
    served: dict[str, Any] = deepcopy(configuration)
    for webhook in served["webhooks"]:
        path = webhook["clientConfig"]["service"]["path"]
        if path not in ADMISSION:
            return None
        webhook["clientConfig"] = {"url": url + path, "caBundle": authority}
    return served


def _established(rest: Rest) -> int:
    return sum(
        condition["type"] == "Established" and condition["status"] == "True"
        for crd in rest.items(CRDS)
        for condition in crd.get("status", {}).get("conditions") or ()
    )
