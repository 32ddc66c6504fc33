"""Lead time: what the last starts took, with the spec's guess beside them."""

import math

import pytest

from planner.decision.lead import lead_time_s, lead_times_s
from planner.model import Pod, PoolFleet
from tests.builders import pool, service


def started(*took_s: float | None) -> PoolFleet:
    pods = tuple(
        Pod(f"p-{i}", 1000.0 * i, None if took is None else 1000.0 * i + took)
        for i, took in enumerate(took_s)
    )
    return PoolFleet(len(pods), pods)


@pytest.mark.parametrize(
    ("fleet", "expected_s"),
    [
        pytest.param(PoolFleet(3), 60.0, id="no list of pods"),
        pytest.param(started(None, None), 60.0, id="none is ready yet"),
        pytest.param(started(60.0, 60.0), 60.0, id="as guessed"),
        pytest.param(started(0.0, 0.5), 60.0, id="adopted, not started"),
        pytest.param(started(120.0, 120.0), 90.0 + 30.0, id="mean and one standard deviation"),
        pytest.param(started(*[9999.0] * 5, *[60.0] * 8), 60.0, id="only the newest eight"),
        pytest.param(started(180.0, None), 100.0 + math.sqrt(3200.0), id="one is still starting"),
    ],
)
def test_lead_time(fleet, expected_s):
    assert lead_time_s(pool(startup_s=60.0), fleet) == pytest.approx(expected_s)


def test_every_pool_has_its_own():
    fleets = {"prefill": PoolFleet(1), "decode": started(120.0, 120.0)}
    assert lead_times_s(service(), fleets) == {"prefill": 60.0, "decode": 120.0}
