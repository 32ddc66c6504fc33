"""Which pods belong to which scale target, by labels where a platform sets them, else by name.

Pure. Every pattern begins with the target's name and a dash, so that a pod is compared with the few
targets that its own name begins with, not with thousands.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache

from planner.adapters.kubernetes.objects import SeenPod
from planner.adapters.targets import kind_of, pod_index, pod_labels, pod_pattern
from planner.errors import InputError
from planner.model import Pod, Target


def pods_by_target(
    pods: Iterable[SeenPod], targets: Iterable[Target]
) -> Mapping[Target, tuple[Pod, ...]]:
    """Return the pods of each target of a namespace, by name in the order of removal.

    A target whose pods can't be told from others has none.
    """
    found: dict[Target, list[Pod]] = {target: [] for target in targets}
    by_name: dict[str, list[Target]] = {}
    for target in found:
        by_name.setdefault(target.name, []).append(target)
    for one in pods:
        for name in _beginnings(one.pod.name):
            for target in by_name.get(name, ()):
                if _ownership(target)(one):
                    found[target].append(_numbered(target, one.pod))
    return {target: tuple(sorted(own, key=_order)) for target, own in found.items()}


def costs_deletion(target: Target, pod: str) -> bool:
    """Return whether a pod of this name is the target's and is removed by its deletion cost."""
    row = kind_of(target)
    return row.has_deletion_cost and re.fullmatch(pod_pattern(target), pod) is not None


@lru_cache(maxsize=8192)
def _ownership(target: Target) -> Callable[[SeenPod], bool]:
    try:
        if wanted := pod_labels(target).items():
            return lambda one: wanted <= one.labels.items()
        pattern = re.compile(pod_pattern(target))
    except InputError:
        return lambda _: False
    return lambda one: pattern.fullmatch(one.pod.name) is not None


def _numbered(target: Target, pod: Pod) -> Pod:
    index = pod_index(target, pod.name)
    return pod if index is None else replace(pod, index=index)


def _beginnings(name: str) -> Iterator[str]:
    return (name[:place] for place, letter in enumerate(name) if letter == "-")


def _order(pod: Pod) -> tuple[int, str]:
    return (-1 if pod.index is None else pod.index, pod.name)
