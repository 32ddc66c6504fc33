"""What must be true of `size` (more is never less) and of the choice under limits."""

from dataclasses import replace
from itertools import product

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from planner.decision.forecast import SLICES
from planner.decision.need import needs_of, points_of
from planner.decision.size import aim, size
from planner.model import Factor, Factors, LengthMix, Limits, Role, Sla
from planner.sizing.queueing import erlang_b, erlang_c, occupancy, wait_tail
from tests.builders import load, pool, service, token_load

# Middles of the slices of a load's distribution, over the load expected.
SHAPES = st.lists(st.integers(20, 300).map(lambda k: k / 100.0), min_size=8, max_size=8).map(sorted)


def spread_load(tps, shape):
    """Return a load whose whole distribution is known, or with an empty `shape` is certain."""
    return token_load(tps, up_points=tuple(zip((tps * s for s in shape), SLICES, strict=False)))


def louder(tokens, factor):
    points = tuple((factor * tps, chance) for tps, chance in tokens.up_points)
    return token_load(factor * tokens.up_tps, up_points=points)


@st.composite
def traffic(draw, *, bursty=True):
    """Return a load; handover is known, so that the ITL target does not stand in for it."""
    isl = draw(st.lists(st.floats(150.0, 8000.0), min_size=1, max_size=4))
    lengths = LengthMix(
        tuple(isl),
        tuple([1.0 / len(isl)] * len(isl)),
        draw(st.floats(20.0, 800.0)),
        draw(st.floats(0.0, 2.0)),
    )
    steps = draw(st.lists(st.floats(0.0, 2.0), min_size=8, max_size=8))
    curve = tuple(1.0 + np.cumsum(steps)) if bursty and draw(st.booleans()) else (1.0,) * 8
    rps = draw(st.floats(0.1, 60.0))
    shape = draw(SHAPES) if draw(st.booleans()) else ()
    return load(
        lengths=lengths,
        dispersion=curve,
        tokens={
            Role.PREFILL: spread_load(rps * lengths.isl_mean_tokens, shape),
            Role.DECODE: spread_load(rps * lengths.osl_mean_tokens, shape),
        },
        handover_s=0.01,
    )


SLAS = st.builds(
    Sla,
    ttft_s=st.floats(0.2, 2.0),
    itl_s=st.floats(0.008, 0.05),
    attainment_ratio=st.floats(0.9, 0.999),
)


def asked(sla, **over):
    big = {"max_replicas": 64}
    return service(sla=sla, pools=(pool(**big), pool(Role.DECODE, **big)), **over)


def assert_never_cheaper(demanding, easy, factors=(Factors(), Factors())):  # noqa: B008
    """Hold what asks for more to a fleet that costs no less, for two pairs of service and load.

    Where failures have a price, a surprise that became dearer to serve may be served no longer;
    then it is the failures that are more.
    """
    (asks_less, of_less), (asks_more, of_more) = easy, demanding
    less = size(asks_less, of_less, factors[0], {})
    more = size(asks_more, of_more, factors[1], {})
    assume(less.reachable and more.reachable)
    if any(tokens.up_points for tokens in of_less.tokens.values()):
        cheaper = cost_of(asks_more, more) < cost_of(asks_less, less)
        assert not cheaper or failing(more) > failing(less)
    else:
        assert cost_of(asks_less, less) <= cost_of(asks_more, more)


def cost_of(who, plan):
    return sum(plan.pools[p.name].wanted * p.price_per_replica for p in who.pools)


def failing(plan):
    return sum(plan.failure_shares.values())


def times(traffic, factor, *, roles=tuple(Role)):
    tokens = {role: louder(t, factor) if role in roles else t for role, t in traffic.tokens.items()}
    return replace(traffic, tokens=tokens)


@given(traffic(), SLAS, st.floats(1.0, 3.0), st.sampled_from([*Role, None]))
def test_more_load_never_costs_less(traffic, sla, more, role):
    heavier = times(traffic, more, roles=tuple(Role) if role is None else (role,))
    assert_never_cheaper((asked(sla), heavier), (asked(sla), traffic))


@given(traffic(), SLAS, st.floats(0.3, 1.0))
def test_a_tighter_ttft_never_costs_less(traffic, sla, tighter):
    strict = replace(sla, ttft_s=sla.ttft_s * tighter)
    assert_never_cheaper((asked(strict), traffic), (asked(sla), traffic))


@given(traffic(bursty=False), SLAS, st.floats(0.3, 1.0))
def test_a_tighter_itl_never_costs_less(traffic, sla, tighter):
    strict = replace(sla, itl_s=sla.itl_s * tighter)
    assert_never_cheaper((asked(strict), traffic), (asked(sla), traffic))


