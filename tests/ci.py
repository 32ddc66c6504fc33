"""Whether a CI runs the tests: nothing may be missing there, and waits are given more time."""

import os

IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}
