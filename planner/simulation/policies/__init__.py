"""The policies to compare with, each a small pure module written from its published formulas.

They see what a scrape shows and the planner's coarse profile, nothing of the plant's truth.
"""
