"""Production days drawn anew: what was measured, scaled."""

import numpy as np
import pytest

from planner.simulation.cases import REDRAWN_DAYS, case_named, case_trace
from planner.simulation.redrawn import DURATION_S, PROMPT_TPS, REDRAWN


@pytest.mark.parametrize("name", ["servegen-day-0", "servegen-day-13"])
def test_a_day_is_scaled_and_keeps_what_was_measured(name):
    workload = REDRAWN[name]
    at_s = np.arange(0.0, DURATION_S, 600.0)
    prompts_tps = workload.rate_rps(at_s) * workload.isl_tokens(at_s)
    assert prompts_tps.mean() == pytest.approx(PROMPT_TPS)
    assert np.all(workload.osl_tokens(at_s) > 1.0)


def test_days_differ():
    at_s = np.array([0.0, 3600.0])
    rates = {tuple(workload.rate_rps(at_s).tolist()) for workload in REDRAWN.values()}
    assert len(rates) == len(REDRAWN) == 14


def test_a_day_is_a_case_in_the_set_up_of_m_large():
    case, like = case_named("servegen-day-4"), case_named("m_large")
    assert case in REDRAWN_DAYS
    assert (case.gpu, case.ttft_s, case.itl_s, case.lag_s) == (
        like.gpu, like.ttft_s, like.itl_s, like.lag_s)  # fmt: skip
    trace = case_trace(case)
    assert trace.duration_s == pytest.approx(DURATION_S, abs=1.0)
    assert trace.isl_tokens.sum() / trace.duration_s == pytest.approx(PROMPT_TPS, rel=0.1)
