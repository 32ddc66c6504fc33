"""A service's own history out of a real Prometheus: counts, means and times of what was there."""

import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import requests
from numpy.typing import NDArray

from planner.__main__ import main
from planner.adapters.exposition import Line, lines, openmetrics_format
from planner.adapters.prometheus import PrometheusAccess, PrometheusMetrics
from planner.adapters.prometheus_history import stretches
from planner.app import own_past, own_requests
from planner.model import Histogram, PodSample, Service, Signal
from planner.past import observations
from planner.past_traffic import past_requests
from planner.settings import Settings, load_settings
from planner.spec.service import LoadedService
from profiles import (
    DecodeSurface,
    PrefillSurface,
    Profile,
    decode_surface,
    prefill_surface,
    read_profile,
    write_profile,
)
from profiles.sanity import oddities
from tests.integration.prometheus_server import Answer, backfill, page, prometheus
from tests.integration.recorded_past import PODS, example, loaded_example, wall_clock_s

Floats = NDArray[np.float64]
Out = pytest.CaptureFixture[str]

SCRAPE_S, HOUR_S = 30.0, 3600.0
HOURS = 26.0
ISL_BOUNDS = (*(2.0**k for k in range(7, 15)), math.inf)
OSL_BOUNDS = (*(2.0**k for k in range(4, 12)), math.inf)
# Hours after the begin: nothing was scraped, though the pods went on; and the prefill pod was
# replaced by one that counts from zero, the decode pod restarted under its name.
GAP_H, NEW_POD_H, RESTART_H = (14.0, 14.75), 9.0, 17.0


@dataclass(frozen=True)
class Day:
    """What really happened: requests of 26 hours, and how far the servers are off their profile."""

    base_s: float
    arrival_s: Floats
    isl: Floats
    osl: Floats

    @property
    def end_s(self) -> float:
        """When the last scrape was [s, Unix]."""
        return self.base_s + HOURS * HOUR_S

    def within(self, since_s: float, until_s: float) -> NDArray[np.bool_]:
        """Return which requests came between two times [s, Unix]."""
        at_s = self.base_s + self.arrival_s
        return (since_s <= at_s) & (at_s < until_s)


def prefill_factor(isl: Floats) -> Floats:
    """Return the true factor by prompt length: 0.8 up to 512 tokens, 1.3 from 4096 on."""
    return np.interp(np.log2(isl), [9.0, 12.0], [0.8, 1.3])


def decode_factor(concurrency: float) -> float:
    """Return the true factor by batch: 1.25 up to 4 sequences, 0.9 from 32 on."""
    return float(np.interp(math.log2(concurrency), [2.0, 5.0], [1.25, 0.9]))


def a_day(end_s: float) -> Day:
    """Return traffic of 1 to 12 requests/s; three of four come in the first half of a minute."""
    random = np.random.default_rng(5)
    slots = np.arange(HOURS * HOUR_S / SCRAPE_S)
    hours = slots * SCRAPE_S / HOUR_S
    rps = 6.5 - 5.5 * np.cos(2 * np.pi * hours / 12.0)
    mean = rps * SCRAPE_S * np.where(slots % 2 == 0, 1.5, 0.5)
    slot = np.repeat(slots, random.poisson(mean))
    arrival_s = np.sort((slot + random.uniform(size=slot.size)) * SCRAPE_S)
    is_long = random.uniform(size=slot.size) < 0.4 - 0.38 * np.cos(2 * np.pi * arrival_s / 10_000.0)
    size = np.where(is_long, 4500.0, 450.0) * random.lognormal(0.0, 0.35, slot.size)
    isl = np.clip(np.rint(size), 1.0, 16_000.0)
    osl = np.clip(np.rint(random.exponential(180.0, slot.size)), 1.0, 2000.0)
    return Day(round(end_s - HOURS * HOUR_S, 3), arrival_s, isl, osl)


@dataclass(frozen=True)
class Counted:
    """One signal's entries in order of time: when [s], what."""

    at_s: Floats
    values: Floats
    bounds: tuple[float, ...]

    def scraped(self, times_s: Floats) -> list[Histogram]:
        """Return the histogram at each time."""
        bucket = np.searchsorted(np.array(self.bounds), self.values, side="left")
        counts = np.stack([
            np.searchsorted(self.at_s[bucket <= k], times_s) for k in range(len(self.bounds))
        ])
        total = np.concatenate([[0.0], np.cumsum(self.values)])[np.searchsorted(self.at_s, times_s)]
        return [
            Histogram(self.bounds, tuple(column), float(s))
            for column, s in zip(counts.T.astype(float).tolist(), total, strict=True)
        ]


