"""The schemas of PDAutoscaler: JSON Schema, and the CustomResourceDefinition. Pure.

A CRD's schema must be structural: every field has one type, and there is no ``$ref`` and no union.
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from collections.abc import Mapping
from typing import Any, Final

import yaml
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from planner.spec.resource import API_VERSION, KIND, PDAutoscaler

PLURAL: Final = "pdautoscalers"
SHORT_NAME: Final = "pda"

_KEPT: Final[tuple[str, ...]] = (
    "type",
    "description",
    "format",
    "pattern",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "required",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
)

_COLUMNS: Final = (
    ("Mode", "string", ".spec.mode"),
    ("TTFT", "string", ".spec.sla.ttft"),
    ("ITL", "string", ".spec.sla.itl"),
    ("Desired", "string", ".status.pools[*].desiredReplicas"),
    ("Reachable", "string", '.status.conditions[?(@.type=="SLAReachable")].status'),
    ("Limited", "string", '.status.conditions[?(@.type=="ScalingLimited")].status'),
    ("Age", "date", ".metadata.creationTimestamp"),
)


class _SpecSchema(GenerateJsonSchema):
    """Defaults as a user writes them: ``1m`` and not 60.0, ``{}`` and not every nested default."""

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        default = super().get_default_value(schema)
        write = schema["schema"].get("serialization", {}).get("function")
        return write(default) if write and isinstance(default, float) else default

    def encode_default(self, dft: Any) -> Any:
        return {} if isinstance(dft, BaseModel) else super().encode_default(dft)


def spec_schema() -> dict[str, Any]:
    """Return the JSON Schema of a PDAutoscaler file."""
    schema = PDAutoscaler.model_json_schema(schema_generator=_SpecSchema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def structural_schema() -> dict[str, Any]:
    """Return the structural OpenAPI v3 schema of a PDAutoscaler."""
    schema = spec_schema()
    root = _structural(schema, schema["$defs"])
    # The API server validates these three itself and allows no rules on them but on metadata.name.
    properties = root["properties"] | {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
    }
    return root | {"properties": properties, "required": ["spec"]}


def plain(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node with its ``$ref`` and its "or null" resolved; what stands beside them wins."""
    merged = dict(node)
    for branch in merged.pop("anyOf", []):
        if branch.get("type") != "null":
            merged = branch | merged
    if "$ref" in merged:
        name = merged.pop("$ref").rpartition("/")[2]
        merged = plain(definitions[name], definitions) | merged
    return merged


def described(node: Mapping[str, Any]) -> str:
    """Return the description of a node on one line, with the range that a pattern can't say."""
    text = " ".join(node.get("description", "").split())
    return f"{text} Legal: {node['x-legal']}." if "x-legal" in node else text


def _structural(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    node = plain(node, definitions)
    kept: dict[str, Any] = {key: node[key] for key in _KEPT if key in node}
    if "description" in kept:
        kept["description"] = described(node)
    if node.get("default") is not None:
        kept["default"] = node["default"]
    if "properties" in node:
        kept["properties"] = {
            name: _structural(child, definitions) for name, child in node["properties"].items()
        }
    if "items" in node:
        kept["items"] = _structural(node["items"], definitions)
    if isinstance(node.get("additionalProperties"), Mapping):
        kept["additionalProperties"] = _structural(node["additionalProperties"], definitions)
    return kept


def custom_resource_definition() -> dict[str, Any]:
    """Return the CustomResourceDefinition object."""
    group, version = API_VERSION.split("/")
    columns = [{"name": name, "type": kind, "jsonPath": path} for name, kind, path in _COLUMNS]
    served = {
        "name": version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": structural_schema()},
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "plural": PLURAL,
                "singular": KIND.lower(),
                "kind": KIND,
                "listKind": f"{KIND}List",
                "shortNames": [SHORT_NAME],
            },
            "versions": [served],
        },
    }


def crd_text() -> str:
    """Return the CustomResourceDefinition as YAML."""
    document: str = yaml.safe_dump(
        custom_resource_definition(), sort_keys=False, width=100, allow_unicode=True
    )
    return document
