"""Quantities, times and what pods ask for, against figures worked out by hand."""

import pytest

from planner.adapters.kubernetes.values import Json, pod_requests, quantity, rfc3339, total, unix_s

GPU = "nvidia.com/gpu"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4", 4.0),
        ("500m", 0.5),
        ("100u", 1e-4),
        ("16Gi", 16 * 2**30),
        ("2Ti", 2 * 2**40),
        ("1e3", 1000.0),
        ("1E3", 1000.0),
        ("2E", 2e18),
        ("1.5k", 1500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-2M", -2e6),
        ("0.1", 0.1),
        ("9007199254740993n", 9007199.254740993),
    ],
)
def test_a_quantity_is_its_number(text: str, value: float) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize("text", ["", "four", "1.2.3", "4 Gi", "4gi", "Gi", "1.5."])
def test_what_is_no_quantity_is_refused_with_the_mend(text: str) -> None:
    with pytest.raises(ValueError, match="is no quantity: write a number such as"):
        quantity(text)


@pytest.mark.parametrize(
    ("text", "at_s"),
    [
        ("2026-11-22T18:46:24Z", 1795373184.0),
        ("2026-11-22T18:46:24.250000Z", 1795373184.25),
        ("2026-11-22T19:46:24+01:00", 1795373184.0),
    ],
)
def test_a_time_is_unix_seconds(text: str, at_s: float) -> None:
    assert unix_s(text) == at_s


def test_no_time_is_none() -> None:
    assert unix_s(None) is None
    assert unix_s("") is None


def test_a_written_time_is_never_earlier() -> None:
    assert rfc3339(1795373183.2) == "2026-11-22T18:46:24Z"
    assert unix_s(rfc3339(1795373184.0)) == 1795373184.0


def container(cpu: str, **more: object) -> Json:
    return {"resources": {"requests": {"cpu": cpu}}, **more}


SIDECAR = {"restartPolicy": "Always"}


@pytest.mark.parametrize(
    ("spec", "cpu"),
    [
        pytest.param({"containers": [container("1"), container("500m")]}, 1.5, id="sum"),
        pytest.param(
            {"containers": [container("1")], "initContainers": [container("4")]}, 4.0, id="init"
        ),
        pytest.param(
            {"containers": [container("1")], "initContainers": [container("2", **SIDECAR)]},
            3.0,
            id="sidecar runs beside",
        ),
        pytest.param(
            {
                "containers": [container("1")],
                "initContainers": [container("2", **SIDECAR), container("4")],
            },
            6.0,
            id="init after a sidecar",
        ),
        pytest.param(
            {
                "containers": [container("1")],
                "initContainers": [container("4"), container("2", **SIDECAR)],
            },
            4.0,
            id="init before a sidecar",
        ),
        pytest.param(
            {
                "containers": [container("1")],
                "initContainers": [container("4")],
                "overhead": {"cpu": "250m"},
            },
            4.25,
            id="overhead on top",
        ),
        pytest.param(
            {
                "containers": [container("1")],
                "resources": {"requests": {"cpu": "3"}},
                "overhead": {"cpu": "250m"},
            },
            3.25,
            id="the pod's own resources win",
        ),
    ],
)
def test_a_pod_asks_for_its_peak(spec: Json, cpu: float) -> None:
    assert pod_requests(spec) == {"cpu": cpu, "pods": 1.0}


def test_a_limit_alone_is_a_request_and_a_request_wins() -> None:
    resources = {"limits": {GPU: "4", "cpu": "8"}, "requests": {"cpu": "2"}}
    asked = pod_requests({"containers": [{"resources": resources}]})
    assert asked == {GPU: 4.0, "cpu": 2.0, "pods": 1.0}


def test_a_pod_without_resources_is_still_a_pod() -> None:
    assert pod_requests({"containers": [{"name": "vllm"}]}) == {"pods": 1.0}


def test_amounts_add_up_by_resource() -> None:
    assert total([{"a": 1.0}, {"a": 2.0, "b": 3.0}, {}]) == {"a": 3.0, "b": 3.0}
