"""What the real Volcano does, as far as this project's behaviour rests on it: one fact, one test.

A new Volcano that changes one of them fails here by name, before anything else is looked at.
"""

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.rest import HYPER_NODES, NODES, Refused, core, jobs, pod_groups
from tests.cluster.scene import Scene
from tests.cluster.topologies import eight_nodes, over_hyper_nodes
from tests.cluster.waiting import always, wait_for
from tests.cluster.workloads import (
    GONE_AFTER,
    READY_AFTER,
    has_condition,
    node_of,
    pod_template,
    scale,
    task,
    volcano_job,
)

FLOORS_TO_ZERO = [
    {"op": "replace", "path": "/spec/minAvailable", "value": 0},
    {"op": "replace", "path": "/spec/tasks/0/minAvailable", "value": 0},
]
STILL_S = 1.5  # seven cycles of the scheduler: what has not moved by then does not


@pytest.fixture
def at(control_plane: ControlPlane, namespace: str) -> Scene:
    control_plane.lay_out(eight_nodes())
    return Scene(control_plane.rest, namespace)


@pytest.mark.parametrize(
    ("operations", "text"),
    [
        pytest.param(
            scale((0, 1)),
            "'minAvailable' must be <= 'replicas' in task: prefill",
            id="replicas-below-the-task's-floor",
        ),
        pytest.param(
            [{"op": "replace", "path": "/spec/minAvailable", "value": 5}],
            "job 'minAvailable' must not be greater than total replicas",
            id="the-job's-floor-above-its-replicas",
        ),
        pytest.param(
            [{"op": "replace", "path": "/spec/networkTopology/highestTierAllowed", "value": 2}],
            "job updates may not change fields other than `minAvailable`, "
            "`tasks[*].replicas under spec` and `PriorityClassName`",
            id="another-tier",
        ),
        pytest.param(
            [{"op": "replace", "path": "/spec/tasks/0/name", "value": "decode"}],
            "job updates may not change fields other than `minAvailable`, "
            "`tasks[*].replicas under spec` and `PriorityClassName`",
            id="a-task-renamed",
        ),
        pytest.param(
            [{"op": "add", "path": "/spec/tasks/-", "value": task("decode", 1)}],
            "job updates may not add or remove tasks",
            id="a-task-added",
        ),
    ],
)
def test_the_webhook_refuses_with_a_text_that_names_the_rule(at: Scene, operations, text):
    name = at.create(volcano_job("pd", task("prefill", 2, floor=2), tier=1))
    refused = at.refusal(name, operations)
    assert refused.status == 400
    assert refused.message.startswith('admission webhook "validatejob.volcano.sh" denied')
    assert text in refused.message


def test_without_a_floor_the_webhook_makes_it_the_replicas(at: Scene):
    # So a Job as people write it cannot be scaled down by its replicas alone.
    name = at.create(volcano_job("pd", task("prefill", 3, floor=None)))
    assert at.job(name)["spec"]["tasks"][0]["minAvailable"] == 3


def test_a_replaced_resource_version_answers_409(at: Scene):
    name = at.create(volcano_job("pd", task("prefill", 2)))
    lock = {"op": "replace", "path": "/metadata/resourceVersion", "value": "1"}
    refused = at.refusal(name, [lock, *scale((0, 3))])
    assert refused.status == 409
    assert "the object has been modified" in refused.message


def test_a_failed_test_op_answers_422_without_a_reason(at: Scene):
    # Which is why the lock is a replace and only names are tested.
    name = at.create(volcano_job("pd", task("prefill", 2)))
    wrong_name = {"op": "test", "path": "/spec/tasks/0/name", "value": "decode"}
    refused = at.refusal(name, [wrong_name, *scale((0, 3))])
    assert refused.status == 422
    assert refused.message == "the server rejected our request due to an error in our request"


def test_a_job_with_a_partition_policy_cannot_be_scaled(at: Scene):
    policy = {"totalPartitions": 2, "partitionSize": 2, "minPartitions": 2}
    name = at.create(volcano_job("pd", task("prefill", 4, floor=4, partitionPolicy=policy), tier=2))
    refused = at.refusal(name, scale((0, 6)))
    assert "'Replicas' are not equal to TotalPartitions*PartitionSize" in refused.message
    more = {"op": "replace", "path": "/spec/tasks/0/partitionPolicy/totalPartitions", "value": 3}
    refused = at.refusal(name, [more, *scale((0, 6))])
    assert "job updates may not change fields other than" in refused.message


@pytest.mark.parametrize("verb", ["get", "patch"])
def test_a_job_has_no_scale_subresource(at: Scene, verb):
    name = at.create(volcano_job("pd", task("prefill", 2)))
    path = f"{jobs(at.namespace, name)}/scale"
    with pytest.raises(Refused) as caught:
        at.rest.get(path) if verb == "get" else at.rest.patch(path, {"spec": {"replicas": 3}})
    assert caught.value.status == 404


