"""What each answer of the API server means; the texts are those of real servers and webhooks."""

import json

import pytest

from planner.adapters.kubernetes.faults import (
    NODES,
    PODS,
    Call,
    ExpiredError,
    ForbiddenError,
    Resource,
    fault,
)
from planner.errors import ClusterError, ConflictError, RefusedError, TargetError

JOBS = Resource("batch.volcano.sh", "v1alpha1", "jobs")
PATCH = Call("patch", JOBS, "serving", "pd")
RBAC = (
    'jobs.batch.volcano.sh "pd" is forbidden: User "system:serviceaccount:serving:scaler" cannot '
    'patch resource "jobs" in API group "batch.volcano.sh" in the namespace "serving"'
)
DENIED = (
    'admission webhook "validatejob.volcano.sh" denied the request: '
    "'minAvailable' must be <= 'replicas' in task: prefill"
)
DOWN = (
    'Internal error occurred: failed calling webhook "validatejob.volcano.sh": failed to call '
    "webhook: dial tcp 127.0.0.1:1: connect: connection refused"
)
MODIFIED = (
    'Operation cannot be fulfilled on jobs.batch.volcano.sh "pd": the object has been modified'
)
TEST_FAILED = "the server rejected our request due to an error in our request"
INVALID = 'Job.batch.volcano.sh "pd" is invalid: spec.tasks[0].replicas: Invalid value: -1'


def status(message: str) -> bytes:
    return json.dumps({"kind": "Status", "message": message}).encode()


@pytest.mark.parametrize(
    ("code", "message", "kind", "said"),
    [
        pytest.param(403, RBAC, ForbiddenError, "verbs: [patch], resources: [jobs]", id="rbac"),
        pytest.param(403, DENIED, RefusedError, DENIED, id="webhook says no with 403"),
        pytest.param(403, "exceeded quota: gpus", RefusedError, "exceeded quota", id="quota"),
        pytest.param(400, DENIED, RefusedError, DENIED, id="webhook"),
        pytest.param(422, INVALID, RefusedError, INVALID, id="schema"),
        pytest.param(422, TEST_FAILED, ConflictError, "no longer as it was read", id="test op"),
        pytest.param(409, MODIFIED, ConflictError, "has been modified", id="stale version"),
        pytest.param(500, DOWN, ClusterError, "is down, tried again later", id="no webhook"),
        pytest.param(503, "apiserver not ready", ClusterError, "can't answer now (503)", id="503"),
        pytest.param(429, "slow down", ClusterError, "can't answer now (429)", id="busy"),
        pytest.param(401, "Unauthorized", ClusterError, "is not accepted", id="token"),
        pytest.param(410, "too old resource version", ExpiredError, "too old", id="expired"),
        pytest.param(
            404,
            'jobs.batch.volcano.sh "pd" not found',
            TargetError,
            "there is no jobs.batch.volcano.sh pd in namespace serving",
            id="no object",
        ),
    ],
)
def test_an_answer_means(code: int, message: str, kind: type[ClusterError], said: str) -> None:
    found = fault(PATCH, code, status(message))
    assert type(found) is kind
    assert said in str(found)
    assert "\n" not in str(found)


def test_a_kind_that_is_not_served_is_told_from_an_object_that_is_missing() -> None:
    found = fault(Call("list", JOBS, "serving"), 404, b"404 page not found\n")
    assert isinstance(found, TargetError)
    assert found.code == "TargetNotFound"
    assert "does not serve jobs of batch.volcano.sh/v1alpha1: install it" in str(found)


def test_the_mend_of_a_missing_right_is_a_role_where_there_is_a_namespace() -> None:
    refused = status('nodes is forbidden: User "x" cannot list resource "nodes"')
    assert "let a ClusterRole grant verbs: [list]" in str(fault(Call("list", NODES), 403, refused))
    assert "let a Role grant" in str(fault(Call("list", PODS, "serving"), 403, refused))


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"<html>\nBad  Gateway</html>", "<html> Bad Gateway</html>"), (b"", "no reason given")],
)
def test_an_answer_that_is_no_status_is_one_line(body: bytes, said: str) -> None:
    assert str(fault(PATCH, 502, body)).endswith(said)


@pytest.mark.parametrize(
    ("call", "path"),
    [
        (Call("list", NODES), "/api/v1/nodes"),
        (Call("get", PODS, "serving", "a"), "/api/v1/namespaces/serving/pods/a"),
        (PATCH, "/apis/batch.volcano.sh/v1alpha1/namespaces/serving/jobs/pd"),
    ],
    ids=str,
)
def test_where_a_call_goes(call: Call, path: str) -> None:
    assert call.path == path
