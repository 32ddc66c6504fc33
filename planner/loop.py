"""One service's loop: read, decide, apply, record. The only place where it meets the outside."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from planner.decision.contention import note_order
from planner.decision.decide import Inputs, State, decide, rise
from planner.decision.forecast import forecaster
from planner.decision.history import fleet_of
from planner.decision.looks import is_pressed, look
from planner.errors import ClusterError, MetricsError
from planner.model import Decision, Fleet, Sample, Service
from planner.ports import Cluster, Metrics, Telemetry
from planner.record import TickRecord

log = logging.getLogger(__name__)


class Loop:
    """Drives one service; holds its state and nothing else.

    Parameters
    ----------
    service
        What is asked.
    cluster
        Where patches are written.
    telemetry
        Who is told of every tick.
    """

    def __init__(self, service: Service, cluster: Cluster, telemetry: Sequence[Telemetry]) -> None:
        self.service = service
        self._cluster = cluster
        self._telemetry = telemetry
        self._state = State()
        # Mean prompt of the last load, to price network paths with [tokens].
        self.prompt_tokens: float | None = None
        # Replicas asked for by the checks since the last tick, by pool name.
        self._risen: Mapping[str, int] = {}
        # A predictor whose library is missing says so now, not at the first tick.
        forecaster(service.predictor).start()

    def restore(
        self, metrics: Metrics, now_s: float, window_s: float, alive_now: Fleet | None = None
    ) -> int:
        """Replay the past through the same decision, so that a restart changes none.

        Parameters
        ----------
        metrics
            Whose history is replayed.
        now_s
            Time of the restart [s, Unix].
        window_s
            How far back [s].
        alive_now
            The fleet as it is, for the starts of pods that still run.

        Returns
        -------
        int
            Intervals that were replayed.
        """
        step_s = self.service.interval_s
        start_s = now_s - step_s * (window_s // step_s)
        samples = metrics.history(self.service, start_s, now_s - step_s, step_s)
        fleet: Fleet | ClusterError = ClusterError("no pod was scraped yet")
        for index, sample in enumerate(samples):
            at_s = start_s + index * step_s
            fleet = fleet_of(self.service, sample, at_s, fleet, alive_now)
            self._state, _ = decide(self.service, self._state, Inputs(sample, fleet), at_s)
            if self._state.sample is None:
                # Nothing was seen yet: a new service, or Prometheus is away. Not blind since then.
                self._state = State()
        return len(samples)

    def tick(
        self, sample: Sample | MetricsError, fleet: Fleet | ClusterError, now_s: float
    ) -> TickRecord:
        """Decide on what was read at `now_s` [s, Unix], apply it, tell everybody."""
        return self.act(self.decide(sample, fleet, now_s), now_s)

    def decide(
        self, sample: Sample | MetricsError, fleet: Fleet | ClusterError, now_s: float
    ) -> Decision:
        """Decide on what was read at `now_s` [s, Unix]; nothing is written yet."""
        self._state, decision = decide(self.service, self._state, Inputs(sample, fleet), now_s)
        self._risen = {}
        if decision.load is not None:
            self.prompt_tokens = decision.load.lengths.isl_mean_tokens
        return decision

    def notice(self, sample: Sample, now_s: float) -> bool:
        """Return whether what pods show at `now_s` [s, Unix] may call for replicas at once.

        Where it does not it is remembered here, else by `check`, which needs the fleet as well.
        """
        if is_pressed(self.service, self._state.looks, sample):
            return True
        looks = look(self.service, self._state.looks, sample, now_s)
        self._state = replace(self._state, looks=looks)
        return False

    def check(
        self, sample: Sample | MetricsError, fleet: Fleet | ClusterError, now_s: float
    ) -> Decision | None:
        """Decide between two ticks on what pods show at `now_s` [s, Unix]; None: nothing to do.

        What was asked for since the last tick is not asked for again: where nobody writes it, or
        the cluster refused it, the next tick decides.
        """
        self._state, decision = rise(self.service, self._state, Inputs(sample, fleet), now_s)
        if decision is None:
            return None
        desired = {name: pool.desired for name, pool in decision.pools.items()}
        if all(n <= self._risen.get(name, decision.pools[name].current)
               for name, n in desired.items()):  # fmt: skip
            return None
        self._risen = desired
        return decision

    def act(self, decision: Decision, now_s: float) -> TickRecord:
        """Write what was decided, whole or cut to what other services leave; tell everybody."""
        applied, error = self._apply(decision, now_s)
        record = TickRecord(self.service.key, decision, applied, error, self.service.sla)
        for listener in self._telemetry:
            listener.record(record)
        return record

    def _apply(self, decision: Decision, now_s: float) -> tuple[bool | None, str | None]:
        """Write the patch, if there is one; a refusal is an answer, not a crash."""
        if decision.patch is None:
            return None, None
        try:
            self._cluster.apply(self.service, decision.patch, now_s)
        except ClusterError as error:
            log.warning("%s: patch refused: %s", self.service.key, error)
            return False, str(error)
        ordered = note_order(self._state.contention, decision.patch.replicas)
        self._state = replace(self._state, contention=ordered)
        return True, None
