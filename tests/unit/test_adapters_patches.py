"""Counts as they are read, and the patches that change them."""

import copy
from typing import Any

import pytest

from planner.adapters.kubernetes.patches import Reading, look_up, operations, reading, writer_of
from planner.errors import TargetError
from planner.model import Target

PREFILL = Target("batch.volcano.sh/v1alpha1", "Job", "pd", "prefill")
DECODE = Target("batch.volcano.sh/v1alpha1", "Job", "pd", "decode")
DEPLOYMENT = Target("apps/v1", "Deployment", "pd")
DYNAMO = Target("nvidia.com/v1alpha1", "DynamoGraphDeployment", "pd", "Vllm/Prefill")
KSERVE_PREFILL = Target("serving.kserve.io/v1alpha2", "LLMInferenceService", "pd", "prefill")


def job(
    *tasks: tuple[str, int, int | None], floor: int | None = None, **status: Any
) -> dict[str, Any]:
    written = [
        {"name": name, "replicas": n} | ({} if least is None else {"minAvailable": least})
        for name, n, least in tasks
    ]
    return {
        "metadata": {"name": "pd", "namespace": "serving", "uid": "u1", "resourceVersion": "7"},
        "spec": {"tasks": written} | ({} if floor is None else {"minAvailable": floor}),
        "status": {"state": status},
    }


def simple(spec: dict[str, Any]) -> dict[str, Any]:
    return {**job(), "spec": spec}


def patched(raw: dict[str, Any], operations_: list[dict[str, Any]]) -> dict[str, Any]:
    """Apply a patch as RFC 6902 says, as far as it is used here."""
    result = copy.deepcopy(raw)
    for one in operations_:
        parent, _, last = one["path"].rpartition("/")
        place = look_up(result, parent)
        key = int(last) if isinstance(place, list) else last.replace("~1", "/")
        if one["op"] == "test":
            assert place[key] == one["value"]
        else:
            place[key] = one["value"]
    return result


def scaled(raw: dict[str, Any], counts: dict[Target, int]) -> dict[str, Any]:
    wanted = [(reading(target, raw), count) for target, count in counts.items()]
    return patched(raw, operations(wanted))["spec"]


