"""What `profile run` computes: points from rounds, the next point, the file, the profile."""

import json
from dataclasses import dataclass, field, replace

import pytest

from planner.errors import InputError
from planner.model import Role
from planner.profiling.engine_command import Launch, model_name
from planner.profiling.grid import Reach, grid, next_point
from planner.profiling.measurements import (
    Measured,
    MeasurementFile,
    facts_line,
    point_line,
)
from planner.profiling.measuring import Cap, Measurement, MeasurementError, Meter
from planner.profiling.outcome import About, measured_profile, remarks
from planner.profiling.timings import Counters, EngineFacts, Timing, most_together, sample_itl_s
from profiles.sweep import Goal, Place

FACTS = EngineFacts("llama", "0.32.0", 8192, 100_000, 16, 131_072.0, 60.0)
REACH = Reach(isl_max_tokens=4096, output_tokens=32)
SMALL = replace(REACH, max_sequences=24)
GOAL = Goal(ttft_s=0.5, itl_s=0.03)
ABOUT = About("pd-planner", "2026-01-02", "vllm", "llama", None, 2, "TP2", None, None)


@dataclass
class Machine:
    """An engine of known speed: TTFT 0.1 ms a token, ITL 5 ms and 1 ms a sequence more."""

    admits: int = 1000
    bursts: int = 0  # so many rounds of decode reach the client at their end
    late: int = 0  # so many rounds reach the client half a second late
    apart_s: float = 0.0  # between the arrivals of requests that are sent at once
    tells: bool = True
    computes: float = 1.0
    tokens_an_event: int = 1
    loses: int = 0
    now_s: float = 0.0
    counted: Counters = field(default=Counters(0, 0, 0, 0, 0, 0, 0))

    def bodies(self, prompts, output_tokens):
        return [json.dumps([len(prompt), output_tokens]).encode() for prompt in prompts]

    def together(self, bodies):
        asked = [json.loads(body) for body in bodies]
        itl_s = 0.005 + 0.001 * min(len(asked), self.admits)
        found = []
        for i, (isl, osl) in enumerate(asked):
            # Those above what it admits begin when the first ones have ended.
            queued_s = (i // self.admits) * (osl * itl_s + 1e-4 * isl)
            first_s = self.now_s + i * self.apart_s + queued_s + 1e-4 * isl
            events = range(0, osl - self.loses, self.tokens_an_event)
            times = tuple(first_s + k * itl_s for k in events)
            if osl > 1 and self.bursts > 0:
                times = tuple(times[-1] + 1e-6 * k for k in events)
            if self.late > 0:
                times = tuple(at_s + 0.5 for at_s in times)
            found.append(Timing(isl, osl - self.loses, self.now_s, times))
            self.count(first_s - self.now_s, (osl - 1) * itl_s, osl - 1, queued_s, isl)
        self.bursts -= 1
        self.late -= 1
        self.now_s = max(t.events_s[-1] for t in found) + 1.0
        return found

    def count(self, ttft_s, decode_s, tokens, queued_s, isl):
        more = (ttft_s, 1, decode_s, tokens, queued_s, isl, isl * self.computes)
        self.counted = Counters(*(a + b for a, b in zip(self.counted, more, strict=True)))

    def counters(self, _first_tokens=0.0):
        return self.counted if self.tells else None


# ── one point ────────────────────────────────────────────────────────────────────────────────────


def test_prefill_is_the_median_of_prompts_alone_and_what_the_engine_counts():
    found = Meter(Machine(), samples=3, output_tokens=32).prefill(Place(1.0, 1000.0))
    assert found.value_s == pytest.approx(0.1)
    assert found.samples_s == pytest.approx([0.1] * 3)
    assert found.server_s == pytest.approx(0.1)
    assert (found.computed_ratio, found.strangers) == (1.0, 0)


@pytest.mark.parametrize("apart_s", [0.0, 0.005], ids=["at once", "apart"])
def test_decode_is_judged_while_all_decode(apart_s):
    found = Meter(Machine(apart_s=apart_s), 3, 32).decode(Place(8.0, 500.0))
    assert found.place == (8.0, 500.0)
    assert found.value_s == pytest.approx(0.013)
    assert len(found.samples_s) == 3


def test_outputs_grow_until_requests_that_start_apart_run_together():
    # 8 requests 50 ms apart: the last begins when 32 tokens of 13 ms, 0.4 s, have nearly ended.
    meter = Meter(Machine(apart_s=0.05), 2, 32)
    assert meter.decode(Place(8.0, 500.0)).value_s == pytest.approx(0.013)


@pytest.mark.parametrize("tells", [True, False], ids=["by its queue", "by its stream alone"])
def test_an_engine_that_runs_fewer_than_asked_says_how_many(tells):
    meter = Meter(Machine(admits=6, tells=tells, computes=0.0), 3, 32)
    assert meter.decode(Place(10.0, 500.0)) == Cap(6)
    assert isinstance(meter.decode(Place(6.0, 500.0)), Measurement)


def test_requests_that_start_apart_without_queueing_are_no_sign_of_a_limit():
    # They never decode together; each waits for nothing but the one who sends them.
    found = Meter(Machine(apart_s=2.0, computes=0.0), 3, 32).decode(Place(8.0, 500.0))
    assert isinstance(found, Measurement)


def test_the_time_in_which_some_decode_alone_does_not_count():
    early = Timing(8, 5, 0.0, (1.0, 1.1, 1.3, 1.5, 1.7))
    late = Timing(8, 5, 0.0, (1.1, 1.3, 1.5, 1.7, 1.8))
    assert sample_itl_s([early, late]) == pytest.approx(0.2)


def test_several_tokens_in_one_event_count_as_several():
    found = Meter(Machine(tokens_an_event=4, tells=False), 3, 32).decode(Place(4.0, 500.0))
    assert found.value_s == pytest.approx(0.009)


@pytest.mark.parametrize(("bursts", "samples"), [(6, 2), (99, 3)], ids=["some", "all"])
def test_rounds_that_reach_the_client_in_bursts_are_left_out(bursts, samples):
    # Each of three lengths of outputs takes a round to warm and one to judge.
    found = Meter(Machine(bursts=bursts), 3, 32).decode(Place(4.0, 500.0))
    assert isinstance(found, Measurement)
    assert found.value_s == pytest.approx(0.009)
    assert len(found.samples_s) == samples
    assert found.held_up == (1 if bursts == 6 else 3)


@pytest.mark.parametrize(
    ("late", "samples", "left_out"), [(0, 3, 0), (3, 1, 2), (99, 3, 3)], ids=["no", "some", "all"]
)
def test_first_tokens_that_reach_the_client_late_are_left_out(late, samples, left_out):
    # One round warms. Where all are late the engine's own time counts.
    found = Meter(Machine(late=late), 3, 32).prefill(Place(1.0, 1000.0))
    assert found.value_s == pytest.approx(0.1)
    assert (len(found.samples_s), found.held_up) == (samples, left_out)


def test_an_engine_that_counts_no_time_leaves_it_to_the_client():
    machine = Machine()
    count = machine.count
    machine.count = lambda _, *more: count(0.0, *more)
    found = Meter(machine, 3, 32).prefill(Place(1.0, 1000.0))
    assert (found.value_s, found.held_up) == (pytest.approx(0.1), 0)


def test_without_metrics_a_late_first_token_counts():
    found = Meter(Machine(late=99, tells=False), 3, 32).prefill(Place(1.0, 1000.0))
    assert (found.value_s, found.held_up) == (pytest.approx(0.6), 0)


def test_without_metrics_the_client_alone_tells():
    found = Meter(Machine(tells=False), 3, 32).decode(Place(4.0, 500.0))
    assert found.value_s == pytest.approx(0.009)
    assert (found.server_s, found.computed_ratio) == (None, None)


def test_requests_of_others_are_counted():
    machine = Machine()
    together = machine.together

    def shared(bodies):
        machine.count(1.0, 0.1, 10, 0.0, 100)
        return together(bodies)

    machine.together = shared
    found = Meter(machine, 3, 32).prefill(Place(1.0, 1000.0))
    # The engine's mean is of all: it tells nothing of ours.
    assert (found.strangers, found.held_up) == (3, 0)
    assert found.value_s == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        pytest.param(Machine(loses=9), "output tokens; legal: the 32", id="stops early"),
        pytest.param(Machine(tokens_an_event=200, tells=False), "all at once", id="no stream"),
    ],
)
def test_decode_of_something_else_is_refused(machine, words):
    with pytest.raises(MeasurementError, match=words):
        Meter(machine, 3, 32).decode(Place(4.0, 500.0))


