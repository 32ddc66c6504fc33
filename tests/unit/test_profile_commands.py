"""What `profile show`, `diff`, `export` and `apply` compute, without a command line."""

import json
import re

import numpy as np
import pytest

from planner.adapters.kubernetes.apply import ApplyingApi
from planner.adapters.kubernetes.faults import CONFIG_MAPS, Call, ForbiddenError, fault
from planner.errors import ConflictError, InputError
from planner.profiling.diff import Side, fixed_traffic, plain_service, profile_diff, trace_traffic
from planner.profiling.manifest import (
    CONFIG_MAP_BYTES,
    config_map,
    dynamo_entries,
    label_value,
    manifest_text,
    profile_manifest,
    read_manifest,
)
from planner.profiling.region import (
    Targets,
    fullest_batch,
    isl_limit_tokens,
    operating_region,
    traffic_outside,
)
from planner.view.profile_lines import profile_lines
from planner.view.profile_page import profile_page
from profiles import Profile, decode_surface, prefill_surface, sample
from profiles.sanity import oddities

H200 = sample("llama-3.1-8b-fp8-h200")
PREFILL_ONLY = sample("llama-2-70b-h100-tp4-prefill")
TARGETS = Targets(ttft_s=0.3, itl_s=0.03)


def slower(profile: Profile, factor: float) -> Profile:
    document = profile.model_dump(by_alias=True)
    for point in document["decode"]:
        point["itl_s"] *= factor
    return Profile.model_validate(document)


def test_the_region_ends_where_the_targets_do():
    region = operating_region(H200, TARGETS)
    surface = prefill_surface(H200)
    limit = region.isl_limit_tokens
    assert surface.service_s(limit) <= 0.3 < surface.service_s(limit + 50)
    curve = decode_surface(H200)
    for batch in region.batches:
        by_n = curve.curve(batch.context_tokens)
        assert by_n[batch.concurrency] <= 0.03
        room = curve.batch_limit(batch.context_tokens)
        assert batch.concurrency == room or by_n[batch.concurrency + 1] > 0.03
        assert batch.throughput_tps == pytest.approx(batch.concurrency / batch.itl_s)


def test_targets_out_of_reach_leave_nothing():
    region = operating_region(H200, Targets(ttft_s=0.001, itl_s=0.001))
    assert region.isl_limit_tokens == 0.0
    assert {batch.concurrency for batch in region.batches} == {0}
    assert fullest_batch(decode_surface(H200), 350.0, 0.001).itl_s == pytest.approx(
        0.00438, rel=0.01
    )


def test_without_targets_no_region_is_told():
    region = operating_region(H200, Targets())
    assert (region.isl_limit_tokens, region.batches) == (None, ())


def test_every_prompt_within_reach_is_the_whole_profile():
    assert isl_limit_tokens(prefill_surface(H200), 10.0) == 16_372


def test_traffic_outside_is_told_in_shares():
    isl = np.array([50, 1000, 14_000, 20_000])
    told = {share.what: share.ratio for share in traffic_outside(H200, TARGETS, isl, [100] * 4)}
    assert told == {
        "of prompts are longer than 16372 tokens and count as that": 0.25,
        "of prompts are shorter than 100 tokens and count as that": 0.25,
        "of prompts miss the TTFT even alone": 0.5,
        "of contexts are longer than 13585 tokens and count as that": 0.5,
        "of contexts are shorter than 350 tokens and count as that": 0.25,
    }
    assert traffic_outside(H200, Targets(), [1000], [100]) == ()


def test_lines_tell_range_region_outside_and_odd_points():
    everything = H200.model_copy(update={"max_sequences": None})
    outside = traffic_outside(everything, TARGETS, [50], [100])
    region = operating_region(everything, TARGETS)
    lines = list(profile_lines(everything, TARGETS, region, outside, oddities(everything)))
    assert lines[0] == "prefill: 17 points, prompts of 100 to 16372 tokens"
    assert lines[2].startswith("TTFT 300 ms: prompts up to 13")
    assert any(line.startswith("outside: 100% of prompts are shorter") for line in lines)
    assert lines[-1].startswith("odd: decode[6]: ITL falls")
    nothing = Targets(ttft_s=0.001, itl_s=0.001)
    told = list(profile_lines(H200, nothing, operating_region(H200, nothing), (), ()))
    assert "TTFT 1 ms: no profiled prompt, not even alone in a replica" in told
    assert "ITL 1 ms at 350 tokens: not even one sequence (4.4 ms)" in told


