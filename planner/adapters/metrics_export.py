"""Decisions as Prometheus metrics: what `/metrics` says of every service. Reads /proc, no more."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from planner.adapters.metrics_table import METRICS, Exported, Exposed
from planner.model import Service, ServiceKey
from planner.record import TickRecord

IDENTITY: Final = ("pda", "pda_namespace")
"""Labels of every series: `service` and `namespace` would be overwritten by a scrape's own."""


class MetricsExport:
    """Takes every tick and tells it as metrics, in a registry of its own.

    Parameters
    ----------
    services
        Whose ticks are told; the tick of any other service is passed over.
    """

    def __init__(self, services: Sequence[Service]) -> None:
        self._lock = threading.Lock()
        self._told: dict[ServiceKey, Exported] = {}
        self._is_leader = True
        self.follow(services)
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def follow(self, services: Sequence[Service]) -> None:
        """Tell of these services from now on: the series of others end, new ones begin."""
        with self._lock:
            new = {s.key: Exported(s, is_leader=self._is_leader) for s in services}
            for key in new.keys() & self._told.keys():
                new[key] = replace(self._told[key], service=new[key].service)
            self._told = new

    def record(self, tick: TickRecord) -> None:
        """Take one tick."""
        with self._lock:
            if (told := self._told.get(tick.service)) is not None:
                self._told[tick.service] = told.after(tick.decision)

    def took(self, keys: Iterable[ServiceKey], duration_s: float) -> None:
        """Note how long the tick of these services took together [s]."""
        with self._lock:
            for key in keys:
                if (told := self._told.get(key)) is not None:
                    self._told[key] = replace(told, ticks=told.ticks.plus(duration_s))

    def lead(self, *, is_leader: bool) -> None:
        """Note whether this process decides or stands by."""
        with self._lock:
            self._is_leader = is_leader
            self._told = {k: replace(t, is_leader=is_leader) for k, t in self._told.items()}

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """Return all metrics in the format that an Accept header asks for, and its media type."""
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families, as a registry asks for them.

        Yields
        ------
        Metric
            One metric with its samples of every service.
        """
        with self._lock:
            told = tuple(self._told.values())
        for exposed in METRICS:
            yield _family(exposed, told)
        yield InfoMetricFamily(
            "pd_planner_build", "The program that runs.", value={"version": version("pd-planner")}
        )


def _family(exposed: Exposed, told: Sequence[Exported]) -> Metric:
    """Return one metric of all services."""
    labels = (*IDENTITY, *exposed.labels)
    if exposed.samples is None:
        histogram = HistogramMetricFamily(exposed.name, exposed.meaning, labels=labels)
        for one in told:
            histogram.add_metric(_identity(one), one.ticks.cumulative(), one.ticks.sum_s)
        return histogram
    # By hand, as a summary made for measurements wants a count and a sum beside its quantiles.
    family = Metric(exposed.name.removesuffix("_total"), exposed.meaning, exposed.kind)
    for one in told:
        for values, value in exposed.samples(one):
            family.add_sample(
                exposed.name, dict(zip(labels, (*_identity(one), *values), strict=True)), value
            )
    return family


def _identity(told: Exported) -> tuple[str, str]:
    return told.service.key.name, told.service.key.namespace
