"""`profile offline` without the estimator: the grid, what is said, what is refused."""

import doctest
import importlib.util
import math
import re
import shlex
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest

from planner.__main__ import main
from planner.errors import InputError, ProfileError
from planner.profiling import offline
from planner.profiling.aiconfigurator import Replica
from planner.profiling.offline import Asked, Estimator, batches, estimated_profile, grid, notes
from profiles import SAMPLES, decode_surface, prefill_surface, sample
from profiles.points import anchor_context
from profiles.sanity import oddities, roofline_faults

REPLICA = Replica("org/Model-8B", "h100", tensor_parallel=2, kv_cache_dtype="fp8")
ESTIMATED = [name for name in SAMPLES if sample(name).provenance.how == "estimated"]


@dataclass
class Straight:
    """An estimator whose latencies grow evenly, with 100,000 tokens of room."""

    tool: str = "estimator 1.0"
    model: str = "org/Model-8B"
    gpu: str = "h100_sxm"
    engine_version: str = "9.9"
    number_format: str = "bfloat16"
    context_max_tokens: int = 4096
    bytes_per_token: float | None = 131_072.0
    slower: float = 1.0

    def ttft_s(self, isl_tokens: int) -> float:
        return self.slower * isl_tokens * 1e-4

    def itl_s(self, concurrency: int, context_tokens: int) -> float:
        return self.slower * (0.01 + concurrency * context_tokens * 1e-7)

    def kv_bytes_per_token(self) -> float | None:
        return self.bytes_per_token

    def kv_capacity_tokens(self) -> int:
        return 100_000


def estimated(estimator: Estimator | None = None, **asked: object):
    return estimated_profile(estimator or Straight(), REPLICA, Asked(**asked))


def test_examples_in_the_docstrings_hold():
    assert doctest.testmod(offline).failed == 0


@pytest.mark.parametrize("last", [512, 513, 767, 768, 4096, 40_960])
def test_the_grid_begins_at_128_and_ends_where_it_was_asked_to(last):
    for steps in ((2, 3), (2,)):
        lengths = grid(steps, last)
        assert (lengths[0], lengths[-1]) == (128, last)
        assert lengths == sorted(set(lengths))
        # No gap is wider than from one power of two to the next.
        assert max(b / a for a, b in pairwise(lengths)) <= 2.0


def test_every_context_is_followed_until_its_batch_fills_the_cache():
    made = estimated()
    rooms = {
        context: max(p.concurrency for p in made.decode if p.context_tokens == context)
        for context in grid((2,), 4096)
    }
    assert rooms == {128: 256, 256: 256, 512: 195, 1024: 97, 2048: 48, 4096: 24}
    assert all(p.concurrency * p.context_tokens <= 100_000 for p in made.decode)


def test_a_grid_makes_both_surfaces_with_no_direction_left_to_a_roofline():
    made = estimated()
    assert anchor_context(made.decode, made.kv_capacity_tokens) is None
    assert prefill_surface(made).service_s(1000) == pytest.approx(0.1, rel=1e-9)
    # Straight lines between straight lines: the estimator itself, within the digits kept.
    assert decode_surface(made).itl_s(30.0, 1500.0) == pytest.approx(0.0145, rel=1e-3)


def test_what_the_estimator_and_the_user_know_is_in_the_profile():
    made = estimated(max_sequences=64, startup_s=90.0)
    assert (made.kv_capacity_tokens, made.kv_bytes_per_token) == (100_000, 131_072.0)
    assert (made.max_sequences, made.startup_s) == (64, 90.0)
    assert max(p.concurrency for p in made.decode) == 64
    told = made.provenance
    assert (told.how, told.engine, told.engine_version) == ("estimated", "vllm", "9.9")
    assert told.tool == "estimator 1.0, its data of vllm 9.9"
    assert (told.model, told.gpu) == ("org/Model-8B, bfloat16", "h100_sxm")
    assert (told.gpus_per_replica, told.parallelism, told.date) == (2, "TP2", None)