@given(traffic(), SLAS, st.floats(0.0, 1.0))
def test_a_higher_attainment_never_costs_less(traffic, sla, part):
    strict = replace(
        sla, attainment_ratio=1.0 - (1.0 - sla.attainment_ratio) * (0.05 + 0.95 * part)
    )
    less, more = (size(asked(s), traffic, Factors(), {}) for s in (sla, strict))
    assume(less.reachable and more.reachable)
    assert cost_of(asked(sla), less) <= cost_of(asked(strict), more)


@given(traffic(bursty=False), SLAS, st.sampled_from(Role), st.floats(0.6, 1.6), st.floats(1.0, 1.5))
def test_a_worse_correction_never_costs_less(traffic, sla, role, factor, worse):
    before, after = (Factors({str(role): Factor(f)}) for f in (factor, factor * worse))
    who = asked(sla)
    assert_never_cheaper((who, traffic), (who, traffic), factors=(before, after))


@given(traffic(), SLAS)
def test_sizing_is_a_function(traffic, sla):
    assert size(asked(sla), traffic, Factors(), {}) == size(asked(sla), traffic, Factors(), {})


@given(traffic(), SLAS, st.integers(1, 12), st.integers(1, 12), st.integers(2, 16))
def test_a_plan_keeps_every_limit(traffic, sla, prefill, decode, gpus):
    who = service(
        sla=sla,
        pools=(pool(max_replicas=prefill), pool(Role.DECODE, max_replicas=decode)),
        limits=Limits(gpus={"h200": gpus}),
    )
    plan = size(who, traffic, Factors(), {"decode": 5})
    ups = {name: p.up for name, p in plan.pools.items()}
    assert 1 <= ups["prefill"] <= prefill
    assert 1 <= ups["decode"] <= min(decode, 5)
    assert sum(ups.values()) <= gpus
    for name, p in plan.pools.items():
        assert p.keep >= p.up
        if p.up < p.wanted:
            about = [r for r in plan.reasons if r.pool == name and "shortage_gpus" in r.values]
            assert about


@given(traffic(), SLAS, st.integers(2, 10), st.none() | st.floats(2.0, 10.0))
def test_under_a_budget_no_legal_split_serves_more(traffic, sla, gpus, cost):
    """Or the plan fails no more than the one that no limit binds."""
    limits = Limits(gpus={"h200": gpus}, cost_per_hour=cost)
    pools = (pool(max_replicas=8), pool(Role.DECODE, max_replicas=8))
    who = service(sla=sla, limits=limits, pools=pools)
    plan = size(who, traffic, Factors(), {})
    target = aim(who, traffic, Factors())
    shares = {
        role: need.shares(np.arange(1.0, 9.0))
        for role in Role
        for need in needs_of(
            who, traffic, Factors(), target, role, points_of(traffic.tokens[role])
        )
    }  # fmt: skip
    lost = [
        1.0 - (1.0 - shares[Role.PREFILL][p - 1]) * (1.0 - shares[Role.DECODE][d - 1])
        for p, d in product(range(1, 9), repeat=2)
        if p + d <= min(gpus, cost or 99.0)
    ]
    failing = plan.failure_shares
    mine = 1.0 - (1.0 - failing[Role.PREFILL]) * (1.0 - failing[Role.DECODE])
    free = size(replace(who, limits=Limits()), traffic, Factors(), {}).failure_shares
    assert mine <= max(min(lost), target.failure_budget, sum(free.values())) + 1e-6


FLOATS = st.floats(1e-6, 1e4)


@given(FLOATS, FLOATS)
def test_erlang_is_a_probability(servers, offered):
    blocking, waiting = float(erlang_b(servers, offered)), float(erlang_c(servers, offered))
    assert 0.0 <= blocking <= 1.0
    assert 0.0 <= waiting <= 1.0


@given(st.lists(st.floats(0.0, 1e9), min_size=1, max_size=50))
def test_occupancy_is_a_distribution(rates):
    pi = occupancy(np.array(rates))
    assert np.all((pi >= 0.0) & (pi <= 1.0))
    assert abs(pi.sum() - 1.0) < 1e-9


@given(
    st.floats(0.01, 50.0),
    st.floats(0.001, 5.0),
    st.floats(0.0, 9.0),
    st.floats(1.0, 50.0),
)
def test_wait_tail_falls_in_time_and_servers(offered, mean_s, cs2, ca2):
    servers = np.arange(1.0, 80.0, 0.5)
    tail = wait_tail(
        servers, offered, np.linspace(0.0, 3.0, 7), mean_s, cs2, (0.5, 8.0, 64.0), (1.0, ca2, ca2)
    )
    assert np.all((tail >= 0.0) & (tail <= 1.0))
    assert np.all(np.diff(tail, axis=0) <= 1e-12)
    assert np.all(np.diff(tail, axis=1) <= 1e-12)
