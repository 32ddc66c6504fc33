"""The Kubernetes API as tests use it: a path, a verb, plain JSON; every refusal an exception."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

Manifest = dict[str, Any]

MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"

NODES = "/api/v1/nodes"
NAMESPACES = "/api/v1/namespaces"
HYPER_NODES = "/apis/topology.volcano.sh/v1alpha1/hypernodes"
QUEUES = "/apis/scheduling.volcano.sh/v1beta1/queues"


def core(namespace: str, kind: str, name: str = "") -> str:
    """Return the path of Pods, Events, ConfigMaps and the like (`kind` in the plural)."""
    return f"{NAMESPACES}/{namespace}/{kind}{name and '/' + name}"


def jobs(namespace: str, name: str = "") -> str:
    """Return the path of Volcano Jobs."""
    return f"/apis/batch.volcano.sh/v1alpha1/namespaces/{namespace}/jobs{name and '/' + name}"


def pod_groups(namespace: str) -> str:
    return f"/apis/scheduling.volcano.sh/v1beta1/namespaces/{namespace}/podgroups"


def apps(namespace: str, kind: str, name: str = "") -> str:
    """Return the path of Deployments and StatefulSets (`kind` in the plural)."""
    return f"/apis/apps/v1/namespaces/{namespace}/{kind}{name and '/' + name}"


class Refused(Exception):  # noqa: N818 - what the server did, not what went wrong here
    """The API server answered with an error; `message` is its own text."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Rest:
    """A client with one bearer token."""

    def __init__(self, url: str, ca: Path, token: str, timeout_s: float = 30.0) -> None:
        self.url = url
        self._timeout_s = timeout_s
        self._session = requests.Session()
        self._session.trust_env = False  # neither a proxy nor the caller's CA bundle
        self._session.verify = str(ca)
        self._session.headers["Authorization"] = f"Bearer {token}"
        self._session.headers["User-Agent"] = "tests"  # the writer's name in managedFields

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._session.close()

    def get(self, path: str) -> Manifest:
        return self._ask("GET", path)

    def items(self, path: str, **query: str) -> list[Manifest]:
        """Return the items of a list; `labelSelector` and `fieldSelector` are queries."""
        found: list[Manifest] = self._ask("GET", path, query=query)["items"]
        return found

    def exists(self, path: str) -> bool:
        try:
            self.get(path)
        except Refused as refused:
            if refused.status == 404:
                return False
            raise
        return True

    def changes(self, path: str, version: str, for_s: float) -> Iterator[Manifest]:
        """Watch a list from a version on, "0" for all there is, for a time [s].

        Yields
        ------
        Manifest
            Each event; an error among them is raised as `Refused`.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": f"{for_s:.0f}",
        }
        with self._session.get(
            self.url + path, params=query, stream=True, timeout=(for_s, for_s + 1.0)
        ) as answer:
            if not answer.ok:
                raise Refused(answer.status_code, _message(answer))
            for line in answer.iter_lines(chunk_size=None):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise Refused(event["object"]["code"], event["object"]["message"])
                yield event

    def create(self, path: str, body: Manifest) -> Manifest:
        return self._ask("POST", path, body=body)

    def apply(self, path: str, body: Manifest) -> Manifest:
        """Create or change by server-side apply, as `kubectl apply --server-side` would."""
        query = {"fieldManager": "tests", "force": "true"}
        return self._ask("PATCH", path, body, query, "application/apply-patch+yaml")

    def patch(self, path: str, body: Manifest | list[Manifest]) -> Manifest:
        """Change by JSON Patch where `body` is a list, else by merge patch."""
        kind = JSON_PATCH if isinstance(body, list) else MERGE_PATCH
        return self._ask("PATCH", path, body, content_type=kind)

    def delete(self, path: str, grace_s: int | None = None) -> Manifest:
        """Delete an object, or all of a collection; its dependants go in the background."""
        options: Manifest = {"propagationPolicy": "Background"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        return self._ask("DELETE", path, options)

    def text(self, path: str) -> str:
        """Return an answer that is no JSON, such as that of /readyz."""
        answer = self._session.get(self.url + path, timeout=self._timeout_s)
        if not answer.ok:
            raise Refused(answer.status_code, answer.text)
        return answer.text

    def _ask(
        self,
        verb: str,
        path: str,
        body: object = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Manifest:
        answer = self._session.request(
            verb,
            self.url + path,
            json=body,
            params=query,
            headers={"Content-Type": content_type},
            timeout=self._timeout_s,
        )
        if not answer.ok:
            raise Refused(answer.status_code, _message(answer))
        said: Manifest = answer.json()
        return said


def _message(answer: requests.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text.strip()
