"""Where pods can be: the network's domains, what is free in them, what moving a KV cache costs.

Pure mathematics over `planner.inventory`. Every cap says in words and numbers what binds.
"""
