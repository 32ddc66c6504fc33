"""Loads beyond all that was seen: how likely they are, how high, and what they make of a plan."""

import numpy as np
import pytest

from planner.decision.size import size
from planner.decision.unseen import TAIL_INDEX, with_unseen
from planner.model import Factors, Role
from predictors.residuals import PRIOR_POINTS
from tests.builders import ISL, OSL, load, service, token_load

SEEN = ((90.0, 0.5), (110.0, 0.5))


@pytest.mark.parametrize("caution", [0.05, 1.0])
def test_the_default_price_and_less_provide_for_what_was_seen_alone(caution):
    assert with_unseen(SEEN, 100.0, 60, caution) == SEEN


def test_silence_has_no_tail():
    assert with_unseen(((0.0, 1.0),), 0.0, 60, 8.0) == ((0.0, 1.0),)


@pytest.mark.parametrize("caution", [1.5, 4.0, 100.0])
@pytest.mark.parametrize("samples", [0, 60, 240])
def test_it_stays_a_distribution_and_what_was_seen_keeps_its_proportions(samples, caution):
    told = with_unseen(SEEN, 100.0, samples, caution)
    levels, chances = zip(*told, strict=True)
    assert list(levels) == sorted(levels)
    assert sum(chances) == pytest.approx(1.0)
    kept = dict(told)
    assert kept[90.0] == kept[110.0]
    new = 1.0 - kept[90.0] - kept[110.0]
    assert new == pytest.approx((1.0 - 1.0 / caution) / (samples + PRIOR_POINTS + 1))


def test_the_tail_is_paretos():
    """Half of what is new lies beyond 2 ** (1 / α) times the forecast, an eighth beyond 8 ** …."""
    told = [(tps, chance) for tps, chance in with_unseen(SEEN, 100.0, 0, 1e9)
            if tps not in {90.0, 110.0}]  # fmt: skip
    beyond = np.cumsum([chance for _, chance in told][::-1])[::-1] * (PRIOR_POINTS + 1)
    middles = [tps / 100.0 for tps, _ in told]
    for below, above, share in zip(middles, middles[1:], beyond[1:], strict=False):
        assert below < share ** (-1.0 / TAIL_INDEX) < above


def calm(caution, samples, rps):
    """A load that was never far from the usual, and what caution adds."""
    tokens = {}
    for role, length in ((Role.PREFILL, ISL), (Role.DECODE, OSL)):
        tps = rps * length
        seen = ((0.98 * tps, 0.5), (1.02 * tps, 0.5))
        tokens[role] = token_load(tps, up_points=with_unseen(seen, tps, samples, caution))
    return load(tokens=tokens)


def planned(caution, samples, rps=400.0):
    plan = size(service(caution=caution), calm(caution, samples, rps), Factors(), {})
    return sum(pool.wanted for pool in plan.pools.values())


@pytest.mark.parametrize("rps", [100.0, 400.0, 3000.0])
def test_caution_buys_replicas_for_a_load_that_was_never_seen_whatever_the_size(rps):
    usual = planned(1.0, 60, rps)
    assert planned(2.0, 60, rps) <= 1.05 * usual
    assert 1.3 * usual <= planned(16.0, 60, rps) <= 1.6 * usual
    assert planned(100.0, 60, rps) >= 3.0 * usual


def test_with_longer_evidence_the_same_caution_buys_fewer():
    fleets = [planned(16.0, samples) for samples in (0, 60, 240)]
    assert fleets == sorted(fleets, reverse=True)
    assert fleets[0] >= 2.0 * fleets[-1]
