import json

import numpy as np
import pytest

from profiles import (
    ProfileError,
    from_configmap_data,
    read_dynamo,
    sample,
    to_configmap_data,
    write_dynamo,
)
from profiles.dynamo_format import arrays_from_profile, profile_from_arrays

PREFILL = {
    "prefill_isl": [100, 1000, 4000],
    "prefill_ttft": [20.0, 50.0, 200.0],
    "prefill_thpt_per_gpu": [2500.0, 10_000.0, 10_000.0],
}
N = np.array([1, 8, 32] * 3)
CONTEXT = np.repeat([500.0, 2000.0, 8000.0], 3)
DECODE = {
    "x_kv_usage": (N * CONTEXT / 400_000).tolist(),
    "y_context_length": CONTEXT.tolist(),
    "z_itl": (5.0 + N * CONTEXT * 1e-5).tolist(),
    "z_thpt_per_gpu": (N / (5.0 + N * CONTEXT * 1e-5) * 1000 / 2).tolist(),
    "max_kv_tokens": 400_000,
}


def folder(path, prefill=PREFILL, decode=DECODE):
    for role, raw in (("prefill", prefill), ("decode", decode)):
        if raw is not None:
            (path / f"{role}_raw_data.json").write_text(json.dumps(raw))
    return path


def without(raw, key):
    return {name: value for name, value in raw.items() if name != key}


def test_units_concurrency_and_unknowns(tmp_path):
    profile = read_dynamo(folder(tmp_path, decode=DECODE | {"max_kv_tokens": [400_000]}))
    assert [p.ttft_s for p in profile.prefill] == pytest.approx([0.02, 0.05, 0.2])
    assert [p.concurrency for p in profile.decode] == N.tolist()
    assert profile.kv_capacity_tokens == 400_000
    assert profile.provenance.how == "imported"
    assert profile.provenance.gpus_per_replica == 2
    assert (profile.max_sequences, profile.startup_s, profile.provenance.engine) == (None,) * 3


@pytest.mark.parametrize("fmt", ["npz", "json"])
@pytest.mark.parametrize("roles", [("prefill", "decode"), ("prefill",), ("decode",)], ids="+".join)
def test_round_trip_through_files(tmp_path, fmt, roles):
    whole = profile_from_arrays(PREFILL, DECODE, "test")
    profile = whole.model_copy(update={r: () for r in ("prefill", "decode") if r not in roles})
    write_dynamo(profile, tmp_path / "out", fmt)
    back = read_dynamo(tmp_path / "out")
    assert {role: len(getattr(back, role)) for role in ("prefill", "decode")} == {
        role: len(getattr(profile, role)) for role in ("prefill", "decode")
    }
    assert [p.itl_s for p in back.decode] == pytest.approx([p.itl_s for p in profile.decode])
    assert [p.concurrency for p in back.decode] == [p.concurrency for p in profile.decode]
    assert [p.ttft_s for p in back.prefill] == pytest.approx([p.ttft_s for p in profile.prefill])
    assert back.provenance.gpus_per_replica == 2


def test_written_npz_has_dynamos_names_shapes_and_units(tmp_path):
    write_dynamo(sample("llama-3.1-8b-fp8-h200"), tmp_path)
    with np.load(tmp_path / "selected_prefill_interpolation/raw_data.npz") as raw:
        assert raw["prefill_isl"].dtype == np.int64
        assert raw["prefill_ttft"][0] == pytest.approx(19.525209)
        assert raw["prefill_thpt_per_gpu"][0] == pytest.approx(5121.58410186544)
    with np.load(tmp_path / "selected_decode_interpolation/raw_data.npz") as raw:
        assert raw["max_kv_tokens"].tolist() == [945_029]
        assert raw["x_kv_usage"][1] == pytest.approx(0.09740441827711108, rel=1e-12)
        assert raw["z_itl"][1] == pytest.approx(19.11118175665399, rel=1e-12)


def test_fractional_concurrency_is_kept():
    usage = [0.0012345, *DECODE["x_kv_usage"][1:]]
    profile = profile_from_arrays(None, DECODE | {"x_kv_usage": usage}, "test")
    assert profile.decode[0].concurrency == pytest.approx(0.0012345 * 400_000 / 500, rel=1e-12)
    assert arrays_from_profile_usage(profile) == pytest.approx(usage, rel=1e-12)


def arrays_from_profile_usage(profile):
    known = profile.provenance.model_copy(update={"gpus_per_replica": 1})
    return arrays_from_profile(profile.model_copy(update={"provenance": known}))[1]["x_kv_usage"]


@pytest.mark.parametrize(
    ("prefill", "decode", "expected"),
    [
        (PREFILL, None, 2),
        (None, DECODE, 2),
        (without(PREFILL, "prefill_thpt_per_gpu"), None, None),
        (PREFILL | {"prefill_thpt_per_gpu": [5000.0, 20_000.0, 20_000.0]}, DECODE, None),
        (PREFILL | {"prefill_thpt_per_gpu": ["a"]}, None, None),
        (PREFILL | {"prefill_thpt_per_gpu": [1.0]}, None, None),
        (PREFILL | {"prefill_thpt_per_gpu": [0.0, 0.0, 0.0]}, None, None),
    ],
    ids=["prefill", "decode", "absent", "sizes differ", "no number", "short", "zero"],
)
def test_gpus_per_replica_follow_from_the_throughput(prefill, decode, expected):
    profile = profile_from_arrays(prefill, decode, "test")
    assert profile.provenance.gpus_per_replica == expected