def since(histogram: Histogram, earlier: Histogram) -> Histogram:
    """Return what was counted by a pod that began later."""
    counts = tuple(a - b for a, b in zip(histogram.cumulative, earlier.cumulative, strict=True))
    return Histogram(histogram.upper_bounds, counts, histogram.sum - earlier.sum)


def prefill_pods(day: Day, truth: PrefillSurface, times_s: Floats) -> list[PodSample]:
    """Return the prefill pod at each scrape; a new one from `NEW_POD_H` on."""
    prompts = Counted(day.arrival_s, day.isl, ISL_BOUNDS).scraped(times_s)
    took_s = truth.service_s(day.isl) * prefill_factor(day.isl)
    served = Counted(day.arrival_s, took_s, (math.inf,)).scraped(times_s)
    new = int(np.searchsorted(times_s, NEW_POD_H * HOUR_S))
    found = []
    for k, at_s in enumerate(times_s.tolist()):
        born = new if k >= new else None
        told = {Signal.PROMPT_TOKENS: prompts, Signal.PREFILL_TIME: served}
        histograms = {
            signal: one[k] if born is None else since(one[k], one[born - 1])
            for signal, one in told.items()
        }
        name = f"{PODS['prefill']}-{0 if born is None else 1}"
        counters = {Signal.COMPUTED_TOKENS: histograms[Signal.PROMPT_TOKENS].sum}
        gauges = {Signal.RUNNING: 0.0, Signal.WAITING: 0.0}
        found.append(PodSample(name, day.base_s + at_s, counters, histograms, gauges))
    return found


def decode_pods(day: Day, truth: DecodeSurface, times_s: Floats) -> list[PodSample]:
    """Return the decode pod at each scrape; from `RESTART_H` on it counts from zero again."""
    outputs = Counted(day.arrival_s, day.osl, OSL_BOUNDS).scraped(times_s)
    context = float(day.isl.mean() + (day.osl**2).mean() / (2.0 * day.osl.mean()))
    # Tokens come more evenly than requests: an output takes its time.
    totals = np.array([one.sum for one in outputs])
    tokens = np.convolve(np.diff(totals, prepend=0.0), np.full(8, 0.125), mode="same")
    gaps_s = [steady_itl_s(truth, count / SCRAPE_S, context) for count in tokens]
    tokens, busy_s = tokens.cumsum(), (tokens * np.array(gaps_s)).cumsum()
    again = int(np.searchsorted(times_s, RESTART_H * HOUR_S))
    found = []
    for k, at_s in enumerate(times_s.tolist()):
        before = again if k >= again else 0
        gaps = Histogram((math.inf,), (tokens[k] - tokens[before],), busy_s[k] - busy_s[before])
        lengths = outputs[k] if before == 0 else since(outputs[k], outputs[before])
        found.append(
            PodSample(
                f"{PODS['decode']}-0",
                day.base_s + at_s,
                {Signal.GENERATED_TOKENS: gaps.count},
                {Signal.OUTPUT_TOKENS: lengths, Signal.TOKEN_GAP: gaps},
                {Signal.RUNNING: 0.0, Signal.WAITING: 0.0},
            )
        )
    return found


def steady_itl_s(truth: DecodeSurface, tps: float, context: float) -> float:
    """Return the ITL [s] at a load: n = load × ITL(n + 1), as a token sees one more than there are
    in the mean.
    """
    itl_s = 0.005
    for _ in range(12):
        batch = tps * itl_s + 1.0
        itl_s = float(truth.itl_s(batch, context)) * decode_factor(batch)
    return itl_s


def exposed(loaded: LoadedService, day: Day, until_h: float = HOURS) -> list[Line]:
    """Return all series of the day, but for the gap."""
    times_s = np.arange(SCRAPE_S, until_h * HOUR_S, SCRAPE_S)
    by_pool = {
        "prefill": prefill_pods(day, prefill_surface(loaded.profiles["prefill"]), times_s),
        "decode": decode_pods(day, decode_surface(loaded.profiles["decode"]), times_s),
    }
    return [
        line
        for k, at_s in enumerate(times_s.tolist())
        if not GAP_H[0] <= at_s / HOUR_S < GAP_H[1]
        for line in lines(loaded.service, {pool: (pods[k],) for pool, pods in by_pool.items()})
    ]


