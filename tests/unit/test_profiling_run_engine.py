"""What an engine says: its metrics, its streams, its last words."""

import json
from pathlib import Path

import pytest

from planner.adapters.engine.answers import events, plain_words, refusal_words
from planner.adapters.engine.faults import cause
from planner.adapters.engine.metrics import counters, facts_of_cache

SCRAPE = Path(__file__).parents[1] / "data" / "vllm_metrics.txt"


def test_a_real_scrape_tells_sums_counts_and_the_cache():
    text = SCRAPE.read_text(encoding="utf-8")
    found = counters(text)
    assert found.ttft_count > 0
    assert 0 < found.itl_s < 10
    assert 0 <= found.computed_ratio <= 1
    assert facts_of_cache(text) == {
        "kv_capacity_tokens": 1_048_576,
        "block_tokens": 128,
        "kv_bytes_per_token": 1024.0,
    }


def test_what_came_after_is_the_difference_over_all_engines():
    line = 'vllm:time_to_first_token_seconds_{}{{engine="{}"}} {}\n'
    sums = [("sum", 0, 1.0), ("count", 0, 2), ("sum", 1, 3.0), ("count", 1, 4)]
    before = counters("".join(line.format(*each) for each in sums))
    after = counters("".join(line.format(part, e, 3 * value) for part, e, value in sums))
    assert after.since(before).ttft_s == pytest.approx(8.0 / 12.0)
    assert after.since(before).itl_s is None


def test_an_older_vllm_names_the_capacity_by_its_blocks():
    text = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0\n'
    assert facts_of_cache(text)["kv_capacity_tokens"] == 1600


@pytest.mark.parametrize("text", ["", "<html>no</html>", "up 1\n"], ids=["none", "html", "others"])
def test_metrics_of_something_else_are_none(text):
    assert counters(text) is None
    assert facts_of_cache(text)["kv_capacity_tokens"] is None


def test_an_event_has_the_time_of_its_last_byte():
    pieces = [(1.0, b'data: {"a": 1}\n\nda'), (2.0, b'ta: {"b": 2}\n\ndata:{"c": 3}\n'),
              (3.0, b"\ndata: [DONE]\n\n")]  # fmt: skip
    assert list(events(pieces)) == [(1.0, {"a": 1}), (2.0, {"b": 2}), (2.0, {"c": 3})]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (json.dumps({"error": {"message": "too\nlong"}}), ": too long"),
        (json.dumps({"message": "no", "object": "error"}), ": no"),
        ("<html>", ""),
        ("[]", ""),
        ("{}", ""),
    ],
)
def test_a_refusal_is_told_in_the_servers_words(body, words):
    assert refusal_words(body.encode()) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (("<urllib3.connection.HTTPConnection object at 0x7f0>: Failed to establish a new "
         "connection: [Errno 111] Connection refused"),
         "Failed to establish a new connection: [Errno 111] Connection refused"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate (_ssl.c:1006)",
         "[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate"),
        ("", "OSError"),
    ],
    ids=["refused", "TLS", "silent"],
)  # fmt: skip
def test_an_error_is_told_without_python(text, words):
    assert plain_words(OSError(text)) == words


@pytest.mark.parametrize(
    ("line", "code", "what"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", 1, "out of memory"),
        ("ValueError: No available memory for the cache blocks.", 1, "out of memory"),
        (("ValueError: To serve at least one request (128 GiB KV cache is needed, which is larger "
         "than the available KV cache memory"), 1, "out of memory"),
        ("ERROR: [Errno 98] error while attempting to bind: address already in use", 1, "port"),
        ("OSError: Can't load the configuration of 'nope'.", 1, "model does not load"),
        ("api_server.py: error: unrecognized arguments: --bad", 2, "refuses an argument"),
        ("ModuleNotFoundError: No module named 'vllm'", 1, "no vLLM"),
        ("anything", -9, "killed"),
        ("anything", 1, "its last lines"),
    ],
)  # fmt: skip
def test_the_last_words_of_an_engine_tell_why_it_ended(line, code, what):
    assert what in cause(["INFO start", line, "Traceback"], code).what
