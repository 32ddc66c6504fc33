"""Settings of the process, not of a service: flags over ``PD_PLANNER_*`` over defaults.

Unknown variables are passed over on purpose: beside a Kubernetes Service called pd-planner every
pod is given PD_PLANNER_PORT, PD_PLANNER_SERVICE_HOST and others. Reads the environment.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from planner.errors import InputError
from planner.inventory import Link, Network
from planner.model import Transfer
from planner.spec.quantities import Quantity, duration, parse_bandwidth_bytes_per_s

PREFIX: Final = "PD_PLANNER_"

_CONFIG: Final = SettingsConfigDict(
    frozen=True,
    extra="forbid",
    use_attribute_docstrings=True,
    validate_by_name=True,
    env_ignore_empty=True,
    env_prefix=PREFIX,
    validate_default=False,
)


def _web_address(url: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]+\S*", url):
        raise ValueError(f"{url!r} is no address: write http://HOST:PORT or https://HOST:PORT")
    return url.rstrip("/")


def _existing_file(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"{str(path)!r} is no file: give the path of one that exists")
    return path


def _header_lines(value: object) -> object:
    return value.splitlines() if isinstance(value, str) else value


def _header(text: str) -> str:
    name, colon, _ = text.partition(":")
    if not colon or not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) or "\n" in text:
        raise ValueError(f"{text!r} is no header: write NAME: VALUE")
    return text


def _listen_address(address: str) -> str:
    if not re.fullmatch(r"\S*:[0-9]{1,5}", address) or int(address.rpartition(":")[2]) > 65_535:
        raise ValueError(
            f"{address!r} is no address to listen on: write HOST:PORT or :PORT, port 0 to 65535"
        )
    return address


ExistingFile = Annotated[Path, AfterValidator(_existing_file)]
Header = Annotated[str, AfterValidator(_header)]
Bandwidth = Annotated[
    float,
    Quantity(
        parse_bandwidth_bytes_per_s,
        lambda value: f"{value * 8e-9:.12g}G",
        r"^[0-9]+(\.[0-9]+)?[kMGT]?$",
        low=parse_bandwidth_bytes_per_s("1G"),
        high=parse_bandwidth_bytes_per_s("100T"),
    ),
]


class PrometheusSettings(BaseSettings):
    """How to reach Prometheus."""

    model_config = _CONFIG

    url: Annotated[
        Annotated[str, AfterValidator(_web_address)] | None,
        Field(validation_alias=f"{PREFIX}PROMETHEUS"),
    ] = None
    """Address of Prometheus, or of anything that speaks its HTTP API."""

    token_file: Annotated[
        ExistingFile | None, Field(validation_alias=f"{PREFIX}PROMETHEUS_TOKEN_FILE")
    ] = None
    """File with a bearer token, read again for every query."""

    ca_file: Annotated[ExistingFile | None, Field(validation_alias=f"{PREFIX}PROMETHEUS_CA")] = None
    """File with the certificates (PEM) to trust instead of the system's."""

    headers: Annotated[
        tuple[Header, ...],
        NoDecode,
        BeforeValidator(_header_lines),
        Field(validation_alias=f"{PREFIX}PROMETHEUS_HEADER"),
    ] = ()
    """Headers sent with every query, `NAME: VALUE`, such as a tenant; the variable holds one a
    line."""

    @property
    def header_map(self) -> dict[str, str]:
        """Value by header name."""
        pairs = (header.partition(":") for header in self.headers)
        return {name: value.strip() for name, _, value in pairs}


class KubernetesSettings(BaseSettings):
    """How to reach the cluster."""

    model_config = _CONFIG

    kubeconfig: ExistingFile | None = None
    """Kubeconfig file; default: the service account of the pod, else what kubectl uses."""

    context: str | None = None
    """Context of the kubeconfig; default: its current one."""


class HttpSettings(BaseSettings):
    """What the process serves."""

    model_config = _CONFIG

    listen: Annotated[str, AfterValidator(_listen_address)] | None = None
    """Address of the page, `/metrics` and health of `run`, such as `127.0.0.1:8080`, or `:PORT`
    for every interface; default: not served."""


class LogSettings(BaseSettings):
    """What the process writes down."""

    model_config = _CONFIG

    record: Path | None = None
    """File that gets one JSON line for every decision; `explain` reads it."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Field(validation_alias=f"{PREFIX}LOG_LEVEL"),
    ] = "info"
    """Least severe message that is logged."""

    format: Annotated[Literal["console", "json"], Field(validation_alias=f"{PREFIX}LOG_FORMAT")] = (
        "console"
    )
    """How messages are written."""


class LinkSettings(BaseModel):
    """What one kind of network path gives."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True)

    tier: Annotated[int, Field(ge=0, le=100)]
    network_type: Annotated[str | None, Field(alias="networkType")] = None
    bandwidth_bytes_per_s: Annotated[Bandwidth, Field(alias="bandwidth")]
    latency_s: Annotated[Annotated[float, duration("0s", "1s")], Field(alias="latency")] = 0.0


