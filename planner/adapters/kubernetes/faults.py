"""What the Kubernetes API server's refusals mean, in one clear line each. Pure.

A refusal by a rule (a webhook, a schema, a quota) would be repeated; whatever has to do with the
state of the cluster may be gone at the next tick. Texts and codes were read from a real server.
"""

import json
from dataclasses import dataclass

from planner.errors import ClusterError, ConflictError, RefusedError, TargetError

# What a JSON Patch answers whose `test` failed: no details, and nothing else says it.
_TEST_FAILED = "the server rejected our request"
_WEBHOOK_DOWN = "failed calling webhook"
_LATER = frozenset({408, 429, 500, 502, 503, 504})
_LONGEST_TEXT = 1000


class ForbiddenError(ClusterError):
    """The account may not do this; names the verb, the resource and the mend."""

    code = "ClusterForbidden"


class ExpiredError(ClusterError):
    """The server no longer knows the version that a list or watch wants to go on from."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object as the paths of the API name it; the core group is empty."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str | None = None, name: str = "") -> str:
        """Return the path of all, of a namespace's, or of one."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        within = f"/namespaces/{namespace}" if namespace else ""
        return f"{root}{within}/{self.plural}" + (f"/{name}" if name else "")

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


NODES = Resource("", "v1", "nodes")
PODS = Resource("", "v1", "pods")
CONFIG_MAPS = Resource("", "v1", "configmaps")
EVENTS = Resource("", "v1", "events")
QUOTAS = Resource("", "v1", "resourcequotas")
HYPER_NODES = Resource("topology.volcano.sh", "v1alpha1", "hypernodes")
QUEUES = Resource("scheduling.volcano.sh", "v1beta1", "queues")
AUTOSCALERS = Resource("autoscaling", "v2", "horizontalpodautoscalers")


@dataclass(frozen=True, slots=True)
class Call:
    """One request in the words of RBAC."""

    verb: str
    resource: Resource
    namespace: str | None = None
    name: str = ""

    @property
    def path(self) -> str:
        """Where it goes."""
        return self.resource.path(self.namespace, self.name)

    def __str__(self) -> str:
        what = f"{self.verb} {self.resource} {self.name}".rstrip()
        return what + (f" in namespace {self.namespace}" if self.namespace else "")


def fault(call: Call, status: int, body: bytes) -> ClusterError:
    """Return what an answer above 399 means to the caller."""
    text = words(body)
    if status in _LATER:
        return _passing(call, status, text)
    meaning: ClusterError = RefusedError(f"{call}: refused: {text}")
    if status == 401:
        meaning = ClusterError(f"{call}: the token or certificate is not accepted: {text}")
    elif status == 403 and " cannot " in text:  # without it a rule said no, not RBAC
        meaning = _forbidden(call, text)
    elif status == 404:
        meaning = _not_found(call, text)
    elif status == 409:
        meaning = ConflictError(f"{call}: {text}")
    elif status == 410:
        meaning = ExpiredError(f"{call}: {text}")
    elif status == 422 and text.startswith(_TEST_FAILED):
        meaning = ConflictError(f"{call}: the object is no longer as it was read; decide anew")
    return meaning


def words(body: bytes) -> str:
    """Return the message of a Status, or the beginning of whatever was sent, as one line."""
    try:
        text = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        text = body.decode(errors="replace")
    return " ".join(text.split())[:_LONGEST_TEXT] or "no reason given"


def _not_found(call: Call, text: str) -> TargetError:
    if call.name and '"' in text:
        where = f" in namespace {call.namespace}" if call.namespace else ""
        message = f"there is no {call.resource} {call.name}{where}"
    else:
        served = f"{call.resource.group or 'v1'}/{call.resource.version}"
        message = (
            f"the cluster does not serve {call.resource.plural} of {served}: "
            "install it, or correct apiVersion and kind"
        )
    return TargetError(message, "TargetNotFound")


def _forbidden(call: Call, text: str) -> ForbiddenError:
    kind = "Role" if call.namespace else "ClusterRole"
    return ForbiddenError(
        f"may not {call}: {text}; let a {kind} grant verbs: [{call.verb}], resources: "
        f"[{call.resource.plural}], apiGroups: [{call.resource.group!r}]"
    )


def _passing(call: Call, status: int, text: str) -> ClusterError:
    if _WEBHOOK_DOWN in text:
        return ClusterError(f"{call}: an admission webhook is down, tried again later: {text}")
    return ClusterError(f"{call}: the API server can't answer now ({status}): {text}")
