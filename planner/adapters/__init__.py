"""Everything that touches the world outside: each module implements one port of the planner."""
