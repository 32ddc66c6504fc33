"""The profile in a ConfigMap: the key `profile.json`, or Dynamo's two keys. Pure."""

from collections.abc import Mapping
from typing import Final

from profiles.dynamo_format import (
    DECODE_FILES,
    PREFILL_FILES,
    RawArrays,
    parse_arrays,
    profile_from_arrays,
)
from profiles.errors import Fault, ProfileError
from profiles.schema import Profile, parse_profile, profile_text

PROFILE_KEY: Final = "profile.json"


def from_configmap_data(data: Mapping[str, str], source: str) -> Profile:
    """Return the profile in a ConfigMap's `data`; `source` names the ConfigMap in messages.

    Raises
    ------
    ProfileError
        If none of the keys is there, or what they hold is no profile.
    """
    if PROFILE_KEY in data:
        return parse_profile(data[PROFILE_KEY], f"{source}: {PROFILE_KEY}")
    prefill, decode = (
        _arrays(data, key, source) for key in (PREFILL_FILES.json, DECODE_FILES.json)
    )
    if prefill is None and decode is None:
        legal = f"{PROFILE_KEY}, or {PREFILL_FILES.json} and {DECODE_FILES.json}"
        got = f"the keys {', '.join(sorted(data)) or 'none'}"
        raise ProfileError(Fault("data", got, legal, f"add the key {PROFILE_KEY}").line(source))
    return profile_from_arrays(prefill, decode, source)


def _arrays(data: Mapping[str, str], key: str, source: str) -> RawArrays | None:
    return parse_arrays(data[key], f"{source}: {key}") if key in data else None


def to_configmap_data(profile: Profile) -> dict[str, str]:
    """Return a ConfigMap's `data` that holds the profile."""
    return {PROFILE_KEY: profile_text(profile)}