def test_the_patch_of_a_task_locks_tests_and_sets() -> None:
    raw = job(("prefill", 4, 1), ("decode", 6, 1), floor=2)
    assert operations([(reading(DECODE, raw), 7)]) == [
        {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"},
        {"op": "test", "path": "/spec/tasks/1/name", "value": "decode"},
        {"op": "add", "path": "/spec/tasks/1/replicas", "value": 7},
    ]


def test_two_tasks_are_one_patch_with_one_lock() -> None:
    raw = job(("prefill", 4, 1), ("decode", 6, 1), floor=2)
    both = operations([(reading(PREFILL, raw), 5), (reading(DECODE, raw), 3)])
    assert [one["op"] for one in both] == ["replace", "test", "test", "add", "add"]


@pytest.mark.parametrize(
    ("raw", "counts", "minima", "floor"),
    [
        pytest.param(
            job(("prefill", 4, 1), ("decode", 6, 2), floor=3),
            {PREFILL: 2},
            [1, 2],
            3,
            id="above the floors: none is touched",
        ),
        pytest.param(
            job(("prefill", 4, 4), ("decode", 6, 6), floor=10),
            {PREFILL: 2},
            [2, 6],
            8,
            id="defaulted floors follow, the sum stays the sum",
        ),
        pytest.param(
            job(("prefill", 4, 4), ("decode", 6, 6), floor=10),
            {PREFILL: 8, DECODE: 9},
            [4, 6],
            10,
            id="never raised",
        ),
        pytest.param(
            job(("prefill", 4, 4), ("decode", 6, 6), floor=10),
            {PREFILL: 6, DECODE: 2},
            [4, 2],
            6,
            id="one up, one down",
        ),
        pytest.param(
            job(("prefill", 4, 4), ("decode", 6, 6), floor=5),
            {PREFILL: 1, DECODE: 3},
            [1, 3],
            4,
            id="no sum before: only as low as all replicas",
        ),
        pytest.param(
            job(("prefill", 4, 4), ("decode", 6, 6), floor=5),
            {PREFILL: 3},
            [3, 6],
            5,
            id="no sum before, and it still fits",
        ),
        pytest.param(
            job(("prefill", 1, 1), floor=1), {PREFILL: 0}, [0], 0, id="all the way to zero"
        ),
        pytest.param(
            job(("prefill", 4, None), ("decode", 6, None), floor=10),
            {PREFILL: 2},
            [None, None],
            8,
            id="no floors of tasks",
        ),
        pytest.param(
            job(("prefill", 4, 2), ("decode", 6, 2)), {PREFILL: 1}, [1, 2], None, id="no job floor"
        ),
    ],
)
def test_minima_go_down_only_where_the_rules_ask(
    raw: dict[str, Any], counts: dict[Target, int], minima: list[int | None], floor: int | None
) -> None:
    spec = scaled(raw, counts)
    assert [task.get("minAvailable") for task in spec["tasks"]] == minima
    assert spec.get("minAvailable") == floor


def test_a_zero_that_the_api_left_out_is_zero_for_volcano_and_one_elsewhere() -> None:
    raw = job(("prefill", 4, 1))
    del raw["spec"]["tasks"][0]["replicas"]
    assert reading(PREFILL, raw).replicas == 0
    assert reading(DEPLOYMENT, simple({})).replicas == 1


def test_a_single_count() -> None:
    found = reading(DEPLOYMENT, simple({"replicas": 3}))
    assert (found.replicas, found.entries) == (3, ())
    assert operations([(found, 5)])[1:] == [{"op": "add", "path": "/spec/replicas", "value": 5}]


def test_a_count_in_a_map_whose_key_needs_escaping() -> None:
    raw = simple({"services": {"Vllm/Prefill": {"replicas": 2}}})
    assert reading(DYNAMO, raw).replicas == 2
    assert scaled(raw, {DYNAMO: 4})["services"] == {"Vllm/Prefill": {"replicas": 4}}


@pytest.mark.parametrize(
    ("target", "raw", "said", "code"),
    [
        pytest.param(
            Target("batch.volcano.sh/v1alpha1", "Job", "pd", "prefil"),
            job(("prefill", 1, 1), ("decode", 1, 1)),
            "has no task prefil; it has prefill, decode",
            "TargetNotFound",
            id="misspelt task",
        ),
        pytest.param(
            DYNAMO,
            simple({"services": {"Frontend": {}, "Decode": {}}}),
            "has no task Vllm/Prefill; it has Decode, Frontend",
            "TargetNotFound",
            id="misspelt service",
        ),
        pytest.param(
            KSERVE_PREFILL,
            simple({"replicas": 1}),
            "has no task prefill; it has none",
            "TargetNotFound",
            id="no prefill",
        ),
        *(
            pytest.param(
                PREFILL,
                job(("prefill", 1, 1), phase=phase),
                f"Job serving/pd is {phase} and",
                "TargetUnusable",
                id=phase,
            )
            for phase in (
                *("Restarting", "Aborting", "Aborted", "Terminating"),
                *("Terminated", "Completing", "Completed", "Failed"),
            )
        ),
    ],
)
def test_what_can_not_be_scaled_says_why(
    target: Target, raw: dict[str, Any], said: str, code: str
) -> None:
    with pytest.raises(TargetError, match="serving/pd") as refused:
        reading(target, raw)
    assert said in str(refused.value)
    assert refused.value.code == code


@pytest.mark.parametrize("phase", ["Pending", "Running", ""])
def test_a_job_that_waits_or_runs_is_scaled(phase: str) -> None:
    assert reading(PREFILL, job(("prefill", 2, 1), phase=phase)).replicas == 2


def test_a_partitioned_task_is_refused_and_its_neighbour_is_not() -> None:
    raw = job(("prefill", 4, 1), ("decode", 6, 1))
    raw["spec"]["tasks"][0]["partitionPolicy"] = {"totalPartitions": 2, "partitionSize": 2}
    with pytest.raises(TargetError, match="task prefill has a partitionPolicy"):
        reading(PREFILL, raw)
    assert reading(DECODE, raw).replicas == 6


def test_an_object_that_is_being_deleted_is_refused() -> None:
    raw = job(("prefill", 4, 1))
    raw["metadata"]["deletionTimestamp"] = "2026-11-22T18:00:00Z"
    with pytest.raises(TargetError, match="is being deleted"):
        reading(PREFILL, raw)


def change(**meta: str) -> dict[str, Any]:
    raw = job(("prefill", 4, 1), ("decode", 6, 1))
    raw["metadata"].update(meta)
    return raw


@pytest.mark.parametrize(
    ("now", "same"),
    [
        pytest.param(change(resourceVersion="8"), True, id="status alone moved"),
        pytest.param(change(uid="u2"), False, id="another object"),
        pytest.param(job(("prefill", 5, 1), ("decode", 6, 1)), False, id="another count"),
        pytest.param(job(("prefill", 4, 1), ("decode", 9, 1)), True, id="another task's count"),
        pytest.param(job(("prefill", 4, 1), ("vision", 6, 1)), False, id="other tasks"),
    ],
)
def test_a_decision_holds_for_the_same_object_count_and_tasks(
    now: dict[str, Any], same: bool
) -> None:
    decided: Reading = reading(PREFILL, change())
    assert reading(PREFILL, now).is_as(decided) is same


def owner(manager: str, time: str, fields: dict[str, Any], sub: str = "") -> dict[str, Any]:
    return {"manager": manager, "time": time, "fieldsV1": fields, "subresource": sub}


TASKS = {"f:spec": {"f:tasks": {}, "f:queue": {}}}
KEYED = {"f:spec": {"f:roles": {'k:{"name":"prefill"}': {"f:replicas": {}, ".": {}}}}}
RBG = Target("workloads.x-k8s.io/v1alpha2", "RoleBasedGroup", "pd", "prefill")


@pytest.mark.parametrize(
    ("target", "owners", "writer"),
    [
        pytest.param(PREFILL, [owner("kubectl", "1", TASKS)], "kubectl", id="atomic list"),
        pytest.param(
            PREFILL,
            [owner("argocd", "3", TASKS), owner("pd-planner", "2", TASKS)],
            "argocd",
            id="the last one",
        ),
        pytest.param(
            PREFILL, [owner("kubectl", "1", {"f:spec": {"f:queue": {}}})], None, id="other field"
        ),
        pytest.param(
            PREFILL, [owner("controller", "9", TASKS, "status")], None, id="status is no write"
        ),
        pytest.param(
            DEPLOYMENT,
            [owner("hpa", "1", {"f:spec": {"f:replicas": {}}}, "scale")],
            "hpa",
            id="through /scale",
        ),
        pytest.param(RBG, [owner("kubectl", "1", KEYED)], "kubectl", id="keyed list"),
        pytest.param(PREFILL, [], None, id="nobody"),
    ],
)
def test_who_wrote_the_count(
    target: Target, owners: list[dict[str, Any]], writer: str | None
) -> None:
    raw = job(("prefill", 4, 1))
    if target == DEPLOYMENT:
        raw = simple({"replicas": 1})
    if target == RBG:
        raw = simple({"roles": [{"name": "prefill", "replicas": 2}]})
    raw["metadata"]["managedFields"] = owners
    assert writer_of(target, reading(target, raw), raw) == writer
