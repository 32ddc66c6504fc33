"""Records on disk and in the log: whole on change and hourly, short otherwise, never in the way."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from planner.adapters import telemetry
from planner.adapters.telemetry import RecordFile, TickLog, configure_logging
from planner.errors import InputError
from planner.model import Decision, Hold, PoolDecision, Reason, ServiceKey
from planner.record import TickRecord
from planner.view.record_lines import read_lines

KEY = ServiceKey("inference", "llama")
BLIND = Hold(Reason("MetricsUnavailable", "gone; holding"))
CAPPED = Reason("TooManyReplicas", "capped at 4", "prefill", {"wanted": 9.0})


def tick(at_s: float, desired: int = 4, *reasons: Reason, **over: Any) -> TickRecord:
    """Return a tick of a pool of 4 replicas."""
    pools = {"prefill": PoolDecision(desired, desired, 4, 4, 90.0)}
    hold = over.pop("hold", None)
    key = over.pop("key", KEY)
    return TickRecord(key, Decision(at_s, pools, reasons, hold), **over)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "r.jsonl"


def written(path: Path, *ticks: TickRecord, anew: bool = False) -> list[dict[str, Any]]:
    """Return the lines of a file after these ticks."""
    file = RecordFile(path, anew=anew)
    for entry in ticks:
        file.record(entry)
    file.close()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def wholes(lines: list[dict[str, Any]]) -> list[bool]:
    return ["plan" in line for line in lines]


class TestRecordFile:
    def test_an_unchanged_tick_is_short_and_another_whole_after_an_hour(self, path: Path):
        lines = written(path, *(tick(60.0 * k) for k in range(1, 63)))
        assert [k for k, whole in enumerate(wholes(lines), 1) if whole] == [1, 61]

    @pytest.mark.parametrize(
        "changed",
        [
            pytest.param(tick(120.0, 5), id="an order"),
            pytest.param(tick(120.0, 4, CAPPED), id="a new reason"),
            pytest.param(tick(120.0, 4, BLIND.reason, hold=BLIND), id="a hold"),
        ],
    )
    def test_a_changed_tick_is_whole(self, path: Path, changed: TickRecord):
        assert wholes(written(path, tick(60.0), changed)) == [True, True]

    def test_the_numbers_of_a_reason_are_no_change(self, path: Path):
        later = Reason("TooManyReplicas", "capped at 4", "prefill", {"wanted": 8.0})
        assert wholes(written(path, tick(60.0, 4, CAPPED), tick(120.0, 4, later))) == [True, False]

    def test_services_change_on_their_own(self, path: Path):
        other = ServiceKey("inference", "qwen")
        lines = written(
            path, tick(60.0), tick(60.0, key=other), tick(120.0), tick(120.0, key=other)
        )
        assert wholes(lines) == [True, True, False, False]

    def test_a_short_line_still_says_what_and_why(self, path: Path):
        ticks = [tick(60.0 * k, 4, BLIND.reason, hold=BLIND) for k in (1, 2)]
        written(path, *ticks)
        _, short = read_lines(path.read_text(encoding="utf-8").splitlines(), "r")
        assert short.record.decision == ticks[1].decision
        assert short.record.sentence == ticks[1].sentence

    def test_a_restart_goes_on_in_the_same_file(self, path: Path):
        written(path, tick(60.0))
        assert [line["at_s"] for line in written(path, tick(120.0))] == [60.0, 120.0]

    def test_a_run_anew_leaves_the_old_lines_in_another_file(self, path: Path):
        written(path, tick(60.0))
        assert [line["at_s"] for line in written(path, tick(300.0), anew=True)] == [300.0]
        old = path.with_name("r.jsonl.1").read_text(encoding="utf-8")
        assert json.loads(old)["at_s"] == 60.0

    def test_an_empty_file_is_not_rotated(self, path: Path):
        path.touch()
        written(path, tick(60.0), anew=True)
        assert [found.name for found in path.parent.iterdir()] == ["r.jsonl"]

    def test_a_large_file_is_rotated_between_lines(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(telemetry, "ROTATE_BYTES", 2000)
        written(path, *(tick(3600.0 * k) for k in range(1, 21)))
        files = sorted(path.parent.iterdir())
        assert len(files) > 2
        kept = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        assert sorted(line["at_s"] for line in kept) == [3600.0 * k for k in range(1, 21)]

    def test_a_place_that_can_not_be_written_is_refused_at_once(self, tmp_path: Path):
        with pytest.raises(InputError, match=r"--record: .*/r\.jsonl: No such file or directory"):
            RecordFile(tmp_path / "nowhere" / "r.jsonl")

    def test_a_full_disk_is_told_once_and_stops_nobody(self, caplog: pytest.LogCaptureFixture):
        if not Path("/dev/full").exists():
            pytest.skip("needs /dev/full")
        file = RecordFile(Path("/dev/full"))
        for k in range(3):
            file.record(tick(60.0 * k))
        file.close()
        (told,) = caplog.records
        assert told.levelname == "ERROR"
        assert told.exc_info is None
        assert told.getMessage() == (
            "--record: /dev/full: No space left on device: decisions go on unrecorded"
        )


@pytest.mark.parametrize(
    ("entry", "level", "message"),
    [
        pytest.param(tick(60.0, 5), "INFO", "inference/llama: prefill 4→5", id="order"),
        pytest.param(
            tick(60.0, 4, BLIND.reason, hold=BLIND),
            "WARNING",
            "inference/llama: gone; holding",
            id="hold",
        ),
        pytest.param(
            tick(60.0, 5, applied=False, error="the webhook refused"),
            "WARNING",
            "inference/llama: the webhook refused",
            id="refused",
        ),
    ],
)
def test_the_log_warns_where_somebody_should_act(
    entry: TickRecord, level: str, message: str, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO):
        TickLog().record(entry)
    (told,) = caplog.records
    assert (told.levelname, told.getMessage()) == (level, message)


class TestConfigureLogging:
    @pytest.fixture(autouse=True)
    def _as_before(self) -> Iterator[None]:
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        yield
        root.handlers[:] = handlers
        root.setLevel(level)

    def test_lines_for_a_person_go_to_stderr(self, capsys: pytest.CaptureFixture[str]):
        configure_logging("info", "console")
        TickLog().record(tick(60.0, 5))
        logging.getLogger("pd-planner").debug("not asked for")
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith(" INFO inference/llama: prefill 4→5")

    def test_json_lines_name_the_service(self, capsys: pytest.CaptureFixture[str]):
        configure_logging("info", "json")
        TickLog().record(tick(60.0, 5))
        logging.getLogger("elsewhere").warning("a %s", "word")
        of_tick, plain = map(json.loads, capsys.readouterr().err.splitlines())
        assert (of_tick["level"], of_tick["service"]) == ("info", "inference/llama")
        assert (plain["message"], "service" in plain) == ("a word", False)

    def test_a_level_silences_what_is_below(self, capsys: pytest.CaptureFixture[str]):
        configure_logging("error", "console")
        TickLog().record(tick(60.0, 4, BLIND.reason, hold=BLIND))
        assert capsys.readouterr().err == ""

    def test_the_talkative_are_heard_from_a_warning_on(self, capsys: pytest.CaptureFixture[str]):
        configure_logging("debug", "console")
        for name in ("apscheduler.scheduler", "numba.core"):
            logging.getLogger(name).info("a step")
            logging.getLogger(name).warning("trouble")
        assert [line.split()[-1] for line in capsys.readouterr().err.splitlines()] == [
            "trouble"
        ] * 2
