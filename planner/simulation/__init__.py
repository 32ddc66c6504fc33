"""The plant: a request-level prefill/decode service that replaces a cluster in `simulate`.

It judges the planner, so it shares no physics with it: nothing here imports the sizing, the
decisions or the planner's surfaces. numba is used here alone and only by `kernel` and `plant`.
"""
