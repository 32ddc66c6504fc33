"""What a run gave: the log of requests, the lives of pods, and figures drawn from them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

WORST_WINDOW_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Lifetime:
    """One pod from order to release [s]; `ready_s` is None if it never served."""

    pool: str
    pod: str
    ordered_s: float
    ready_s: float | None
    released_s: float


@dataclass(frozen=True, slots=True, eq=False)
class PlantResults:
    """Everything a run gave.

    Attributes
    ----------
    arrival_s, prefilled_s, finished_s
        float64[request], moments of every request that arrived [s]; nan: has not happened.
    ttft_s
        float64[request], arrival to the first token at the client [s]; nan without one.
    itl_s
        float64[request], (last − first token) / (output tokens − 1) [s]; 0 for one output token.
    status
        int32[request], `kernel.UNFINISHED` 0, `SERVED` 1 or `REFUSED` 2.
    end_s
        When the run ended [s].
    lifetimes
        Every pod; one that still ran is released at `end_s`.
    orders
        By pool, (time [s], replicas) of every change, the start included.
    """

    arrival_s: NDArray[np.float64]
    prefilled_s: NDArray[np.float64]
    finished_s: NDArray[np.float64]
    ttft_s: NDArray[np.float64]
    itl_s: NDArray[np.float64]
    status: NDArray[np.int32]
    end_s: float
    lifetimes: tuple[Lifetime, ...]
    orders: Mapping[str, tuple[tuple[float, int], ...]]
    gpus_per_replica: Mapping[str, int]

    def gpu_seconds(self, from_s: float = 0.0) -> dict[str, float]:
        """Return GPUs × time from order to release by pool [s], the part after `from_s`."""
        total = dict.fromkeys(self.gpus_per_replica, 0.0)
        for life in self.lifetimes:
            billed_s = max(life.released_s - max(life.ordered_s, from_s), 0.0)
            total[life.pool] += self.gpus_per_replica[life.pool] * billed_s
        return total


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of all requests that arrived; one refused or never finished has failed all.

    `worst_5min` is the lowest `both` of the 300 s windows by arrival; None: no request.
    """

    both: float | None
    ttft: float | None
    itl: float | None
    worst_5min: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a run from `from_s` [s] on.

    `unfinished` counts requests without an end, refused ones included; `cost` is in the currency
    of the prices.
    """

    from_s: float
    requests: int
    attainment: Shares
    refused: int
    unfinished: int
    gpu_hours: Mapping[str, float] = field(default_factory=dict)
    cost: float = 0.0

    @property
    def total_gpu_hours(self) -> float:
        """GPU-hours of all pools."""
        return sum(self.gpu_hours.values())


def summarise(
    results: PlantResults,
    ttft_s: float,
    itl_s: float,
    from_s: float = 0.0,
    gpu_hour_prices: Mapping[str, float] | None = None,
) -> Summary:
    """Return attainment and cost of the requests that arrived, and the GPUs billed, from `from_s`.

    Parameters
    ----------
    results
        A run.
    ttft_s, itl_s
        Target latencies [s]; a request attains both when neither is exceeded.
    from_s
        End of the warm-up [s].
    gpu_hour_prices
        Price of a GPU-hour by pool; a pool without one counts 1.
    """
    counted = results.arrival_s >= from_s
    status = results.status[counted]
    served = status == 1
    in_ttft = served & (results.ttft_s[counted] <= ttft_s)
    in_itl = served & (results.itl_s[counted] <= itl_s)
    gpu_hours = {pool: s / 3600.0 for pool, s in results.gpu_seconds(from_s).items()}
    prices = gpu_hour_prices or {}
    return Summary(
        from_s=from_s,
        requests=int(counted.sum()),
        attainment=Shares(
            both=_share(in_ttft & in_itl),
            ttft=_share(in_ttft),
            itl=_share(in_itl),
            worst_5min=_worst(results.arrival_s[counted] - from_s, in_ttft & in_itl),
        ),
        refused=int((status == 2).sum()),
        unfinished=int((~served).sum()),
        gpu_hours=gpu_hours,
        cost=sum(hours * prices.get(pool, 1.0) for pool, hours in gpu_hours.items()),
    )


def _share(attained: NDArray[np.bool_]) -> float | None:
    return float(attained.mean()) if attained.size else None


def _worst(since_s: NDArray[np.float64], attained: NDArray[np.bool_]) -> float | None:
    """Return the lowest share over the windows in which requests arrived."""
    if not attained.size:
        return None
    window = (since_s // WORST_WINDOW_S).astype(np.int64)
    requests = np.bincount(window)
    passed = np.bincount(window, weights=attained)
    return float((passed[requests > 0] / requests[requests > 0]).min())
