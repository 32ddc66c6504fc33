"""The CRD is structural and says what the model says."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from planner.adapters.sources import SOURCES
from planner.spec.crd import crd_text, custom_resource_definition, spec_schema, structural_schema
from predictors import NAMES

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))

# https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
# "Specifying a structural schema" and what apiextensions/v1 forbids.
ALLOWED = {
    "type",
    "description",
    "default",
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
    "properties",
    "items",
    "additionalProperties",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
}
TYPES = {"object": dict, "array": list, "string": str, "integer": int}


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key], f"{path}[]")


NODES = dict(nodes(structural_schema()))


def test_every_field_has_one_type_and_only_what_a_structural_schema_allows():
    for path, node in NODES.items():
        assert node["type"] in TYPES, path
        assert set(node) <= ALLOWED, path
        assert not ({"properties", "additionalProperties"} <= set(node)), path
        assert ("items" in node) == (node["type"] == "array"), path
        assert set(node.get("required", ())) <= set(node.get("properties", {})), path


def test_every_field_but_those_of_kubernetes_is_described():
    bare = {path for path, node in NODES.items() if not node.get("description")}
    of_kubernetes = {".apiVersion", ".kind", ".metadata"}
    assert {path for path in bare if not path.endswith("[]")} == of_kubernetes


def test_defaults_are_of_the_type_and_the_range_of_their_field():
    found = {path: node for path, node in NODES.items() if "default" in node}
    for path, node in found.items():
        assert isinstance(node["default"], TYPES[node["type"]]), path
        assert node["default"] in node.get("enum", [node["default"]]), path
        if "pattern" in node:
            assert re.fullmatch(node["pattern"], node["default"]), path
    assert found[".spec.interval"]["default"] == "1m"
    assert found[".spec.sla.attainment"]["default"] == "99%"
    assert found[".spec.pools[].minReplicas"]["default"] == 1
    assert found[".spec.behavior"]["default"] == {}


def test_bounds_enums_and_list_keys_are_kept():
    window = NODES[".spec.behavior.scaleDown.stabilizationWindowSeconds"]
    assert (window["minimum"], window["maximum"]) == (0, 3600)
    assert NODES[".spec.mode"]["enum"] == ["Off", "Recommend", "Act"]
    for path, key in (
        (".spec.pools", "name"),
        (".status.pools", "name"),
        (".status.conditions", "type"),
    ):
        assert NODES[path]["x-kubernetes-list-type"] == "map"
        assert NODES[path]["x-kubernetes-list-map-keys"] == [key]
        assert key in NODES[f"{path}[]"]["required"]
    assert NODES[".spec.limits.gpus"]["additionalProperties"]["type"] == "integer"
    assert "Legal: 5s to 10m." in NODES[".spec.interval"]["description"]


def test_enums_are_the_tables_of_the_adapters():
    assert set(NODES[".spec.metrics.source"]["enum"]) == set(SOURCES)
    assert set(NODES[".spec.forecast.predictor"]["enum"]) == set(NAMES)


def test_definition_is_namespaced_with_status_and_short_name():
    crd = yaml.safe_load(crd_text())
    assert crd == custom_resource_definition()
    assert crd["metadata"]["name"] == "pdautoscalers.pd-planner.io"
    assert crd["spec"]["scope"] == "Namespaced"
    assert crd["spec"]["names"]["shortNames"] == ["pda"]
    (version,) = crd["spec"]["versions"]
    assert version["subresources"] == {"status": {}}
    assert version["schema"]["openAPIV3Schema"]["required"] == ["spec"]
    for column in version["additionalPrinterColumns"]:
        assert column["jsonPath"].startswith("."), column


def accepts(node: dict[str, Any], value: Any) -> bool:
    """Return whether an API server would take the value, as far as types and names go."""
    if not isinstance(value, TYPES[node["type"]]):
        return False
    if node["type"] == "array":
        return all(accepts(node["items"], item) for item in value)
    if node["type"] != "object":
        return value in node.get("enum", [value]) and (
            "pattern" not in node or re.search(node["pattern"], value) is not None
        )
    if "additionalProperties" in node:
        return all(accepts(node["additionalProperties"], item) for item in value.values())
    fields = node.get("properties")
    return fields is None or (
        set(node.get("required", ())) <= set(value) <= set(fields)
        and all(accepts(fields[name], item) for name, item in value.items())
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_fit_the_structural_schema(path: Path):
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert accepts(structural_schema(), found)
    found["spec"]["interval"] = 60
    assert not accepts(structural_schema(), found)


def test_json_schema_names_its_dialect_and_forbids_unknown_keys():
    schema = spec_schema()
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"apiVersion", "kind", "metadata", "spec"}
