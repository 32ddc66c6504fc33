"""A profile as the manifest of a ConfigMap: made, read, with labels and within the size limit."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from planner.errors import InputError
from profiles import Profile, from_configmap_data, to_configmap_data
from profiles.dynamo_format import DECODE_FILES, PREFILL_FILES, arrays_from_profile

Json = dict[str, Any]

CONFIG_MAP_BYTES: Final = 1 << 20
"""What the API server takes in the keys and values of one ConfigMap [B]."""

OWNER: Final = "pd-planner"

_LABEL_MOST: Final = 63
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def profile_manifest(
    profile: Profile, namespace: str, name: str, entries: Mapping[str, str] | None = None
) -> Json:
    """Return the ConfigMap of a profile; `entries` stand in for its `data`."""
    made = profile.provenance
    about = {"model": made.model, "engine": made.engine, "gpu": made.gpu}
    return config_map(namespace, name, entries or to_configmap_data(profile), about)


def config_map(
    namespace: str, name: str, entries: Mapping[str, str], about: Mapping[str, str | None]
) -> Json:
    """Return the manifest of a ConfigMap.

    Parameters
    ----------
    namespace, name
        Where it goes.
    entries
        Its `data`.
    about
        What the profile is of, by the last part of a label's key; None: no label.

    Raises
    ------
    InputError
        If a name is none, or the entries are larger than the API server takes.
    """
    for flag, value, legal in (("--namespace", namespace, _NAMESPACE), ("--name", name, _NAME)):
        if not legal.fullmatch(value):
            raise InputError(
                f"{flag}: got {value[:80]!r}; legal: small letters, digits and -, letters or "
                "digits at both ends; correct it"
            )
    size = sum(len(key) + len(value.encode()) for key, value in entries.items())
    if size > CONFIG_MAP_BYTES:
        raise InputError(
            f"ConfigMap {namespace}/{name}: got {size} B; legal: at most {CONFIG_MAP_BYTES} B; "
            "split the profile by role, or leave points out"
        )
    labels = {f"pd-planner.io/{key}": label_value(value) for key, value in about.items()}
    meta: dict[str, Any] = {"name": name, "namespace": namespace}
    meta["labels"] = {"app.kubernetes.io/managed-by": OWNER} | {
        key: value for key, value in labels.items() if value
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": dict(entries)}


def label_value(text: str | None) -> str:
    """Return a text as the value of a label, empty if nothing is left of it.

    Examples
    --------
    >>> label_value("Llama-3.1-8B-Instruct, FP8 weights"), label_value(None)
    ('Llama-3.1-8B-Instruct-FP8-weights', '')
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text or "")
    return plain[:_LABEL_MOST].strip("._-")


def manifest_text(manifest: Json) -> str:
    """Return a manifest as YAML, texts of several lines as blocks: they read well in a diff."""
    import yaml

    class Blocks(yaml.SafeDumper):
        """The safe dumper, with its own way of writing texts."""

    Blocks.add_representer(
        str,
        lambda dumper, text: dumper.represent_scalar(
            "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
        ),
    )
    return yaml.dump(manifest, Dumper=Blocks, sort_keys=False, allow_unicode=True)


def read_manifest(text: str, source: str) -> Profile:
    """Return the profile in the text of a ConfigMap's manifest; `source` names it.

    Raises
    ------
    InputError
        If the file is no manifest of one ConfigMap.
    """
    from planner.spec.yaml_text import YamlError, read_documents

    try:
        documents = read_documents(text)
    except YamlError as error:
        raise InputError(f"{source}: {error}") from error
    one = documents[0] if len(documents) == 1 else None
    data = one.get("data") if isinstance(one, dict) and one.get("kind") == "ConfigMap" else None
    if not isinstance(data, dict) or not all(isinstance(v, str) for v in data.values()):
        raise InputError(
            f"{source}: got no ConfigMap with data; legal: one, as `kubectl get configmap NAME "
            "-o yaml` prints it; give its manifest"
        )
    return from_configmap_data(data, source)


def dynamo_entries(profile: Profile) -> dict[str, str]:
    """Return a ConfigMap's `data` with Dynamo's keys, one for each role that has points."""
    found: dict[str, str] = {}
    for files, arrays in zip(
        (PREFILL_FILES, DECODE_FILES), arrays_from_profile(profile), strict=True
    ):
        plain: dict[str, Any] = {key: array.tolist() for key, array in arrays.items()}
        if "max_kv_tokens" in plain:
            (plain["max_kv_tokens"],) = plain["max_kv_tokens"]
        if plain:
            found[files.json] = json.dumps(plain, allow_nan=False) + "\n"
    return found
