"""pd-planner: SLA-driven autoscaling of disaggregated prefill and decode pools."""
