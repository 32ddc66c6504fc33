"""Every rule that `check` can find broken, by the name under which docs/check.md explains it."""

from enum import StrEnum


class Rule(StrEnum):
    """One thing that is looked at; the value is stable and stands in `check -o json`."""

    # files
    TTFT_REACHABLE = "ttft-reachable"
    ITL_REACHABLE = "itl-reachable"
    PROMPT_RANGE = "prompt-range"
    PROMPT_SCOPE = "prompt-scope"
    CONTEXT_RANGE = "context-range"
    KV_CAPACITY = "kv-capacity"
    ESTIMATED_SURFACE = "estimated-surface"
    PROFILE_DIFFERS = "profile-differs"
    PROFILE_IMPOSSIBLE = "profile-impossible"
    PROFILE_ODD = "profile-odd"
    FORECAST_HORIZON = "forecast-horizon"
    SLA_BOUNDS = "sla-bounds"
    FALLBACK = "fallback"
    FIXED_SIZE = "fixed-size"
    BLOCKED_DIRECTION = "blocked-direction"
    GPU_BUDGET = "gpu-budget"
    COST_BUDGET = "cost-budget"
    RATIO = "ratio"
    KV_BYTES = "kv-bytes"
    PREDICTOR_INSTALLED = "predictor-installed"
    SHARED_TARGET = "shared-target"

    # any scale target
    TARGET = "target"
    AUTOSCALER = "autoscaler"
    REPLICAS_RANGE = "replicas-range"
    GPU_REQUEST = "gpu-request"
    GRACE_PERIOD = "grace-period"
    PAUSED = "paused"
    ORDERED_START = "ordered-start"

    # Volcano Jobs
    MIN_AVAILABLE_TASK = "min-available-task"
    MIN_AVAILABLE_JOB = "min-available-job"
    PARTITION_POLICY = "partition-policy"
    EVICTION_POLICY = "eviction-policy"
    PENDING_POLICY = "pending-policy"
    MAX_RETRY = "max-retry"
    MIN_SUCCESS = "min-success"
    TTL = "ttl"
    RESTART_POLICY = "restart-policy"
    DEPENDS_ON = "depends-on"
    QUEUE = "queue"
    SCHEDULER_NAME = "scheduler-name"
    JOB_PHASE = "job-phase"
    HOST_LISTS = "host-lists"
    TOPOLOGY_TIER = "topology-tier"
    TOPOLOGY_SOFT = "topology-soft"
    TOPOLOGY_PLUGIN = "topology-plugin"

    # the network and what fits
    INVENTORY = "inventory"
    TREE = "tree"
    DOMAIN = "domain"
    HOME_TIER = "home-tier"
    ROOM = "room"
    TRANSFER = "transfer"
    PLACEMENT = "placement"

    # metrics
    METRICS = "metrics"
    PODS_SCRAPED = "pods-scraped"
    METRIC_MISSING = "metric-missing"
    METRIC_STALE = "metric-stale"
    SCRAPE_INTERVAL = "scrape-interval"
    PROMETHEUS_LATENCY = "prometheus-latency"
    TRAFFIC_RANGE = "traffic-range"

    # permissions
    RIGHT = "right"
