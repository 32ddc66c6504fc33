import copy
import json

import pytest

from profiles import (
    SAMPLES,
    Profile,
    ProfileError,
    parse_profile,
    profile_text,
    read_profile,
    sample,
    write_profile,
)

DOCUMENT = {
    "schemaVersion": "1",
    "provenance": {"how": "measured", "engineVersion": "0.11", "gpusPerReplica": 2},
    "prefill": [
        {"isl_tokens": 100, "ttft_s": 0.02, "batch": 1},
        {"isl_tokens": 1000, "ttft_s": 0.05, "batch": 1},
        {"isl_tokens": 4000, "ttft_s": 0.2, "batch": 1},
    ],
    "decode": [
        {"concurrency": n, "context_tokens": context, "itl_s": 0.005 + n * context * 1e-8}
        for context in (500, 2000, 8000)
        for n in (1, 8, 32)
    ],
    "kv_capacity_tokens": 400_000,
}


def text(edit=dict):
    document = copy.deepcopy(DOCUMENT)
    edit(document)
    return json.dumps(document)


def put(*path_and_value):
    *path, last, value = path_and_value

    def edit(document):
        for step in path:
            document = document[step]
        document[last] = value

    return edit


def keep(role, keep_point):
    def edit(document):
        document[role] = [point for point in document[role] if keep_point(point)]

    return edit


def one_context(**given):
    def edit(document):
        document["decode"] = [p for p in document["decode"] if p["context_tokens"] == 500]
        document.update(given)

    return edit


def double(role):
    return lambda document: document[role].append(document[role][0])


def no_points(document):
    del document["prefill"], document["decode"]


ROOFLINE = {"kv_bytes_per_token": 131072, "kv_read_bytes_per_s": 2e12}

FAULTS = {
    "nan": (put("prefill", 1, "ttft_s", float("nan")), "prefill[1].ttft_s: got nan"),
    "inf": (put("decode", 4, "itl_s", float("inf")), "decode[4].itl_s: got inf"),
    "zero": (put("decode", 0, "concurrency", 0), "decode[0].concurrency: got 0"),
    "negative": (put("prefill", 0, "isl_tokens", -5), "prefill[0].isl_tokens: got -5"),
    "text for a number": (put("decode", 2, "itl_s", "5ms"), "decode[2].itl_s: got '5ms'"),
    "too large a batch": (put("decode", 0, "concurrency", 1e9), "decode[0].concurrency"),
    "unknown key": (put("max_seqs", 5), "max_seqs: got 5; legal: only keys of the schema"),
    "missing key": (lambda d: d["decode"][0].pop("itl_s"), "decode[0].itl_s: got nothing"),
    "missing provenance": (lambda d: d.pop("provenance"), "provenance: got nothing"),
    "unknown version": (put("schemaVersion", "7"), "schemaVersion: got '7'"),
    "unknown how": (put("provenance", "how", "guessed"), "provenance.how: got 'guessed'"),
    "two prompt lengths": (
        keep("prefill", lambda p: p["isl_tokens"] > 100),
        "prefill: got 2 prompt length(s) at batch 1; legal: at least 3 lengths",
    ),
    "two batch sizes": (
        put("prefill", 0, {"isl_tokens": 1000, "ttft_s": 0.1, "batch": 4}),
        "prefill: got 2 batch size(s) at one prompt length",
    ),
    "two contexts": (
        keep("decode", lambda p: p["context_tokens"] > 500),
        "decode: got 2 context length(s); legal: at least 3 contexts",
    ),
    "two concurrencies": (
        keep("decode", lambda p: (p["concurrency"], p["context_tokens"]) != (8, 2000)),
        "decode: got 2 concurrency(ies) at 2000 tokens",
    ),
    "duplicate prefill": (double("prefill"), "got 2 points at (isl_tokens, batch) = (100, 1)"),
    "duplicate decode": (double("decode"), "got 2 points at (concurrency, context_tokens)"),
    "no points": (no_points, "prefill, decode: got no points"),
    "one context without a roofline": (
        one_context(),
        "concurrency varied at one context only (500 tokens)",
    ),
    "one context without a read rate": (
        one_context(kv_bytes_per_token=131072),
        "give kv_read_bytes_per_s",
    ),
    "one context that fills the cache": (
        one_context(**ROOFLINE, kv_capacity_tokens=500),
        "kv_capacity_tokens: got 500; legal: more than the 500 tokens",
    ),
}


