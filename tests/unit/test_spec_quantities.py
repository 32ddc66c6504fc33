"""Quantities as people write them."""

import doctest

import pytest

from planner.spec import quantities
from planner.spec.quantities import (
    format_duration,
    format_percent,
    parse_bandwidth_bytes_per_s,
    parse_decimal,
    parse_duration_s,
    parse_percent_ratio,
)


def test_examples_in_the_docstrings_hold():
    assert doctest.testmod(quantities).failed == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60s", 60.0),
        ("1m30s", 90.0),
        ("500ms", 0.5),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("0.5s", 0.5),
        (".5s", 0.5),
        ("5us", 5e-6),
        ("5µs", 5e-6),
        ("250ns", 2.5e-7),
        (" 1s ", 1.0),
    ],
)
def test_duration_is_read_as_kubernetes_reads_it(text: str, seconds: float):
    assert parse_duration_s(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "s",
        "1",
        "1 s",
        "1s 2",
        "1d",
        "1S",
        "1.2.3s",
        "-1s",
        "1e3s",
        "1s1",
        None,
        True,
        [],
        "9" * 99,
        0,
        5.5,
    ],
)
def test_what_is_no_duration_is_refused(value: object):
    with pytest.raises(ValueError, match=r"write|legal units"):
        parse_duration_s(value)


def test_days_are_for_history_only():
    assert parse_duration_s("7d", with_days=True) == 604_800.0
    with pytest.raises(ValueError, match="unknown unit d"):
        parse_duration_s("7d")


@pytest.mark.parametrize("seconds", [1e-6, 0.015, 0.5, 1.0, 59.5, 60.0, 90.0, 3600.0, 5400.5])
def test_written_duration_is_read_back(seconds: float):
    assert parse_duration_s(format_duration(seconds)) == pytest.approx(seconds, rel=1e-6)


@pytest.mark.parametrize("text", ["50%", "99%", "99.5%", "99.99%", "99.999%"])
def test_written_percentage_is_read_back(text: str):
    assert format_percent(parse_percent_ratio(text)) == text


@pytest.mark.parametrize("value", ["99", 0.99, 99, "%", "-1%", "nan%", "99 percent", None, True])
def test_what_is_no_percentage_is_refused(value: object):
    with pytest.raises(ValueError, match=r"write (one such as )?\"99%\""):
        parse_percent_ratio(value)


@pytest.mark.parametrize("value", [2.5, 2, "2,5", "-1", "1e3", "inf", "nan", "", None, True])
def test_decimal_is_a_plain_number_in_quotes(value: object):
    with pytest.raises(ValueError, match="write"):
        parse_decimal(value)


@pytest.mark.parametrize(
    ("text", "bytes_per_s"), [("200G", 25e9), ("100M", 12.5e6), ("1.6T", 2e11), ("8", 1.0)]
)
def test_bandwidth_is_bits_per_second(text: str, bytes_per_s: float):
    assert parse_bandwidth_bytes_per_s(text) == pytest.approx(bytes_per_s, rel=1e-12)


@pytest.mark.parametrize("text", ["0", "200Gb", "-1G", "fast", "", "1Q"])
def test_what_is_no_bandwidth_is_refused(text: str):
    with pytest.raises(ValueError, match="such as 200G"):
        parse_bandwidth_bytes_per_s(text)