def test_scaling_both_tasks_in_one_patch_keeps_the_running_pods(at: Scene):
    name = at.created_and_ready(volcano_job("pd", task("prefill", 2), task("decode", 2)))
    before = at.uids(name)
    at.patch(name, scale((0, 4), (1, 3)))
    at.wait_ready(name, 7)
    after = at.uids(name)
    assert {pod: after[pod] for pod in before} == before
    assert "version" not in at.job(name)["status"]  # it counts restarts of the Job


def test_the_highest_index_dies_even_if_a_lower_one_is_pending(at: Scene):
    name = at.created_and_ready(volcano_job("pd", task("p", 4)))
    nodes = at.rest.items(NODES)
    try:
        for node in nodes:
            at.rest.patch(f"{NODES}/{node['metadata']['name']}", {"spec": {"unschedulable": True}})
        at.rest.delete(core(at.namespace, "pods", "pd-p-0"), grace_s=0)
        at.wait_stuck(name, ready=3, pending=1)
        at.patch(name, scale((0, 3)))
        wait_for("one is gone", lambda: len(at.pods(name)) == 3)
        assert at.ready(name) == {"pd-p-1", "pd-p-2"}
        assert not node_of(at.pods(name)["pd-p-0"])
    finally:
        for node in nodes:
            at.rest.patch(f"{NODES}/{node['metadata']['name']}", {"spec": {"unschedulable": None}})


def test_to_zero_the_job_stays_running_and_comes_back(at: Scene):
    name = at.created_and_ready(volcano_job("pd", task("p", 2), tier=1))
    at.patch(name, [*FLOORS_TO_ZERO, *scale((0, 0))])
    wait_for("no pods are left", lambda: not at.pods(name))
    assert at.phase(name) == "Running"
    at.patch(name, scale((0, 3)))
    at.wait_ready(name, 3)


def test_a_terminating_name_is_made_anew_only_when_it_is_gone(at: Scene):
    slow = pod_template(annotations={GONE_AFTER: "8s"})
    name = at.created_and_ready(volcano_job("pd", task("p", 2, template=slow)))
    old = at.uids(name)["pd-p-1"]
    at.patch(name, scale((0, 1)))
    wait_for("it terminates", lambda: len(at.ready(name)) == 1)
    at.patch(name, scale((0, 2)))
    always("the old pod holds its name", lambda: at.uids(name)["pd-p-1"] == old, for_s=STILL_S)
    wait_for("the new one is Ready", lambda: len(at.ready(name)) == 2)
    assert at.uids(name)["pd-p-1"] != old


def test_ready_is_later_than_running_and_the_job_counts_running(at: Scene):
    slow = pod_template(annotations={READY_AFTER: "24h"})
    name = at.create(volcano_job("pd", task("p", 2, template=slow)))
    wait_for("the Job counts both", lambda: at.job(name).get("status", {}).get("running") == 2)
    assert at.phase(name) == "Running"
    assert not at.ready(name)


def test_a_start_lag_passes_between_running_and_ready(at: Scene):
    slow = pod_template(annotations={READY_AFTER: "2s"})
    name = at.create(volcano_job("pd", task("p", 1, template=slow)))
    at.wait_ready(name, 1)
    (pod,) = at.pods(name).values()
    changed = {one["type"]: one["lastTransitionTime"] for one in pod["status"]["conditions"]}
    assert changed["Ready"] > pod["status"]["startTime"]  # both RFC 3339 in UTC


@pytest.mark.parametrize(
    ("action", "outcome"),
    [
        pytest.param("RestartJob", "all pods are new", id="restart"),
        pytest.param("TerminateJob", "Terminated", id="terminate"),
    ],
)
def test_a_pod_evicted_policy_fires_on_an_ordinary_scale_down(at: Scene, action, outcome):
    policy = [{"event": "PodEvicted", "action": action}]
    name = at.created_and_ready(volcano_job("pd", task("p", 4), policies=policy))
    before = at.uids(name)
    at.patch(name, scale((0, 2)))

    def happened() -> bool:
        if outcome == "Terminated":
            return at.phase(name) == "Terminated" and not at.pods(name)
        return len(at.ready(name)) == 2 and not set(at.uids(name).values()) & set(before.values())

    wait_for(outcome, happened)


def test_a_deleted_job_takes_its_pods_and_its_pod_group_along(at: Scene):
    name = at.created_and_ready(volcano_job("pd", task("p", 2)))
    at.rest.delete(jobs(at.namespace, name))
    wait_for("pods are gone", lambda: not at.pods(name))
    wait_for("the PodGroup is gone", lambda: not at.rest.items(pod_groups(at.namespace)))


