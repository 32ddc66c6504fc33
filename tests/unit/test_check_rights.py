"""Permissions: which are needed for what, how they are asked for, and what a missing one costs."""

from dataclasses import replace
from typing import Any

import pytest
import yaml

from planner.adapters.kubernetes.check import (
    CONFIG_MAPS,
    read_autoscalers,
    read_scheduler_config,
    read_targets,
)
from planner.adapters.kubernetes.faults import AUTOSCALERS, Resource
from planner.adapters.kubernetes.rights import REVIEWS, answers
from planner.check.finding import Level
from planner.check.overlap import shared_targets
from planner.check.rights import Right, right_findings, rights_of
from planner.check.rules import Rule
from planner.errors import ClusterError, TargetError
from planner.model import Mode, Role, Service, ServiceKey, Target
from tests import builders

ACT = builders.service(mode=Mode.ACT)
WATCH = builders.service(mode=Mode.RECOMMEND)
JOBS = ("batch.volcano.sh", "jobs")


def verbs(service: Service, group: str, resource: str, namespace: str | None) -> set[str]:
    return {
        right.verb
        for right in rights_of([service])
        if (right.group, right.resource, right.namespace) == (group, resource, namespace)
    }


def test_only_a_planner_that_acts_may_write():
    assert verbs(ACT, *JOBS, "inference") == {"get", "list", "patch"}
    assert verbs(WATCH, *JOBS, "inference") == {"get", "list"}
    assert verbs(ACT, "", "pods", "inference") == {"list", "watch", "patch"}
    assert verbs(WATCH, "", "pods", "inference") == {"list", "watch"}


def test_nothing_is_ever_created_or_deleted_but_events():
    rights = rights_of([ACT])
    assert {right.verb for right in rights} == {"get", "list", "watch", "patch", "create"}
    assert {right.resource for right in rights if right.verb == "create"} == {"events"}


def test_cluster_wide_rights_only_read():
    wide = {right for right in rights_of([ACT]) if right.namespace is None}
    assert {right.verb for right in wide} == {"list", "watch"}
    assert {right.resource for right in wide} == {"nodes", "hypernodes", "queues", "pods"}
    own = rights_of([ACT], shared_nodes=False)
    assert all(right.resource != "pods" for right in own if right.namespace is None)


def test_each_namespace_and_each_kind_of_target_is_asked_for():
    other = replace(
        ACT,
        key=ServiceKey("second", "llm"),
        pools=tuple(
            builders.pool(role, target=Target("apps/v1", "Deployment", str(role))) for role in Role
        ),
    )
    targets = {(r.namespace, r.resource) for r in rights_of([ACT, other]) if r.verb == "patch"}
    assert targets == {
        ("inference", "jobs"),
        ("inference", "pods"),
        ("inference", "events"),
        ("second", "deployments"),
        ("second", "pods"),
        ("second", "events"),
    }


def refused(*rights: Right) -> list[Any]:
    needs = rights_of([ACT])
    return list(right_findings(needs, {right: right not in rights for right in needs}))


def test_all_rights_granted_is_one_line():
    (one,) = refused()
    assert one.level is Level.OK
    assert one.what == f"all {len(rights_of([ACT]))} that are needed are granted"


def test_a_missing_right_without_which_nothing_works_is_an_error_with_the_rule_to_paste():
    (one,) = refused(Right("patch", *JOBS, "inference"))
    assert (one.level, one.rule) == (Level.ERROR, Rule.RIGHT)
    assert one.what.startswith("may not patch jobs.batch.volcano.sh in namespace inference")
    assert one.mend.startswith("add to the Role in namespace inference: ")
    assert yaml.safe_load(one.mend.partition(": ")[2]) == {
        "apiGroups": ["batch.volcano.sh"],
        "resources": ["jobs"],
        "verbs": ["patch"],
    }


def test_a_missing_right_that_only_blinds_is_a_warning_that_says_to_what():
    (one,) = refused(Right("list", "", "nodes"), Right("watch", "", "nodes"))
    assert one.level is Level.WARNING
    assert one.what == (
        "may not list, watch nodes cluster-wide: replicas are not capped by what still fits"
    )
    assert one.mend.startswith("add to the ClusterRole: ")


def test_rights_that_were_not_asked_for_are_not_missing():
    assert [f.level for f in right_findings(rights_of([ACT]), {})] == [Level.OK]


