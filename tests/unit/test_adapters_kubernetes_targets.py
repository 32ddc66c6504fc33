"""Many targets with few requests, and one clear line for each that can't be scaled."""

from collections.abc import Mapping
from typing import Any

import pytest

from planner.adapters.kubernetes.faults import AUTOSCALERS, Call, Resource, fault
from planner.adapters.kubernetes.targets import SeenTarget, TargetReader, seen_target
from planner.errors import ClusterError, TargetError
from planner.model import Target

PREFILL = Target("batch.volcano.sh/v1alpha1", "Job", "pd", "prefill")
DECODE = Target("batch.volcano.sh/v1alpha1", "Job", "pd", "decode")
WEB = Target("apps/v1", "Deployment", "web")
VOLCANO = Resource("batch.volcano.sh", "v1alpha1", "jobs")
DEPLOYMENTS = Resource("apps", "v1", "deployments")
STATEFUL_SETS = Resource("apps", "v1", "statefulsets")

Json = dict[str, Any]


def meta(name: str) -> Json:
    return {"name": name, "namespace": "serving", "uid": f"uid-{name}", "resourceVersion": "7"}


def job(name: str = "pd", **spec: Any) -> Json:
    template = {"spec": {"containers": [{"resources": {"limits": {"nvidia.com/gpu": "2"}}}]}}
    tasks = [
        {"name": "prefill", "replicas": 4, "template": template},
        {"name": "decode", "replicas": 6, "template": template},
    ]
    return {"metadata": meta(name), "spec": {"tasks": tasks, "queue": "serving", **spec}}


def deployment(name: str = "web") -> Json:
    return {"metadata": meta(name), "spec": {"replicas": 3, "template": {"spec": {}}}}


class Objects:
    """Lists and gets of objects held by resource; counts the requests."""

    def __init__(self, held: Mapping[Resource, list[Json] | ClusterError]) -> None:
        self.held = held
        self.asked: list[str] = []

    def items(self, resource: Resource, namespace: str | None = None) -> list[Json]:
        self.asked.append(f"list {resource} {namespace}")
        found = self.held.get(resource, [])
        if isinstance(found, ClusterError):
            raise found
        return found

    def get(self, resource: Resource, namespace: str | None, name: str) -> Json:
        for one in self.items(resource, namespace):
            if one["metadata"]["name"] == name:
                return one
        raise fault(Call("get", resource, namespace, name), 404, b"")


def read(objects: Objects, *targets: Target) -> dict[Target, SeenTarget | ClusterError]:
    found = TargetReader(objects).read([("serving", target) for target in targets])
    return {target: found["serving", target] for target in targets}


def test_a_kind_in_a_namespace_is_one_request() -> None:
    objects = Objects({VOLCANO: [job()], DEPLOYMENTS: [deployment()]})
    found = read(objects, PREFILL, DECODE, WEB, PREFILL)
    counts = [one.reading.replicas for one in found.values() if isinstance(one, SeenTarget)]
    assert counts == [4, 6, 3]
    assert objects.asked == [
        "list jobs.batch.volcano.sh serving",
        "list deployments.apps serving",
        "list horizontalpodautoscalers.autoscaling serving",
    ]


def test_what_a_pod_asks_for_is_that_of_the_template_and_the_queue_of_the_job() -> None:
    shape = seen_target(PREFILL, job()).shape
    assert shape is not None
    assert (shape.requests["nvidia.com/gpu"], shape.queue) == (2.0, "serving")


@pytest.mark.parametrize(
    ("network", "tier", "name"),
    [
        pytest.param({"mode": "hard", "highestTierAllowed": 1}, 1, None, id="hard"),
        pytest.param({"highestTierAllowed": 2}, 2, None, id="hard by default"),
        pytest.param({"mode": "hard"}, None, None, id="no tier is not enforced"),
        pytest.param({"mode": "soft", "highestTierAllowed": 1}, None, None, id="soft is not"),
        pytest.param({"mode": "hard", "highestTierName": "leaf"}, None, "leaf", id="by name"),
        pytest.param(None, None, None, id="none"),
    ],
)
def test_what_the_scheduler_keeps_a_job_under(
    network: Json | None, tier: int | None, name: str | None
) -> None:
    seen = seen_target(PREFILL, job(**({"networkTopology": network} if network else {})))
    assert (seen.tier, seen.tier_name) == (tier, name)


