"""What `pd-planner check` looks at before a spec is trusted."""
