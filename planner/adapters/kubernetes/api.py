"""The Kubernetes API as plain JSON over the official client's connections and credentials.

Its typed models are slow and large for lists of pods, and it rewrites patches; here the bytes and
the media type are those that are meant. Every call is bounded in time and made once: a write whose
answer is lost is judged by reading again, never by sending it twice.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import urllib3
from urllib3 import exceptions as broken

from planner.adapters.clock import Deadline
from planner.adapters.kubernetes.faults import Call, Resource, fault
from planner.adapters.kubernetes.values import Json
from planner.errors import ClusterError, InputError

FIELD_MANAGER: Final = "pd-planner"

_PAGE: Final = 500
_CHUNK_BYTES: Final = 65536
_CONNECT_S: Final = 3.0
_CONNECTIONS: Final = 32  # kept open: one a watch, and some for the ticks
# A watch ends by itself after this [s]: a quiet one is then known to be alive, not just silent.
WATCH_S: Final = 30.0
_SILENCE_S: Final = WATCH_S + 10.0  # whoever says nothing for longer is gone [s]
_JSON_PATCH: Final = "application/json-patch+json"
_MERGE_PATCH: Final = "application/merge-patch+json"


@dataclass(frozen=True, slots=True)
class KubernetesAccess:
    """Where the cluster is and how long to wait for it.

    Attributes
    ----------
    kubeconfig, context
        File and context; without either the pod's service account, else what kubectl uses.
    timeout_s
        Time for one request and its whole answer [s]; a page of a list is one request.
    """

    kubeconfig: Path | None = None
    context: str | None = None
    timeout_s: float = 10.0


class KubernetesApi:
    """Get, list, patch, post and watch; every failure is a `ClusterError`.

    Raises
    ------
    InputError
        If neither a service account nor a usable kubeconfig is there.
    """

    def __init__(self, access: KubernetesAccess) -> None:
        self._timeout_s = access.timeout_s
        client = _client(access)
        self._configuration = client.configuration
        self._pool: urllib3.PoolManager = client.rest_client.pool_manager
        self.server = str(client.configuration.host).rstrip("/")

    def close(self) -> None:
        """Drop all connections."""
        self._pool.clear()

    def get(self, resource: Resource, namespace: str | None, name: str) -> Json:
        """Return one object."""
        return self._ask("GET", Call("get", resource, namespace, name))

    def pages(
        self, resource: Resource, namespace: str | None = None, limit: int = _PAGE
    ) -> Iterator[Json]:
        """List page by page.

        Yields
        ------
        Json
            A page as the API gives it; `ExpiredError` if the server forgets the list meanwhile.
        """
        call = Call("list", resource, namespace)
        query = {"limit": str(limit)}
        while True:
            page = self._ask("GET", call, query)
            yield page
            rest = (page.get("metadata") or {}).get("continue")
            if not rest:
                return
            query["continue"] = rest

    def items(self, resource: Resource, namespace: str | None = None) -> list[Json]:
        """Return all objects of a list."""
        return [item for page in self.pages(resource, namespace) for item in page["items"]]

    def json_patch(
        self, resource: Resource, namespace: str | None, name: str, operations: list[Json]
    ) -> Json:
        """Change an object by JSON Patch (RFC 6902)."""
        call = Call("patch", resource, namespace, name)
        return self._ask("PATCH", call, _OURS, operations, _JSON_PATCH)

    def merge_patch(
        self, resource: Resource, namespace: str | None, name: str, change: Json
    ) -> Json:
        """Change an object by JSON Merge Patch (RFC 7386)."""
        call = Call("patch", resource, namespace, name)
        return self._ask("PATCH", call, _OURS, change, _MERGE_PATCH)

    def post(self, resource: Resource, namespace: str | None, body: Json) -> Json:
        """Create an object."""
        return self._ask("POST", Call("create", resource, namespace), _OURS, body)

    def watch(self, resource: Resource, namespace: str | None, version: str) -> "EventStream":
        """Return the changes after a resource version; they end by themselves after `WATCH_S`."""
        call = Call("watch", resource, namespace)
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": f"{WATCH_S:.0f}",
        }
        with self.explained(call, _SILENCE_S):
            response = self._send("GET", call, query, None, "", _SILENCE_S)
        stream = EventStream(self, call, response)
        if (refusal := stream.refusal()) is not None:
            raise refusal
        return stream

    def _ask(
        self,
        method: str,
        call: Call,
        query: Mapping[str, str] | None = None,
        body: object = None,
        media_type: str = "application/json",
    ) -> Json:
        deadline = Deadline(self._timeout_s)
        with self.explained(call, self._timeout_s):
            response = self._send(method, call, query, body, media_type, self._timeout_s)
            try:
                answer = _whole(response, deadline)
            finally:
                response.release_conn()
        if response.status >= 400:
            raise fault(call, response.status, answer)
        try:
            said = json.loads(answer)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise ClusterError(f"{call}: the answer is no JSON object; is {self.server} an API?")
        return said

    def _send(
        self,
        method: str,
        call: Call,
        query: Mapping[str, str] | None,
        body: object,
        media_type: str,
        timeout_s: float,
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": "application/json", "User-Agent": FIELD_MANAGER}
        # Refreshes a token that is about to expire, by file or by the kubeconfig's command.
        token = self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if token:
            headers["Authorization"] = token
        if body is not None:
            headers["Content-Type"] = media_type
        return self._pool.request(
            method,
            self.server + call.path + (f"?{urlencode(query)}" if query else ""),
            body=None if body is None else json.dumps(body).encode(),
            headers=headers,
            timeout=urllib3.Timeout(connect=min(_CONNECT_S, timeout_s), read=timeout_s),
            retries=False,
            preload_content=False,
        )

    @contextlib.contextmanager
    def explained(self, call: Call, timeout_s: float) -> Iterator[None]:
        """Turn what goes wrong on the way into one clear line.

        Raises
        ------
        ClusterError
            Instead of it.
        """
        from kubernetes.config import ConfigException

        try:
            yield
        except (broken.NewConnectionError, broken.SSLError, OSError) as error:
            raise ClusterError(
                f"{call}: the API server {self.server} is unreachable: {_root(error)}"
            ) from error
        except broken.TimeoutError as error:
            raise ClusterError(
                f"{call}: {self.server} gave no answer within {timeout_s:g} s"
            ) from error
        except broken.HTTPError as error:
            raise ClusterError(f"{call}: the connection to {self.server} broke off") from error
        except ConfigException as error:
            raise ClusterError(f"{call}: no credentials: {error}") from error


class EventStream:
    """The events of one watch, as the API gives them."""

    def __init__(self, api: KubernetesApi, call: Call, response: urllib3.BaseHTTPResponse) -> None:
        self._api = api
        self._call = call
        self._response = response

    def __iter__(self) -> Iterator[Json]:
        rest = b""
        with self._api.explained(self._call, _SILENCE_S):
            while chunk := self._response.read1(_CHUNK_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(None, lines):
                    yield self._event(line)

    def refusal(self) -> ClusterError | None:
        """Return what the server said instead of events, if it did."""
        if self._response.status < 400:
            return None
        with self._api.explained(self._call, _SILENCE_S):
            return fault(self._call, self._response.status, self._response.read())

    def close(self) -> None:
        """Give the connection up: what is still to come is not wanted."""
        self._response.close()

    def end(self) -> None:
        """Wake up whoever waits for the next event; may be called by another thread."""
        with contextlib.suppress(ValueError, RuntimeError, OSError):
            self._response.shutdown()

    def _event(self, line: bytes) -> Json:
        try:
            event = json.loads(line)
            if event["type"] != "ERROR":
                return dict(event)
            status = event["object"]
            raise fault(self._call, int(status.get("code") or 500), json.dumps(status).encode())
        except (ValueError, KeyError, TypeError):
            raise ClusterError(
                f"{self._call}: the stream holds something that is no event"
            ) from None


_OURS: Final = {"fieldManager": FIELD_MANAGER}


def _client(access: KubernetesAccess) -> Any:
    """Return the official client: connections, certificates and credentials are its work.

    Raises
    ------
    InputError
        If there is no usable configuration.
    """
    from kubernetes import client, config
    from kubernetes.config import ConfigException
    from yaml import YAMLError

    where = access.kubeconfig or "the default kubeconfig"
    load: Any = config  # untyped
    configuration = client.Configuration()
    configuration.connection_pool_maxsize = _CONNECTIONS
    try:
        if access.kubeconfig is None and access.context is None:
            with contextlib.suppress(ConfigException):
                load.load_incluster_config(configuration)
                return client.ApiClient(configuration)
        load.load_kube_config(
            config_file=str(access.kubeconfig) if access.kubeconfig else None,
            context=access.context,
            client_configuration=configuration,
            persist_config=False,
        )
        return client.ApiClient(configuration)
    except ConfigException as error:
        raise InputError(
            f"--kubeconfig, --context: {where} can't be used: {_line(error)}; "
            "give one that `kubectl --kubeconfig FILE --context NAME get pods` accepts"
        ) from error
    except (OSError, YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"--kubeconfig: {where} is no kubeconfig: {_line(error)}") from error


def _whole(response: urllib3.BaseHTTPResponse, deadline: Deadline) -> bytes:
    """Return the body; the time bounds all of it, not each pause between its bytes.

    Raises
    ------
    TimeoutError
        If it is not whole in time.
    """
    body = bytearray()
    while chunk := response.read1(_CHUNK_BYTES):
        body += chunk
        if deadline.left_s() <= 0:
            response.close()
            raise broken.TimeoutError
    return bytes(body)


def _root(error: BaseException) -> BaseException:
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