def _link_list(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return TypeAdapter(list[Any]).validate_python(yaml.safe_load(value))
    except (yaml.YAMLError, ValidationError):
        raise ValueError(
            f"{value!r} is no list of links: write "
            "[{tier: 2, networkType: ib, bandwidth: 200G, latency: 5us}]"
        ) from None


class NetworkSettings(BaseSettings):
    """Facts of the cluster's network, for the time that a prompt's KV cache travels."""

    model_config = _CONFIG | SettingsConfigDict(env_prefix=f"{PREFIX}NETWORK__")

    bandwidth_bytes_per_s: Annotated[
        Bandwidth, Field(validation_alias=f"{PREFIX}NETWORK__BANDWIDTH")
    ] = 25e9
    """Bandwidth from a prefill to a decode replica, in bits per second with k, M, G or T."""

    latency_s: Annotated[
        Annotated[float, duration("0s", "1s")],
        Field(validation_alias=f"{PREFIX}NETWORK__LATENCY"),
    ] = 0.005
    """Latency of a transfer, set-up included."""

    links: Annotated[
        tuple[LinkSettings, ...],
        NoDecode,
        BeforeValidator(_link_list),
        Field(validation_alias=f"{PREFIX}NETWORK__LINKS"),
    ] = ()
    """Paths that differ from `bandwidth` and `latency`, a YAML list such as
    `[{tier: 2, networkType: ib, bandwidth: 200G, latency: 5us}]`: `tier` is that of the lowest
    HyperNode which holds both ends; without `networkType` the row is for ends of two types."""

    type_label: Annotated[str, Field(validation_alias=f"{PREFIX}NETWORK__TYPE_LABEL")] = (
        "topology.kubernetes.io/switch-type"
    )
    """Label of a node that names the type of its network."""

    node_startup_s: Annotated[
        Annotated[float, duration("0s", "2h")],
        Field(validation_alias=f"{PREFIX}NETWORK__NODE_STARTUP"),
    ] = 300.0
    """How long a cluster autoscaler takes to add a node, for `capacity: Elastic`."""

    @property
    def transfer(self) -> Transfer:
        """The path where no link is given, as the loop knows it."""
        return Transfer(self.bandwidth_bytes_per_s, self.latency_s)

    @property
    def network(self) -> Network:
        """The network as the topology knows it."""
        rows = (
            Link(row.tier, row.network_type, row.bandwidth_bytes_per_s, row.latency_s)
            for row in self.links
        )
        return Network(tuple(rows), self.type_label)


class Settings(BaseModel):
    """All settings of the process; a step is given its own group only."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    prometheus: PrometheusSettings = Field(default_factory=PrometheusSettings)
    """How to reach Prometheus."""

    kubernetes: KubernetesSettings = Field(default_factory=KubernetesSettings)
    """How to reach the cluster."""

    http: HttpSettings = Field(default_factory=HttpSettings)
    """What the process serves."""

    log: LogSettings = Field(default_factory=LogSettings)
    """What the process writes down."""

    network: NetworkSettings = Field(default_factory=NetworkSettings)
    """Facts of the cluster's network."""


FLAGS: Final[Mapping[str, tuple[str, str]]] = {
    "--prometheus": ("prometheus", "url"),
    "--prometheus-token-file": ("prometheus", "token_file"),
    "--prometheus-ca": ("prometheus", "ca_file"),
    "--prometheus-header": ("prometheus", "headers"),
    "--kubeconfig": ("kubernetes", "kubeconfig"),
    "--context": ("kubernetes", "context"),
    "--listen": ("http", "listen"),
    "--record": ("log", "record"),
    "--log-level": ("log", "level"),
    "--log-format": ("log", "format"),
}
"""Which field a flag sets: its group and its name there."""

GROUPS: Final[Mapping[str, type[BaseSettings]]] = {
    "prometheus": PrometheusSettings,
    "kubernetes": KubernetesSettings,
    "http": HttpSettings,
    "log": LogSettings,
    "network": NetworkSettings,
}


def variable(group: type[BaseSettings], field: str) -> str:
    """Return the name of the environment variable of a field."""
    alias = group.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else f"{PREFIX}{field.upper()}"


def load_settings(flags: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings: `flags` by their name, None or empty where not given, then env.

    Raises
    ------
    InputError
        If a value is not legal: one line each, naming the flag and the variable.
    """
    given: dict[str, dict[str, Any]] = {name: {} for name in GROUPS}
    for flag, value in (flags or {}).items():
        group, field = FLAGS[flag]
        if value is not None and value not in ((), []):
            given[group][field] = value
    built: dict[str, Any] = {}
    faults: list[str] = []
    for name, group_type in GROUPS.items():
        try:
            built[name] = group_type(**given[name])
        except ValidationError as error:
            faults.extend(_fault(name, detail) for detail in error.errors(include_url=False))
    if faults:
        raise InputError("\n".join(sorted(faults)))
    return Settings(**built)


def _fault(group: str, detail: ErrorDetails) -> str:
    at = str(detail["loc"][0])
    fields = GROUPS[group].model_fields
    field = next((f for f in fields if at in {f, variable(GROUPS[group], f)}), at)
    flag = next((f for f, place in FLAGS.items() if place == (group, field)), None)
    names = " or ".join(filter(None, (flag, variable(GROUPS[group], field))))
    if detail["type"] == "literal_error":
        return f"{names}: {detail['input']!r} is unknown; legal: {detail['ctx']['expected']}"
    text = str(detail.get("ctx", {}).get("error", "")) or detail["msg"]
    # Within a list: the place of the entry and its key.
    within = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in detail["loc"][1:])
    return f"{names}: {within}: {text}" if len(detail["loc"]) > 2 else f"{names}: {text}"