def test_a_first_token_without_prefill_is_refused():
    with pytest.raises(MeasurementError, match="computed 10% of the prompts"):
        Meter(Machine(computes=0.1), 3, 32).prefill(Place(1.0, 1000.0))


def test_a_burst_does_not_make_an_inter_token_latency():
    # A busy client read three tokens at once: their gaps are 0, their mean is not.
    timing = Timing(8, 6, 0.0, (1.0, 1.1, 1.4, 1.4, 1.4, 1.5))
    assert sample_itl_s([timing]) == pytest.approx(0.1)


def test_most_together_sees_through_one_that_ends_when_another_begins():
    times = [(0.0, 1.0), (0.5, 2.0), (1.5, 3.0), (1.6, 1.9)]
    assert most_together([Timing(1, 2, 0.0, pair) for pair in times]) == 3


# ── which points ─────────────────────────────────────────────────────────────────────────────────


def fits(place, facts=FACTS):
    longest = place.context_tokens + REACH.output_tokens * 2
    blocks = -(-longest // facts.block_tokens)
    return place.concurrency * blocks * facts.block_tokens <= facts.kv_capacity_tokens


def test_every_decode_point_fits_into_the_cache_with_its_longest_outputs():
    places = grid(Role.DECODE, FACTS, REACH, None)
    assert all(fits(place) for place in places)
    contexts = {place.context_tokens for place in places}
    assert max(contexts) == 4096
    full = [replace_n(p, p.concurrency * 1.1) for p in places if p.concurrency > 20]
    assert any(not fits(place) for place in full), "much of the cache is never measured"


def replace_n(place, n):
    return Place(float(round(n)), place.context_tokens)


def test_more_than_what_runs_together_is_no_point():
    assert max(p.concurrency for p in grid(Role.DECODE, FACTS, REACH, 6)) == 6
    told = replace(REACH, max_sequences=9)
    assert max(p.concurrency for p in grid(Role.DECODE, FACTS, told, None)) == 9


@pytest.mark.parametrize(
    ("facts", "longest"),
    [(FACTS, 4096), (replace(FACTS, longest_tokens=2048), 2047)],
    ids=["as asked", "as the engine takes"],
)
def test_prompts_are_as_long_as_asked_and_as_the_engine_takes(facts, longest):
    assert grid(Role.PREFILL, facts, REACH, None)[-1] == (1.0, longest)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        pytest.param(replace(FACTS, kv_capacity_tokens=None), "--kv-capacity-tokens", id="unknown"),
        pytest.param(replace(FACTS, kv_capacity_tokens=300), "holds 300; legal", id="small cache"),
        pytest.param(replace(FACTS, longest_tokens=100), "takes 100 tokens", id="short"),
    ],
)
def test_too_small_an_engine_is_refused(facts, words):
    with pytest.raises(InputError, match=words):
        grid(Role.DECODE, facts, REACH, None)


