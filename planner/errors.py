"""Every error a caller may meet, and Hold, which is not an error.

::

    PlannerError
    ├── InputError              text from outside that can't be used; the command exits with 2
    │   ├── SpecError           a PDAutoscaler file
    │   └── TraceError          a request trace
    ├── MetricsError            Prometheus: unreachable, refused, garbled
    └── ClusterError            the cluster: unreachable, or its answer is of no use
        ├── TargetError         a scale target that can't be scaled: missing, finished, contended
        ├── RefusedError        a write that a rule of the cluster forbids: it would fail again
        └── ConflictError       somebody else wrote first: decide anew on what is there

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
    """The cluster gave no usable answer or refused a write; `code` is that of a Reason."""

    code = "ClusterUnavailable"


class TargetError(ClusterError):
    """A scale target can't be scaled: which, what is wrong with it, the mend."""

    def __init__(self, message: str, code: str = "TargetUnusable") -> None:
        super().__init__(message)
        self.code = code


class RefusedError(ClusterError):
    """The cluster refused a write by a rule that will refuse it again; holds its words."""

    code = "ScaleRefused"


class ConflictError(ClusterError):
    """Somebody else changed the object first; what was decided is out of date."""

    code = "ScaleConflict"


__all__ = [
    "ClusterError",
    "ConflictError",
    "InputError",
    "MetricsError",
    "PlannerError",
    "PredictorError",
    "ProfileError",
    "RefusedError",
    "SpecError",
    "TargetError",
    "TraceError",
]
