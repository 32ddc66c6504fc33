"""Whether a Volcano Job's networkTopology holds its pods where they are meant to be. Pure."""

from collections.abc import Collection, Iterator
from typing import Final

import yaml

from planner.check.finding import Finding, error, ok, warning
from planner.check.rules import Rule
from planner.check.template import Object
from planner.check.volcano import name_of

PLUGIN: Final = "network-topology-aware"
"""The scheduler's plugin without which networkTopology is not looked at at all."""

_LINE: Final = (
    "- {name: network-topology-aware, arguments: {weight: 10, hypernode.binpack.resources: "
    "nvidia.com/gpu}}"
)


def topology_findings(job: Object, tier_names: Collection[str]) -> Iterator[Finding]:
    """Yield what a Job's networkTopology does not do although it reads so.

    Parameters
    ----------
    job
        The Job as the API server gives it.
    tier_names
        Names of tiers that HyperNodes have.

    Yields
    ------
    Finding
        At most one.
    """
    topology = job["spec"].get("networkTopology")
    if not topology:
        return
    where = f"Job {name_of(job)} spec.networkTopology"
    tier, name = topology.get("highestTierAllowed"), topology.get("highestTierName")
    if topology.get("mode", "hard") == "soft":
        bound = name if tier is None else tier
        ignored = "" if bound is None else f" and highestTierAllowed {bound} is not looked at"
        yield warning(
            f"{where}.mode",
            f"is soft: nothing keeps pods together{ignored}; node affinity alone holds them",
            f"create the Job anew with networkTopology: {{mode: hard, highestTierAllowed: "
            f"{1 if tier is None else tier}}}",
            Rule.TOPOLOGY_SOFT,
        )
    elif tier is None and name is None:
        yield warning(
            where,
            "is hard without a tier: the scheduler does not enforce it",
            "create the Job anew with highestTierAllowed: the tier of the domain it is to stay in",
            Rule.TOPOLOGY_TIER,
        )
    elif name is not None and name not in tier_names:
        known = ", ".join(sorted(tier_names)) or "none"
        yield warning(
            f"{where}.highestTierName",
            f"no HyperNode has the tierName {name} (there are: {known}): the scheduler does not "
            "enforce it",
            "create the Job anew with highestTierAllowed: the number of the tier",
            Rule.TOPOLOGY_TIER,
        )


def wants_topology(job: Object) -> bool:
    """Return whether a Job asks for a network domain."""
    return bool(job["spec"].get("networkTopology"))


def plugin_finding(config: str | None, place: str) -> Finding:
    """Return whether the scheduler's configuration has the plugin for network domains.

    Parameters
    ----------
    config
        The text of ``volcano-scheduler.conf``, None if it can't be read.
    place
        Where that text is from.
    """
    if config is None:
        return warning(
            "scheduler",
            f"{place} can't be read: whether {PLUGIN} is on is not known; without it "
            "networkTopology is not looked at",
            f"look at it, or grant get on it: kubectl -n {place.partition('/')[0]} get configmap "
            f"{place.partition('/')[2]} -o yaml",
            Rule.TOPOLOGY_PLUGIN,
        )
    plugins = _plugins(config)
    if plugins is None:
        mend = "mend its YAML: the scheduler goes on with what it had read before"
        return error(
            "scheduler", f"{place} holds no YAML with tiers of plugins", mend, Rule.TOPOLOGY_PLUGIN
        )
    if PLUGIN not in plugins:
        return error(
            "scheduler",
            f"{place} lacks the plugin {PLUGIN}: networkTopology is not looked at, pods go "
            "anywhere",
            f"add to the plugins of its last tier: {_LINE}",
            Rule.TOPOLOGY_PLUGIN,
        )
    return ok("scheduler", f"{place} has the plugin {PLUGIN}")


def _plugins(config: str) -> set[str] | None:
    try:
        tiers = yaml.safe_load(config)["tiers"]
        return {plugin["name"] for tier in tiers for plugin in tier["plugins"]}
    except (yaml.YAMLError, TypeError, KeyError):
        return None
