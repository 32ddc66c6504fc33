"""What a plant is made of: pools of replicas, the link between them, the routers. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from planner.model import Role
from planner.simulation.surface import DecodeTruth, PrefillTruth, Truth

STARTUP_JITTER: Final = 0.3
SERVICE_CV: Final = 0.05


class PrefillRouter(StrEnum):
    """Who gets the next prompt."""

    FEWEST_TOKENS = "fewest_tokens"
    """The ready replica with the fewest outstanding prompt tokens; each has its own queue."""

    SHARED = "shared"
    """The first idle ready replica, from one queue for all: what theory calls G/G/c."""


class DecodeRouter(StrEnum):
    """Who gets the next sequence, among ready replicas with room."""

    FEWEST_TOKENS = "fewest_tokens"
    """The replica with the fewest KV tokens in use."""

    FEWEST_SEQUENCES = "fewest_sequences"
    """The replica with the fewest sequences."""


@dataclass(frozen=True, slots=True)
class PlantPool:
    """One pool of equal replicas.

    Attributes
    ----------
    name, role
        As in the service.
    surface
        True performance of one replica; a `PrefillTruth` or a `DecodeTruth`, as the role.
    startup_s
        Mean time from order to ready [s].
    gpus_per_replica
        GPUs that one replica is billed for.
    initial_replicas
        Replicas that are ready at 0 s.
    max_sequences, kv_capacity_tokens
        Largest batch and KV cache of a decode replica; ignored for prefill.

    Raises
    ------
    TypeError
        If the surface is of the other role.
    ValueError
        If a number is out of its range.
    """

    name: str
    role: Role
    surface: Truth
    startup_s: float = 60.0
    gpus_per_replica: int = 1
    initial_replicas: int = 1
    max_sequences: int = 256
    kv_capacity_tokens: int = 1_000_000

    def __post_init__(self) -> None:
        legal = PrefillTruth if self.role is Role.PREFILL else DecodeTruth
        if not isinstance(self.surface, legal):
            got = type(self.surface).__name__
            raise TypeError(f"pool {self.name}: got a {got}; legal: {legal.__name__}; swap it")
        _check(f"pool {self.name}: startup_s", self.startup_s, 0.0)
        _check(f"pool {self.name}: gpus_per_replica", self.gpus_per_replica, 0.0)
        _check(f"pool {self.name}: initial_replicas", self.initial_replicas, 0.0)
        _check(f"pool {self.name}: max_sequences", self.max_sequences, 1.0)
        _check(f"pool {self.name}: kv_capacity_tokens", self.kv_capacity_tokens, 1.0)


@dataclass(frozen=True, slots=True)
class PlantConfig:
    """A service of pools and how requests move between them.

    Attributes
    ----------
    pools
        At least one a role, names all different.
    transfer_bandwidth_bytes_per_s, transfer_latency_s, kv_bytes_per_token
        A prompt's KV moves in `kv_bytes_per_token` × isl / bandwidth + latency [s].
    startup_jitter
        Start-up times are uniform within ± this share of the pool's mean.
    service_cv
        Coefficient of variation of the lognormal factor (mean 1) on every prefill time.
    seed
        Fixes start-up times and service noise; request i has the same noise under every policy.

    Raises
    ------
    ValueError
        If a role has no pool, a name comes twice or a number is out of its range.
    """

    pools: tuple[PlantPool, ...]
    transfer_bandwidth_bytes_per_s: float = 25e9
    transfer_latency_s: float = 0.005
    kv_bytes_per_token: float = 0.0
    startup_jitter: float = STARTUP_JITTER
    service_cv: float = SERVICE_CV
    prefill_router: PrefillRouter = PrefillRouter.FEWEST_TOKENS
    decode_router: DecodeRouter = DecodeRouter.FEWEST_TOKENS
    seed: int = 0

    def __post_init__(self) -> None:
        names = [pool.name for pool in self.pools]
        if len(set(names)) < len(names):
            raise ValueError(f"pools: got names {', '.join(names)}; legal: each once; rename one")
        for role in Role:
            if not any(pool.role is role for pool in self.pools):
                raise ValueError(f"pools: got none of role {role}; legal: 1 or more; add one")
        _check("transfer_bandwidth_bytes_per_s", self.transfer_bandwidth_bytes_per_s, 1.0)
        _check("transfer_latency_s", self.transfer_latency_s, 0.0)
        _check("kv_bytes_per_token", self.kv_bytes_per_token, 0.0)
        _check("startup_jitter", self.startup_jitter, 0.0, 1.0)
        _check("service_cv", self.service_cv, 0.0)

    @property
    def transfer_s_per_token(self) -> float:
        """Time to move the KV of one prompt token [s]."""
        return self.kv_bytes_per_token / self.transfer_bandwidth_bytes_per_s

    def pool_index(self, name: str) -> int:
        """Return the place of a pool.

        Raises
        ------
        ValueError
            If there is none of that name.
        """
        names = [pool.name for pool in self.pools]
        if name not in names:
            raise ValueError(f"pool {name}: unknown; legal: {', '.join(names)}; correct the name")
        return names.index(name)


def _check(where: str, value: float, low: float, high: float = float("inf")) -> None:
    if not low <= value <= high:
        raise ValueError(f"{where}: got {value}; legal: {low:g} to {high:g}; correct it")
