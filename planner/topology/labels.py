"""Labels of many nodes as columns, so that one requirement is one look-up and not a walk. Pure."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from planner.inventory import Operator, Requirement

# One entry a node: whether it is meant.
Mask = NDArray[np.bool_]


class Labels:
    """Which of the nodes a requirement holds for; a column is made when its key is first asked."""

    def __init__(self, labels: Sequence[Mapping[str, str]]) -> None:
        self._labels = labels
        self._columns: dict[str, Mapping[str, list[int]]] = {}

    def column(self, key: str) -> Mapping[str, list[int]]:
        """Return the places of the nodes by their value of one label."""
        if key not in self._columns:
            column: dict[str, list[int]] = {}
            for place, labels in enumerate(self._labels):
                if (value := labels.get(key)) is not None:
                    column.setdefault(value, []).append(place)
            self._columns[key] = column
        return self._columns[key]

    def matching(self, requirements: Iterable[Requirement]) -> Mask:
        """Return the nodes for which all requirements hold."""
        mask = np.ones(len(self._labels), dtype=np.bool_)
        for requirement in requirements:
            mask &= self._holding(requirement)
        return mask

    def _holding(self, requirement: Requirement) -> Mask:
        """Return the nodes for which one requirement holds.

        A node without the label satisfies NotIn and DoesNotExist only, as in Kubernetes.
        """
        column = self.column(requirement.key)
        if requirement.operator is Operator.NOT_IN:
            return ~self._having(column, set(requirement.values))
        if requirement.operator is Operator.DOES_NOT_EXIST:
            return ~self._having(column, column)
        return self._having(column, _wanted(requirement, column))

    def _having(self, column: Mapping[str, list[int]], values: Iterable[str]) -> Mask:
        """Return the nodes whose value is one of `values`."""
        mask = np.zeros(len(self._labels), dtype=np.bool_)
        for value in values:
            mask[column.get(value, [])] = True
        return mask


def _wanted(requirement: Requirement, values: Iterable[str]) -> Iterable[str]:
    """Return which of the values that occur satisfy In, Exists, Gt or Lt."""
    if requirement.operator is Operator.IN:
        return set(requirement.values)
    if requirement.operator is Operator.EXISTS:
        return values
    bound = _whole(requirement.values[0]) if len(requirement.values) == 1 else None
    if bound is None:
        return ()
    sign = 1 if requirement.operator is Operator.GT else -1
    numbers = ((value, _whole(value)) for value in values)
    return [value for value, n in numbers if n is not None and sign * (n - bound) > 0]


def _whole(text: str) -> int | None:
    """Return a label as the whole number that Gt and Lt compare, None if it is none."""
    try:
        return int(text)
    except ValueError:
        return None
