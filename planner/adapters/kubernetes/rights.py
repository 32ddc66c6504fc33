"""What the planner's account may do, asked of the API server itself (SelfSubjectAccessReview).

The server answers for every way of authorization alike; whoever is authenticated may ask.
"""

from collections.abc import Iterable
from typing import Any, Final, Protocol

from planner.adapters.kubernetes.faults import Resource
from planner.check.rights import Right
from planner.errors import ClusterError

REVIEWS: Final = Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews")


class Poster(Protocol):
    """The one call of the API client that is used here."""

    def post(
        self, resource: Resource, namespace: str | None, body: dict[str, Any]
    ) -> dict[str, Any]:
        """Create an object and return the answer; a failure is a ClusterError."""
        ...


def may(api: Poster, right: Right) -> bool:
    """Return whether the API server grants one right.

    Raises
    ------
    ClusterError
        If it could not be asked, or its answer says nothing.
    """
    asked = {"verb": right.verb, "group": right.group, "resource": right.resource}
    where = {"namespace": right.namespace, "name": right.name}
    attributes = asked | {key: value for key, value in where.items() if value is not None}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    status = api.post(REVIEWS, None, body).get("status")
    if not isinstance(status, dict) or "allowed" not in status:
        raise ClusterError(f"the API server did not say whether {right} is granted")
    return bool(status["allowed"])


def answers(api: Poster, rights: Iterable[Right]) -> dict[Right, bool]:
    """Return the API server's answer for each right; a failure is a ClusterError."""
    return {right: may(api, right) for right in rights}