@dataclass(frozen=True)
class Recorded:
    """A Prometheus that holds the day."""

    url: str
    folder: Path
    service: Service
    profile: Profile
    day: Day

    @property
    def window_s(self) -> float:
        """A window that begins an hour before the day did [s]."""
        return 27.0 * HOUR_S


@pytest.fixture(scope="module")
def recorded(
    prometheus_binary: Path, promtool_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("day")
    loaded = loaded_example(folder)
    # The clock goes on while the tests run: a quarter of an hour of the day is still to come.
    day = a_day(wall_clock_s() + 900.0)
    backfill(promtool_binary, folder, openmetrics_format(exposed(loaded, day)))
    with prometheus(prometheus_binary, folder) as server:
        yield Recorded(server.url, folder, loaded.service, loaded.profiles["decode"], day)


@pytest.fixture(autouse=True)
def _files(own_place: Path) -> None:
    (own_place / "f.yaml").write_text(example(), encoding="utf-8")


def asking(url: str) -> Settings:
    return load_settings({"--prometheus": url})


def test_the_made_trace_has_the_counts_and_means_of_the_past(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
):
    past = own_past(recorded.service, asking(recorded.url), recorded.window_s)
    trace = past_requests(past, seed=3)
    # Two gaps' ends and the replaced pods cost an interval each; scrapes are up to 30 s old.
    (gap,) = past.gaps
    day = recorded.day
    assert gap.length_s == pytest.approx((GAP_H[1] - GAP_H[0]) * HOUR_S, abs=150.0)
    assert gap.start_s == pytest.approx(day.base_s + GAP_H[0] * HOUR_S, abs=120.0)
    assert "history of 25h" in caplog.text
    assert "gaps of 4" in caplog.text
    assert "left out, not taken as silence" in caplog.text
    begin_s = past.start_s - past.step_s
    cut_s = gap.start_s - begin_s
    for hour in range(25):
        since_s = hour * HOUR_S
        if since_s < cut_s < since_s + HOUR_S:
            continue
        real_s = begin_s + since_s + (gap.length_s if since_s >= cut_s else 0.0)
        there = day.within(real_s - 30.0, real_s + HOUR_S - 30.0)
        made = (trace.arrival_s >= since_s) & (trace.arrival_s < since_s + HOUR_S)
        assert made.sum() == pytest.approx(there.sum(), rel=0.04), hour
        assert trace.isl_tokens[made].mean() == pytest.approx(day.isl[there].mean(), rel=0.04)
        assert trace.osl_tokens[made].mean() == pytest.approx(day.osl[there].mean(), rel=0.04)
    seen = day.within(begin_s, begin_s + len(past.seen) * past.step_s)
    seen &= ~day.within(gap.start_s, gap.start_s + gap.length_s)
    assert len(trace) == pytest.approx(seen.sum(), rel=0.005)
    for made_tokens, tokens in ((trace.isl_tokens, day.isl), (trace.osl_tokens, day.osl)):
        assert made_tokens.mean() == pytest.approx(tokens[seen].mean(), rel=0.005)
        for share in (0.1, 0.5, 0.9, 0.99):
            wanted = np.quantile(tokens[seen], share)
            # Within a bucket only the mean is known.
            assert np.quantile(made_tokens, share) == pytest.approx(wanted, rel=0.2)


def test_arrivals_follow_the_scrapes_inside_an_interval(recorded: Recorded):
    trace = own_requests(recorded.service, asking(recorded.url), 6 * HOUR_S, seed=0)
    # Three of four came in the same half of every minute; evenly they would be a half.
    half = ((trace.arrival_s % 60.0) // SCRAPE_S).astype(int)
    share = np.bincount(half, minlength=2).max() / len(trace)
    assert 0.66 < share < 0.76


# ── a Prometheus that limits its queries ─────────────────────────────────────────────────────────


def read(service: Service, url: str, start_s: float) -> list[float | None]:
    """Return the requests/s of each of 360 minutes."""
    metrics = PrometheusMetrics(PrometheusAccess(url))
    found: list[float | None] = []
    for stretch in stretches(metrics, service, start_s, 360, 60.0):
        found += [
            None if one is None else one.arrivals_rps
            for one in observations(service, stretch.samples, stretch.start_s)[1:]
        ]
    return found


def limiting(url: str, longest_s: float) -> Callable[[BaseHTTPRequestHandler], Answer]:
    """Return the answers of a proxy that refuses queries over more than `longest_s` [s]."""

    def answer(handler: BaseHTTPRequestHandler) -> Answer:
        asked = parse_qs(urlsplit(handler.path).query)
        spans_s = [int(ms) / 1e3 for ms in re.findall(r"\[(\d+)ms\]", asked["query"][0])]
        if "start" in asked:
            spans_s.append(float(asked["end"][0]) - float(asked["start"][0]))
        if max(spans_s) > longest_s:
            words = f"the query time range exceeds the limit (query length: {max(spans_s):.0f}s)"
            told = {"status": "error", "errorType": "bad_data", "error": words}
            return 422, "application/json", json.dumps(told).encode()
        said = requests.get(f"{url}{handler.path}", timeout=20)
        return said.status_code, said.headers["Content-Type"], said.content

    return answer


def test_a_proxy_that_limits_the_range_is_asked_in_stretches(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    start_s = recorded.day.base_s + 2 * HOUR_S
    wanted = read(recorded.service, recorded.url, start_s)
    assert sum(one is not None for one in wanted) == 360
    assert "intervals at once" not in caplog.text
    with page(limiting(recorded.url, HOUR_S)) as limited:
        assert read(recorded.service, limited, start_s) == wanted
    told = re.findall(r"asking for (\d+) intervals at once", caplog.text)
    assert told == ["119", "59"]


def test_a_prometheus_of_few_samples_is_asked_in_stretches(
    recorded: Recorded,
    prometheus_binary: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level("INFO")
    start_s = recorded.day.base_s + 2 * HOUR_S
    wanted = read(recorded.service, recorded.url, start_s)
    blocks = [
        path for path in (recorded.folder / "tsdb").iterdir() if (path / "meta.json").exists()
    ]
    for block in blocks:
        shutil.copytree(block, tmp_path / "tsdb" / block.name)
    few = tmp_path / "prometheus-of-few-samples"
    few.write_text(f'#!/bin/sh\nexec "{prometheus_binary}" --query.max-samples=3000 "$@"\n')
    few.chmod(0o755)
    with prometheus(few, tmp_path) as limited:
        assert read(recorded.service, limited.url, start_s) == wanted
    assert "would load too many samples into memory" in caplog.text


def test_a_limit_below_an_interval_is_one_line(recorded: Recorded, capsys: Out):
    with page(limiting(recorded.url, 30.0)) as limited:
        told = ["--from-prometheus", "1h", "--prometheus", limited]
        assert main(["simulate", "-f", "f.yaml", *told]) == 1
    (line,) = [one for one in capsys.readouterr().err.splitlines() if " INFO " not in one]
    assert line.startswith(f"Prometheus at {limited} refused the query (HTTP 422 Unprocessable")
    assert "the query time range exceeds the limit" in line


# ── the commands ─────────────────────────────────────────────────────────────────────────────────


def asked(recorded: Recorded, window: str) -> list[str]:
    return ["-f", "f.yaml", "--from-prometheus", window, "--prometheus", recorded.url]


def test_simulate_says_how_the_traffic_was_made(recorded: Recorded, capsys: Out):
    assert main(["simulate", *asked(recorded, "30m"), "-o", "json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["trace"] == "history"
    (made,) = re.findall(r"Own history: ([0-9,]+) requests of 30 intervals of 1m, 2", err)
    # The first ten minutes are left out of the figures.
    assert found["requests"] == pytest.approx(int(made.replace(",", "")) * 2 / 3, rel=0.1)
    assert "gaps left out: 0." in err


def test_compare_plays_the_own_past(recorded: Recorded, capsys: Out):
    who = ["--policy", "pd-planner,static-peak", "--points", "1", "--no-oracles", "--jobs", "1"]
    assert main(["compare", *asked(recorded, "20m"), *who, "--warmup", "2", "-o", "json"]) == 0
    out, err = capsys.readouterr()
    rows = json.loads(out)["rows"]
    assert {row["trace"] for row in rows} == {"history"}
    assert "Own history: " in err
    seen = recorded.day.within(wall_clock_s() - 1200.0 + 120.0, wall_clock_s())
    assert rows[0]["requests"] == pytest.approx(seen.sum(), rel=0.1)


def test_backtest_takes_the_series_with_its_gaps(recorded: Recorded, capsys: Out):
    arguments = ["backtest", *asked(recorded, "26h"), "--predictors", "LastValue", "-o", "json"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    rows = json.loads(out)
    assert [row["series"] for row in rows] == ["prefill", "decode"]
    # 25 h 45 min, less 45 min of the gap, ten intervals at the begin and the ends of windows.
    assert all(1440 < row["intervals"] < 1500 for row in rows)
    assert "left out, not taken as silence" in err


BAD = {
    "no duration": ("soon", "--from-prometheus: 'soon' is no duration: write one such as"),
    "unknown unit": ("7y", "--from-prometheus: 7y: unknown unit y; legal units: "),
    "nothing": ("0d", "--from-prometheus: 0d is out of range: write a duration above 0"),
    "below an interval": ("10s", "--from-prometheus: no finished request in that window: "),
}


@pytest.mark.parametrize(("window", "line"), BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("command", ["simulate", "compare", "backtest", "profile refine"])
def test_a_bad_window_is_one_line(
    command: str, window: str, line: str, recorded: Recorded, capsys: Out
):
    pool = ["--pool", "decode"] if "refine" in command else []
    assert main([*command.split(), *asked(recorded, window), *pool]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(line)


# ── a profile corrected by its past ──────────────────────────────────────────────────────────────


def refine(recorded: Recorded, pool: str, *more: str) -> int:
    return main(["profile", "refine", *asked(recorded, "26h"), "--pool", pool, *more])


def test_prefill_is_corrected_by_prompt_length(recorded: Recorded, capsys: Out):
    assert refine(recorded, "prefill", "-o", "new.json") == 0
    old, new = recorded.profile, read_profile("new.json")
    truth, found = prefill_surface(old), prefill_surface(new)
    isl = np.array([300.0, 512.0, 1000.0, 2000.0, 4096.0, 8000.0])
    assert found.service_s(isl) == pytest.approx(
        truth.service_s(isl) * prefill_factor(isl), rel=0.06
    )
    assert new.decode == old.decode
    out, err = capsys.readouterr()
    assert "gaps of 4" in err
    # Two where a moment saw the pod that left and the one that came: it hangs on when it fell.
    assert re.search("intervals used; left out: [12] pods came or went", out)
    assert "pd-planner profile diff OLD new.json -f f.yaml" in out
    made = new.provenance
    assert made.tool is not None
    assert made.tool.endswith("profile refine, of points by NVIDIA Dynamo profiler")
    assert made.command is not None
    assert re.match(
        r"refined from production 20\S+Z to 20\S+Z: 149\d intervals, \d+ requests, prefill "
        r"factors 0\.\d+ to 1\.\d+; before: pd-planner profile import",
        made.command,
    )
    assert not {odd.name for odd in oddities(new)} - {odd.name for odd in oddities(old)}


def test_decode_is_corrected_by_batch(recorded: Recorded, capsys: Out):
    assert refine(recorded, "decode", "-o", "new.json") == 0
    truth, found = decode_surface(recorded.profile), decode_surface(read_profile("new.json"))
    for batch in (2.0, 4.0, 8.0, 12.0):
        wanted = float(truth.itl_s(batch, 3000.0)) * decode_factor(batch)
        assert float(found.itl_s(batch, 3000.0)) == pytest.approx(wanted, rel=0.05), batch
    assert "leans on its neighbours" in capsys.readouterr().out


def test_nothing_is_written_unless_asked_for(recorded: Recorded, own_place: Path, capsys: Out):
    before = sorted(own_place.iterdir())
    assert refine(recorded, "decode") == 0
    assert "nothing is written: give -o FILE" in capsys.readouterr().out
    assert sorted(own_place.iterdir()) == before


def test_what_it_changes_is_shown_by_diff(recorded: Recorded, own_place: Path, capsys: Out):
    assert refine(recorded, "decode", "-o", "new.json") == 0
    write_profile(recorded.profile, own_place / "old.json")
    capsys.readouterr()
    assert main(["profile", "diff", "old.json", "new.json", "-o", "json"]) == 0
    ratios = json.loads(capsys.readouterr().out)["ratios"]
    assert ratios["ttft"]["median"] == pytest.approx(1.0)
    assert ratios["itl"]["max"] == pytest.approx(1.25, abs=0.04)


def test_a_pool_that_is_not_there_is_one_line(recorded: Recorded, capsys: Out):
    assert refine(recorded, "deocde") == 2
    err = capsys.readouterr().err
    assert err == "--pool: no pool is called 'deocde'; legal: prefill, decode\n"