BAD = {
    "no key": (without(PREFILL, "prefill_ttft"), DECODE, "prefill_ttft: got no such key"),
    "no capacity": (PREFILL, without(DECODE, "max_kv_tokens"), "max_kv_tokens: got no such key"),
    "capacities": (PREFILL, DECODE | {"max_kv_tokens": [1, 2]}, "max_kv_tokens: got"),
    "zero capacity": (PREFILL, DECODE | {"max_kv_tokens": 0}, "max_kv_tokens: got"),
    "text": (PREFILL | {"prefill_isl": ["a", "b", "c"]}, DECODE, "prefill_isl: got"),
    "ragged": (PREFILL | {"prefill_isl": [[1], [2, 3]]}, DECODE, "prefill_isl: got"),
    "lengths": (PREFILL | {"prefill_isl": [1, 2]}, DECODE, "got lengths 2, 3"),
    "nan": (PREFILL | {"prefill_ttft": [20.0, None, 3.0]}, DECODE, "prefill[1].ttft_s: got nan"),
    "zero context": (
        PREFILL,
        DECODE | {"y_context_length": [0.0, *DECODE["y_context_length"][1:]]},
        "decode[0].context_tokens: got 0.0",
    ),
}


@pytest.mark.parametrize(("prefill", "decode", "expected"), BAD.values(), ids=BAD)
def test_garbled_values_are_refused_with_their_place(tmp_path, prefill, decode, expected):
    with pytest.raises(ProfileError) as caught:
        read_dynamo(folder(tmp_path, prefill, decode))
    assert any(expected in line for line in caught.value.faults), str(caught.value)
    assert all(line.startswith(str(tmp_path)) for line in caught.value.faults)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"not an archive"])
def test_a_garbled_npz_is_refused(tmp_path, content):
    path = tmp_path / "selected_prefill_interpolation" / "raw_data.npz"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ProfileError, match=r"raw_data\.npz: got .*an npz archive") as caught:
        read_dynamo(tmp_path)
    assert len(caught.value.faults) == 1


def test_an_npz_is_never_unpickled(tmp_path):
    path = tmp_path / "selected_prefill_interpolation" / "raw_data.npz"
    path.parent.mkdir()
    np.savez(path, prefill_isl=np.array([{}], dtype=object))
    with pytest.raises(ProfileError, match="allow_pickle"):
        read_dynamo(tmp_path)


@pytest.mark.parametrize("content", ["", "[1]", "{"])
def test_garbled_json_is_refused(tmp_path, content):
    (tmp_path / "prefill_raw_data.json").write_text(content)
    with pytest.raises(ProfileError, match=r"prefill_raw_data\.json: got .*a JSON object"):
        read_dynamo(tmp_path)


def test_a_folder_without_files_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ProfileError, match="got none of Dynamo's files"):
            read_dynamo(path)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"kv_capacity_tokens": None}, "kv_capacity_tokens"),
        ({"provenance": {"how": "measured"}}, "provenance.gpusPerReplica"),
    ],
    ids=["capacity", "gpus"],
)
def test_what_the_format_needs_is_asked_for(tmp_path, change, key):
    document = profile_from_arrays(PREFILL, DECODE, "test").model_dump() | change
    profile = type(sample("llama-3.1-8b-fp8-h200")).model_validate(document)
    with pytest.raises(ProfileError, match=f"^{key}: got nothing"):
        write_dynamo(profile, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ProfileError, match="legal: a writable folder"):
        write_dynamo(sample("llama-3.1-8b-fp8-h200"), tmp_path / "file")


def test_a_configmap_holds_the_profile():
    profile = sample("llama-3.1-8b-fp8-h200")
    assert from_configmap_data(to_configmap_data(profile), "cm") == profile


def test_a_configmap_of_dynamo_is_read():
    data = {
        "prefill_raw_data.json": json.dumps(PREFILL),
        "decode_raw_data.json": json.dumps(DECODE),
    }
    assert from_configmap_data(data, "cm") == profile_from_arrays(PREFILL, DECODE, "cm")
    del data["decode_raw_data.json"]
    assert from_configmap_data(data, "cm").decode == ()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, "inference/llama: data: got the keys none"),
        ({"other": "x"}, "inference/llama: data: got the keys other"),
        ({"profile.json": "{"}, "inference/llama: profile.json: got"),
        ({"decode_raw_data.json": "{"}, "inference/llama: decode_raw_data.json: got"),
    ],
    ids=["empty", "other key", "garbled", "garbled Dynamo"],
)
def test_a_configmap_without_a_profile_is_refused(data, expected):
    with pytest.raises(ProfileError) as caught:
        from_configmap_data(data, "inference/llama")
    assert caught.value.faults[0].startswith(expected)
