"""A real prefill/decode pair of vLLM is read as it is, and decided on.

The oracles are what the client sent, what it saw, and the servers' own account of where prompt
tokens came from.
"""

from pathlib import Path

import pytest

from planner.adapters.sources import SOURCES
from planner.model import Role
from tests.engine.build import Engine
from tests.engine.witness import (
    AGAIN,
    BLOCK_TOKENS,
    FRESH,
    MAX_REPLICAS,
    PROFILED_PROMPTS,
    Evidence,
    Page,
    gather,
)

SENT = (*FRESH, *AGAIN)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def evidence(
    engine: Engine, prometheus_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Evidence:
    return gather(engine, prometheus_binary, tmp_path_factory.mktemp("pair"))


def by_source(page: Page, source: str) -> float:
    return page.added("vllm:prompt_tokens_by_source_total", source=source)


def mean_s(page: Page, name: str) -> float:
    """Return the mean of what a histogram gained."""
    return page.added(f"{name}_sum") / page.added(f"{name}_count")


def test_the_pair_is_one(evidence: Evidence):
    """Every prompt is computed once, by the prefill server, and moves to the decode server."""
    assert by_source(evidence.decode, "local_compute") == 0
    moved = by_source(evidence.decode, "external_kv_transfer")
    assert moved == by_source(evidence.prefill, "local_compute") > 0
    assert evidence.prefill.added("vllm:generation_tokens_total") == len(SENT)


@pytest.mark.parametrize("role", list(Role), ids=str)
def test_every_metric_of_the_row_is_there_under_its_newest_name(evidence: Evidence, role: Role):
    page = evidence.prefill if role is Role.PREFILL else evidence.decode
    newest = {
        metric.trail(metric.families[0]) for metric in SOURCES["vllm"].roles[role].metrics.values()
    }
    assert newest - page.names() == set()


def test_lengths_are_those_sent(evidence: Evidence):
    assert [(one.prompt_tokens, one.output_tokens) for one in evidence.served] == [
        (isl, osl) for _, isl, osl in SENT
    ]
    prompts, outputs = evidence.observation.prompts, evidence.observation.outputs
    assert prompts is not None
    assert outputs is not None
    assert (prompts.count, prompts.sum) == (len(SENT), sum(isl for _, isl, _ in SENT))
    assert (outputs.count, outputs.sum) == (len(SENT), sum(osl for _, _, osl in SENT))


@pytest.mark.parametrize("bound", [50.0, 100.0, 200.0, 500.0, 1000.0])
def test_prompts_are_in_the_buckets_of_their_lengths(evidence: Evidence, bound: float):
    prompts = evidence.observation.prompts
    assert prompts is not None
    counts = dict(zip(prompts.upper_bounds, prompts.cumulative, strict=True))
    assert counts[bound] == sum(isl <= bound for _, isl, _ in SENT)


def test_arrivals_are_the_requests_sent(evidence: Evidence):
    seen = evidence.observation
    # `span_s` is the longer one of the two servers, which are scraped at moments of their own.
    assert seen.arrivals_rps * evidence.prefill_span_s == pytest.approx(len(SENT), rel=1e-9)
    assert seen.finished == len(SENT)
    width_s, bins = seen.arrival_bins
    assert width_s > 0
    assert sum(bins) == pytest.approx(len(SENT), rel=1e-9)


def test_uncached_tokens_are_what_the_prefill_server_says_it_computed(evidence: Evidence):
    page = evidence.prefill
    sources = ("local_compute", "local_cache_hit", "external_kv_transfer")
    total = sum(by_source(page, source) for source in sources)
    assert total == sum(isl for _, isl, _ in SENT)
    assert evidence.observation.uncached_ratio == pytest.approx(
        by_source(page, "local_compute") / total, rel=1e-12
    )


def test_prompts_sent_again_are_computed_but_for_their_whole_blocks(evidence: Evidence):
    # The last token is always computed: it is what the first output token comes from.
    cached = sum((isl - 1) // BLOCK_TOKENS * BLOCK_TOKENS for _, isl, _ in AGAIN)
    total = sum(isl for _, isl, _ in SENT)
    assert evidence.observation.uncached_ratio == pytest.approx((total - cached) / total)


def test_ttft_is_prefill_and_handover(evidence: Evidence):
    name = "vllm:time_to_first_token_seconds"
    seen, handover_s = evidence.observation, mean_s(evidence.decode, name)
    assert seen.handover_s == pytest.approx(handover_s)
    assert seen.ttft_mean_s == pytest.approx(mean_s(evidence.prefill, name) + handover_s)
    assert seen.ttft is not None
    assert seen.ttft.requests == len(SENT)


def test_itl_is_the_mean_over_requests(evidence: Evidence):
    name = "vllm:request_time_per_output_token_seconds"
    assert evidence.observation.itl_mean_s == pytest.approx(mean_s(evidence.decode, name))
    assert evidence.observation.itl is not None
    assert evidence.observation.itl.requests == len(SENT)


def test_no_latency_is_longer_than_a_client_s(evidence: Evidence):
    seen = evidence.observation
    assert seen.ttft_mean_s is not None
    client_s = sum(one.ttft_s for one in evidence.served) / len(SENT)
    # No lower bound: on a busy machine a request waits long before the server takes note of it.
    assert 0.0 < seen.ttft_mean_s <= client_s
    # Between first and last token the server's own clock runs: a client sees bursts.
    gap_s = seen.pools["decode"].service_s
    assert gap_s is not None
    decoding_s = gap_s * sum(osl - 1 for _, _, osl in SENT)
    computing_s = (seen.ttft_mean_s - (seen.handover_s or 0.0)) * len(SENT)
    assert 0.0 < decoding_s <= sum(one.e2e_s for one in evidence.served) - computing_s


def test_decode_is_as_full_as_its_token_gaps_say(evidence: Evidence):
    name = "vllm:inter_token_latency_seconds"
    decode = evidence.observation.pools["decode"]
    # One gap fewer than tokens.
    assert evidence.decode.added(f"{name}_count") == sum(osl - 1 for _, _, osl in SENT)
    assert decode.service_s == pytest.approx(mean_s(evidence.decode, name))
    assert (decode.pods, decode.waiting, decode.changed) == (1, 0.0, False)


def test_recommend_decides_on_it(evidence: Evidence):
    said = evidence.recommended
    assert (said.exit_code, said.err) == (0, ""), f"{said.out}\n{said.err}"
    record = said.record
    assert record["hold"] is None
    assert record["load"]["tokens"]["prefill"]["up_tps"] > 0
    assert record["load"]["tokens"]["decode"]["up_tps"] > 0
    assert all(1 <= pool["desired"] <= MAX_REPLICAS for pool in record["pools"].values())
    (reason,) = (one for one in record["reasons"] if one["code"] == "OutsideProfile")
    assert reason["pool"] == "prefill"
    assert 0 < reason["values"]["tokens"] < min(PROFILED_PROMPTS)
    assert reason["message"] in " ".join(said.out.split())