class Api:
    """Answers as an API server whose account may only list; holds two objects and a list."""

    def __init__(self, **objects: Any) -> None:
        self.objects = objects
        self.asked: list[tuple[Resource, str | None, Any]] = []

    def post(
        self, resource: Resource, namespace: str | None, body: dict[str, Any]
    ) -> dict[str, Any]:
        self.asked.append((resource, namespace, body))
        attributes = body["spec"]["resourceAttributes"]
        return {"status": self.objects.get("status", {"allowed": attributes["verb"] == "list"})}

    def get(self, resource: Resource, namespace: str | None, name: str) -> dict[str, Any]:
        self.asked.append((resource, namespace, name))
        if name not in self.objects:
            raise TargetError(f"{resource} {name}: not found")
        return dict(self.objects[name])

    def items(self, resource: Resource, namespace: str | None = None) -> list[dict[str, Any]]:
        if "items" not in self.objects:
            raise ClusterError(f"may not list {resource}")
        self.asked.append((resource, namespace, None))
        return list(self.objects["items"])


def test_the_api_server_is_asked_for_each_right_as_the_account_itself():
    api = Api()
    rights = [Right("list", *JOBS, "inference"), Right("watch", "", "nodes")]
    assert answers(api, rights) == {rights[0]: True, rights[1]: False}
    assert api.asked[0][:2] == (REVIEWS, None)
    assert [body["spec"]["resourceAttributes"] for _, _, body in api.asked] == [
        {
            "verb": "list",
            "group": "batch.volcano.sh",
            "resource": "jobs",
            "namespace": "inference",
        },
        {"verb": "watch", "group": "", "resource": "nodes"},
    ]


@pytest.mark.parametrize("status", [None, {}, "Failure"], ids=["none", "empty", "garbled"])
def test_an_answer_that_says_nothing_is_no_grant(status: object):
    with pytest.raises(ClusterError, match="did not say whether"):
        answers(Api(status=status), [Right("list", "", "nodes")])


def test_two_tasks_of_one_job_are_read_once_and_one_that_is_missing_is_its_error():
    pools = tuple(
        builders.pool(role, target=Target("batch.volcano.sh/v1alpha1", "Job", "pd", str(role)))
        for role in Role
    )
    api = Api(pd={"kind": "Job"})
    read = read_targets(api, builders.service(pools=pools))
    assert read == {"prefill": {"kind": "Job"}, "decode": {"kind": "Job"}}
    assert api.asked == [(Resource("batch.volcano.sh", "v1alpha1", "jobs"), "inference", "pd")]
    missing = read_targets(Api(), builders.service())
    assert {type(answer) for answer in missing.values()} == {TargetError}


def test_other_objects_are_read_or_not_without_a_fault():
    config = {"data": {"volcano-scheduler.conf": "tiers: []"}}
    api = Api(**{"items": [{"a": 1}], "volcano-scheduler-configmap": config})
    assert read_autoscalers(api, "inference") == ({"a": 1},)
    assert read_scheduler_config(api) == "tiers: []"
    assert [(resource, namespace) for resource, namespace, _ in api.asked] == [
        (AUTOSCALERS, "inference"),
        (CONFIG_MAPS, "volcano-system"),
    ]
    assert isinstance(read_autoscalers(Api(), "inference"), ClusterError)
    assert read_scheduler_config(Api()) is None


def test_two_services_on_one_task_are_an_error_of_both():
    other = replace(ACT, key=ServiceKey("inference", "copy"), pools=ACT.pools[:1])
    elsewhere = replace(ACT, key=ServiceKey("second", "llama-8b"))
    found = shared_targets([ACT, other, elsewhere])
    (one,) = found[ACT.key]
    assert (one.level, one.rule) == (Level.ERROR, Rule.SHARED_TARGET)
    assert one.where == "pool prefill: scaleTargetRef"
    assert "Job pd-prefill task prefill-worker is scaled by inference/copy too" in one.what
    assert [finding.what.count("inference/llama-8b") for finding in found[other.key]] == [1]
    assert found[elsewhere.key] == []


def test_advice_on_a_target_that_another_scales_is_a_warning():
    adviser = replace(ACT, key=ServiceKey("inference", "copy"), mode=Mode.RECOMMEND)
    found = shared_targets([ACT, adviser])
    assert {one.level for told in found.values() for one in told} == {Level.WARNING}


def test_two_versions_of_a_group_are_one_object():
    target = replace(ACT.pools[0].target, api_version="batch.volcano.sh/v2")
    newer = replace(
        ACT, key=ServiceKey("inference", "copy"), pools=(replace(ACT.pools[0], target=target),)
    )
    assert len(shared_targets([ACT, newer])[ACT.key]) == 1
