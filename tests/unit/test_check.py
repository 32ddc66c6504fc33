"""`check --offline`: what files alone tell of a service."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from planner.check.bounds import VLLM_BOUNDS_S
from planner.check.finding import Finding, Level
from planner.check.fit import ttft_alone_s
from planner.check.offline import check_offline
from planner.check.rules import Rule
from planner.model import Transfer
from planner.spec.files import parse_spec
from planner.spec.service import LoadedService, build_service
from profiles import Profile, read_profile

DATA = Path(__file__).parents[2] / "profiles" / "data"
PROFILE = read_profile(DATA / "llama-3.1-8b-fp8-h200.json")


def pool(role: str, **over: Any) -> dict[str, Any]:
    return {
        "name": role,
        "role": role.title(),
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": role},
        "profile": {"file": "unused"},
        "maxReplicas": 8,
        "startup": "60s",
    } | over


def loaded(
    profile: Profile = PROFILE,
    *,
    prefill: dict[str, Any] | None = None,
    decode: dict[str, Any] | None = None,
    **spec: Any,
) -> LoadedService:
    """Return a service about which `check` has nothing to say, with parts replaced."""
    found = parse_spec(
        {
            "apiVersion": "pd-planner.io/v1alpha1",
            "kind": "PDAutoscaler",
            "metadata": {"name": "llama"},
            "spec": {
                "sla": {"ttft": "500ms", "itl": "25ms", "scope": {"maxInputTokens": 8192}},
                "fallback": {"prefill": 4, "decode": 4},
                "pools": [pool("prefill", **prefill or {}), pool("decode", **decode or {})],
            }
            | spec,
        },
        "f.yaml",
    )
    profiles = {"prefill": profile, "decode": profile}
    return LoadedService(found, build_service(found, profiles, Transfer()), profiles, "f.yaml")


def told(service: LoadedService) -> list[Finding]:
    """Return what is not ok."""
    return [found for found in check_offline(service) if found.level is not Level.OK]


def sla(**over: Any) -> dict[str, Any]:
    return {"ttft": "500ms", "itl": "25ms", "scope": {"maxInputTokens": 8192}} | over


def test_service_without_fault_is_ok_on_every_topic():
    found = check_offline(loaded())
    assert {finding.level for finding in found} == {Level.OK}
    topics = {finding.where for finding in found}
    assert {"spec", "pool prefill: ttft", "pool decode: itl", "sla.ttft", "sla.itl"} <= topics
    assert {"fallback", "limits", "pool decode: startup", "pool decode: behavior"} <= topics


def test_every_finding_is_one_line_and_those_not_ok_say_the_mend():
    everything = loaded(sla=sla(ttft="10ms", itl="2ms"), fallback=None, interval="5s", topology={})
    for finding in check_offline(everything):
        assert "\n" not in finding.line
        assert bool(finding.mend) == (finding.level is not Level.OK)
        assert finding.line.endswith(finding.mend or finding.what)


ESTIMATED = PROFILE.provenance.model_copy(update={"how": "estimated"})

NOT_OK = {
    "ttft out of reach": (
        loaded(sla=sla(ttft="20ms")),
        Level.ERROR,
        "pool prefill: ttft",
        "905 tokens takes 49.4ms in an idle service, more than the target of 20ms",
        "raise sla.ttft to 74.1ms or more",
        Rule.TTFT_REACHABLE,
    ),
    "longest prompt out of reach": (
        loaded(sla=sla(ttft="250ms", scope={"maxInputTokens": 16384})),
        Level.WARNING,
        "pool prefill: ttft",
        "up to 9157 tokens meet it",
        "set sla.scope.maxInputTokens to 9157 or less",
        Rule.TTFT_REACHABLE,
    ),
    "itl out of reach": (
        loaded(sla=sla(itl="2ms")),
        Level.ERROR,
        "pool decode: itl",
        "one sequence alone takes 4.4ms a token",
        "raise sla.itl",
        Rule.ITL_REACHABLE,
    ),
    "prompts beyond the profile": (
        loaded(sla=sla(ttft="1s", scope={"maxInputTokens": 20_000})),
        Level.WARNING,
        "pool prefill: profile",
        "the profile ends at 16372",
        "set sla.scope.maxInputTokens to 16372",
        Rule.PROMPT_RANGE,
    ),
    "context beyond the profile": (
        loaded(sla=sla(scope={"maxInputTokens": 16_384})),
        Level.WARNING,
        "pool decode: profile",
        "decode was measured up to a context of 13585",
        "measure longer contexts",
        Rule.CONTEXT_RANGE,
    ),
    "no scope": (
        loaded(sla=sla(scope={}, ttft="1s")),
        Level.WARNING,
        "sla.scope",
        "prompts of every length",
        "at most 16372",
        Rule.PROMPT_SCOPE,
    ),
    "prompt beyond the cache": (
        loaded(PROFILE.model_copy(update={"kv_capacity_tokens": 8000})),
        Level.ERROR,
        "pool decode: profile",
        "holds 8000 tokens, less than a prompt of 8192",
        "below 8000",
        Rule.KV_CAPACITY,
    ),
    "cache bytes unknown": (
        loaded(PROFILE.model_copy(update={"kv_bytes_per_token": None})),
        Level.WARNING,
        "pool prefill: profile",
        "kv_bytes_per_token is not known",
        "add kv_bytes_per_token",
        Rule.KV_BYTES,
    ),
    "other replica size": (
        loaded(prefill={"gpusPerReplica": 2}),
        Level.WARNING,
        "pool prefill: gpusPerReplica",
        "the spec says 2, which is used; the profile was made with 1",
        "correct the spec",
        Rule.PROFILE_DIFFERS,
    ),
    "other startup": (
        loaded(PROFILE.model_copy(update={"startup_s": 95.0}), prefill={"startup": "95s"}),
        Level.WARNING,
        "pool decode: startup",
        "the spec says 1m, which is used; the profile measured 1m35s",
        "leave startup out",
        Rule.PROFILE_DIFFERS,
    ),
    "other gpu": (
        loaded(prefill={"gpuType": "a100"}),
        Level.WARNING,
        "pool prefill: gpuType",
        "the spec says a100, the profile was made on h200",
        "use a profile of that GPU",
        Rule.PROFILE_DIFFERS,
    ),
    "startup beyond the forecast": (
        loaded(interval="10s", decode={"startup": "5m"}),
        Level.WARNING,
        "pool decode: startup",
        "5m to start a replica, and the forecast ends 2m40s ahead (16 intervals)",
        "raise interval to 20s or more",
        Rule.FORECAST_HORIZON,
    ),
    "startup and interval beyond the forecast": (
        loaded(interval="10s", decode={"startup": "151s"}),
        Level.WARNING,
        "pool decode: startup",
        "2m31s to start a replica",
        "raise interval to 11s or more",
        Rule.FORECAST_HORIZON,
    ),
    "target inside a bucket": (
        loaded(sla=sla(itl="15ms")),
        Level.WARNING,
        "sla.itl",
        "15ms is no bound of vLLM's histogram (next: 10ms, 25ms)",
        "start vLLM with --custom-histogram-buckets that hold 0.015, or choose 10ms or 25ms",
        Rule.SLA_BOUNDS,
    ),
    "no fallback": (
        loaded(fallback=None),
        Level.WARNING,
        "fallback",
        "not set",
        "set fallback.prefill and fallback.decode",
        Rule.FALLBACK,
    ),
    "never up": (
        loaded(behavior={"scaleUp": {"selectPolicy": "Disabled"}}),
        Level.WARNING,
        "pool decode: behavior",
        "it never scales up",
        "behavior.scaleUp",
        Rule.BLOCKED_DIRECTION,
    ),
    "never at all": (
        loaded(
            behavior={
                "scaleUp": {"selectPolicy": "Disabled"},
                "scaleDown": {"selectPolicy": "Disabled"},
            }
        ),
        Level.ERROR,
        "pool prefill: behavior",
        "it can scale neither up nor down",
        "remove selectPolicy: Disabled",
        Rule.BLOCKED_DIRECTION,
    ),
    "fixed size": (
        loaded(decode={"minReplicas": 8}),
        Level.WARNING,
        "pool decode: behavior",
        "both 8: it never scales",
        "raise maxReplicas",
        Rule.FIXED_SIZE,
    ),
    "no room in the budget": (
        loaded(
            prefill={"gpuType": "h200"},
            decode={"gpuType": "h200"},
            limits={"gpus": {"h200": 2}},
            fallback=None,
        ),
        Level.WARNING,
        "limits.gpus.h200",
        "the floors need 2 of 2",
        "raise the limit",
        Rule.GPU_BUDGET,
    ),
    "budget of another gpu": (
        loaded(limits={"gpus": {"h100": 8}}),
        Level.WARNING,
        "limits.gpus.h100",
        "no pool has this gpuType",
        "write one of gpu",
        Rule.GPU_BUDGET,
    ),
    "cost without prices": (
        loaded(prefill={"gpuHourPrice": "2"}, limits={"costPerHour": "10"}),
        Level.ERROR,
        "limits.costPerHour",
        "no gpuHourPrice for decode",
        "give every pool a gpuHourPrice",
        Rule.COST_BUDGET,
    ),
    "no room in the cost": (
        loaded(
            prefill={"gpuHourPrice": "2"},
            decode={"gpuHourPrice": "1"},
            limits={"costPerHour": "3.5"},
            fallback=None,
        ),
        Level.WARNING,
        "limits.costPerHour",
        "the floors cost 3 of 3.5",
        "raise the limit",
        Rule.COST_BUDGET,
    ),
    "ratio that cannot be": (
        loaded(
            limits={"prefillDecodeRatio": {"min": "4"}}, prefill={"maxReplicas": 3}, fallback=None
        ),
        Level.ERROR,
        "limits.prefillDecodeRatio",
        "allow ratios from 0.125 to 3 only",
        "change the bounds or the pools",
        Rule.RATIO,
    ),
    "floors outside the ratio": (
        loaded(limits={"prefillDecodeRatio": {"min": "2"}}),
        Level.WARNING,
        "limits.prefillDecodeRatio",
        "the floors have a ratio of 1",
        "choose floors",
        Rule.RATIO,
    ),
    "profile that is estimated": (
        loaded(PROFILE.model_copy(update={"provenance": ESTIMATED})),
        Level.WARNING,
        "pool decode: profile",
        "part of the decode surface is estimated",
        "measure three contexts",
        Rule.ESTIMATED_SURFACE,
    ),
}


@pytest.mark.parametrize(
    ("service", "level", "where", "what", "mend", "rule"), NOT_OK.values(), ids=NOT_OK.keys()
)
def test_what_is_not_ok_is_told_with_its_mend(
    service: LoadedService, level: Level, where: str, what: str, mend: str, rule: Rule
):
    found = [f for f in told(service) if f.where == where and f.level is level and what in f.what]
    assert len(found) == 1, [f.line for f in told(service)]
    assert mend in found[0].mend
    assert found[0].rule is rule


def test_ttft_of_an_idle_service_is_prefill_plus_transfer_plus_first_step():
    service = loaded().service
    prefill, decode = service.pools
    assert prefill.prefill is not None
    assert decode.decode is not None
    assert prefill.kv_bytes_per_token == 131_072
    by_hand = (
        float(prefill.prefill.service_s(4168))
        + 131_072 * 4168 / 25e9
        + 0.005
        + float(decode.decode.itl_s(1, 4168))
    )
    assert ttft_alone_s(service, prefill, 4168) == pytest.approx(by_hand, rel=1e-9)
    assert float(prefill.prefill.service_s(4168)) == pytest.approx(0.087342, rel=1e-4)


def test_bounds_of_vllm_ascend():
    for bounds in VLLM_BOUNDS_S.values():
        assert list(bounds) == sorted(set(bounds))


def test_prophet_is_an_error_exactly_where_it_is_not_installed():
    found = told(loaded(forecast={"predictor": "Prophet"}))
    expected = [] if find_spec("prophet") else [Rule.PREDICTOR_INSTALLED]
    assert [finding.rule for finding in found] == expected


def quicker(profile: Profile, last_ttft_ratio: float = 1.0, itl_ratio: float = 1.0) -> Profile:
    """Return a profile whose longest prompt, or whose every token, takes another time."""
    *some, last = sorted(profile.prefill, key=lambda point: point.isl_tokens)
    longest = last.model_copy(update={"ttft_s": last.ttft_s * last_ttft_ratio})
    decode = [p.model_copy(update={"itl_s": p.itl_s * itl_ratio}) for p in profile.decode]
    return profile.model_copy(update={"prefill": (*some, longest), "decode": tuple(decode)})


@pytest.mark.parametrize(
    ("profile", "rule", "level"),
    [
        pytest.param(quicker(PROFILE, last_ttft_ratio=0.3), Rule.PROFILE_ODD, Level.WARNING,
                     id="a longer prompt is quicker"),
        pytest.param(quicker(PROFILE, itl_ratio=0.01), Rule.PROFILE_IMPOSSIBLE, Level.ERROR,
                     id="faster than the memory is"),
    ],
)  # fmt: skip
def test_a_point_that_is_odd_or_impossible_is_told(profile: Profile, rule: Rule, level: Level):
    found = [one for one in told(loaded(profile)) if one.rule is rule]
    assert {one.level for one in found} == {level}
    assert all(one.where.endswith(": profile") and one.mend for one in found)
