"""`compare`: the same traffic under this planner, its peers and the clairvoyant."""
