"""Every error a caller may meet, and Hold, which is not an error.

::

    PlannerError
    ├── InputError              text from outside that can't be used; the command exits with 2
    │   ├── SpecError           a PDAutoscaler file
    │   └── TraceError          a request trace
    ├── MetricsError            Prometheus: unreachable, refused, garbled
    └── ClusterError            the cluster: unreachable, refused, conflict

    profiles.ProfileError       owned by `profiles`, a ValueError
    predictors.PredictorError   owned by `predictors`, a ValueError

Not enough evidence is no error: `planner.model.Hold` is a value that a decision returns.
"""

from predictors.errors import PredictorError
from profiles.errors import ProfileError


class PlannerError(Exception):
    """Root of the planner's own errors; the message is one line for a person."""


class InputError(PlannerError):
    """Text from outside that can't be used: where, what, the legal range, the mend."""


class SpecError(InputError):
    """A PDAutoscaler file is invalid; one line per fault."""


class TraceError(InputError):
    """A request trace is invalid; names the file, the row and the column."""


class MetricsError(PlannerError):
    """The metrics source gave no usable answer."""


class ClusterError(PlannerError):
    """The cluster gave no usable answer or refused a write."""


__all__ = [
    "ClusterError",
    "InputError",
    "MetricsError",
    "PlannerError",
    "PredictorError",
    "ProfileError",
    "SpecError",
    "TraceError",
]