def test_our_own_write_is_nobody_elses() -> None:
    raw = job()
    owned = {"fieldsV1": {"f:spec": {"f:tasks": {}}}, "time": "1"}
    for manager, other in (("pd-planner", None), ("argocd", "argocd")):
        raw["metadata"]["managedFields"] = [owned | {"manager": manager}]
        assert seen_target(PREFILL, raw).changed_by == other


@pytest.mark.parametrize(
    ("held", "target", "said"),
    [
        pytest.param(
            {STATEFUL_SETS: [deployment("web")]},
            WEB,
            "there is no Deployment serving/web; of that name there is apps/v1 StatefulSet: "
            "correct scaleTargetRef",
            id="another kind",
        ),
        pytest.param(
            {Resource("batch", "v1", "jobs"): [job()]},
            PREFILL,
            "of that name there is batch/v1 Job",
            id="the other Job",
        ),
        pytest.param(
            {DEPLOYMENTS: [deployment("wep"), deployment("api")]},
            WEB,
            "there is no Deployment serving/web; deployments there: api, wep",
            id="misspelt",
        ),
        pytest.param({}, WEB, "the namespace has no deployments", id="none at all"),
    ],
)
def test_a_missing_target_says_what_there_is(
    held: dict[Resource, list[Json]], target: Target, said: str
) -> None:
    found = read(Objects(held), target)[target]
    assert isinstance(found, TargetError)
    assert found.code == "TargetNotFound"
    assert said in str(found)


def test_what_can_not_be_listed_fails_its_own_kind_alone() -> None:
    down = ClusterError("may not list jobs")
    found = read(Objects({VOLCANO: down, DEPLOYMENTS: [deployment()]}), PREFILL, DECODE, WEB)
    assert found[PREFILL] is down
    assert found[DECODE] is down
    assert isinstance(found[WEB], SeenTarget)


def test_one_bad_target_fails_alone() -> None:
    odd = job("odd")
    odd["spec"]["tasks"] = [{"name": "prefill", "replicas": "many"}]
    broken = Target(PREFILL.api_version, "Job", "odd", "prefill")
    unknown = Target("v1", "Pod", "pd")
    found = read(Objects({VOLCANO: [job(), odd]}), PREFILL, broken, unknown)
    assert isinstance(found[PREFILL], SeenTarget)
    assert "Job serving/odd is not as its API describes it" in str(found[broken])
    assert "no such scale target" in str(found[unknown])


def autoscaler(kind: str, name: str) -> Json:
    return {"metadata": {"name": "hpa"}, "spec": {"scaleTargetRef": {"kind": kind, "name": name}}}


@pytest.mark.parametrize(
    ("scaled", "contended"),
    [
        pytest.param([autoscaler("Deployment", "web")], True, id="the same"),
        pytest.param([autoscaler("StatefulSet", "web")], False, id="another kind"),
        pytest.param([autoscaler("Deployment", "api")], False, id="another name"),
        pytest.param(ClusterError("may not"), False, id="not ours to see"),
    ],
)
def test_a_second_autoscaler_is_contention(
    scaled: list[Json] | ClusterError, contended: bool
) -> None:
    found = read(Objects({DEPLOYMENTS: [deployment()], AUTOSCALERS: scaled}), WEB)[WEB]
    assert isinstance(found, TargetError) is contended
    if isinstance(found, TargetError):
        assert found.code == "TargetContended"
        assert "also scaled by the HorizontalPodAutoscaler hpa; delete that" in str(found)