def swept(reach, machine=None, pure=None):
    """Return what a whole run measures, with an engine for both roles or one of pure decode."""
    prefill, decode = (
        Meter(each, 2, reach.output_tokens)
        for each in (machine or Machine(), pure or machine or Machine())
    )
    measured = Measured(dict.fromkeys(Role, FACTS))
    for role, measure in ((Role.PREFILL, prefill.prefill), (Role.DECODE, decode.decode)):
        while True:
            places = grid(role, FACTS, reach, measured.max_sequences)
            place = next_point(role, places, measured, GOAL, reach)
            if place is None:
                break
            measured = measured.with_line(json.loads(json.dumps(point_line(measure(place)))))
    return measured


def test_twelve_points_make_a_profile():
    measured = swept(replace(SMALL, max_points=12))
    assert [len(measured.of(role)) for role in Role] == [3, 9]
    profile = measured_profile(measured, ABOUT, "state")
    assert len(profile.decode) == 9
    assert profile.startup_s == 60.0
    assert profile.kv_bytes_per_token == 2 * 131_072
    assert profile.provenance.how == "measured"


def test_what_is_precise_enough_needs_fewer_points_than_there_are():
    measured = swept(SMALL)
    assert 12 <= len(measured.points) < 30
    grids = [grid(role, FACTS, SMALL, None) for role in Role]
    assert len(measured.points) < 0.55 * sum(map(len, grids))


def test_what_does_not_run_together_is_found_once_and_not_asked_again():
    measured = swept(SMALL, Machine(admits=7), Machine(admits=7, computes=0.0))
    profile = measured_profile(measured, ABOUT, "state")
    assert profile.max_sequences == 7
    assert max(p.concurrency for p in profile.decode) == 7


