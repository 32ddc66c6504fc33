"""PDAutoscaler files: what is accepted, and the one line that each fault is told in."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pytest
import yaml

from planner.errors import SpecError
from planner.model import Mode, PolicyType, Role, ScalingPolicy, SelectPolicy, Statistic, Transfer
from planner.spec.files import load_specs, parse_spec
from planner.spec.service import build_service, load_services, to_service
from profiles import read_profile

EXAMPLES = Path(__file__).parents[2] / "examples"
PROFILE = str(Path(__file__).parents[2] / "profiles" / "data" / "llama-3.1-8b-fp8-h200.json")


def pool(role: str, **over: Any) -> dict[str, Any]:
    ref = {"apiVersion": "batch.volcano.sh/v1alpha1", "kind": "Job", "name": "job", "task": role}
    return {
        "name": role,
        "role": role.title(),
        "scaleTargetRef": ref,
        "profile": {"file": PROFILE},
        "maxReplicas": 8,
    } | over


def document(**over: Any) -> dict[str, Any]:
    """Return the smallest legal PDAutoscaler with parts of its spec replaced."""
    spec = {
        "sla": {"ttft": "500ms", "itl": "25ms"},
        "pools": [pool("prefill"), pool("decode")],
    }
    return {
        "apiVersion": "pd-planner.io/v1alpha1",
        "kind": "PDAutoscaler",
        "metadata": {"name": "llama"},
        "spec": spec | over,
    }


def faults(found: Mapping[str, Any]) -> list[str]:
    with pytest.raises(SpecError) as error:
        parse_spec(found, "f.yaml")
    return str(error.value).splitlines()


def sla(**over: Any) -> dict[str, Any]:
    return document(sla={"ttft": "500ms", "itl": "25ms"} | over)


def pools(*, prefill: Mapping[str, Any] = {}, decode: Mapping[str, Any] = {}) -> dict[str, Any]:
    return document(pools=[pool("prefill", **prefill), pool("decode", **decode)])


def test_defaults_are_those_of_the_reference():
    spec = parse_spec(document(), "f.yaml").spec
    assert spec.mode is Mode.RECOMMEND
    assert spec.interval_s == 60.0
    assert spec.sla.attainment_ratio == 0.99
    assert spec.sla.statistic is Statistic.ATTAINMENT
    assert spec.sla.scope.max_input_tokens is None
    assert (spec.forecast.predictor, spec.forecast.caution) == ("Kalman", 1.0)
    assert spec.metrics.source == "vllm"
    assert spec.fallback is None
    assert (spec.pools[0].min_replicas, spec.pools[0].pods_per_replica) == (1, 1)
    assert spec.topology.capacity == "Existing"


BAD = {
    "no unit": (sla(ttft=500), "spec.sla.ttft: 500 has no unit: write 500ms or 500s"),
    "no unit in quotes": (sla(ttft="500"), "spec.sla.ttft: 500 has no unit: write 500ms or 500s"),
    "unknown unit": (
        sla(ttft="500parsec"),
        "spec.sla.ttft: 500parsec: unknown unit parsec; legal units: ns, us, ms, s, m, h",
    ),
    "no duration": (
        sla(itl="fast"),
        "spec.sla.itl: 'fast' is no duration: write one such as 500ms, 90s or 1m30s",
    ),
    "negative duration": (
        sla(itl="-5ms"),
        "spec.sla.itl: '-5ms' is no duration: write one such as 500ms, 90s or 1m30s",
    ),
    "interval too short": (
        document(interval="4s"),
        "spec.interval: 4s is out of range: write a value from 5s to 10m",
    ),
    "interval too long": (
        document(interval="11m"),
        "spec.interval: 11m is out of range: write a value from 5s to 10m",
    ),
    "attainment 100%": (
        sla(attainment="100%"),
        (
            "spec.sla.attainment: 100% is out of range: write a value between 50% and 100%, both "
            "excluded"
        ),
    ),
    "attainment 50%": (
        sla(attainment="50%"),
        (
            "spec.sla.attainment: 50% is out of range: write a value between 50% and 100%, both "
            "excluded"
        ),
    ),
    "attainment as a number": (
        sla(attainment=0.99),
        'spec.sla.attainment: 0.99 has no percent sign: write "99%"',
    ),
    "unknown statistic": (
        sla(statistic="Median"),
        'spec.sla.statistic: "Median" is unknown; legal: Attainment, Mean; did you mean Mean?',
    ),
    "unknown predictor": (
        document(forecast={"predictor": "kalman"}),
        (
            'spec.forecast.predictor: "kalman" is unknown; legal: Kalman, Arima, Prophet, '
            "LastValue; "
            "did you mean Kalman?"
        ),
    ),
    "unknown source": (
        document(metrics={"source": "sglang"}),
        'spec.metrics.source: "sglang" is unknown; legal: vllm, vllm-gateway',
    ),
    "bad label": (
        document(metrics={"selector": {"model-name": "x"}}),
        (
            "spec.metrics.selector: 'model-name' is no Prometheus label: write letters, "
            "digits and _, "
            "no digit first"
        ),
    ),
    "missing sla": (
        {k: v for k, v in document().items() if k != "spec"}
        | {"spec": {"pools": document()["spec"]["pools"]}},
        "spec.sla: is missing: add it (What is promised to the users)",
    ),
    "unknown key": (
        pools(decode={"maxReplica": 8}),
        (
            "spec.pools[1].maxReplica: is no key here; legal: behavior, drain, gpuHourPrice, "
            "gpuType, gpusPerReplica, maxReplicas, metrics, minReplicas, name, podsPerReplica, "
            "profile, role, scaleTargetRef, startup; did you mean maxReplicas?"
        ),
    ),
    "count in quotes": (
        pools(prefill={"maxReplicas": "8"}),
        'spec.pools[0].maxReplicas: "8" is no whole number: write one without quotes',
    ),
    "count out of range": (
        pools(prefill={"maxReplicas": 100000}),
        "spec.pools[0].maxReplicas: 100000 is out of range: write a whole number from 1 to 10000",
    ),
    "price without quotes": (
        pools(prefill={"gpuHourPrice": 2.5}),
        'spec.pools[0].gpuHourPrice: 2.5 is a bare number: write it in quotes, "2.5"',
    ),
    "price zero": (
        pools(prefill={"gpuHourPrice": "0"}),
        "spec.pools[0].gpuHourPrice: 0 is out of range: write a value above 0",
    ),
    "bad name": (
        pools(prefill={"name": "Pre_fill"}),
        (
            'spec.pools[0].name: "Pre_fill" is out of range: write lower-case letters, '
            "digits, - and "
            "., a letter or digit at both ends"
        ),
    ),
    "text as a number": (
        pools(prefill={"gpuType": 4090}),
        "spec.pools[0].gpuType: 4090 is no text: write it in quotes",
    ),
    "not a list": (
        document(pools={"prefill": 1}),
        "spec.pools: {'prefill': 1} is no list: begin each entry with a dash",
    ),
    "not a mapping": (
        document(sla=[1]),
        "spec.sla: [1] is no mapping: write key: value lines",
    ),
    "window too long": (
        document(behavior={"scaleDown": {"stabilizationWindowSeconds": 3601}}),
        (
            "spec.behavior.scaleDown.stabilizationWindowSeconds: 3601 is out of range: write "
            "a whole "
            "number from 0 to 3600"
        ),
    ),
    "period too long": (
        document(
            behavior={
                "scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 9999}]}
            }
        ),
        (
            "spec.behavior.scaleUp.policies[0].periodSeconds: 9999 is out of range: write a whole "
            "number from 1 to 1800"
        ),
    ),
    "policy value zero": (
        document(
            behavior={"scaleUp": {"policies": [{"type": "Pods", "value": 0, "periodSeconds": 9}]}}
        ),
        "spec.behavior.scaleUp.policies[0].value: 0 is out of range: write at least 1",
    ),
    "floor above ceiling": (
        pools(prefill={"minReplicas": 9}),
        "spec.pools[0].minReplicas: 9 is above maxReplicas 8: write 0 to 8, or raise maxReplicas",
    ),
    "no decode pool": (
        document(pools=[pool("prefill")]),
        "spec.pools: no pool has the role Decode: add one; every service needs Prefill and Decode",
    ),
    "job without task": (
        pools(
            decode={
                "scaleTargetRef": {
                    "apiVersion": "batch.volcano.sh/v1alpha1",
                    "kind": "Job",
                    "name": "job",
                }
            }
        ),
        (
            "spec.pools[1].scaleTargetRef.task: a Volcano Job is scaled by task: name one of its "
            "spec.tasks"
        ),
    ),
    "two profiles": (
        pools(decode={"profile": {"file": "a", "configMap": "b"}}),
        "spec.pools[1].profile: both of configMap and file are given: give exactly one",
    ),
    "no profile": (
        pools(decode={"profile": {}}),
        "spec.pools[1].profile: neither of configMap and file are given: give exactly one",
    ),
    "ratio upside down": (
        document(limits={"prefillDecodeRatio": {"min": "4", "max": "0.5"}}),
        "spec.limits.prefillDecodeRatio.min: 4 is above max 0.5: write above 0 to 0.5",
    ),
    "fallback above the ceiling": (
        document(fallback={"prefill": 9, "decode": 8}),
        (
            "spec.fallback.prefill: 9 is above the 8 replicas that the Prefill pools may "
            "have: write "
            "0 to 8, or raise maxReplicas"
        ),
    ),
    "wrong version": (
        document() | {"apiVersion": "pd-planner.io/v1"},
        (
            'apiVersion: "pd-planner.io/v1" is unknown; legal: pd-planner.io/v1alpha1; did '
            "you mean "
            "pd-planner.io/v1alpha1?"
        ),
    ),
    "other kind": (
        {"kind": "Deployment"},
        (
            'kind: "Deployment" is not handled here; legal: PDAutoscaler, or a List of them: '
            "move it "
            "to another file"
        ),
    ),
}


@pytest.mark.parametrize(("found", "line"), BAD.values(), ids=BAD.keys())
def test_fault_is_one_line_that_names_value_range_and_mend(found: Mapping[str, Any], line: str):
    assert faults(found) == [f"f.yaml: {line}"]


def test_gpu_budget_below_the_floors_names_the_sum():
    asked = pools(
        prefill={"minReplicas": 2, "gpusPerReplica": 4, "gpuType": "h100"},
        decode={"minReplicas": 3, "gpuType": "h100"},
    )
    asked["spec"]["limits"] = {"gpus": {"h100": 10}}
    assert faults(asked) == [
        (
            "f.yaml: spec.limits.gpus.h100: 10 is below the 11 GPUs that the floors need "
            "(prefill: 2 × 4, decode: 3 × 1): write at least 11, or lower minReplicas"
        )
    ]
    asked["spec"]["limits"] = {"gpus": {"h100": 11}}
    parse_spec(asked, "f.yaml")


def test_cost_below_the_floors_counts_only_when_every_price_is_known():
    priced = {"gpuHourPrice": "2.5"}
    asked = pools(prefill=priced | {"minReplicas": 2}, decode=priced)
    asked["spec"]["limits"] = {"costPerHour": "7"}
    assert faults(asked) == [
        (
            "f.yaml: spec.limits.costPerHour: 7 is below the 7.5 an hour that the floors cost "
            "(prefill: 2 × 1, decode: 1 × 1): write at least 7.5, or lower minReplicas"
        )
    ]
    del asked["spec"]["pools"][1]["gpuHourPrice"]
    parse_spec(asked, "f.yaml")


def test_same_name_and_same_target_are_faults_of_the_later_pool():
    twin = document(pools=[pool("prefill"), pool("decode"), pool("decode")])
    assert faults(twin) == [
        "f.yaml: spec.pools[2].name: 'decode' is the name of pools[1] too: choose another",
        (
            "f.yaml: spec.pools[2].scaleTargetRef: pools[1] scales the same target: give each pool "
            "its own"
        ),
    ]


def test_all_faults_are_listed_sorted_by_path_with_numbers_as_numbers():
    many = [pool("prefill", name=f"p{i}", scaleTargetRef=_deployment(i)) for i in range(11)]
    many[10]["maxReplicas"] = 0
    many[2]["role"] = "Both"
    asked = document(pools=many, interval=7, mode="On")
    assert [line.split(": ")[1] for line in faults(asked)] == [
        "spec.interval",
        "spec.mode",
        "spec.pools[2].role",
        "spec.pools[10].maxReplicas",
    ]


def _deployment(number: int) -> dict[str, str]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"d{number}"}


def write(folder: Path, text: str) -> Path:
    path = folder / "f.yaml"
    path.write_text(text, encoding="utf-8")
    return path


FILES = {
    "empty": ("", "f.yaml: holds nothing: write a PDAutoscaler"),
    "only comments": ("# nothing\n---\n", "f.yaml: holds nothing: write a PDAutoscaler"),
    "a word": ("hello", 'f.yaml: "hello" is no mapping: write a PDAutoscaler'),
    "bad yaml": (
        "a: [1,\nb: 2",
        (
            "f.yaml: line 2, column 5: expected ',' or ']', but got '<stream end>': correct the "
            "YAML there"
        ),
    ),
    "tab": (
        "a:\n\t- 1",
        (
            "f.yaml: line 2, column 1: found character '\\t' that cannot start any token: "
            "correct the YAML there"
        ),
    ),
    "key twice": (
        "a: 1\na: 2",
        "f.yaml: line 1, column 1: key 'a' is given twice: correct the YAML there",
    ),
    "python tag": (
        "!!python/object/apply:os.system [ls]",
        (
            "f.yaml: line 1, column 1: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/object/apply:os.system': correct the YAML there"
        ),
    ),
    "tag that lies": (
        "a: !!timestamp x",
        "f.yaml: a value does not fit its !! tag: leave the tag out",
    ),
    "list in itself": (
        "&a [*a]",
        "f.yaml: [[[...]]] is no mapping: write a PDAutoscaler",
    ),
    "billion entries": (
        "- &a [x, x]\n" + "".join(f"- &{b} [*{a}, *{a}]\n" for a, b in pairwise(ascii_lowercase)),
        (
            "f.yaml: [['x', 'x'], [[...], [...]], [[...], [...]], [[...], [...]],… is no mapping: "
            "write a PDAutoscaler"
        ),
    ),
    "very deep": ("[" * 5000, "f.yaml: nested too deeply: write a plain PDAutoscaler"),
}


@pytest.mark.parametrize(("text", "line"), FILES.values(), ids=FILES.keys())
def test_unreadable_file_is_one_line(tmp_path: Path, text: str, line: str):
    with pytest.raises(SpecError) as error:
        load_specs([write(tmp_path, text)])
    assert str(error.value) == f"{tmp_path}/{line}"


def test_missing_file_folder_and_bytes_are_told_together(tmp_path: Path):
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"a: \xff")
    with pytest.raises(SpecError) as error:
        load_specs([tmp_path / "no.yaml", tmp_path, binary])
    assert str(error.value).splitlines() == [
        f"{tmp_path}/no.yaml: no such file: give the path of a YAML file",
        f"{tmp_path}: is a folder: give the path of a YAML file",
        f"{binary}: byte 3 is no UTF-8: save the file as UTF-8",
    ]


def test_documents_and_lists_are_read_in_order_and_faults_name_their_place(tmp_path: Path):
    def named(name: str, **over: Any) -> dict[str, Any]:
        return document(**over) | {"metadata": {"name": name}}

    listed = {"kind": "List", "apiVersion": "v1", "items": [named("b"), named("c")]}
    good = write(tmp_path, yaml.safe_dump_all([named("a"), listed]))
    assert [spec.metadata.name for spec in load_specs([good])] == ["a", "b", "c"]

    listed["items"][1] = named("c", interval="1s")
    bad = write(tmp_path, yaml.safe_dump_all([named("a"), listed]))
    with pytest.raises(SpecError, match=r"\(document 2, items\[1\]\): spec.interval: 1s is out"):
        load_specs([bad])


def test_same_service_in_two_files_is_a_fault(tmp_path: Path):
    one, two = tmp_path / "1.yaml", tmp_path / "2.yaml"
    for path in (one, two):
        path.write_text(yaml.safe_dump(document()), encoding="utf-8")
    with pytest.raises(SpecError) as error:
        load_specs([one, two])
    assert str(error.value) == (
        f"{two}: metadata.name: default/llama is in {one} too: choose another name or namespace"
    )


def test_off_without_quotes_is_the_mode_and_not_false(tmp_path: Path):
    text = yaml.safe_dump(document()).replace("spec:", "spec:\n  mode: Off")
    assert load_specs([write(tmp_path, text)])[0].spec.mode is Mode.OFF


def test_what_kubectl_prints_can_be_read_again():
    printed = document()
    printed["metadata"] |= {"uid": "1", "resourceVersion": "2", "generation": 3}
    printed["status"] = {"fromTheFuture": True}
    assert parse_spec(printed, "f.yaml").metadata.name == "llama"


def test_spec_survives_being_written_and_read():
    asked = pools(prefill={"gpuHourPrice": "2.5", "startup": "1m30s"})
    first = parse_spec(asked, "f.yaml")
    written = first.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert written["spec"]["pools"][0]["startup"] == "1m30s"
    assert parse_spec(written, "f.yaml") == first


def test_pool_behavior_is_put_over_the_services_field_by_field(tmp_path: Path):
    half = {"type": "Percent", "value": 50, "periodSeconds": 60}
    asked = pools(decode={"behavior": {"scaleDown": {"stabilizationWindowSeconds": 900}}})
    asked["spec"]["behavior"] = {"scaleDown": {"policies": [half], "selectPolicy": "Min"}}
    service = to_service(parse_spec(asked, "f.yaml"), tmp_path)
    down = service.pool("decode").behavior.scale_down
    assert down.stabilization_window_s == 900.0
    assert down.policies == (ScalingPolicy(PolicyType.PERCENT, 50, 60.0),)
    assert down.select_policy is SelectPolicy.MIN
    assert down.tolerance == 0.05
    assert service.pool("prefill").behavior.scale_down.stabilization_window_s == 60.0
    assert service.pool("prefill").behavior.scale_up.policies == ()


def test_service_takes_the_spec_over_the_profile_and_the_profile_over_defaults(tmp_path: Path):
    asked = pools(prefill={"gpusPerReplica": 2, "startup": "3m"})
    service = to_service(parse_spec(asked, "f.yaml"), tmp_path)
    prefill, decode = service.pools
    assert (prefill.gpus_per_replica, prefill.startup_s) == (2, 180.0)
    assert (decode.gpus_per_replica, decode.startup_s) == (1, 60.0)
    measured = read_profile(PROFILE).model_copy(update={"startup_s": 95.0})
    profiles = {"prefill": measured, "decode": measured}
    again = build_service(parse_spec(asked, "f.yaml"), profiles, Transfer())
    assert [found.startup_s for found in again.pools] == [180.0, 95.0]
    assert prefill.prefill is not None
    assert prefill.decode is None
    assert decode.role is Role.DECODE
    assert decode.decode is not None


def test_fallback_fills_pools_of_a_role_in_order_over_their_floors(tmp_path: Path):
    asked = document(
        pools=[
            pool("prefill"),
            pool("decode", minReplicas=2, maxReplicas=4),
            pool("decode", name="spot", minReplicas=1, scaleTargetRef=_deployment(1)),
        ],
        fallback={"prefill": 0, "decode": 6},
    )
    service = to_service(parse_spec(asked, "f.yaml"), tmp_path)
    assert service.fallback is not None
    assert service.fallback.replicas == {"prefill": 1, "decode": 4, "spot": 2}


@pytest.mark.parametrize(
    ("profile", "line"),
    [
        pytest.param(
            {"configMap": "m"},
            "spec.pools[1].profile.configMap: 'm' is in a cluster and this command reads files "
            "only: write file: and the path of the profile",
            id="config map",
        ),
        pytest.param(
            {"file": "no.json"},
            "spec.pools[1].profile.file: {folder}/no.json: got No such file or directory; legal: "
            "a readable JSON file; give the path of a profile",
            id="no such file",
        ),
    ],
)
def test_profile_that_cannot_be_had_is_a_fault_of_its_pool(
    tmp_path: Path, profile: dict[str, str], line: str
):
    asked = pools(decode={"profile": profile})
    path = write(tmp_path, yaml.safe_dump(asked))
    with pytest.raises(SpecError) as error:
        load_services([path])
    assert str(error.value) == f"{path}: {line.format(folder=tmp_path)}"


def test_profile_without_the_role_of_its_pool_is_a_fault(tmp_path: Path):
    other = PROFILE.replace("llama-3.1-8b-fp8-h200", "llama-2-70b-h100-tp4-prefill")
    asked = pools(decode={"profile": {"file": other}})
    with pytest.raises(SpecError, match=r"spec\.pools\[1\]\.profile: .*decode"):
        to_service(parse_spec(asked, "f.yaml"), tmp_path)


def test_floors_are_checked_again_with_the_replica_size_of_the_profile(tmp_path: Path):
    other = PROFILE.replace("llama-3.1-8b-fp8-h200", "llama-2-70b-h100-tp4-prefill")
    asked = pools(prefill={"profile": {"file": other}, "gpuType": "h100"})
    asked["spec"]["limits"] = {"gpus": {"h100": 3}}
    with pytest.raises(SpecError) as error:
        to_service(parse_spec(asked, "f.yaml"), tmp_path)
    assert str(error.value) == (
        "spec.limits.gpus.h100: 3 is below the 4 GPUs that the floors need (prefill: 1 × 4): "
        "write at least 4, or lower minReplicas"
    )


def test_examples_load_as_they_say():
    files = [EXAMPLES / "llama-8b-h200.yaml", EXAMPLES / "llama-70b-h100-a100.yaml"]
    small, large = load_services(files, Transfer(bandwidth_bytes_per_s=1e9))
    assert small.service.sla.ttft_s == 0.5
    assert small.service.sla.itl_s == 0.015
    assert small.service.sla.max_input_tokens == 16384
    assert [p.startup_s for p in small.service.pools] == [90.0, 90.0]
    assert [p.max_replicas for p in small.service.pools] == [64, 64]
    assert small.service.selector == {"model_name": "llama-8b"}
    assert small.service.transfer.bandwidth_bytes_per_s == 1e9
    assert [p.gpus_per_replica for p in large.service.pools] == [4, 4]
    assert [p.gpu_type for p in large.service.pools] == ["h100", "a100"]
    assert large.service.limits.cost_per_hour == 300.0
    assert large.profiles["prefill-h100"].prefill
