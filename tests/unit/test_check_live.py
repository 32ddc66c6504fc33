"""The live check as a whole: what was read goes to the rules it concerns, and once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from planner.check.finding import Finding, Level
from planner.check.live import Seen, check_live
from planner.check.rights import rights_of
from planner.check.rules import Rule
from planner.check.volcano import MAX_RETRY
from planner.errors import ClusterError, MetricsError, TargetError
from planner.inventory import HyperNode, Inventory, Member, Node, PodShape, Queue
from planner.model import Fleet, Pod, PoolFleet, Role, Sample, Signal, Transfer
from planner.spec.files import parse_spec
from planner.spec.service import LoadedService, build_service
from profiles import read_profile
from tests import builders
from tests.builders import START_S

DATA = Path(__file__).parents[2] / "profiles" / "data"
PROFILE = read_profile(DATA / "llama-3.1-8b-fp8-h200.json")
GPU = "nvidia.com/gpu"
PLUGIN = "tiers: [{plugins: [{name: network-topology-aware}]}]"


def loaded(**target: str) -> LoadedService:
    job = {"apiVersion": "batch.volcano.sh/v1alpha1", "kind": "Job", "name": "pd"}

    def pool(role: Role) -> dict[str, Any]:
        task = {} if target else {"task": str(role)}
        return {
            "name": str(role),
            "role": role.title(),
            "scaleTargetRef": job | task | ({**target, "name": str(role)} if target else {}),
            "profile": {"file": "unused"},
            "maxReplicas": 4,
            "startup": "60s",
        }

    spec = {
        "apiVersion": "pd-planner.io/v1alpha1",
        "kind": "PDAutoscaler",
        "metadata": {"name": "llama", "namespace": "inference"},
        "spec": {
            "sla": {"ttft": "500ms", "itl": "20ms", "scope": {"maxInputTokens": 8192}},
            "fallback": {"prefill": 2, "decode": 2},
            "pools": [pool(role) for role in Role],
        },
    }
    parsed = parse_spec(spec, "f.yaml")
    profiles = {str(role): PROFILE for role in Role}
    return LoadedService(parsed, build_service(parsed, profiles, Transfer()), profiles, "f.yaml")


def job(**spec: Any) -> dict[str, Any]:
    container = {"name": "vllm", "resources": {"limits": {GPU: 1}}}
    template = {"spec": {"containers": [container]}}
    tasks = [
        {"name": str(role), "replicas": 2, "minAvailable": 1, "template": template} for role in Role
    ]
    return {
        "metadata": {"name": "pd", "namespace": "inference"},
        "spec": {"minAvailable": 2, "maxRetry": MAX_RETRY, "tasks": tasks} | spec,
        "status": {"state": {"phase": "Running"}},
    }


def fleet() -> Fleet:
    pods = tuple(Pod(f"p-{i}", START_S, START_S, index=i, node="n0") for i in range(2))
    here = PoolFleet(2, pods, shape=PodShape({GPU: 1.0}))
    return Fleet(START_S, {str(role): here for role in Role})


def inventory() -> Inventory:
    node = Node("n0", allocatable={GPU: 8.0}, requested={GPU: 4.0})
    leaf = HyperNode("leaf", 1, (Member(False, exact="n0"),))
    return Inventory(START_S, (node,), (leaf,), (Queue("default"), Queue("root")))


def sample() -> Sample:
    pods = {
        str(role): tuple(
            builders.pod_sample(f"{role}-{i}", START_S, 100.0, role, itl_s=0.01) for i in range(2)
        )
        for role in Role
    }
    return Sample(START_S, pods)


def seen(service: LoadedService, **over: Any) -> Seen:
    needs = rights_of([service.service])
    given: dict[str, Any] = {
        "at_s": START_S + 5.0,
        "sample": sample(),
        "metrics_took_s": 0.1,
        "scrape_interval_s": 15.0,
        "fleet": fleet(),
        "inventory": inventory(),
        "targets": {str(role): job() for role in Role},
        "autoscalers": (),
        "scheduler_config": None,
        "needs": needs,
        "allowed": dict.fromkeys(needs, True),
    }
    return Seen(**(given | over))


def found(service: LoadedService | None = None, **over: Any) -> list[Finding]:
    asked = service or loaded()
    return check_live(asked, seen(asked, **over))


def not_ok(service: LoadedService | None = None, **over: Any) -> list[Finding]:
    return [finding for finding in found(service, **over) if finding.level is not Level.OK]


def test_a_service_that_is_as_it_should_be_is_ok_on_every_topic():
    assert [finding.line for finding in not_ok()] == []
    places = {finding.where for finding in found()}
    assert {"spec", "metrics", "pool decode: traffic", "Job pd task prefill"} <= places
    assert {"HyperNodes", "pool prefill: room", "network", "permissions"} <= places


def test_the_live_histogram_counts_instead_of_the_engine_s_default():
    bounds = [finding for finding in found() if finding.where == "sla.itl"]
    assert [finding.what for finding in bounds] == [
        "20ms is a bound of the decode pods' histogram: attainment is measured"
    ]
    (default,) = [f for f in not_ok(sample=MetricsError("away")) if f.where == "sla.itl"]
    assert "no bound of vLLM's histogram" in default.what


def test_the_job_of_two_pools_is_looked_at_once():
    assert [finding.rule for finding in not_ok(targets=dict.fromkeys(
        ("prefill", "decode"), job(maxRetry=3)))] == [Rule.MAX_RETRY]  # fmt: skip


TOPOLOGY = {"mode": "hard", "highestTierAllowed": 1}
TOPOLOGY_JOBS = dict.fromkeys(("prefill", "decode"), job(networkTopology=TOPOLOGY))


def test_only_jobs_with_a_domain_need_the_scheduler_s_plugin():
    assert not_ok(scheduler_config="tiers: [{plugins: []}]") == []
    assert not_ok(targets=TOPOLOGY_JOBS, scheduler_config=PLUGIN) == []
    (one,) = not_ok(targets=TOPOLOGY_JOBS, scheduler_config="tiers: [{plugins: []}]")
    assert (one.rule, one.level) == (Rule.TOPOLOGY_PLUGIN, Level.ERROR)
    (unread,) = not_ok(targets=TOPOLOGY_JOBS)
    assert (unread.rule, unread.level) == (Rule.TOPOLOGY_PLUGIN, Level.WARNING)


def away(what: str = "the API server is unreachable") -> ClusterError:
    return ClusterError(what)


missing = TargetError("Job inference/pd does not exist; there are: other")

UNREAD: dict[str, tuple[dict[str, Any], Rule, Level]] = {
    "metrics": ({"sample": MetricsError("away")}, Rule.METRICS, Level.ERROR),
    "cluster": ({"fleet": away()}, Rule.INVENTORY, Level.ERROR),
    "nodes": ({"inventory": away()}, Rule.INVENTORY, Level.WARNING),
    "targets": (
        {"targets": {"prefill": missing, "decode": job()}, "fleet": missing},
        Rule.TARGET,
        Level.ERROR,
    ),
    "autoscalers": ({"autoscalers": away()}, Rule.AUTOSCALER, Level.WARNING),
    "permissions": ({"allowed": away()}, Rule.RIGHT, Level.WARNING),
}


@pytest.mark.parametrize(("over", "rule", "level"), UNREAD.values(), ids=UNREAD)
def test_what_can_not_be_read_is_one_finding_and_the_rest_goes_on(
    over: dict[str, Any], rule: Rule, level: Level
):
    told = [finding for finding in not_ok(**over) if finding.rule is not Rule.SLA_BOUNDS]
    assert [(finding.rule, finding.level) for finding in told] == [(rule, level)]
    assert len(found(**over)) > 15


def test_without_a_cluster_that_bounds_no_room_is_told():
    assert not any("room" in finding.where for finding in found(inventory=None))


def test_queues_that_can_not_be_read_are_not_missed():
    unread = replace(inventory(), queues=())
    assert not_ok(inventory=unread) == []
    closed = replace(inventory(), queues=(Queue("default", is_open=False), Queue("root")))
    (one,) = [f for f in not_ok(inventory=closed) if f.rule is Rule.QUEUE]
    assert one.level is Level.ERROR


def test_deployments_go_to_their_own_rules():
    service = loaded(apiVersion="apps/v1", kind="Deployment")
    template = job()["spec"]["tasks"][0]["template"]
    paused = {"spec": {"replicas": 2, "template": template, "paused": True}}
    told = not_ok(service, targets=dict.fromkeys(("prefill", "decode"), paused))
    assert [finding.rule for finding in told] == [Rule.PAUSED, Rule.PAUSED]


def test_kinds_without_rules_of_their_own_are_named_and_nothing_more():
    service = loaded(apiVersion="workloads.x-k8s.io/v1", kind="RoleBasedGroupScalingAdapter")
    told = found(service, targets={key: {"spec": {}} for key in ("prefill", "decode")})
    assert any(f.what == "RoleBasedGroupScalingAdapter prefill" for f in told)


def test_the_mean_prompt_that_was_seen_prices_the_network():
    longer = {
        "prefill": tuple(
            replace(pod, histograms={**pod.histograms, Signal.PROMPT_TOKENS: builders.histogram(
                2000.0, 100.0, builders.LENGTHS)})
            for pod in sample().pools["prefill"]
        ),
        "decode": sample().pools["decode"],
    }  # fmt: skip
    (one,) = [f for f in found(sample=Sample(START_S, longer)) if f.where == "network"]
    assert "the KV cache of 2000 tokens moves in" in one.what


def test_an_autoscaler_on_the_same_target_reaches_the_pool():
    service = loaded(apiVersion="apps/v1", kind="Deployment")
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "prefill"}
    hpa = {"metadata": {"name": "cpu"}, "spec": {"scaleTargetRef": reference}}
    template = job()["spec"]["tasks"][0]["template"]
    plain = {"spec": {"replicas": 2, "template": template}}
    (one,) = not_ok(
        service, targets=dict.fromkeys(("prefill", "decode"), plain), autoscalers=(hpa,)
    )
    assert (one.rule, one.where) == (Rule.AUTOSCALER, "pool prefill: scaleTargetRef")


def test_a_service_whose_targets_do_not_exist_is_told_where_it_belongs():
    told = not_ok(targets=dict.fromkeys(("prefill", "decode"), missing), fleet=missing)
    assert [finding.rule for finding in told] == [Rule.TARGET, Rule.TARGET, Rule.PLACEMENT]
    assert "leaf has room for" in told[-1].what
