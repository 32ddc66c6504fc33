"""The control plane of the tests is worth its name: controllers, quotas, rights, outages."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import LEASH, Process
from tests.cluster.rest import HYPER_NODES, NODES, Refused, apps, core, jobs
from tests.cluster.topologies import GPU, GPU_TYPE, SWITCH_TYPE, eight_nodes, seven_switches
from tests.cluster.waiting import OUTAGE_S, always, wait_for
from tests.cluster.workloads import (
    deployment,
    is_ready,
    pods_of,
    scale,
    stateful_set,
    task,
    volcano_job,
)


def ready_pods(plane: ControlPlane, namespace: str) -> int:
    return sum(map(is_ready, plane.rest.items(core(namespace, "pods"))))


@pytest.mark.parametrize("make", [deployment, stateful_set], ids=["Deployment", "StatefulSet"])
def test_the_scale_subresource_of_a_workload_moves_real_pods(
    control_plane: ControlPlane, namespace, make
):
    control_plane.lay_out(eight_nodes())
    rest = control_plane.rest
    made = make("decode", 2)
    path = apps(namespace, f"{made['kind'].lower()}s")
    rest.create(path, made)
    wait_for("2 Ready", lambda: ready_pods(control_plane, namespace) == 2)
    rest.patch(f"{path}/decode/scale", {"spec": {"replicas": 4}})
    wait_for("4 Ready", lambda: ready_pods(control_plane, namespace) == 4)


def test_a_quota_keeps_pods_from_being_made(control_plane: ControlPlane, namespace):
    control_plane.lay_out(eight_nodes())
    rest = control_plane.rest
    quota = {"metadata": {"name": "gpus"}, "spec": {"hard": {f"requests.{GPU}": "2"}}}
    rest.create(core(namespace, "resourcequotas"), quota)
    wait_for(
        "the quota counts",
        lambda: rest.get(core(namespace, "resourcequotas", "gpus"))["status"].get("used"),
    )
    rest.create(jobs(namespace), volcano_job("pd", task("p", 4)))
    wait_for("2 Ready", lambda: ready_pods(control_plane, namespace) == 2)
    always("no third", lambda: len(rest.items(core(namespace, "pods"))) == 2, for_s=1.0)


def test_an_eviction_that_a_budget_forbids_is_answered_429(control_plane: ControlPlane, namespace):
    control_plane.lay_out(eight_nodes())
    rest = control_plane.rest
    rest.create(apps(namespace, "deployments"), deployment("decode", 2))
    selector = {"matchLabels": {"app": "decode"}}
    budget = {"metadata": {"name": "two"}, "spec": {"minAvailable": 2, "selector": selector}}
    budgets = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"
    rest.create(budgets, budget)
    wait_for(
        "the budget counts",
        lambda: rest.get(f"{budgets}/two").get("status", {}).get("currentHealthy") == 2,
    )
    name = rest.items(core(namespace, "pods"))[0]["metadata"]["name"]
    with pytest.raises(Refused) as caught:
        rest.create(
            core(namespace, "pods", f"{name}/eviction"),
            {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}},
        )
    assert caught.value.status == 429


def test_an_account_without_rights_is_refused_by_name(control_plane: ControlPlane, namespace):
    token = control_plane.account(namespace, "scaler")
    with control_plane.client(token) as stranger, pytest.raises(Refused) as caught:
        stranger.items(jobs(namespace))
    assert caught.value.status == 403
    assert f"system:serviceaccount:{namespace}:scaler" in caught.value.message


def test_the_scenario_has_its_nodes_and_switches(control_plane: ControlPlane):
    control_plane.lay_out(seven_switches())
    nodes = control_plane.rest.items(NODES)
    labels = [node["metadata"]["labels"] for node in nodes]
    assert len(nodes) == 256
    for gpu in ("h100", "rtx4090"):
        assert [one[SWITCH_TYPE] for one in labels if one.get(GPU_TYPE) == gpu] == ["ib"] * 12
    tiers = [switch["spec"]["tier"] for switch in control_plane.rest.items(HYPER_NODES)]
    assert sorted(tiers) == [1, 1, 1, 1, 2, 2, 3]


@pytest.mark.parametrize("part", ["etcd", "kube-apiserver", "vc-controller-manager"])
def test_a_killed_part_comes_back_and_nothing_is_lost(
    own_control_plane: ControlPlane, own_namespace, part
):
    plane, rest = own_control_plane, own_control_plane.rest
    plane.lay_out(eight_nodes())
    rest.create(jobs(own_namespace), volcano_job("pd", task("p", 2)))
    wait_for("2 Ready", lambda: ready_pods(plane, own_namespace) == 2)
    before = set(pods_of(rest, own_namespace, "pd"))
    plane.kill(part)
    plane.start(part)
    wait_for("the API answers", lambda: pods_of(rest, own_namespace, "pd"), OUTAGE_S)
    assert set(pods_of(rest, own_namespace, "pd")) == before
    rest.patch(jobs(own_namespace, "pd"), scale((0, 3)))
    wait_for("3 Ready", lambda: ready_pods(plane, own_namespace) == 3, OUTAGE_S)


def test_what_was_cut_off_for_long_sees_all_there_is_once_it_recovered(
    own_control_plane: ControlPlane, own_namespace
):
    plane = own_control_plane
    plane.lay_out(eight_nodes())
    plane.kill("kube-apiserver")
    # Nothing tells how often a watch was refused; by now its next try is 6 to 13 s away.
    always("it is down", lambda: "kube-apiserver" in plane.ended_by_themselves(), for_s=8.0)
    plane.start("kube-apiserver")
    plane.recover()
    plane.rest.create(jobs(own_namespace), volcano_job("pd", task("p", 2)))
    wait_for("2 Ready", lambda: ready_pods(plane, own_namespace) == 2)


def test_a_frozen_scheduler_places_nothing_until_it_goes_on(
    own_control_plane: ControlPlane, own_namespace
):
    plane = own_control_plane
    plane.lay_out(eight_nodes())
    plane.freeze("vc-scheduler")
    try:
        plane.rest.create(apps(own_namespace, "deployments"), deployment("decode", 1))
        wait_for("a pod is made", lambda: plane.rest.items(core(own_namespace, "pods")))
        always("it waits", lambda: not ready_pods(plane, own_namespace), for_s=1.0)
    finally:
        plane.go_on("vc-scheduler")
    wait_for("1 Ready", lambda: ready_pods(plane, own_namespace) == 1)


def test_a_part_that_ends_at_once_is_named_with_its_last_words(tmp_path: Path):
    process = Process("etcd", ["/bin/sh", "-c", "echo no such flag >&2; exit 2"], tmp_path / "log")
    process.start()
    wait_for("it ends", lambda: process.ended_with() is not None)
    assert process.ended_with() == 2
    assert process.last_lines().endswith("no such flag")


def test_a_process_dies_with_its_parent_however_that_dies(tmp_path: Path):
    starts_one = (
        "import os, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, {str(LEASH)!r}, str(os.getpid()),"
        " '/bin/sleep', '600'], start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", starts_one], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        command = Path(f"/proc/{child}/cmdline")
        wait_for("it sleeps", lambda: command.read_text("utf-8").startswith("/bin/sleep"))
        os.kill(parent.pid, signal.SIGKILL)
    wait_for("it is gone", lambda: not command.exists() or not command.read_text("utf-8"))