def figures_of(page: str) -> dict[str, dict]:
    text = re.search(r'id="figures">(.*?)</script>', page, re.DOTALL)[1]
    return {figure["key"]: figure for figure in json.loads(text)}


def page(profile: Profile, targets: Targets, lengths=None) -> str:
    region = operating_region(profile, targets)
    return profile_page("a <b>", profile, targets, region, lengths, ["odd: <i>this</i>"])


def test_the_page_draws_the_roles_that_are_there():
    assert list(figures_of(page(H200, TARGETS))) == ["ttft", "itl", "map", "throughput"]
    assert list(figures_of(page(H200, Targets()))) == ["ttft", "itl", "map"]
    assert list(figures_of(page(PREFILL_ONLY, TARGETS))) == ["ttft"]


def test_the_page_marks_measured_points_targets_and_traffic():
    drawn = figures_of(page(H200, TARGETS, ([1000, 2000], [100, 300])))
    names = {trace["name"] for trace in drawn["ttft"]["data"]}
    assert names == {"traffic", "interpolated", "measured"}
    (measured,) = [t for t in drawn["ttft"]["data"] if t["name"] == "measured"]
    assert len(measured["x"]) == len(H200.prefill)
    assert "target 30 ms" in json.dumps(drawn["itl"]["layout"])
    shapes = drawn["map"]["layout"]["shapes"]
    assert [shape["line"]["dash"] for shape in shapes] == ["dot"]


def test_the_page_escapes_what_it_is_given():
    text = page(H200, TARGETS)
    assert "<title>a &lt;b&gt;</title>" in text
    assert "&lt;i&gt;this&lt;/i&gt;" in text
    assert "<i>this" not in text


def sides(b: Profile) -> tuple[Side, Side]:
    return (
        Side("old", H200, plain_service("old", H200, TARGETS)),
        Side("new", b, plain_service("new", b, TARGETS)),
    )


def test_the_same_profile_changes_nothing():
    diff = profile_diff(sides(H200), fixed_traffic(1000, 200), (1.0, 50.0))
    assert all(row["a"] == row["b"] for row in diff["decisions"])
    assert diff["ratios"]["itl"] == {"min": 1.0, "median": 1.0, "max": 1.0}
    json.dumps(diff, allow_nan=False)


def test_slower_decode_takes_more_decode_replicas_and_no_more_prefill():
    diff = profile_diff(sides(slower(H200, 1.5)), fixed_traffic(1000, 200), (10.0, 50.0, 200.0))
    last = diff["decisions"][-1]
    assert last["b"]["replicas"]["decode"] > last["a"]["replicas"]["decode"]
    assert last["b"]["gpus"] > last["a"]["gpus"]
    assert diff["ratios"]["itl"]["median"] == pytest.approx(1.5)
    assert diff["ratios"]["ttft"]["max"] == pytest.approx(1.0)
    reach = diff["reach"]
    assert reach["b"]["sequences_per_replica"] < reach["a"]["sequences_per_replica"]


def test_what_gets_out_of_reach_is_told():
    diff = profile_diff(sides(slower(H200, 20.0)), fixed_traffic(1000, 200), (1.0,))
    assert (diff["reach"]["a"]["reachable"], diff["reach"]["b"]["reachable"]) == (True, False)
    assert diff["reach"]["b"]["sequences_per_replica"] == 0


def test_ratios_are_taken_where_both_were_measured_alone():
    diff = profile_diff(
        (Side("a", PREFILL_ONLY, sides(H200)[0].service), Side("b", H200, sides(H200)[0].service)),
        fixed_traffic(1000, 200),
        (1.0,),
    )
    assert diff["ratios"]["itl"] is None
    assert diff["ratios"]["ttft"]["max"] < 1.0


def test_a_trace_becomes_its_mean_lengths():
    traffic = trace_traffic("t", [100, 300] * 16, [50, 150] * 16)
    assert traffic.lengths.isl_mean_tokens == pytest.approx(200)
    assert traffic.lengths.osl_mean_tokens == 100
    assert traffic.lengths.osl_cv2 == pytest.approx(0.25)