def test_the_command_in_the_provenance_names_all_that_was_asked():
    made = estimated(roles=("decode",), isl_max_tokens=2048, max_sequences=64, startup_s=90.0)
    words = shlex.split(made.provenance.command)
    assert words[:3] == ["pd-planner", "profile", "offline"]
    assert dict(zip(words[3::2], words[4::2], strict=True)) == {
        "--model": "org/Model-8B",
        "--gpu": "h100_sxm",
        "--tensor-parallel": "2",
        "--engine": "vllm",
        "--gpu-memory-utilization": "0.9",
        "--kv-cache-dtype": "fp8",
        "--role": "decode",
        "--isl-max": "2048",
        "--max-sequences": "64",
        "--startup": "90s",
    }


@pytest.mark.parametrize(
    ("roles", "counts"),
    [(("prefill",), (11, 0)), (("decode",), (0, 48)), (("prefill", "decode"), (11, 48))],
    ids=["prefill", "decode", "both"],
)
def test_only_the_roles_asked_for_are_estimated(roles, counts):
    made = estimated(roles=roles)
    assert (len(made.prefill), len(made.decode)) == counts


def test_what_is_null_is_told_with_the_flag_that_gives_it():
    known = list(notes(estimated(max_sequences=64, startup_s=90.0)))
    assert len(known) == 1
    assert "not measured" in known[0]
    lines = list(notes(estimated(Straight(bytes_per_token=None))))
    assert [line.partition(" ")[0] for line in lines[1:]] == [
        "kv_bytes_per_token",
        "kv_capacity_tokens",
        "max_sequences",
        "startup_s",
    ]
    assert "--kv-capacity-tokens" in lines[2]


def test_without_even_growth_of_the_cache_its_room_is_given_by_the_user_or_null():
    uneven = Straight(bytes_per_token=None)
    assert estimated(uneven).kv_capacity_tokens is None
    given = estimated(uneven, kv_capacity_tokens=50_000)
    assert given.kv_capacity_tokens == 50_000
    assert max(p.concurrency for p in given.decode if p.context_tokens == 4096) == 12


@pytest.mark.parametrize("asked", [4097, 40_960])
def test_a_prompt_longer_than_the_model_takes_is_refused(asked):
    with pytest.raises(InputError, match=rf"--isl-max: got {asked}; legal: 512 to 4096"):
        estimated(isl_max_tokens=asked)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_an_estimate_that_is_none_is_refused_with_its_place(bad):
    with pytest.raises(InputError, match=r"^prefill of 128 tokens: the estimate is .* s; legal: "):
        estimated(replace(Straight(), slower=bad))
    with pytest.raises(InputError, match=r"^decode of 1 sequences at 128 tokens: "):
        estimated(replace(Straight(), slower=bad), roles=("decode",))


def test_room_for_less_than_three_contexts_is_refused():
    with pytest.raises(ProfileError, match="at least 3 contexts"):
        estimated(kv_capacity_tokens=300)
    assert batches(1024, 4, 1023) == []


@pytest.mark.skipif(
    importlib.util.find_spec("aiconfigurator_core") is not None, reason="the extra is installed"
)
def test_a_missing_extra_is_named_with_the_command_that_installs_it(capsys):
    assert main(["profile", "offline", "--model", "Qwen/Qwen3-8B", "--gpu", "h100"]) == 2
    told = capsys.readouterr()
    assert told.err == (
        "aiconfigurator-core is not installed: pip install 'pd-planner[aiconfigurator]'\n"
    )
    assert not told.out


def test_another_release_of_the_estimator_is_refused(tmp_path: Path, monkeypatch, capsys):
    release = tmp_path / "aiconfigurator_core-0.13.0.dist-info"
    release.mkdir()
    (release / "METADATA").write_text("Name: aiconfigurator-core\nVersion: 0.13.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["profile", "offline", "--model", "Qwen/Qwen3-8B", "--gpu", "h100"]) == 2
    told = capsys.readouterr().err
    assert "got version 0.13.0; legal: 0.12.0; pip install" in told


def test_estimated_samples_are_marked_and_can_be_true():
    assert ESTIMATED == ["qwen3-32b-h200-tp4", "qwen3-8b-h100", "qwen3-8b-l40s-decode"]
    for name in ESTIMATED:
        made = sample(name)
        assert re.fullmatch(r"aiconfigurator [\d.]+, its data of vllm [\d.]+", made.provenance.tool)
        assert made.provenance.command.startswith("pd-planner profile offline --model Qwen/")
        assert not roofline_faults(made)
        assert not oddities(made)