@pytest.mark.parametrize(
    ("machine", "phrase"),
    [
        pytest.param(Machine(), "ITL holds prefill of other requests", id="plain"),
        pytest.param(Machine(tells=False), "unknown how much prefill", id="silent"),
        pytest.param(Machine(bursts=10**6), "reached the client late or in bursts", id="bursts"),
    ],
)
def test_the_provenance_says_what_the_way_of_measuring_costs(machine, phrase):
    measured = swept(replace(SMALL, max_points=12), machine)
    assert phrase in "; ".join(remarks(measured))
    assert phrase in measured_profile(measured, ABOUT, "state").provenance.command


# ── the file ─────────────────────────────────────────────────────────────────────────────────────

SUBJECT = {"model": "llama", "engine version": "0.32.0"}
POINT = Measurement(Role.DECODE, Place(4.0, 500.0), 0.01, (0.01, 0.02), 0.011, 0.0, 0)


def test_what_is_written_is_there_again(tmp_path):
    file = MeasurementFile(tmp_path / "state", SUBJECT)
    for line in (facts_line(Role.DECODE, FACTS), point_line(POINT), point_line(Cap(9))):
        file.append(line)
    again = MeasurementFile(tmp_path / "state", SUBJECT).measured
    assert again == file.measured == Measured({Role.DECODE: FACTS}, (POINT,), 9)


def test_a_first_line_cut_off_in_writing_is_written_again(tmp_path):
    path = tmp_path / "state"
    MeasurementFile(path, SUBJECT)
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    MeasurementFile(path, SUBJECT)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_cut_off_in_writing_is_measured_again(tmp_path, cut):
    path = tmp_path / "state"
    file = MeasurementFile(path, SUBJECT)
    file.append(point_line(POINT))
    whole = path.read_bytes()
    file.append(point_line(replace(POINT, place=Place(8.0, 500.0))))
    path.write_bytes(whole + path.read_bytes()[len(whole) :][:cut])
    again = MeasurementFile(path, SUBJECT)
    assert again.measured.points == (POINT,)
    again.append(point_line(Cap(9)))
    assert MeasurementFile(path, SUBJECT).measured == Measured({}, (POINT,), 9)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"model": "qwen"}, "model 'llama', this run has 'qwen'"),
        ({"engine version": "0.33.0"}, "engine version '0.32.0', this run has '0.33.0'"),
        ({"--samples": 3}, "--samples 'None'"),
    ],
    ids=["model", "version", "flag"],
)
def test_measurements_of_something_else_are_refused(tmp_path, other, words):
    MeasurementFile(tmp_path / "state", SUBJECT)
    with pytest.raises(InputError, match=words):
        MeasurementFile(tmp_path / "state", SUBJECT | other)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1}\n', "no file of measurements"),
        ("t_s,isl\n", "line 1 is no measurement"),
        ("[1]\n", "no file of measurements"),
        ("no line end", "no file of measurements"),
        ('{"kind": "run", "format": 2', "no file of measurements"),
    ],
    ids=["json", "trace", "list", "unended", "of another run"],
)
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path, text, words):
    path = tmp_path / "state"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        MeasurementFile(path, SUBJECT)
    assert path.read_text() == text


# ── the engine's command ─────────────────────────────────────────────────────────────────────────


def test_prefill_runs_without_a_cache_and_decode_without_prefill():
    launch = Launch(("vllm",), "llama", ("-tp", "2"))
    assert launch.command(Role.PREFILL)[-1] == "--no-enable-prefix-caching"
    assert "DecodeBenchConnector" in launch.command(Role.DECODE)[-1]
    plain = replace(launch, pure_decode=False)
    assert plain.command(Role.DECODE)[-1] == "--enable-prefix-caching"


@pytest.mark.parametrize(
    ("arguments", "gpus", "parallelism"),
    [
        ((), 1, "TP1"),
        (("--tensor-parallel-size", "4"), 4, "TP4"),
        (("-tp=2", "--pipeline-parallel-size=2"), 4, "TP2 PP2"),
        (("-tp", "2", "-tp", "8"), 8, "TP8"),
    ],
)
def test_gpus_are_those_of_the_arguments(arguments, gpus, parallelism):
    launch = Launch(("vllm",), "llama", arguments)
    assert (launch.gpus, launch.parallelism) == (gpus, parallelism)


@pytest.mark.parametrize(
    ("served", "name"),
    [("meta/llama-8b", "meta/llama-8b"), ("/models/llama-8b", "llama-8b"), ("./m", "m")],
)
def test_a_model_is_called_by_its_name_and_not_by_its_path(served, name):
    assert model_name(served, None) == name
