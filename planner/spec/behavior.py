"""`behavior` as in HPA v2 (pydantic), and how a pool's is put over the service's. Pure."""

from typing import Annotated

from pydantic import BaseModel, Field

from planner.model import Behavior, PolicyType, ScalingPolicy, ScalingRules, SelectPolicy
from planner.spec.quantities import decimal
from planner.spec.status import SPEC_CONFIG, Whole

Tolerance = Annotated[float, decimal(0.0, 1.0)]


class ScalingPolicySpec(BaseModel):
    """A limit to the rate of change, as in HPA v2."""

    model_config = SPEC_CONFIG

    type: PolicyType
    """`Pods` counts replicas; `Percent` is a share of those at the start of the period."""

    value: Annotated[Whole, Field(ge=1)]
    """Largest change within the period, in replicas or percent."""

    period_seconds: Annotated[Whole, Field(ge=1, le=1800)]
    """Length of the period [s]."""

    def to_model(self) -> ScalingPolicy:
        """Return the policy as a value of the loop."""
        return ScalingPolicy(self.type, self.value, float(self.period_seconds))


class ScalingRulesSpec(BaseModel):
    """One direction of `behavior`; a field that is absent keeps its default."""

    model_config = SPEC_CONFIG

    stabilization_window_seconds: Annotated[Whole | None, Field(ge=0, le=3600)] = None
    """Time over which the most cautious recommendation rules [s]; default 0 up, 60 down."""

    select_policy: SelectPolicy | None = None
    """Which of several policies rules: `Max` (default) the loosest, `Min` the tightest; with
    `Disabled` there is no scaling in this direction."""

    policies: Annotated[tuple[ScalingPolicySpec, ...] | None, Field(max_length=16)] = None
    """Limits to the rate of change; default none."""

    tolerance: Tolerance | None = None
    """Relative change of replicas that is passed over; default "0" up, "0.05" down."""

    def over(self, rules: ScalingRules) -> ScalingRules:
        """Return `rules` with the fields that are given here put over them."""
        window_s = self.stabilization_window_seconds
        return ScalingRules(
            stabilization_window_s=(
                rules.stabilization_window_s if window_s is None else float(window_s)
            ),
            select_policy=self.select_policy or rules.select_policy,
            policies=(
                rules.policies
                if self.policies is None
                else tuple(policy.to_model() for policy in self.policies)
            ),
            tolerance=rules.tolerance if self.tolerance is None else self.tolerance,
        )


class BehaviorSpec(BaseModel):
    """Scaling behaviour as in HPA v2, except for the defaults: up is free, down waits 60 s."""

    model_config = SPEC_CONFIG

    scale_up: ScalingRulesSpec = ScalingRulesSpec()
    """Rules for more replicas."""

    scale_down: ScalingRulesSpec = ScalingRulesSpec()
    """Rules for fewer replicas."""

    def over(self, behavior: Behavior) -> Behavior:
        """Return `behavior` with the fields that are given here put over them."""
        return Behavior(
            scale_up=self.scale_up.over(behavior.scale_up),
            scale_down=self.scale_down.over(behavior.scale_down),
        )