def test_a_hard_domain_is_pinned_and_what_does_not_fit_stays_pending(at: Scene):
    # 8 GPUs a leaf: 8 run, 2 wait although three leaves are empty; nobody calls the Job unwell.
    name = at.created_and_ready(volcano_job("pd", task("p", 4), tier=1))
    home = at.leaves(name)
    at.patch(name, scale((0, 10)))
    at.wait_stuck(name, ready=8, pending=2)
    always("two stay Pending", lambda: len(at.ready(name)) == 8, for_s=STILL_S)
    assert at.leaves(name) == home
    assert len(home) == 1
    assert at.phase(name) == "Running"
    assert at.job(name)["status"]["pending"] == 2
    at.patch(name, scale((0, 8)))
    at.wait_ready(name, 8)


def test_nothing_says_where_a_job_is_pinned(at: Scene):
    # Older Volcano wrote an annotation; now the domain is only to be seen from the pods' nodes.
    name = at.created_and_ready(volcano_job("pd", task("p", 2), tier=1))
    group = at.pod_group(name)
    written = str(at.job(name)["metadata"]) + str(group["metadata"]) + str(group["status"])
    assert "hypernode" not in written.lower()
    assert "switch" not in written


def test_raising_the_floor_with_the_replicas_makes_a_serving_job_pending(at: Scene):
    name = at.created_and_ready(volcano_job("pd", task("p", 4), tier=1))
    floors = [op | {"value": 10} for op in FLOORS_TO_ZERO]
    at.patch(name, [*floors, *scale((0, 10))])
    wait_for("the Job is Pending", lambda: at.phase(name) == "Pending")
    assert len(at.ready(name)) >= 4
    wait_for("its PodGroup is Unknown", lambda: at.pod_group(name)["status"]["phase"] == "Unknown")


def test_an_unschedulable_condition_is_never_cleared(at: Scene):
    # So it says nothing about now: stuck is what has Pending pods.
    name = at.created_and_ready(volcano_job("pd", task("p", 4, floor=4), tier=1))
    floors = [op | {"value": 10} for op in FLOORS_TO_ZERO]
    at.patch(name, [*floors, *scale((0, 10))])
    wait_for("the condition", lambda: has_condition(at.pod_group(name), "Unschedulable", "True"))
    floors = [op | {"value": 4} for op in FLOORS_TO_ZERO]
    at.patch(name, [*floors, *scale((0, 4))])
    at.wait_ready(name, 4)
    wait_for("it runs again", lambda: at.pod_group(name)["status"]["phase"] == "Running")
    always(
        "the condition stays",
        lambda: has_condition(at.pod_group(name), "Unschedulable", "True"),
        for_s=STILL_S,
    )


def test_at_tier_2_the_fifth_pod_goes_to_the_sibling_leaf(at: Scene):
    # The home leaf (8) counts only while used + whole new Job fit: 4 + 5 = 9. 4 GPUs are free.
    name = at.created_and_ready(volcano_job("pd", task("p", 4, floor=4), tier=2))
    home = at.leaves(name)
    assert len(home) == 1
    at.patch(name, scale((0, 5)))
    at.wait_ready(name, 5)
    assert len(at.leaves(name)) == 2


def test_at_tier_2_the_home_leaf_is_kept_while_used_and_whole_job_fit(at: Scene):
    name = at.created_and_ready(volcano_job("pd", task("p", 3, floor=3), tier=2))
    home = at.leaves(name)
    at.patch(name, scale((0, 4)))
    at.wait_ready(name, 4)
    assert at.leaves(name) == home


def test_soft_mode_ignores_the_tier(at: Scene):
    # 20 pods want tier 2, which holds 16: hard would leave four Pending, soft does not care.
    name = at.created_and_ready(volcano_job("pd", task("p", 20, floor=1), tier=2, mode="soft"))
    assert len(at.leaves(name)) >= 3
    assert at.job(name)["spec"]["networkTopology"] == {"mode": "soft", "highestTierAllowed": 2}


def test_a_second_parent_stops_every_topology_job_until_it_is_gone(at: Scene):
    second = over_hyper_nodes("second-parent", ["ib-switch0"], tier=2)
    at.rest.create(HYPER_NODES, second)  # accepted without a word
    try:
        name = at.create(volcano_job("pd", task("p", 2), tier=1))
        plain = at.created_and_ready(volcano_job("plain", task("p", 2)))
        always("it does not start", lambda: not at.ready(name), for_s=STILL_S)
        assert len(at.ready(plain)) == 2
    finally:
        at.rest.delete(f"{HYPER_NODES}/second-parent")
    at.wait_ready(name, 2)


def test_a_dead_webhook_answers_500_and_no_refusal(
    own_control_plane: ControlPlane, own_namespace: str
):
    # It may be asked again: nobody has judged the patch.
    own_control_plane.lay_out(eight_nodes())
    at = Scene(own_control_plane.rest, own_namespace)
    name = at.created_and_ready(volcano_job("pd", task("p", 2)))
    own_control_plane.kill("vc-webhook-manager")
    refused = at.refusal(name, scale((0, 3)))
    assert refused.status == 500
    assert 'failed calling webhook "validatejob.volcano.sh"' in refused.message
    own_control_plane.start("vc-webhook-manager")
    at.patch(name, scale((0, 3)))
    at.wait_ready(name, 3)