def test_a_service_needs_both_roles():
    with pytest.raises(InputError, match=r"old: got no decode points; legal: both roles"):
        plain_service("old", PREFILL_ONLY, TARGETS)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Llama-3.1-8B-Instruct, FP8 weights", "Llama-3.1-8B-Instruct-FP8-weights"),
        ("meta-llama/Llama-3.1-8B", "meta-llama-Llama-3.1-8B"),
        (f"{'x' * 62}..", "x" * 62),
        ("…", ""),
        (None, ""),
    ],
)
def test_labels_are_what_the_api_server_takes(text, value):
    assert label_value(text) == value
    assert re.fullmatch(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?", value)


def test_a_manifest_tells_model_engine_and_gpu_and_reads_well():
    manifest = profile_manifest(H200, "inference", "llama")
    assert manifest["metadata"]["labels"] == {
        "app.kubernetes.io/managed-by": "pd-planner",
        "pd-planner.io/model": "Llama-3.1-8B-Instruct-FP8-weights",
        "pd-planner.io/engine": "vllm",
        "pd-planner.io/gpu": "h200",
    }
    text = manifest_text(manifest)
    assert '{"isl_tokens": 100, "ttft_s": 0.019525209, "batch": 1},\n' in text
    assert "profile.json: |" in text
    assert read_manifest(text, "m") == H200


def test_a_manifest_with_dynamos_keys_holds_the_same_points():
    text = manifest_text(profile_manifest(H200, "n", "m", dynamo_entries(H200)))
    back = read_manifest(text, "m")
    assert [p.ttft_s for p in back.prefill] == pytest.approx([p.ttft_s for p in H200.prefill])
    assert [p.concurrency for p in back.decode] == [p.concurrency for p in H200.decode]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind: ConfigMap", "m: got no ConfigMap with data"),
        ("kind: Secret\ndata: {profile.json: eA==}", "m: got no ConfigMap with data"),
        ("kind: ConfigMap\ndata: {profile.json: 1}", "m: got no ConfigMap with data"),
        ("a: 1\n---\nb: 2", "m: got no ConfigMap with data"),
        ("{", "m: line 1"),
        ("", "m: got no ConfigMap with data"),
    ],
)
def test_what_is_no_manifest_is_refused(text, says):
    with pytest.raises(InputError) as refused:
        read_manifest(text, "m")
    assert str(refused.value).startswith(says)


@pytest.mark.parametrize(
    ("namespace", "name", "entries", "says"),
    [
        ("Inference", "a", {}, "--namespace: got 'Inference'"),
        ("a.b", "a", {}, "--namespace: got 'a.b'"),
        ("a", "-x", {}, "--name: got '-x'"),
        ("a", "", {}, "--name: got ''"),
        ("a", "b", {"k": "x" * CONFIG_MAP_BYTES}, "ConfigMap a/b: got 1048577 B; legal: at most"),
    ],
)
def test_what_the_api_server_would_not_take_is_refused_before(namespace, name, entries, says):
    with pytest.raises(InputError) as refused:
        config_map(namespace, name, entries, {})
    assert str(refused.value).startswith(says)


class Answering(ApplyingApi):
    """An API whose every answer is one refusal of the real server."""

    def __init__(self, status: int, message: str) -> None:
        self.answer = (status, json.dumps({"message": message}).encode())
        self.sent: list[object] = []

    def _ask(self, method, call, query=None, body=None, media_type=""):
        assert body is BODY
        self.sent.append((method, str(call), query, media_type))
        raise fault(call, *self.answer)


BODY = profile_manifest(H200, "inference", "llama")
CANNOT = 'configmaps is forbidden: User "x" cannot {} resource "configmaps" in API group ""'


@pytest.mark.parametrize(
    ("verb", "told"), [("patch", "verbs: [patch]"), ("create", "verbs: [create, patch]")]
)
def test_the_right_that_is_missing_is_named(verb, told):
    with pytest.raises(ForbiddenError) as refused:
        Answering(403, CANNOT.format(verb)).apply(BODY, dry_run=False, force=False)
    assert f"may not {verb} configmaps llama in namespace inference" in str(refused.value)
    assert told in str(refused.value)


def test_another_owner_is_not_overruled_without_being_asked():
    api = Answering(409, 'Apply failed with 1 conflict: conflict with "kubectl" using v1')
    with pytest.raises(ConflictError, match="--force takes the fields over"):
        api.apply(BODY, dry_run=True, force=False)
    with pytest.raises(ConflictError):
        api.apply(BODY, dry_run=False, force=True)
    call = str(Call("patch", CONFIG_MAPS, "inference", "llama"))
    owner = {"fieldManager": "pd-planner"}
    assert api.sent == [
        ("PATCH", call, owner | {"dryRun": "All"}, "application/apply-patch+yaml"),
        ("PATCH", call, owner | {"force": "true"}, "application/apply-patch+yaml"),
    ]
