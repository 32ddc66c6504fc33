"""The planner with one mechanism taken away at a time, to see what each is worth.

A mechanism is taken away in the service's settings where they reach it, and else by a step of the
decision that passes on what the mechanism would have changed.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from planner.decision import decide as decision
from planner.model import (
    Behavior,
    Factors,
    Load,
    Plan,
    Pool,
    Role,
    Service,
    Sizing,
    Sla,
    Statistic,
    TokenLoad,
)

Step = Callable[..., Any]


def _as_it_is(service: Service) -> Service:
    return service


@dataclass(frozen=True, slots=True)
class Ablation:
    """What is changed: the service, and steps by their name in `planner.decision.decide`.

    A step is made from the one it stands in for.
    """

    service: Callable[[Service], Service] = _as_it_is
    steps: Mapping[str, Callable[[Step], Step]] = field(default_factory=dict)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Decide without the mechanism for a while; one replay a process runs at a time."""
        kept = {name: getattr(decision, name) for name in self.steps}
        for name, made in self.steps.items():
            setattr(decision, name, made(kept[name]))
        try:
            yield
        finally:
            for name, step in kept.items():
                setattr(decision, name, step)


WHOLE: Final = Ablation()
"""Nothing is taken away."""


def _with_load(change: Callable[[Load], Load]) -> Ablation:
    """Return an ablation that changes what is forecast."""

    def made(forecast: Step) -> Step:
        def step(*arguments: Any) -> Load | None:
            load: Load | None = forecast(*arguments)
            return None if load is None else change(load)

        return step

    return Ablation(steps={"forecast": made})


def _with_tokens(change: Callable[[TokenLoad], TokenLoad]) -> Ablation:
    return _with_load(
        lambda load: replace(load, tokens={role: change(load.tokens[role]) for role in Role})
    )


def _with_pools(change: Callable[[Pool], Pool]) -> Ablation:
    return Ablation(lambda service: replace(service, pools=tuple(map(change, service.pools))))


def _released_at_once(pool: Pool) -> Pool:
    behavior: Behavior = pool.behavior
    down = replace(behavior.scale_down, stabilization_window_s=0.0)
    return replace(pool, behavior=replace(behavior, scale_down=down))


def _uncorrected(correct: Step) -> Step:
    def step(*arguments: Any) -> tuple[Any, Factors]:
        memory, _ = correct(*arguments)
        return memory, Factors()

    return step


def _at_once(_: Step) -> Step:
    return lambda service, __: {pool.name: 0.0 for pool in service.pools}


def _by_quantile(service: Service) -> Service:
    return replace(service, sizing=Sizing.QUANTILE)


def _never_rises(_: Step) -> Step:
    return lambda *_: {}


def _as_ordered(size: Step) -> Step:
    """Keep what would be ordered, and no more."""

    def step(*arguments: Any) -> Plan:
        plan: Plan = size(*arguments)
        pools = {name: replace(pool, keep=pool.up) for name, pool in plan.pools.items()}
        return replace(plan, pools=pools)

    return step


def _by_means(service: Service) -> Service:
    sla: Sla = replace(service.sla, statistic=Statistic.MEAN)
    return replace(service, sla=sla)


ABLATIONS: Final[Mapping[str, Ablation]] = {
    "distribution": Ablation(_by_quantile),
    "queue-check": Ablation(steps={"rises": _never_rises}),
    "keeping": Ablation(steps={"size": _as_ordered}),
    "dispersion": _with_load(lambda load: replace(load, dispersion=(1.0,) * len(load.dispersion))),
    "corrections": Ablation(steps={"correct": _uncorrected}),
    "horizon": Ablation(steps={"lead_times_s": _at_once}),
    "window": _with_pools(_released_at_once),
    "kalman": Ablation(lambda service: replace(service, predictor="LastValue")),
}
"""By the mechanism's name, swept over the planner's own knob; `distribution` sizes for a quantile,
which is its knob, `horizon` plans for the next interval alone, `kalman` with the last value."""


def without_margin(headroom: float) -> Ablation:
    """Plan for the mean forecast times `headroom`: there is no quantile to turn."""
    return _with_tokens(
        lambda tokens: replace(
            tokens,
            up_tps=headroom * tokens.mean_tps,
            keep_tps=headroom * tokens.mean_tps,
            up_points=(),
        )
    )


def without_tails(headroom: float) -> Ablation:
    """Plan with mean formulas for the mean forecast times `headroom`: they know no quantile."""
    louder = _with_tokens(lambda tokens: replace(tokens, mean_tps=headroom * tokens.mean_tps))
    return replace(louder, service=_by_means)