@pytest.mark.parametrize(("edit", "expected"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_told_in_one_line_with_its_place(edit, expected):
    with pytest.raises(ProfileError) as caught:
        parse_profile(text(edit), "llama.json")
    matching = [line for line in caught.value.faults if expected in line]
    assert len(matching) == 1, str(caught.value)
    assert matching[0].startswith("llama.json: ")
    assert "; legal: " in matching[0]


def test_every_fault_is_listed():
    def edit(document):
        put("prefill", 1, "ttft_s", -1)(document)
        put("decode", 4, "itl_s", float("nan"))(document)
        put("colour", "blue")(document)

    with pytest.raises(ProfileError) as caught:
        parse_profile(text(edit), "f.json")
    assert len(caught.value.faults) == 3


def test_every_short_axis_and_duplicate_is_listed():
    def edit(document):
        document["prefill"] = [document["prefill"][0]] * 2
        document["decode"] = document["decode"][:2] + document["decode"][3:5]

    with pytest.raises(ProfileError) as caught:
        parse_profile(text(edit), "f.json")
    assert len(caught.value.faults) == 5


@pytest.mark.parametrize("content", ["", "{", "no json", "[]", "null", "3"])
def test_text_that_is_no_document_is_refused_in_one_line(content):
    with pytest.raises(ProfileError, match=r"^f\.json: got ") as caught:
        parse_profile(content, "f.json")
    assert len(caught.value.faults) == 1


def test_a_missing_file_a_folder_and_bytes_are_refused(tmp_path):
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.json", tmp_path, binary):
        with pytest.raises(ProfileError) as caught:
            read_profile(path)
        assert caught.value.faults[0].startswith(f"{path}: ")
        assert len(caught.value.faults) == 1


@pytest.mark.parametrize(
    "edit",
    [
        lambda document: document.pop("decode"),
        lambda document: document.pop("prefill"),
        one_context(**ROOFLINE),
        lambda document: document["prefill"].extend(
            {"isl_tokens": 1000, "ttft_s": 0.05 * batch, "batch": batch} for batch in (2, 4)
        ),
        lambda document: (
            keep("decode", lambda p: p["context_tokens"] < 8000 or p["concurrency"] == 1)(document),
            document.update(kv_capacity_tokens=12_000),
        ),
    ],
    ids=["prefill only", "decode only", "L in decode", "L in prefill", "cache of one sequence"],
)
def test_sets_that_are_legal(edit):
    assert parse_profile(text(edit), "f.json").schema_version == "1"


def test_writing_and_reading_gives_the_same_profile(tmp_path):
    profile = parse_profile(text(), "f.json")
    write_profile(profile, tmp_path / "p.json")
    assert read_profile(tmp_path / "p.json") == profile
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]


def test_written_text_keeps_the_documents_key_names():
    written = json.loads(profile_text(parse_profile(text(), "f.json")))
    assert written["schemaVersion"] == "1"
    assert written["provenance"]["gpusPerReplica"] == 2
    assert written["decode"][0] == DOCUMENT["decode"][0]


def test_a_path_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ProfileError, match="legal: a writable path"):
        write_profile(parse_profile(text(), "f.json"), tmp_path / "none" / "p.json")


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path):
    target = tmp_path / "p.json"
    target.mkdir()
    (target / "inside").touch()
    with pytest.raises(ProfileError):
        write_profile(parse_profile(text(), "f.json"), target)
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]


def test_every_field_has_a_description():
    schema = Profile.model_json_schema()
    models = [schema, *schema["$defs"].values()]
    fields = [field for model in models for field in model["properties"].values()]
    assert all(field.get("description") for field in fields)


def test_samples_carry_their_provenance():
    assert len(SAMPLES) == 8
    for name in SAMPLES:
        provenance = sample(name).provenance
        assert provenance.how in {"imported", "estimated"}
        assert provenance.tool
        assert provenance.model
        assert provenance.gpu
        assert provenance.command


def test_an_unknown_sample_names_the_known_ones():
    with pytest.raises(ProfileError, match="llama-2-70b-h100-tp4-prefill"):
        sample("gpt")


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    import profiles

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        profiles.nothing  # noqa: B018
    assert set(profiles.__all__) <= set(dir(profiles))
    assert all(getattr(profiles, name) for name in profiles.__all__)
