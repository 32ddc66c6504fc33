"""Performance profiles: what one replica of an engine does at a given load.

A leaf package: it knows nothing of the planner. Names load on first use, so that a command that
needs no profile does not pay for pydantic, numpy and scipy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from profiles.errors import Fault, ProfileError

if TYPE_CHECKING:
    from profiles.configmap import from_configmap_data, to_configmap_data
    from profiles.dynamo_format import read_dynamo, write_dynamo
    from profiles.points import DecodePoint, PrefillPoint
    from profiles.samples import SAMPLES, sample
    from profiles.schema import (
        Profile,
        Provenance,
        parse_profile,
        profile_text,
        read_profile,
        write_profile,
    )
    from profiles.surfaces import (
        DecodeSurface,
        OperatingPoint,
        PrefillSurface,
        decode_surface,
        prefill_surface,
    )

__all__ = [
    "SAMPLES",
    "DecodePoint",
    "DecodeSurface",
    "Fault",
    "OperatingPoint",
    "PrefillPoint",
    "PrefillSurface",
    "Profile",
    "ProfileError",
    "Provenance",
    "decode_surface",
    "from_configmap_data",
    "parse_profile",
    "prefill_surface",
    "profile_text",
    "read_dynamo",
    "read_profile",
    "sample",
    "to_configmap_data",
    "write_dynamo",
    "write_profile",
]

_HOME = {
    "configmap": ("from_configmap_data", "to_configmap_data"),
    "dynamo_format": ("read_dynamo", "write_dynamo"),
    "points": ("DecodePoint", "PrefillPoint"),
    "samples": ("SAMPLES", "sample"),
    "schema": (
        "Profile",
        "Provenance",
        "parse_profile",
        "profile_text",
        "read_profile",
        "write_profile",
    ),
    "surfaces": (
        "DecodeSurface",
        "OperatingPoint",
        "PrefillSurface",
        "decode_surface",
        "prefill_surface",
    ),
}


if not TYPE_CHECKING:  # a type checker takes any name of a module with `__getattr__`

    def __getattr__(name: str) -> object:
        """Import the module a public name lives in, on first use.

        Raises
        ------
        AttributeError
            If the package has no such name.
        """
        for module, names in _HOME.items():
            if name in names:
                value = getattr(import_module(f"profiles.{module}"), name)
                globals()[name] = value
                return value
        raise AttributeError(f"module 'profiles' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
