"""Who takes part in a comparison: the peers, the planner, and it with one mechanism taken away."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from planner.comparison.ablation import ABLATIONS, WHOLE, Ablation, without_margin, without_tails
from planner.comparison.regret import NO_LAG, SPARED, TRUE_LOAD, TRUE_PROFILE
from planner.errors import InputError
from planner.model import Service
from planner.simulation.policies.base import Capacity, Hindsight, Knob, Policy, headroom
from planner.simulation.policies.drain_time import DrainTime
from planner.simulation.policies.fixed import peak_fleet
from planner.simulation.policies.hpa import hpa_on_concurrency, hpa_on_tokens
from planner.simulation.policies.interpolating import Interpolating, LinearTrend
from planner.simulation.policies.kpa import SHIPPED_HEADROOM, Kpa
from planner.simulation.policies.proportional import Proportional, fixed_ratio
from planner.simulation.policies.saturation import Saturation
from planner.simulation.policies.velocity import TokenVelocity
from planner.view.summary import POLICY
from predictors import build

Build = Callable[[Capacity, Hindsight, float], Policy[Any]]

# Four fifths of what a replica can do is what HPA targets are commonly set to.
COMMON_HEADROOM: Final = 1.25

OWN_KNOB: Final = Knob(
    "forecast.caution",
    1.0,
    (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 16.0, 32.0, 48.0, 100.0),
)
QUANTILE_KNOB: Final = Knob(
    "forecast.quantile",
    0.65,
    (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99, 0.999),
)
SATURATION_KNOB: Final = Knob(
    "saturation_scale",
    1.0,
    (1.0, 0.7, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.12, 0.09, 0.07, 0.05),
)


@dataclass(frozen=True, slots=True)
class Peer:
    """A policy of somebody else: its knob and how it is made for one value of it."""

    knob: Knob
    build: Build


@dataclass(frozen=True, slots=True)
class Own:
    """The planner as shipped, or with something taken away."""

    knob: Knob = OWN_KNOB
    ablated: Callable[[float], Ablation] = lambda _: WHOLE

    def turned(self, service: Service, value: float) -> tuple[Service, Ablation]:
        """Return the service with the knob at `value`, and the ablation to decide under."""
        ablation = self.ablated(value)
        if self.knob.name == OWN_KNOB.name:
            service = replace(service, caution=value)
        if self.knob.name == QUANTILE_KNOB.name:
            keep = max(value, service.keep_quantile)
            service = replace(service, up_quantile=value, keep_quantile=keep)
        return ablation.service(service), ablation


Entry = Peer | Own


def _interpolating(predictor: str, interval_s: float) -> Peer:
    def made(capacity: Capacity, _: Hindsight, value: float) -> Policy[Any]:
        forecaster = LinearTrend() if predictor == "kalman" else build(PREDICTORS[predictor])
        return Interpolating(capacity, forecaster, value, interval_s)

    return Peer(headroom(1.0), made)


PREDICTORS: Final = {"constant": "LastValue", "arima": "Arima"}

PEERS: Final[Mapping[str, Peer]] = {
    "static-peak": Peer(headroom(1.0), peak_fleet),
    "hpa-concurrency": Peer(
        headroom(COMMON_HEADROOM), lambda capacity, _, value: hpa_on_concurrency(capacity, value)
    ),
    "hpa-tokens": Peer(
        headroom(COMMON_HEADROOM), lambda capacity, _, value: hpa_on_tokens(capacity, value)
    ),
    "kpa": Peer(headroom(SHIPPED_HEADROOM), lambda capacity, _, value: Kpa(capacity, value)),
    "saturation": Peer(SATURATION_KNOB, lambda _, __, value: Saturation(value)),
    "tps-proportional": Peer(
        headroom(COMMON_HEADROOM),
        lambda capacity, known, value: Proportional(capacity, fixed_ratio(capacity, known), value),
    ),
    "token-velocity": Peer(
        headroom(1.0), lambda capacity, _, value: TokenVelocity(capacity, value)
    ),
    "drain-time": Peer(headroom(1.0), lambda capacity, _, value: DrainTime(capacity, value)),
    **{
        f"dynamo-{interval_s:g}s-{predictor}": _interpolating(predictor, interval_s)
        for interval_s in (180.0, 60.0)
        for predictor in ("constant", "arima", "kalman")
    },
}


def _always(ablation: Ablation, _: float) -> Ablation:
    return ablation


OWN: Final[Mapping[str, Own]] = {
    POLICY: Own(),
    **{
        f"without-{name}": Own(
            QUANTILE_KNOB if name == "distribution" else OWN_KNOB, partial(_always, ablation)
        )
        for name, ablation in ABLATIONS.items()
    },
    "without-margin": Own(headroom(1.0), without_margin),
    "without-tails": Own(headroom(1.0), without_tails),
    TRUE_LOAD: Own(headroom(1.0)),
    TRUE_PROFILE: Own(),
    NO_LAG: Own(),
}

ENTRIES: Final[Mapping[str, Entry]] = {**OWN, **PEERS}

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "peers": tuple(PEERS),
    "ablation": tuple(name for name in OWN if name not in {POLICY, *SPARED}),
    "regret": (POLICY, *SPARED),
    "all": tuple(ENTRIES),
}

DEFAULT: Final = (POLICY, *PEERS)


def read_names(text: str | None) -> list[str]:
    """Return the entries named in ``a,b,…``, groups spelt out; by default the planner and peers.

    Raises
    ------
    InputError
        If a name is unknown.
    """
    if text is None:
        return list(DEFAULT)
    found: list[str] = []
    for name in (part.strip() for part in text.split(",")):
        if name not in ENTRIES and name not in GROUPS:
            raise InputError(
                f"--policy: {name!r} is unknown; legal: {', '.join((*ENTRIES, *GROUPS))}"
            )
        found += GROUPS.get(name, (name,))
    return list(dict.fromkeys(found))


def knob_values(knob: Knob, points: int) -> list[float]:
    """Return about `points` values of the grid, ends and the shipped one among them.

    Examples
    --------
    >>> knob_values(Knob("k", 3.0, (1.0, 2.0, 3.0, 4.0, 5.0)), 2), knob_values(OWN_KNOB, 1)
    ([1.0, 3.0, 5.0], [1.0])
    """
    if points <= 1:
        return [knob.shipped]
    chosen = spread(knob.grid, points)
    return [value for value in knob.grid if value in chosen or value == knob.shipped]


def spread(grid: Sequence[float], points: int) -> set[float]:
    """Return `points` values of a grid, evenly, its ends included."""
    last = len(grid) - 1
    return {grid[round(i * last / (points - 1))] for i in range(points)}
