"""Settings of the process: flags over environment over defaults, and the reference pages."""

from pathlib import Path

import pytest

from planner.errors import InputError
from planner.flags import _PROCESS as COMMAND_FLAGS
from planner.reference import settings_page, spec_page
from planner.settings import FLAGS, GROUPS, load_settings, variable

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for group in GROUPS.values():
        for field in group.model_fields:
            monkeypatch.delenv(variable(group, field), raising=False)


def test_defaults():
    settings = load_settings()
    assert settings.prometheus.url is None
    assert settings.prometheus.header_map == {}
    assert settings.http.listen is None
    assert (settings.log.level, settings.log.format) == ("info", "console")
    assert settings.log.record is None
    assert settings.network.transfer.bandwidth_bytes_per_s == 25e9
    assert settings.network.transfer.latency_s == 0.005


def test_flag_wins_over_variable_and_variable_over_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PD_PLANNER_PROMETHEUS", "http://env:9090/")
    monkeypatch.setenv("PD_PLANNER_LOG_LEVEL", "debug")
    settings = load_settings({"--prometheus": None, "--log-level": "error"})
    assert settings.prometheus.url == "http://env:9090"
    assert settings.log.level == "error"
    assert load_settings({"--prometheus": "https://flag"}).prometheus.url == "https://flag"


def test_headers_are_repeated_flags_or_lines_of_the_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PD_PLANNER_PROMETHEUS_HEADER", "X-Scope-OrgID: a\nB: c: d")
    expected = {"X-Scope-OrgID": "a", "B": "c: d"}
    assert load_settings({"--prometheus-header": []}).prometheus.header_map == expected
    given = load_settings({"--prometheus-header": ["E: f"]})
    assert given.prometheus.header_map == {"E": "f"}


def test_network_facts_come_from_their_group(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PD_PLANNER_NETWORK__BANDWIDTH", "100G")
    monkeypatch.setenv("PD_PLANNER_NETWORK__LATENCY", "5us")
    transfer = load_settings().network.transfer
    assert transfer.bandwidth_bytes_per_s == 12.5e9
    assert transfer.latency_s == pytest.approx(5e-6)


def test_links_are_a_yaml_list(monkeypatch: pytest.MonkeyPatch):
    rows = "[{tier: 2, networkType: ib, bandwidth: 200G, latency: 5us}, {tier: 3, bandwidth: 100G}]"
    monkeypatch.setenv("PD_PLANNER_NETWORK__LINKS", rows)
    within, between = load_settings().network.network.links
    assert (within.tier, within.network_type) == (2, "ib")
    assert within.bandwidth_bytes_per_s == 25e9
    assert within.latency_s == pytest.approx(5e-6)
    assert (between.tier, between.network_type, between.latency_s) == (3, None, 0.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("ib 200G", "is no list of links", id="no list"),
        pytest.param("[{tier: 2, bandwidth: 200}]", "bandwidth", id="bandwidth out of range"),
        pytest.param("[{bandwidth: 200G}]", "tier", id="without a tier"),
        pytest.param("[{tier: 1, bandwidth: 200G, speed: 1}]", "speed", id="unknown key"),
    ],
)
def test_a_bad_link_is_one_line(monkeypatch: pytest.MonkeyPatch, text: str, said: str):
    monkeypatch.setenv("PD_PLANNER_NETWORK__LINKS", text)
    with pytest.raises(InputError) as caught:
        load_settings()
    assert str(caught.value).startswith("PD_PLANNER_NETWORK__LINKS: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_variables_that_kubernetes_adds_are_passed_over(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PD_PLANNER_PORT", "tcp://10.0.0.1:8080")
    monkeypatch.setenv("PD_PLANNER_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("PD_PLANNER_LISTEN", "")
    assert load_settings().http.listen is None


@pytest.mark.parametrize(
    ("flag", "value", "line"),
    [
        (
            "--prometheus",
            "localhost:9090",
            (
                "--prometheus or PD_PLANNER_PROMETHEUS: 'localhost:9090' is no address: write "
                "http://HOST:PORT or https://HOST:PORT"
            ),
        ),
        (
            "--prometheus-token-file",
            Path("no-such"),
            (
                "--prometheus-token-file or PD_PLANNER_PROMETHEUS_TOKEN_FILE: 'no-such' is "
                "no file: "
                "give the path of one that exists"
            ),
        ),
        (
            "--prometheus-header",
            ["Bearer"],
            (
                "--prometheus-header or PD_PLANNER_PROMETHEUS_HEADER: 'Bearer' is no header: write "
                "NAME: VALUE"
            ),
        ),
        (
            "--listen",
            "8080",
            (
                "--listen or PD_PLANNER_LISTEN: '8080' is no address to listen on: write "
                "HOST:PORT or :PORT, port 0 to 65535"
            ),
        ),
        (
            "--listen",
            "host:99999",
            (
                "--listen or PD_PLANNER_LISTEN: 'host:99999' is no address to listen on: write "
                "HOST:PORT or :PORT, port 0 to 65535"
            ),
        ),
        (
            "--log-level",
            "loud",
            (
                "--log-level or PD_PLANNER_LOG_LEVEL: 'loud' is unknown; legal: 'debug', 'info', "
                "'warning' or 'error'"
            ),
        ),
    ],
    ids=["address", "token file", "header", "port alone", "port too high", "level"],
)
def test_fault_names_flag_and_variable(flag: str, value: object, line: str):
    with pytest.raises(InputError) as error:
        load_settings({flag: value})
    assert str(error.value) == line


def test_fault_of_a_variable_without_a_flag_names_the_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PD_PLANNER_NETWORK__LATENCY", "5")
    monkeypatch.setenv("PD_PLANNER_LOG_FORMAT", "xml")
    with pytest.raises(InputError) as error:
        load_settings()
    assert str(error.value).splitlines() == [
        "--log-format or PD_PLANNER_LOG_FORMAT: 'xml' is unknown; legal: 'console' or 'json'",
        "PD_PLANNER_NETWORK__LATENCY: 5 has no unit: write 5ms or 5s",
    ]


def test_every_flag_of_the_commands_sets_a_field_and_is_named_like_its_variable():
    assert set(COMMAND_FLAGS) == set(FLAGS)
    for flag, (group, field) in FLAGS.items():
        expected = "PD_PLANNER_" + flag.removeprefix("--").replace("-", "_").upper()
        assert variable(GROUPS[group], field) == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [("spec.md", spec_page()), ("settings.md", settings_page())],
    ids=["spec", "settings"],
)
def test_reference_page_is_fresh(name: str, text: str):
    stale = "stale: run python -m planner.reference"
    assert (DOCS / name).read_text(encoding="utf-8") == text, stale
